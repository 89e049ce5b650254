"""Two runs against each other."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from pipeline.records import Answer, write_jsonl
from pipeline.stage3_evaluate.compare import compare
from pipeline.stage3_evaluate.score import score
from tests.test_score import cot


def made(
    folder: Path, name: str, after: int, question: str = "How many?", tokens: int = 64
) -> Path:
    """A run folder whose student has `after` of 40 problems right."""
    run = folder / "runs" / name
    answers = {"before": cot("before", 10), "after": cot("after", after)}
    answers = {
        arm: [msgspec.structs.replace(row, question=question) for row in rows]
        for arm, rows in answers.items()
    }
    for arm, rows in answers.items():
        write_jsonl(run / "5_answers" / arm / "chain_of_thought.jsonl", rows)
    found = score(answers, arms=["before", "after"])
    (run / "6_scores.json").write_bytes(msgspec.json.encode(found))
    config = {"name": name, "seed": 1, "train": {"sft": {"learning_rate": after / 1e6}},
              "tasks": [{"name": "sums", "recipe": "chain_of_thought"}]}  # fmt: skip
    (run / "config.yaml").write_text(json.dumps(config))
    step = {"step": "generate", "tokens": {"input": 60 * after, "output": 40 * after}}
    asked = {"step": "evaluate", "settings": {"seed": 1, "sampling": {"max_tokens": tokens}}}
    (run / "steps.jsonl").write_text(f"{json.dumps(step)}\n{json.dumps(asked)}\n")
    return run


def test_the_better_student_is_named_with_what_the_configs_do_not_share(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    page = compare(made(tmp_path, "old", 12), made(tmp_path, "new", 30), target)
    (card,) = page.cards
    assert card.badge == "▲ new is better" and (card.before, card.after) == ("30%", "75%")
    assert page.headline == "Chain of thought (accuracy, step by step): new is better."
    assert page.settings == [("train.sft.learning_rate", "1.2e-05", "3e-05")]
    assert page.matrix is not None
    assert [row.trained for row in page.matrix.rows] == ["old: sums", "new: sums"]
    paid = next(chart for chart in page.charts if chart.title == "Chain of thought by tokens paid")
    assert "old, 1,200 tokens: 30%" in paid.svg and "new, 3,000 tokens: 75%" in paid.svg
    assert "new, 0 tokens: 25%" in paid.svg
    html, plain = target.read_text(), target.with_suffix(".md").read_text()
    assert "old against new" in html and "http" not in html.split("<style>")[1]
    assert "▲ new is better" in plain and "train.sft.learning\\_rate" not in plain
    swapped = compare(tmp_path / "runs" / "new", tmp_path / "runs" / "old", target)
    assert swapped.cards[0].badge == "▼ old is worse"


def test_equal_students_have_no_clear_difference(tmp_path: Path) -> None:
    page = compare(made(tmp_path, "a", 20), made(tmp_path, "b", 21), tmp_path / "p.html")
    assert page.cards[0].badge == "○ no clear difference"


def test_questions_that_differ_are_left_out_and_said(tmp_path: Path) -> None:
    first, second = made(tmp_path, "a", 20), made(tmp_path, "b", 30)
    path = second / "5_answers" / "after" / "chain_of_thought.jsonl"
    rows = [msgspec.json.decode(line, type=Answer) for line in path.read_bytes().splitlines()]
    rows[0] = msgspec.structs.replace(rows[0], question="Another one?")
    write_jsonl(path, rows)
    page = compare(first, second, tmp_path / "p.html")
    assert page.notes == [
        f"1 questions of {name} were not asked, or not so, in the other run." for name in "ab"
    ]


def test_questions_that_were_put_otherwise_are_said(tmp_path: Path) -> None:
    page = compare(
        made(tmp_path, "a", 20), made(tmp_path, "b", 30, tokens=128), tmp_path / "p.html"
    )
    assert page.notes == [
        "The runs did not ask in the same way: sampling.max_tokens differ (a prompt by its hash), "
        "so a difference between the students may be one between the questions."
    ]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made(tmp_path, "a", 20)
    made(tmp_path, "b", 30, question="In other words?")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "empty" / "config.yaml").write_text("name: empty\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "a"], "are the same run"),
        (["a", "b"], "no question in common"),
        (["a", "empty"], "empty has no answers of its student"),
        (["a", "nowhere"], "no run 'nowhere'; runs here: a, b, empty"),
        (["a", "b", "--to", "page.pdf"], "ends in .html"),
    ],
)
def test_what_cannot_be_compared_is_one_message(
    here: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.__main__ import main

    assert main(["compare", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_command_prints_the_verdicts_and_where_the_page_is(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.__main__ import main

    made(here, "c", 35)
    assert main(["compare", "a", "c"]) == 0
    said = capsys.readouterr().out
    assert "▲ c is better" in said and "runs/a-against-c.html" in said
    assert (here / "runs" / "a-against-c.md").is_file()
