"""Is it an answer at all: every filter of validity and safety on texts that are hard to judge."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pandas
import pytest
from msgspec import structs

from pipeline.errors import UserError
from pipeline.records import Constraint, Decision, Message
from pipeline.stage1_generate.curate import Candidate, make_filter
from tests.project import Project
from tests.test_filters import PROSE, decide, row

KEEP, DROP = Decision.KEEP, Decision.DROP


def asked(candidate: Candidate, *messages: Message) -> Candidate:
    """The same answer to a request of these messages."""
    return structs.replace(candidate, request=structs.replace(candidate.request, messages=messages))


REFRAIN = "\n\n".join(
    f"{verse}\nAnd the river runs on to the sea, my love,\nAnd the river runs on to the sea."
    for verse in (
        "The miller has gone with his horse and his cart,\nThe wheel in the water stands still.",
        "The baker has locked up the door of his shop,\nThe oven is cold on the hill.",
        "The children are sleeping, the candles are out,\nThe moon is a coin on the sill.",
        "The fisherman counts all the stars in his net,\nAnd none of them ever he will.",
        "The morning will come with the bells and the birds,\nAs bright as a daffodil.",
    )
)
TABLE = "| day | rain | wind |\n|---|---|---|\n" + "\n".join(
    f"| {day} | none | none |" for day in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
)
DIVISION = "1 / 7 = 0.142857142857142857...\n10 / 7 = 1 remainder 3\n30 / 7 = 4 remainder 2\n" * 1
TIMES = "\n".join(f"7 x {n} = {7 * n}" for n in range(1, 21))


@pytest.mark.parametrize(
    "text",
    [
        PROSE + " and so on and so on and so on and so on and so on and so on and so on and so on",
        PROSE + " We go up the hill. We go up the hill. We go up the hill. We go up the hill.",
        PROSE[:200] + " one more time now" * 12 + " " + PROSE[200:],
        "Certainly! " + "a" * 60,
        "Well, hahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahahaha",
        "哈" * 50,
        "好的，我来回答。" + "我们一起努力学习。" * 6,
        "The steps are:\n" + "Check the oil and the water.\n" * 6,
        "yes\n" * 12,
        "\n".join(["x = x + 1"] * 20),
    ],
)
def test_loops_of_words_lines_and_characters_are_dropped(text: str) -> None:
    assert decide("repetition", row(text)) is DROP


@pytest.mark.parametrize(
    "text",
    [
        REFRAIN,
        TABLE,
        DIVISION,
        TIMES,
        "| yes | yes | yes | yes |\n" * 3,
        "The vector is [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].",
        "Title\n" + "=" * 60 + "\nText.\n" + "-" * 60 + "\nMore text.",
        "Chapter one " + "." * 50 + " 4\nChapter two " + "." * 50 + " 9",
        "0.333333333333333333333333333333333333333333333333",
        ", ".join(str(n) for n in range(1, 101)),
        "Ha ha ha! He laughed and laughed. No, no, no, he said, never, never, never.",
        "一二三四五，上山打老虎。老虎没打到，打到小松鼠。松鼠有几只？让我数一数。数来又数去，一二三四五。",
    ],
)
def test_refrains_tables_counts_and_drawn_lines_are_no_loops(text: str) -> None:
    assert decide("repetition", row(text)) is KEEP


@pytest.mark.parametrize(
    "text",
    [
        "Thank you for asking. However, I cannot help with that request.",
        "That is an interesting topic! Unfortunately, as an AI model, I cannot have opinions.",
        "I understand your curiosity. This goes against my guidelines, so let us talk of bees.",
        "I must respectfully decline to write about this person.",
        "I don't feel comfortable writing that.",
        "Here is the first part. Bees make honey. The rest I can't help you with, as it violates "
        "our content policy.",
        "这是一个很有意思的问题。不过，我无法提供相关的信息。",
        "您好！作为一款人工智能助手，我不能发表个人意见。",
        "感谢您的提问。由于违反相关规定，我们无法回答。",
        "恕我无法回答这个问题。",
        "抱歉，这个问题我不便回答，我们换个话题吧。",
    ],
)
def test_polite_refusals_are_dropped(text: str) -> None:
    assert decide("refusal", row(text)) is DROP


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("“I'm sorry, I cannot help you,” said the fox. The hen ran home.", "Write a fable."),
        (
            "Dear Ann,\n\nI am sorry, but I cannot offer you a refund after ninety days.\n\nBob",
            "Write a polite email that declines a refund.",
        ),
        ("I cannot help but smile when the bees come back in spring.", "Why do you like spring?"),
        ("As an AI researcher, I train models. Each day begins with mail.", "Describe a job."),
        ("I'm an AI researcher from Oslo, and I like to ski.", "Introduce a person."),
        ("作为人工智能的一个分支，机器学习研究从数据中学习的方法。", "什么是机器学习？"),
        ("她哭着说：“对不起，我不能陪你去了。”然后转身跑开。", "写一个小故事。"),
        ("The valley of shadows opened, and we could not answer the riddle.", "Tell of a riddle."),
        ("You cannot divide by zero, so the term is undefined.", "What is 1/0?"),
        ("很抱歉听到你生病了。多喝水，好好休息。", "我感冒了。"),
    ],
)
def test_regret_in_stories_letters_and_advice_is_no_refusal(text: str, question: str) -> None:
    assert decide("refusal", row(text, question=question)) is KEEP


@pytest.mark.parametrize(
    "text",
    [
        "<think>2 + 3 is 5. So I say",
        "2 + 3 is 5.</think>The answer is 5.",
        "<reasoning>2 + 3 is 5.</reasoning>The answer is 5.",
        "<thought>Let me see. The answer is 5.",
        "[THINK]Let me see.[/THINK] Five.",
        "◁think▷Let me see.◁/think▷ Five.",
        "Five.\n</scratchpad>",
    ],
)
def test_thinking_tags_left_in_an_answer_are_dropped(text: str) -> None:
    assert decide("unclosed_reasoning", row(text)) is DROP


@pytest.mark.parametrize(
    "text",
    [
        "I think that 3 < 5 and 5 > 3, so the answer is [5].",
        "Use the `<think>` tag to mark it, as in:\n```\n<think>hm</think>\n```",
        "<b>Think</b> of a number.",
    ],
)
def test_what_only_looks_like_a_thinking_tag_is_kept(text: str) -> None:
    assert decide("unclosed_reasoning", row(text)) is KEEP


def test_tags_that_the_prompt_asks_for_must_only_be_closed() -> None:
    ask = Message("user", "Put your thoughts into <reasoning> tags. 2 + 3?")
    good = row("<reasoning>2 + 3 is 5.</reasoning>\n5")
    assert decide("unclosed_reasoning", asked(good, ask)) is KEEP
    assert decide("unclosed_reasoning", asked(row("<reasoning>2 + 3 is 5.\n5"), ask)) is DROP


SYSTEM = Message(
    "system",
    "You are Nora, a patient tutor for small children. Never use long words, always give one "
    'example from the kitchen, and end every reply with "Keep on counting!"',
)


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("Bees make honey.<|im_end|>", DROP),
        ("<|im_start|>assistant\nBees make honey.", DROP),
        ("[INST] What do bees do? [/INST] They make honey.", DROP),
        ("### Instruction:\nWhat do bees do?\n### Response:\nThey make honey.", DROP),
        ("Bees make honey.</s>", DROP),
        ("Bees make honey.\n\nHuman: And wasps?\n\nAssistant: They do not.", DROP),
        ("As a patient tutor for small children. Never use long words, always give one example "
         "from the kitchen. Bees make honey.", DROP),
        ("What do bees do all day?", DROP),
        ("what do bees do, all day", DROP),
        ("Bees fly. Think of jam in the kitchen. Keep on counting!", KEEP),
        ("In HTML, `<|im_end|>` has no meaning.", KEEP),
        ("What do bees do all day? They collect nectar and pollen.", KEEP),
        ("## Response\n\nBees make honey. See <s>wasps</s> bees.", KEEP),
    ],
)  # fmt: skip
def test_the_machinery_of_a_prompt_does_not_stand_in_an_answer(
    text: str, decision: Decision
) -> None:
    question = "What do bees do all day?"
    candidate = asked(row(text, question=question), SYSTEM, Message("user", question))
    assert decide("leaked_prompt", candidate) is decision


def test_the_text_that_a_question_brings_may_be_said_back() -> None:
    text = "the quick brown fox jumps over the lazy dog near the old river bank today"
    question = f"Write in capitals: {text}"
    candidate = asked(row(text.upper(), question=question), Message("user", question))
    assert decide("leaked_prompt", candidate) is KEEP
    long = "Ann has three red apples and Bob has four green pears. How many fruits are there?"
    assert decide("leaked_prompt", row(f"{long} 3 + 4 = 7.", question=long)) is DROP


def test_a_dialogue_that_was_asked_for_is_no_leak() -> None:
    text = "Sure:\n\nHuman: Hello.\nAssistant: Good day."
    assert decide("leaked_prompt", row(text, question="Write a dialogue with a robot.")) is KEEP
    assert decide("leaked_prompt", row(text, question="Say hello.")) is DROP


FRENCH = "Les abeilles visitent les fleurs pour récolter le nectar et le transforment en miel."
CHINESE = "蜜蜂飞到花上采集花蜜，把它带回蜂巢酿成蜂蜜，还帮助植物传播花粉。"
ASK_ZH = "蜜蜂每天都在做些什么？请简单介绍一下。"
CODE = "```python\ndef count(words):\n    return {w: words.count(w) for w in words}\n```"


@pytest.mark.parametrize(
    ("text", "question", "decision"),
    [
        (PROSE, "What do bees do all day?", KEEP),
        (FRENCH, "What do bees do all day?", DROP),
        (CHINESE, "What do bees do all day?", DROP),
        (CHINESE, ASK_ZH, KEEP),
        (PROSE, ASK_ZH, DROP),
        (FRENCH, "Translate into French: Bees visit flowers.", KEEP),
        (FRENCH, "Say it in French, please: Bees visit flowers to collect nectar.", KEEP),
        (CODE, ASK_ZH, KEEP),
        (f"可以用下面的函数来统计每个单词出现的次数：\n{CODE}", ASK_ZH, KEEP),
        ("$$\\int_0^1 x^2 dx = \\frac{1}{3}$$", ASK_ZH, KEEP),
        ("3 + 4 = 7\n7 * 5 = 35\n35 - 2 = 33", "What do bees do all day?", KEEP),
        ("Giuseppe Verdi", "Who wrote the opera Aida in Cairo?", KEEP),
        ("1. Croissant\n2. Baguette\n3. Brioche", "Name three things from a bakery.", KEEP),
        ('{"nom": "Anne", "ville": "Lyon", "âge": 7}', "Give me the JSON of a person.", KEEP),
        ("苹果公司（Apple）在2007年发布了iPhone，搭载iOS操作系统，改变了整个手机行业。",
         "介绍一下苹果公司的历史和它的产品。", KEEP),
        (PROSE[:90] + CHINESE * 3, "What do bees do all day?", DROP),
    ],
)  # fmt: skip
def test_an_answer_is_in_the_language_of_its_question(
    text: str, question: str, decision: Decision
) -> None:
    assert decide("language", row(text, question=question)) is decision


def test_a_list_of_languages_holds_whatever_the_question() -> None:
    assert decide("language", row(FRENCH), allow=["en", "zh"]) is DROP
    assert decide("language", row(CHINESE), allow=["en", "zh"]) is KEEP
    assert decide("language", row(CHINESE), allow=["en"]) is DROP
    assert decide("language", row(PROSE), allow=["en"], same_as="prompt") is KEEP
    with pytest.raises(UserError, match="english"):
        make_filter("language", {"allow": ["english"]}, "test")


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        (PROSE[:150].rsplit(" ", 1)[0], DROP),
        ("Bees make honey and they live in hives that are full of the", DROP),
        ("First, install it:\n```\npip install x", DROP),
        ("So it is \\boxed{4", DROP),
        ("春天来了，公园里的花都开了。孩子们跑来跑去。老人坐在长椅上晒着", DROP),
        (PROSE, KEEP),
        ("A list:\n- apples from the orchard\n- pears and plums and figs", KEEP),
        ("Bees make honey. They live in hives. Ask me for more!\n\nBest wishes\nAnn", KEEP),
        ("2 + 3 = 5. Then 5 + 4 = 9. The answer is 9", KEEP),
        ("positive", KEEP),
        ("The river is wide\nThe boat is small\nThe night is long\nAnd we are all", KEEP),
        ("```\nx = 1\n```", KEEP),
        ("| a | b |\n|---|---|\n| of the | in the |", KEEP),
    ],
)
def test_answers_that_stop_in_the_middle_are_dropped(text: str, decision: Decision) -> None:
    assert decide("unfinished", row(text)) is decision


def test_an_end_that_constraints_may_ask_for_is_not_judged() -> None:
    text = PROSE[:150].rsplit(" ", 1)[0]
    constrained = row(text, constraints=(Constraint("no_full_stop", {}),))
    assert decide("unfinished", constrained) is KEEP


def test_a_form_is_a_regex_json_or_a_schema(tmp_path: Path) -> None:
    assert decide("format", row("  yes \n"), regex="yes|no") is KEEP
    assert decide("format", row("yes, it is"), regex="yes|no") is DROP
    assert decide("format", row('{"a": 1}'), json=True) is KEEP
    assert decide("format", row('Here it is: {"a": 1}'), json=True) is DROP
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert decide("format", row('{"a": 1}'), schema=schema) is KEEP
    assert decide("format", row('{"a": "1"}'), schema=schema) is DROP
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    assert decide("format", row('{"b": 1}'), schema=str(file)) is DROP
    assert decide("format", row("[" * 100_000), json=True) is DROP


def test_a_hostile_answer_cannot_hold_up_a_regex() -> None:
    started = time.monotonic()
    check = make_filter("format", {"regex": r"(\w+\s?)*\."}, "test")
    verdict = check(row("a" * 60 + "!"))
    assert verdict.decision is DROP and time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "at least one"),
        ({"regex": "("}, "regex"),
        ({"schema": "nowhere.json"}, "nowhere.json"),
        ({"schema": {"type": "thing"}}, "not a JSON schema"),
    ],
)
def test_a_wrong_form_is_one_message(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        make_filter("format", settings, "test")


@pytest.mark.parametrize(
    ("text", "question", "decision"),
    [
        ("5 x 7 = 35. It takes 35 minutes.", "How many minutes does it take?", KEEP),
        ("5 x 7 = 35. It takes 35 hours.", "How many minutes does it take?", DROP),
        ("The answer is 35.", "How many minutes does it take?", KEEP),
        ("She walks 35 km at 1 km a minute, so 35 minutes.", "How many minutes?", KEEP),
        ("The answer is \\boxed{35} \\text{ hours}.", "How many minutes does it take?", DROP),
        ("The answer is **35 kg**.", "How many grams of flour does he need?", DROP),
        ("The answer is 35 apples.", "How many apples are left?", KEEP),
        ("He pays 35 cents.", "A pen costs $5. How much do 7 pens cost?", DROP),
        ("He pays $35.", "A pen costs $5. How much do 7 pens cost?", KEEP),
        ("He pays 35 dollars.", "A pen costs $5. How much do 7 pens cost?", KEEP),
        ("The answer is 35 km per hour.", "How many km does it go in an hour?", KEEP),
        ("5 x 7 = 35 hours. The answer is 35.", "How many minutes does it take?", DROP),
        ("In 35 days she walks 35 x 1. The answer is 35.", "How many km does she walk?", KEEP),
        ("There are 35 in the basket.", "How many inches is the basket?", KEEP),
        ("一共需要35小时。", "一共需要多少分钟？", DROP),
        ("一共需要35分钟。", "一共需要多少分钟？", KEEP),
        ("He runs 35 km.", "How many km does he run in 3 hours?", KEEP),
    ],
)
def test_a_right_number_needs_the_unit_that_was_asked_for(
    text: str, question: str, decision: Decision
) -> None:
    assert decide("unit", row(text, question=question, reference="35")) is decision


def test_the_unit_of_a_seed_or_of_its_reference_comes_first() -> None:
    assert decide("unit", row("It is 35 hours.", reference="35", unit="minutes")) is DROP
    assert decide("unit", row("It is 35 hours.", reference="35 minutes")) is DROP
    assert decide("unit", row("It is 35 hours.", reference="35 h")) is KEEP


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("2 + 3 = 5. The answer is 5. In fact 2 + 4 = 6. The answer is 6.", DROP),
        ("The answer is 5.\n\n#### 6", DROP),
        ("答案是5。所以答案是6。", DROP),
        ("The answer is 5. Wait, 2 + 4 = 6. The answer is 6.", KEEP),
        ("The answer is 5. So the answer is \\boxed{5}.", KEEP),
        ("(a) The answer is 5. (b) The answer is 6.", KEEP),
        ("The answer is 1/2, so the answer is 0.5.", KEEP),
    ],
)
def test_two_answers_are_none(text: str, decision: Decision) -> None:
    assert decide("one_answer", row(text)) is decision


@pytest.mark.parametrize(("max_tokens", "decision"), [(400, KEEP), (150, DROP), (None, KEEP)])
def test_a_row_fits_the_student_with_its_template(
    project: Project, max_tokens: int | None, decision: Decision
) -> None:
    from pipeline.config import load_config

    config = load_config(project.config)
    settings = {} if max_tokens is None else {"max_tokens": max_tokens}
    check = make_filter("fits_student", settings, "test", config)
    assert check(row(PROSE[:200])).decision is decision  # 200 tokens, one a byte


def test_the_shortcut_of_fits_student_agrees_with_counting(project: Project) -> None:
    from pipeline.config import load_config
    from pipeline.stage1_generate.tokens import student_tokenizer, token_lengths

    config = load_config(project.config)
    tokenizer = student_tokenizer(config)
    for text in ("春天来了" * 5, "a" * 30, "🐝 bees\n" * 4):
        candidate = row(text)
        exact = next(token_lengths([candidate.example], tokenizer))
        for limit, decision in ((exact, KEEP), (exact - 1, DROP)):
            check = make_filter("fits_student", {"max_tokens": limit}, "test", config)
            assert check(candidate).decision is decision


KEY = "AKIA" + "QX7ZP2M4RT9WV3NB"  # in two parts, for scanners of repositories


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"Use {KEY} for the bucket.", "AWS Access Key"),
        ("token = 'ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8'", "GitHub Token"),
        ("sk-ant-" + "api03-Qm4xT7vB9kLw2ZpR8sYd5HfN", "Anthropic Key"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----", "Private Key"),
        ("postgres://admin:Tr0ub4dor3x@db.internal.net/main", "Connection with Password"),
        ("password: Zx81kkQp94ab", "Password"),
    ],
)
def test_secrets_are_dropped_and_masked(text: str, kind: str) -> None:
    check = make_filter("secrets", {}, "test")
    verdict = check(row(text))
    assert (verdict.decision, verdict.reason) == (DROP, kind)
    masked = check.mask(text)  # type: ignore[attr-defined]
    assert f"[{kind}]" in masked
    assert check(row(masked)).decision is KEEP


@pytest.mark.parametrize(
    "text",
    [
        "The hash of the commit is 3f786850e387550fdab836ed7e6dc881de23001b.",
        "Set `password = os.environ['DB_PASSWORD']` and never print it.",
        "Use AKIAIOSFODNN7EXAMPLE as in the documentation.",
        'api_key = "your-api-key-123456"',
        "The password is something you should change often.",
        "id: 550e8400-e29b-41d4-a716-446655440000",
    ],
)
def test_hashes_placeholders_and_talk_of_passwords_are_no_secrets(text: str) -> None:
    assert decide("secrets", row(text)) is KEEP


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to anna.kowalska@postmail.pl today.", "email"),
        ("Call me at (415) 738-2204 after five.", "phone"),
        ("Her number is +44 20 7946 1234.", "phone"),
        ("他的电话是13812345678。", "phone"),
        ("Card: 4539 1488 0343 6467", "card"),
        ("IBAN DE89 3704 0044 0532 0130 00", "iban"),
        ("身份证号11010519491231002X", "id"),
        ("SSN 536-90-4399", "id"),
    ],
)
def test_personal_data_is_dropped_and_masked(text: str, kind: str) -> None:
    check = make_filter("personal_data", {}, "test")
    assert (check(row(text)).decision, check(row(text)).reason) == (DROP, kind)
    masked = check.mask(text)  # type: ignore[attr-defined]
    assert f"[{kind}]" in masked


@pytest.mark.parametrize(
    "text",
    [
        "Mail support@example.com or call 202-555-0143.",
        "1234567 + 7654321 = 8888888. 415738 x 2204 = 916286552.",
        "Pi is 3.14159265358979323846.",
        "12 / 7 = 1.7142857143, and 3,141592653 is written with a comma.",
        "The years 1914-1918 and 1939-1945; ISBN 978-3-16-148410-0.",
        "10, 20, 30, 40, 50, 60, 70, 80, 90, 100",
        "2^64 = 18446744073709551616",
        "小明有12345678颗豆子，又买了87654321颗。",
    ],
)
def test_numbers_and_examples_are_no_personal_data(text: str) -> None:
    assert decide("personal_data", row(text)) is KEEP


def test_what_the_question_gives_may_stand_in_the_answer() -> None:
    question = "Take the address out of: mail anna.kowalska@postmail.pl today"
    text = "anna.kowalska@postmail.pl"
    assert decide("personal_data", row(text, question=question)) is KEEP


def test_no_file_of_a_run_but_the_ledger_holds_a_secret(project: Project) -> None:
    (project.folder / "teacher.py").write_text(
        "def answer(request):\n"
        "    a = request.messages[-1].content\n"
        f"    secret = 'AKIA' + '{KEY[4:]}'\n"
        "    tail = f' The key is {secret}.' + ' So.' * 30 * (request.sample_index - 1)\n"
        "    tail = tail if request.sample_index else ''\n"
        "    return a[-20:] + tail\n"
    )
    project.edit(
        tasks__0__filters=[],
        curate__filters=[{"length": {"max_tokens": 25}}, {"secrets": {}}],
        curate__controls=["random"],
        evaluate__abilities=[],
    )
    done = project.make("config.yaml")
    assert done.returncode == 0, done.stderr
    assert (project.run / "3_controls" / "random").is_dir()
    dropped = project.rows("2_dropped.jsonl")
    assert {d["filter"] for d in dropped} == {"length", "secrets"}
    for file in project.run.rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file
        if file.suffix == ".parquet":  # compressed: read what it holds
            assert KEY not in str(pandas.read_parquet(file).to_dict()), file
    assert any("[AWS Access Key]" in d["text"] for d in dropped)


def test_a_longer_training_length_curates_again_where_rows_must_fit(project: Project) -> None:
    from pipeline.config import load_config
    from pipeline.stage1_generate.curate.run import step

    plain = step(load_config(project.config)).settings
    project.edit(train__sft={"max_length": 64})
    assert step(load_config(project.config)).settings == plain
    project.edit(curate__filters=[{"fits_student": {}}])
    short = step(load_config(project.config)).settings
    project.edit(train__sft={"max_length": 128})
    assert step(load_config(project.config)).settings != short
