"""Parameters, bytes, memory and speed of the models that are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.project import Project
from tests.tiny import make_tiny_model


@pytest.mark.slow
def test_each_model_is_measured_in_its_own_process_and_stands_in_the_report(
    project: Project, tmp_path: Path
) -> None:
    larger = make_tiny_model(tmp_path / "larger")
    project.edit(
        evaluate__cost_of_use={"questions": 3, "tokens": 8},
        evaluate__models={"other": {"backend": "transformers", "model": str(larger)}},
    )
    done = project.call("run", "config.yaml")
    assert done.returncode == 0, done.stderr
    costs = {cost["arm"]: cost for cost in json.loads((project.run / "5_cost.json").read_text())}
    assert list(costs) == ["after", "other"]
    student = project.run / "4_student"
    model = AutoModelForCausalLM.from_pretrained(student)
    found = costs["after"]
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["disk_bytes"] == (student / "model.safetensors").stat().st_size
    assert 0.05 < found["memory_gb"] < 20 and found["questions"] == 3
    assert 0 < found["first_token_seconds"] < 10 and found["alone"] > 0 and found["together"] > 0
    record = next(row for row in project.rows("steps.jsonl") if row["step"] == "cost")
    assert record["notes"] == {"not measured, only known by answers": ["teacher"]}
    page = (project.run / "7_report.md").read_text()
    assert "## What it costs to use" in page and "3 questions of the evaluation" in page
    assert "What it costs to use" in (project.run / "7_report.html").read_text()
    assert "nothing to do" in project.call("run", "config.yaml").stdout


def test_asking_for_a_step_that_is_not_there_names_its_key(project: Project) -> None:
    done = project.call("run", "config.yaml", "--redo", "cost")
    assert done.returncode == 2 and "evaluate.cost_of_use is not set" in done.stderr


def test_without_an_ability_there_is_nothing_to_ask_and_the_config_says_so(
    project: Project,
) -> None:
    project.edit(evaluate__abilities=[], evaluate__cost_of_use={"questions": 3})
    done = project.call("plan", "config.yaml")
    assert done.returncode == 2 and "`abilities` names none; add one" in done.stderr, done.stderr
