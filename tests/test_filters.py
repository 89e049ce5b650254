"""Every filter on answers that are hard to judge: real shapes of good and bad teacher text."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_a_wrong_filter_name_or_setting_says_what_is_allowed() -> None:
    with pytest.raises(UserError, match="exact_duplicates"):
        make_filter("duplicate", {}, "curate.filters")
    with pytest.raises(UserError, match="max_share"):
        make_filter("repetition", {"share": 1}, "curate.filters")
    with pytest.raises(UserError, match="stop"):
        make_filter("finish", {"allow": ["ended"]}, "curate.filters")
