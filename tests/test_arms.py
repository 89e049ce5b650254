"""Who is tested beside teacher, student before and student after."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.project import Project


@pytest.fixture
def with_arms(project: Project) -> Project:
    project.edit(
        curate__controls=["random", "label_only"],
        evaluate__arms=["before", "after", "before_again", "control-random"],
        evaluate__models={
            "published": {
                "backend": "fake",
                "model": "published-1",
                "serving": {"script": "teacher.py"},
                "price": {"input": 1.0, "output": 2.0},
            }
        },
    )
    return project


def scores(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.run / "6_scores.json").read_text())
    return found


def test_controls_other_models_and_a_second_asking_are_arms(with_arms: Project) -> None:
    assert with_arms.make("config.yaml").returncode == 0
    done = with_arms.call("train", "config.yaml")
    assert done.returncode == 0, done.stderr
    # Only the control that has an arm is trained.
    assert (with_arms.run / "4_controls" / "random").is_dir()
    assert not (with_arms.run / "4_controls" / "label_only").exists()
    done = with_arms.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    found = scores(with_arms)
    every = ["before", "after", "before_again", "control-random", "published"]
    assert found["arms"] == every
    assert {path.name for path in (with_arms.run / "5_answers").iterdir()} == set(every)
    assert [c["controls"][0]["arm"] for c in found["comparisons"]] == ["control-random"]
    # Greedy answers of one model on one machine: asked again, and the same.
    assert [noise["differing"] for noise in found["noise"]] == [0]
    record = next(row for row in with_arms.rows("steps.jsonl") if row["step"] == "evaluate")
    assert record["cost_usd"] > 0  # the published model has a price
    said = with_arms.call("status", "small").stdout
    assert "train --control random: done" in said
    assert with_arms.call("report", "config.yaml").returncode == 0
    assert "published" in (with_arms.run / "7_report.html").read_text()
    assert with_arms.call("verify", "small").returncode == 0

    asked = len(with_arms.asked())
    before = (with_arms.run / "6_scores.json").read_bytes()
    done = with_arms.call("evaluate", "config.yaml", "--rescore")
    assert done.returncode == 0 and "evaluate: done already" in done.stdout
    assert (with_arms.run / "6_scores.json").read_bytes() == before
    assert len(with_arms.asked()) == asked


def test_a_training_with_another_seed_is_an_arm(project: Project) -> None:
    project.edit(evaluate__arms=["before", "after", "seed-4"])
    assert project.make("config.yaml").returncode == 0
    done = project.call("train", "config.yaml")
    assert done.returncode == 0, done.stderr
    first, second = (
        (project.run / folder / "model.safetensors").read_bytes()
        for folder in ("4_student", "4_seeds/4")
    )
    assert first != second  # rows in another order
    assert project.call("evaluate", "config.yaml").returncode == 0
    (found,) = scores(project)["comparisons"]
    assert found["seeds"]["arms"] == ["after", "seed-4"]
    assert len(found["seeds"]["differences"]) == 2
    assert "train --seed 4: done" in project.call("status", "small").stdout
    # By itself, too; and never over the student that the run is about.
    done = project.call("train", "config.yaml", "--seed", "5")
    assert done.returncode == 0 and (project.run / "4_seeds" / "5" / "made.jsonl").is_file()
    done = project.call("train", "config.yaml", "--seed", "3")
    assert done.returncode == 2 and "which is the seed of 4_student" in done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate__arms": ["seed-3"]}, "not 3: that is the seed of `after`"),
        ({"evaluate__arms": ["seed-x"]}, "write seed-N with a whole number"),
        ({"evaluate__arms": ["befor"]}, "did you mean 'before'"),
        ({"evaluate__arms": ["before", "before"]}, "is there twice"),
        ({"evaluate__arms": ["control-gold"]}, "needs curate.controls to name gold"),
        ({"evaluate__arms": ["seed-1", "seed-01"]}, "whole number N without zeros before it"),
        ({"evaluate__arms": ["seed-\u0664"]}, "whole number N without zeros before it"),
        ({"evaluate__models": {"..": {"backend": "fake", "model": "x"}}}, "cannot be the name"),
        ({"evaluate__models": {"-x": {"backend": "fake", "model": "x"}}}, "cannot be the name"),
        ({"evaluate__abilities": ["chain_of_thought"] * 2}, "chain_of_thought is there twice"),
        ({"evaluate__models": {"after": {"backend": "fake", "model": "x"}}}, "cannot be the name"),
    ],
)
def test_an_arm_that_cannot_be_is_one_message(
    project: Project, changes: dict[str, Any], message: str
) -> None:
    project.edit(**changes)
    done = project.call("evaluate", "config.yaml")
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_a_plan_says_what_the_evaluation_can_show_before_anything_is_asked(
    project: Project,
) -> None:
    said = project.call("plan", "config.yaml").stdout
    assert "evaluation, chain_of_thought: 6 items of accuracy/step_by_step; a change of " in said
    assert "found 4 times in 5" in said
    rows = [
        f'{{"id": "e{i}", "question": "What is {i} + 1?", "answer": "{i + 1}"}}' for i in range(5)
    ]
    (project.folder / "eval.jsonl").write_text("\n".join(rows))
    assert "5 items of accuracy/step_by_step; too few" in project.call("plan", "config.yaml").stdout
    assert not project.asked()
