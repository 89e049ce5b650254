"""The frozen extractor reads what a careful person would read in an answer."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pipeline.records import Extraction, Finish
from pipeline.stage3_evaluate.answers import (
    extract_label,
    extract_number,
    numbers_equal,
)

NASTY = [
    json.loads(line)
    for line in (Path(__file__).parent / "nasty_answers.jsonl").read_text("utf-8").splitlines()
]
OUTCOMES = {"no_answer", "truncated"}


@pytest.mark.parametrize("row", NASTY, ids=lambda row: row["text"][:40].replace("\n", " "))
def test_a_nasty_answer_is_read_as_its_label_says(row: dict[str, str]) -> None:
    outcome, value = extract_number(row["text"], Finish(row["finish"]))
    if row["want"] in OUTCOMES:
        assert (outcome.value, value) == (row["want"], None)
    else:
        assert (outcome, value) == (Extraction.VALUE, row["want"])


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
    ],
    ids=lambda text: text[:16].encode("unicode_escape").decode(),
)
def test_a_degenerate_text_is_read_quickly_and_without_an_error(text: str) -> None:
    started = time.perf_counter()
    for finish in Finish:
        extract_number(text[:20_000], finish)
        extract_label(text[:20_000], ["yes", "no"], finish)
    assert time.perf_counter() - started < 5


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
