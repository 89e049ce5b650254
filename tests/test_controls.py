"""Controls: other datasets from the same answers, and the training on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.project import Project, make_project

# Wrong one time in three, and of another length every time.
TEACHER = """
import re

def answer(request):
    a, b = map(int, re.findall(r"\\d+", request.messages[-1].content)[:2])
    wrong = request.sample_index % 3 == 2
    steps = "Count them once more. " * (request.sample_index + 1)
    return f"{steps}{a} and {b} make {a + b + wrong}. The answer is {a + b + wrong}."
"""


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    """A curated run with all controls, for the tests that only look."""
    project = make_project(tmp_path_factory.mktemp("controls"), tiny_model, seeds=40)
    (project.folder / "teacher.py").write_text(TEACHER)
    project.edit(curate__controls=["random", "label_only", "gold"], curate__validation_share=0.2)
    for command in ("generate", "curate"):
        ended = project.call(command, "config.yaml")
        assert ended.returncode == 0, ended.stderr
    return project


def rows(project: Project, folder: str) -> dict[str, list[dict[str, Any]]]:
    from datasets import load_dataset

    data = load_dataset(str(project.run / folder))
    return {side: list(found) for side, found in data.items()}


def report(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.run / "3_controls" / "controls.json").read_text())
    return found


def text(row: dict[str, Any]) -> str:
    return str(row["completion"][0]["content"])


def test_random_rows_are_right_and_wrong_with_as_many_tokens_and_the_same_split(
    curated: Project,
) -> None:
    data, control = rows(curated, "3_dataset"), rows(curated, "3_controls/random")
    sums = [text(row).rsplit(" ", 1)[1] for row in control["train"]]
    assert len(sums) > 20 and any(row["sample_index"] == 2 for row in control["train"])
    assert all(row["sample_index"] < 2 for row in data["train"])
    said = report(curated)
    wanted, got = said["dataset_completion_tokens"], said["controls"]["random"]["completion_tokens"]
    # The tiny student reads bytes: tokens can be counted by hand.
    assert wanted == sum(len(text(row)) for row in data["train"])
    assert got == sum(len(text(row)) for row in control["train"])
    assert 0.97 * wanted < got <= wanted
    held_back = {row["seed_id"] for row in data["validation"]}
    assert not held_back & {row["seed_id"] for row in control["train"]}


def test_label_only_rows_are_the_datasets_with_the_answer_alone(curated: Project) -> None:
    data, control = rows(curated, "3_dataset"), rows(curated, "3_controls/label_only")
    assert [r["prompt"] for r in control["train"]] == [r["prompt"] for r in data["train"]]
    for before, after in zip(data["train"], control["train"], strict=True):
        assert text(before).endswith(f"The answer is {text(after)}.")
    said = report(curated)["controls"]["label_only"]
    assert said["equal"] == "rows" and said["rows"] == len(data["train"])
    assert said["completion_tokens"] == sum(len(text(r)) for r in control["train"])


def test_gold_rows_are_the_seeds_references(curated: Project) -> None:
    references = {row["id"]: row["reference"] for row in curated.rows("0_seeds.jsonl")}
    for row in rows(curated, "3_controls/gold")["train"]:
        assert text(row) == references[row["seed_id"]]


def test_a_control_is_trained_with_the_same_settings_beside_the_student(curated: Project) -> None:
    ended = curated.call("train", "config.yaml", "--control", "random")
    assert ended.returncode == 0, ended.stderr
    folder = curated.run / "4_controls" / "random"
    assert (folder / "model.safetensors").is_file()
    assert "control `random`" in (folder / "README.md").read_text()
    assert not (curated.run / "4_student").exists()
    again = curated.call("train", "config.yaml", "--control", "random")
    assert "train --control random: done already" in again.stdout
    redone = curated.call("train", "config.yaml", "--control", "random", "--redo", "train")
    assert redone.returncode == 0 and "starting" in redone.stdout


def test_a_control_that_is_not_configured_is_named(curated: Project) -> None:
    ended = curated.call(
        "train", "config.yaml", "--control", "gold", "--set", "curate.controls=[random]"
    )
    assert ended.returncode == 2 and "curate.controls has random" in ended.stderr


def test_seeds_without_references_have_no_gold(project: Project) -> None:
    lines = [json.loads(line) for line in (project.folder / "seeds.jsonl").open()]
    kept = [json.dumps({k: v for k, v in line.items() if k != "answer"}) for line in lines]
    (project.folder / "seeds.jsonl").write_text("\n".join(kept) + "\n")
    project.edit(tasks__0__filters=[], curate__controls=["gold"])
    project.call("generate", "config.yaml")
    ended = project.call("curate", "config.yaml")
    assert ended.returncode == 2 and "gold has no rows" in ended.stderr


def test_controls_can_be_redone_alone(project: Project) -> None:
    project.edit(curate__controls=["gold"])
    for command in ("generate", "curate"):
        assert project.call(command, "config.yaml").returncode == 0
    before = (project.run / "3_dataset" / "README.md").stat().st_mtime_ns
    refused = project.call("curate", "config.yaml", "--set", "curate.controls=[label_only]")
    assert refused.returncode == 2 and "--redo controls" in refused.stderr
    words = ("curate", "config.yaml", "--redo", "controls")
    assert project.call(*words, "--set", "curate.controls=[label_only]").returncode == 0
    assert (project.run / "3_controls" / "label_only").is_dir()
    assert (project.run / "3_dataset" / "README.md").stat().st_mtime_ns == before
    nothing = project.call(*words, "--set", "curate.controls=[]")
    assert nothing.returncode == 2 and "curate.controls is not set" in nothing.stderr


def test_controls_are_made_anew_when_curation_is(project: Project) -> None:
    project.edit(curate__controls=["label_only"])
    assert project.call("generate", "config.yaml").returncode == 0
    assert project.call("curate", "config.yaml").returncode == 0
    before = (project.run / "3_controls" / "controls.json").read_text()
    project.edit(tasks__0__filters=[])
    redone = project.call("curate", "config.yaml", "--redo", "curate")
    assert redone.returncode == 0, redone.stderr
    assert (project.run / "3_controls" / "controls.json").read_text() != before
    assert project.call("verify", "small").returncode == 0
