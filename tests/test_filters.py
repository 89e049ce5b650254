"""Every filter on answers that are hard to judge: real shapes of good and bad teacher text."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from pipeline.errors import UserError
from pipeline.records import (
    Constraint,
    Decision,
    Example,
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    Seed,
    Usage,
    request_id,
)
from pipeline.stage1_generate.curate import Candidate, make_filter
from pipeline.stage1_generate.curate.contamination import contamination

LOOP = "The cat sat on the mat and looked at the door. " * 12
PROSE = (
    "Bees visit flowers to collect nectar, which they carry home and turn into honey. On the way, "
    "pollen sticks to their legs and travels from one blossom to the next. Without that service "
    "many fruits and vegetables would never form, so farmers often invite beekeepers to set up "
    "hives beside their orchards in spring. A single colony can visit millions of flowers a day."
)


def row(
    text: str,
    *,
    question: str = "What do bees do?",
    finish: Finish = Finish.STOP,
    reasoning: str | None = None,
    reference: str | None = None,
    constraints: tuple[Constraint, ...] = (),
    **fields: Any,
) -> Candidate:
    messages, sampling = (Message("user", question),), Sampling()
    key = request_id("m", messages, sampling, 0)
    request = Request(key, "s", "response", PromptRef("p", "h"), messages, sampling, 0, "m")
    generation = Generation(key, text, finish, Usage(5, len(text.split())), reasoning)
    seed = Seed("s", "t", {"question": question, **fields}, reference, constraints)
    example = Example(messages, (Message("assistant", text),), 1.0, (key,))
    return Candidate(seed, request, generation, example)


def decide(name: str, candidate: Candidate, **settings: Any) -> Decision:
    return make_filter(name, settings, "test")(candidate).decision


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but as a language model I cannot browse the web.",
        "Sorry, I am unable to provide that information.",
        "Unfortunately, I can't answer this question.",
        "As an AI language model, I do not have feelings.",
        "  I cannot assist with this request.",
        "**I'm just an AI**, so I have no favourite colour.",
        "很抱歉，我无法回答这个问题。",
        "对不起，我不能提供这方面的帮助。",
        "作为一个人工智能语言模型，我没有个人感受。",
        "我无法满足您的请求。",
    ],
)
def test_refusals_are_dropped(text: str) -> None:
    assert decide("refusal", row(text)) is Decision.DROP


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that you are ill. Drink water and rest.",
        "Sorry seems to be the hardest word, as the song goes.",
        'The letter began: "I cannot help you any more," and she wept.',
        "I can help with that. First, boil the water.",
        "Unfortunately for Rome, the Goths did not turn back.",
        "As an artist, Monet loved water lilies.",
        "I cannot stress enough how useful a list is.",
        "抱歉信应当写得简短而真诚。",
        "我无法忘记那个夏天，海边的风很大。",
        "人工智能是计算机科学的一个分支。",
    ],
)
def test_answers_that_only_sound_like_refusals_are_kept(text: str) -> None:
    assert decide("refusal", row(text)) is Decision.KEEP


@pytest.mark.parametrize("text", ["", "   \n", "...", "—", "\u200b", "***"])
def test_answers_without_words_are_dropped(text: str) -> None:
    assert decide("empty", row(text)) is Decision.DROP


@pytest.mark.parametrize("text", ["7", "是", "OK.", "x"])
def test_short_answers_are_answers(text: str) -> None:
    assert decide("empty", row(text)) is Decision.KEEP


def test_reasoning_without_an_answer_is_empty() -> None:
    verdict = make_filter("empty", {}, "test")(row("", reasoning="First I think, then I ..."))
    assert (verdict.decision, verdict.reason) == (Decision.DROP, "only reasoning, no answer")


@pytest.mark.parametrize(
    "text",
    [
        LOOP,
        "yes " * 60,
        "- Eat fruit every day\n" * 7,
        PROSE + " I like it. I like it very much." * 20,
        "我喜欢苹果。" * 30,
    ],
)
def test_loops_are_dropped(text: str) -> None:
    assert decide("repetition", row(text)) is Decision.DROP


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily!",
        "| name | age |\n|---|---|\n| Ann | 7 |\n| Bob | 8 |\n| Cem | 9 |\n| Dan | 7 |",
        "3 + 4 = 7. 7 + 5 = 12. The answer is 12.",
        "1. Apple\n2. Pear\n3. Plum\n4. Fig\n5. Grape\n6. Melon\n7. Date\n8. Kiwi",
        "春天来了，公园里的花都开了。孩子们在草地上跑来跑去，老人坐在长椅上晒太阳。",
    ],
)
def test_lists_tables_and_songs_are_no_loops(text: str) -> None:
    assert decide("repetition", row(text)) is Decision.KEEP


@pytest.mark.parametrize("finish", [Finish.LENGTH, Finish.REFUSED, Finish.ERROR])
def test_answers_that_did_not_end_by_themselves_are_dropped(finish: Finish) -> None:
    assert decide("finish", row(PROSE, finish=finish)) is Decision.DROP


def test_length_is_counted_in_the_teachers_tokens() -> None:
    assert decide("length", row("a b c d"), max_tokens=3) is Decision.DROP
    assert decide("length", row("a b c"), max_tokens=3) is Decision.KEEP
    assert decide("length", row("a b c"), min_tokens=4) is Decision.DROP


@pytest.mark.parametrize(
    ("text", "reference", "decision"),
    [
        ("2 + 3 = 5. The answer is 5.", "5", Decision.KEEP),
        ("She pays $1,250.00 in total. The answer is $1,250.", "1250", Decision.KEEP),
        ("So it is **12**.", "12", Decision.KEEP),
        ("The answer is 5. Wait, 2 + 4 = 6. The answer is 6.", "6", Decision.KEEP),
        ("The answer is 6, not 5.", "5", Decision.DROP),
        ("They have some apples left.", "5", Decision.DROP),
        ("The answer is 50.", "5", Decision.DROP),
        ("所以一共有 8 个苹果。答案是8。", "8", Decision.KEEP),
        ("Half of it: \\boxed{\\frac{1}{2}}", "0.5", Decision.KEEP),
    ],
)
def test_the_answer_filter_reads_the_final_answer(
    text: str, reference: str, decision: Decision
) -> None:
    assert decide("answer", row(text, reference=reference)) is decision


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("zop", Decision.KEEP),
        ("Label: Zop", Decision.KEEP),
        ("zop.", Decision.KEEP),
        ("kib", Decision.DROP),
        ("zop or kib", Decision.DROP),
        ("I do not know", Decision.DROP),
    ],
)
def test_the_answer_filter_reads_labels(text: str, decision: Decision) -> None:
    assert decide("answer", row(text, reference="zop", labels=["zop", "kib"])) is decision


def test_every_constraint_must_hold() -> None:
    asked = (Constraint("all_lowercase", {}), Constraint("no_comma", {}))
    check = make_filter("constraints", {}, "test")
    assert check(row("bees make honey.", constraints=asked)).decision is Decision.KEEP
    broken = check(row("bees, of course, make honey.", constraints=asked))
    assert (broken.decision, broken.score) == (Decision.DROP, 0.5)
    assert "no_comma" in broken.reason


def test_a_duplicate_is_the_same_text_and_case_and_punctuation_tell_rows_apart() -> None:
    check = make_filter("exact_duplicates", {}, "test")
    assert check(row("Bees make honey.")).decision is Decision.KEEP
    assert check(row(" Bees make honey.\n")).decision is Decision.DROP
    assert check(row("bees make honey.")).decision is Decision.KEEP
    assert check(row("Bees make honey!")).decision is Decision.KEEP
    assert check(row("Bees make wax.")).decision is Decision.KEEP
    assert check(row("Caf\u00e9.")).decision is Decision.KEEP
    assert check(row("Cafe\u0301.")).decision is Decision.DROP
    assert check(row("1", question="3 + 4?")).decision is Decision.KEEP
    assert check(row("1", question="3 - 4?")).decision is Decision.KEEP
    assert check(row("Bees make honey.", question="And ants?")).decision is Decision.KEEP


def item(key: str, question: str, **fields: Any) -> Seed:
    return Seed(key, "evaluation", {"question": question, **fields})


ITEM = (
    "Natalia sold clips to forty eight of her friends in April, and then she sold half as many "
    "clips in May. How many clips did she sell altogether in April and May?"
)


@pytest.mark.parametrize(
    ("question", "answer", "decision"),
    [
        (ITEM, "72", Decision.DROP),
        (ITEM.upper().replace(",", " ;"), "72", Decision.DROP),
        ("A friend asked me this. " + ITEM, "72", Decision.DROP),
        ("Write a word problem.", "Here is one: " + ITEM, Decision.DROP),
        (ITEM.replace("altogether", "in all"), "72", Decision.DROP),
        ("Natalia sold clips. How many clips did she sell?", "72", Decision.KEEP),
        (PROSE, "Bees.", Decision.KEEP),
        ("小明有五个苹果，又买了三个苹果，现在他一共有多少个苹果？", "8", Decision.DROP),
        ("小红有七本书，借给同学两本，现在她还剩多少本书？", "5", Decision.KEEP),
    ],
)
def test_overlap_with_an_evaluation_item_is_found(
    question: str, answer: str, decision: Decision
) -> None:
    chinese = "小明有五个苹果，又买了三个苹果，现在他一共有多少个苹果？"
    check = contamination([item("item-1", ITEM), item("item-2", chinese), item("i3", "Say hello.")])
    assert check(row(answer, question=question)).decision is decision


def test_a_contamination_verdict_shows_the_matched_words() -> None:
    verdict = contamination([item("item-1", ITEM)])(row("72", question=ITEM))
    assert "item-1" in verdict.reason and "natalia sold clips" in verdict.reason


def test_the_score_of_contamination_is_the_share_of_the_items_n_grams_in_the_row() -> None:
    check = contamination([item("item-1", ITEM)])
    half = check(row("72", question=" ".join(ITEM.split()[:18])))
    assert check(row("72", question=ITEM)).score == 1.0
    assert half.decision is Decision.DROP and half.score is not None and 0 < half.score < 0.5


@pytest.mark.parametrize(
    ("question", "decision"),
    [
        ("say  hello!", Decision.DROP),
        ("Say hello to bees.", Decision.KEEP),
        ("12 + 5 = ?", Decision.DROP),
        ("12 - 5 = ?", Decision.KEEP),
        ("plum", Decision.KEEP),
    ],
)
def test_a_short_item_counts_where_it_is_the_whole_question(
    question: str, decision: Decision
) -> None:
    items = [item("i1", "Say hello."), item("i2", "12+5=?"), item("i3", "plum", shots=SHOTS)]
    assert contamination(items)(row("Yes.", question=question)).decision is decision


SHOTS = [{"text": text, "label": label} for text, label in (
    ("fig", "zop"), ("lynx", "kib"), ("pear", "zop"), ("crow", "kib"),
    ("lime", "zop"), ("mole", "kib"), ("kiwi", "zop"), ("newt", "kib"),
)]  # fmt: skip
OTHERS = [{"text": text, "label": "zop"} for text in ("elm", "oak", "ash", "yew")]


@pytest.mark.parametrize(
    ("query", "shots", "decision"),
    [
        ("plum", SHOTS, Decision.DROP),
        ("Plum", SHOTS[::-1], Decision.DROP),
        ("plum", SHOTS[:2], Decision.DROP),  # as the evaluation shows it with two shots
        ("plum", [*SHOTS[:2], *OTHERS], Decision.KEEP),
        ("plum", OTHERS, Decision.KEEP),
        ("sloe", SHOTS[:2], Decision.KEEP),
        ("sloe", SHOTS, Decision.DROP),  # a run of thirteen words of the item's shots
    ],
)
def test_an_in_context_row_is_known_by_its_shots_and_its_query(
    query: str, shots: list[dict[str, str]], decision: Decision
) -> None:
    shown = "\n\n".join(f"Input: {s['text']}\nLabel: {s['label']}" for s in shots)
    found = row("zop", question=query, shots=shots)
    prompt = (Message("user", f"{shown}\n\nInput: {query}\nLabel:"),)
    found = structs.replace(found, example=structs.replace(found.example, prompt=prompt))
    check = contamination([item("item-1", "plum", shots=SHOTS)])
    assert check(found).decision is decision


def test_a_student_that_sees_the_first_shots_of_an_item_is_found() -> None:
    check = contamination([item("item-1", "plum", shots=SHOTS[:2])])
    seen = row("zop", question="plum", shots=[*SHOTS[:2], *OTHERS], student_shots=2)
    assert check(seen).decision is Decision.DROP


def test_a_wrong_filter_name_or_setting_says_what_is_allowed() -> None:
    with pytest.raises(UserError, match="exact_duplicates"):
        make_filter("duplicate", {}, "curate.filters")
    with pytest.raises(UserError, match="max_share"):
        make_filter("repetition", {"share": 1}, "curate.filters")
    with pytest.raises(UserError, match="stop"):
        make_filter("finish", {"allow": ["ended"]}, "curate.filters")
