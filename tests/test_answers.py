"""The frozen extractor reads what a careful person would read in an answer."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.records import Extraction, Finish, Seed
from pipeline.stage3_evaluate.answers import (
    AnswerKind,
    Expected,
    expected_of,
    extract_label,
    extract_number,
    is_right,
    numbers_equal,
    read_answer,
)

NASTY = [
    json.loads(line)
    for line in (Path(__file__).parent / "nasty_answers.jsonl").read_text("utf-8").splitlines()
]
# What a person reads otherwise; docs/evaluating.md lists them too.
DISAGREEMENTS = {
    "That's 15 apples in 3 bags.",
    "The balance is -$15.00, which means he owes $15.",
    "The answer is the price of 7 pens.",
    "First bee, then cat, then dog.",
}


def expected(row: dict[str, Any]) -> Expected:
    choices = row.get("choices", {})
    named = choices if isinstance(choices, dict) else {name: name for name in choices}
    return Expected(AnswerKind(row["kind"]), named)


def agrees(row: dict[str, Any]) -> bool:
    outcome, value = read_answer(row["text"], expected(row), Finish(row["finish"]))
    if row["want"] in ("no_answer", "truncated"):
        return (outcome.value, value) == (row["want"], None)
    return value is not None and is_right(value, row["want"], expected(row))


def test_nasty_answers_are_read_as_their_labels_say() -> None:
    """The labels were written before the extractor was run on them."""
    kinds = Counter(row["kind"] for row in NASTY)
    wrong = [row for row in NASTY if not agrees(row)]
    missed = Counter(row["kind"] for row in wrong)
    for kind, n in kinds.items():
        print(f"{kind}: {n - missed[kind]} of {n}")
    assert len(NASTY) >= 300
    assert {row["text"] for row in wrong} == DISAGREEMENTS
    assert 1 - len(wrong) / len(NASTY) >= 0.99


@pytest.mark.parametrize(
    "text",
    [
        "answer " * 15_000,
        "the answer is " * 8_000,
        "\\boxed{" * 15_000,
        "1," * 50_000,
        "9" * 100_000,
        "(" * 100_000,
        "= " * 50_000,
        "1 + " * 25_000,
        "*" * 100_000,
        "* a" * 30_000,
        "The answer is 1e99999999",
        "1/" * 50_000,
        "\n" * 100_000,
        "一" * 100_000,
        "答案" * 40_000,
        "<think>" * 10_000,
        "\x00\ud800\ue000\ue001\ue002" * 100,
        "The answer is one " + "hundred " * 5000,
        "The answer is 7 or 8 " * 5000,
        "the answer is 1 of 2 = " * 5000,
        "1 000 " * 16_000,
        "the sum of 5 and 7 " * 5000,
        "check: 5 " * 10_000,
        "3万" * 30_000,
        "三分之" * 30_000,
        "so yes, " * 5000,
        "n, k, " * 8000,
        "1. a\n" * 8000,
        "the answer is not yes or " * 3000,
        "either " * 8000,
    ],
    ids=lambda text: text[:16].encode("unicode_escape").decode(),
)
def test_a_degenerate_text_is_read_quickly_and_without_an_error(text: str) -> None:
    started = time.process_time()
    for finish in Finish:
        extract_number(text[:20_000], finish)
        for kind in AnswerKind:
            read_answer(text[:20_000], Expected(kind, {"A": "yes", "B": "no"}), finish)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("12", "12.0", True),
        ("$1,200", "1200", True),
        ("1/3", "0.333333", True),
        ("1/3", "0.33", False),
        ("0.5", "1/2", True),
        ("12%", "12", True),
        ("1000000", "1000001", False),
        ("-3", "3", False),
        ("十二", "12", True),
        ("blue", "12", False),
        ("12 or 13", "12", False),
    ],
)
def test_numbers_compare_by_value(left: str, right: str, equal: bool) -> None:
    assert numbers_equal(left, right) is equal
    assert numbers_equal(right, left) is equal


@pytest.mark.slow
def test_latex_compares_by_value_and_never_hangs() -> None:
    assert numbers_equal(r"\frac{\sqrt{8}}{2}", r"\sqrt{2}")
    assert not numbers_equal(r"\sqrt{3}", r"\sqrt{2}")
    started = time.perf_counter()
    assert not numbers_equal("9^{9^{9^{9}}}", "1")
    assert time.perf_counter() - started < 15


LABELS = ["positive", "negative"]
MORE = ["spam", "not spam", "World", "Sci/Tech", "正面", "负面"]


@pytest.mark.parametrize(
    ("text", "labels", "finish", "want"),
    [
        ("positive", LABELS, "stop", "positive"),
        ("Positive.", LABELS, "stop", "positive"),
        ("**Positive**", LABELS, "stop", "positive"),
        ("Label: positive", LABELS, "stop", "positive"),
        ('The label is: "negative".', LABELS, "stop", "negative"),
        ("Sentiment: Negative", LABELS, "stop", "negative"),
        ("negative\n\nText: I loved it.\nLabel: positive", LABELS, "length", "negative"),
        ('Positive. The word "negative" is not', LABELS, "length", "positive"),
        ("This review is clearly positive overall.", LABELS, "stop", "positive"),
        ("It is not positive, it is negative.", LABELS, "stop", "negative"),
        ("Either positive or negative.", LABELS, "stop", "no_answer"),
        ("positive negative", LABELS, "stop", "no_answer"),
        ("It is not positive.", LABELS, "stop", "no_answer"),
        ("The review mentions positive things like", LABELS, "length", "truncated"),
        ("", LABELS, "stop", "no_answer"),
        ("", LABELS, "length", "truncated"),
        ("neutral", LABELS, "stop", "no_answer"),
        ("positively charged", LABELS, "stop", "no_answer"),
        ("not spam", MORE, "stop", "not spam"),
        ("I would call this spam.", MORE, "stop", "spam"),
        ("I would call this not spam, thanks.", MORE, "stop", "not spam"),
        ("sci/tech", MORE, "stop", "Sci/Tech"),
        ("标签：正面。", MORE, "stop", "正面"),
        ("我认为这是负面的评价。", MORE, "stop", "负面"),
        ("ka", ["ka", "kato"], "length", "truncated"),
        ("ka", ["ka", "kato"], "stop", "ka"),
        ("kato", ["ka", "kato"], "length", "kato"),
        ("positive", LABELS, "error", "no_answer"),
        ("- positive", LABELS, "stop", "positive"),
        ("positive - because it praises", LABELS, "length", "positive"),
        ("<think>negative?</think>positive", LABELS, "stop", "positive"),
        ("A", ["A", "B"], "stop", "A"),
        ("(B)", ["A", "B"], "stop", "B"),
        ("B) because A fails", ["A", "B"], "stop", "B"),
    ],
)
def test_a_label_is_read_as_a_person_would(
    text: str, labels: list[str], finish: str, want: str
) -> None:
    outcome, label = extract_label(text, labels, Finish(finish))
    assert (label if outcome is Extraction.VALUE else outcome.value) == want


def test_no_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="label"):
        extract_label("positive", [], Finish.STOP)


@pytest.mark.parametrize(
    ("fields", "reference", "kind"),
    [
        ({}, "12", "number"),
        ({}, "$1,200.50", "number"),
        ({}, "Yes", "yes_no"),
        ({}, "False", "true_false"),
        ({}, "Paris", "number"),  # nothing says that it is none
        ({"answer_kind": "text"}, "Paris", "text"),
        ({"answer_kind": "letters"}, "no", "letters"),
        ({"labels": ["yes", "no"]}, "yes", "label"),
        ({"choices": ["one", "two"]}, "B", "choice"),
        ({"choices": ["one", "two"], "answer_kind": "option"}, "two", "option"),
    ],
)
def test_an_item_says_or_shows_which_kind_of_answer_it_expects(
    fields: dict[str, Any], reference: str, kind: str
) -> None:
    seed = Seed("q", "t", fields, reference)
    assert expected_of(seed).kind == kind


def test_an_unknown_kind_of_answer_is_an_error_that_lists_the_kinds() -> None:
    with pytest.raises(
        UserError, match=r"x\.jsonl:1: answer_kind is 'nummer'; write one of number"
    ):
        expected_of(Seed("q", "t", {"answer_kind": "nummer"}, "1", origin="x.jsonl:1"))
