"""The report has a k-shot curve for each task and condition, its chance, and the draws' spread."""

from __future__ import annotations

import random
import re
from pathlib import Path

import msgspec
import pytest

from pipeline.records import Answer, Extraction, Finish, write_jsonl
from pipeline.stage3_evaluate.report import write_report
from pipeline.stage3_evaluate.score import score

# Task -> how many labels it has (0: answers are lists), and the conditions it was asked under.
TASKS = {
    "sst2": (2, ("natural", "random", "flipped", "arbitrary")),
    "agnews": (4, ("natural", "flipped")),
    "list_functions": (0, ("natural",)),
}
SKILL = {"teacher": 0.9, "before": 0.3, "after": 0.7}


def answers(arm: str, draws: int = 5, orders: int = 1, items: int = 24) -> list[Answer]:
    """Made-up answers: the more shots the better, and by arm, label condition and draw."""
    found = []
    unread = Extraction.NO_ANSWER
    rng = random.Random(arm)
    for task, (labels, conditions) in TASKS.items():
        chance = 1 / labels if labels else 0.0
        for how in conditions:
            variant = task if how == "natural" else f"{task}/{how}"
            follows = {"random": 0.3, "flipped": 0.5}.get(how, 1.0)
            for k in (0, 1, 2, 4, 8):
                for draw in range(draws if k else 1):
                    lucky = 0.15 * (draw - 2) / 2
                    skill = min(1.0, max(0.0, SKILL[arm] * follows * k / 8 + lucky * (k > 0)))
                    right = chance + (1 - chance) * skill
                    found += [
                        Answer(
                            model=arm,
                            ability="in_context",
                            variant=f"{variant} k={k}",
                            item_id=f"{task}-{item}",
                            text="text",
                            finish=Finish.STOP,
                            extraction=unread if item < items / 8 else Extraction.VALUE,
                            extracted="x",
                            correct=float(rng.random() < right),
                            draw=draw,
                            order=order,
                            chance=chance,
                        )
                        for item in range(items)
                        for order in range(orders if k > 1 else 1)
                    ]
    return found


def report(run: Path, draws: int = 5, orders: int = 1) -> tuple[str, str]:
    rows = {arm: answers(arm, draws, orders) for arm in SKILL}
    for arm, found in rows.items():
        write_jsonl(run / "5_answers" / arm / "in_context.jsonl", found)
    scores = score(rows, arms=list(SKILL))
    (run / "6_scores.json").write_bytes(msgspec.json.encode(scores))
    html, plain = write_report(run)
    return html.read_text("utf-8"), plain.read_text("utf-8")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return report(tmp_path_factory.mktemp("run"), orders=2)


def test_every_task_and_condition_has_a_curve_with_its_chance(texts: tuple[str, str]) -> None:
    figures = re.findall(r"<figure><h3>(In context: .*?)</h3>(.*?)</figure>", texts[0], re.S)
    chances = {name: re.findall(r"chance (\d+)%", svg) for name, svg in figures}
    assert chances == {
        "In context: mean of tasks": ["25"],
        "In context: sst2": ["50"],
        "In context: sst2, random labels": ["50"],
        "In context: sst2, flipped labels": ["50"],
        "In context: sst2, arbitrary labels": ["50"],
        "In context: agnews": ["25"],
        "In context: agnews, flipped labels": ["25"],
        "In context: list functions": [],  # there is nothing to guess from
    }
    for name, svg in figures:
        assert svg.count('class="line arm-') == 3, name
        assert svg.count("<title>") == 15, name  # three arms, five k


def test_only_trained_arms_are_rows_of_what_was_trained(texts: tuple[str, str]) -> None:
    assert texts[0].count('<th scope="row">everything</th>') == 1


def test_the_markdown_has_the_curves_with_chance_and_spread(texts: tuple[str, str]) -> None:
    table = texts[1].split("## In-context learning by number of examples")[1].split("##")[0]
    head, _, *rows = [line for line in table.strip().splitlines() if line.startswith("|")]
    assert head == "| task | labels | arm | k=0 | k=1 | k=2 | k=4 | k=8 | chance | invalid |"
    assert len(rows) == 8 * 3
    (flipped,) = [row for row in rows if row.startswith("| agnews | flipped | after |")]
    assert flipped.endswith("| 25% | 12% |")
    zero, one, two = flipped.split(" | ")[3:6]
    assert re.fullmatch(r"\d+%", zero)  # without shots there are no draws
    assert re.fullmatch(r"\d+% \(\d+–\d+ sd \d+\.\d\)", one)
    assert re.fullmatch(r"\d+% \(\d+–\d+ sd \d+\.\d / \d+\.\d\)", two)  # with one shot no orders
    assert "over draws" in table


def test_one_draw_has_curves_and_no_spread(tmp_path: Path) -> None:
    html, plain = report(tmp_path, draws=1)
    assert "In context: sst2" in html
    assert "over draws" not in html and " sd " not in plain
