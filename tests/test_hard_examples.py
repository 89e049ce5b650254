"""Rounds: the student of one run decides what the teacher is asked in the next."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.models import model_identity
from pipeline.prompts import load_prompt
from pipeline.records import (
    Finish,
    Generation,
    PromptRef,
    Request,
    Sampling,
    Seed,
)
from pipeline.stage1_generate.recipes import Lost, hard_examples
from tests.project import Project
from tests.tiny import make_tiny_model

ROOT = Path(__file__).parent.parent

# Makes a problem of its own for each sample, one of them an item of the evaluation, and solves any.
TEACHER = r"""
import json, re

EVALUATED = json.loads(open("eval.jsonl").readline())["question"]
PLACES = "Harbour Orchard Stable Cellar Kitchen Garden Market Attic Bakery Library".split()
THINGS = "nails ropes lamps coins jars books hats seeds tiles bells".split()

def answer(request):
    text = request.messages[-1].content
    if "Write one new problem" not in text:
        a, b = map(int, re.findall(r"\d+", text)[:2])
        wrong = request.sample_index == 1
        return f"{a} and {b} make {a + b + wrong}. The answer is {a + b + wrong}."
    if request.sample_index == 2:
        return EVALUATED
    n = int(request.id[:8], 16)
    place, one, other = PLACES[n % 10], THINGS[n // 10 % 10], THINGS[n // 100 % 10]
    a, b = n // 1000 % 50 + 2, n // 50000 % 50 + 2
    return f"**New problem:** {place} {n % 977} needs {a} {one}, buys {b} {other}. What in all?"
"""


def edit_for_round_2(project: Project) -> None:
    raw = load_config(project.config).model_dump(mode="json", exclude_none=True, by_alias=True)
    task = raw["tasks"][0]
    vote = [{"vote": {"min_agreement": 0.6}}]
    project.edit(
        name="round-2",
        teacher=None,
        teachers={
            "teacher": raw["teacher"],
            "student": {
                "backend": "transformers",
                "model": "runs/small/4_student",
                "sampling": {"temperature": 0.0, "max_tokens": 8},
            },
        },
        evaluate__teacher="teacher",
        tasks=[
            task
            | {
                "name": "probe",
                "teacher": "student",
                "teacher_prompt": "show.yaml",
                "train": False,
                "samples": 1,
                "seeds": {"run": "small", "task": "sums", "split": "validation"},
            },
            task
            | {
                "name": "more",
                "recipe": "hard_examples",
                "teacher": "teacher",
                "teacher_prompt": str(ROOT / "prompts/teacher/hard_examples.yaml"),
                "samples": 4,
                "filters": [],
                "seeds": {"from": "probe", "rows": "dropped"},
            },
            task
            | {
                "name": "answers",
                "recipe": "self_consistency",
                "teacher": "teacher",
                "filters": vote,
                "seeds": {"from": "more"},
            },
        ],
    )


@pytest.mark.slow
def test_a_second_round_asks_for_more_of_what_the_first_student_failed_at(
    project: Project,
) -> None:
    (project.folder / "teacher.py").write_text(TEACHER)
    project.edit(curate__validation_share=0.4, evaluate__arms=["before"])
    first = project.distill("run", "config.yaml", "--until", "train")
    assert first.returncode == 0, first.stderr
    edit_for_round_2(project)
    second = project.distill("run", "config.yaml")
    assert second.returncode == 0, second.stderr
    project.run = project.folder / "runs" / "round-2"
    seeds: dict[str, list[dict[str, Any]]] = {}
    for seed in project.rows("0_seeds.jsonl"):
        seeds.setdefault(seed["task"], []).append(seed)
    # Random weights know no sums: every held-back seed was failed, and asked about once.
    assert 0 < len(seeds["probe"]) < 12 and len(seeds["more"]) == len(seeds["probe"])
    new = [seed["fields"]["question"] for seed in seeds["answers"]]
    assert len(new) > len(seeds["more"]) and all(text.endswith("What in all?") for text in new)
    assert not [text for text in new if "problem" in text]
    evaluated = json.loads((project.folder / "eval.jsonl").read_text().splitlines()[0])
    assert evaluated["question"] not in new
    kept = project.rows("2_kept.jsonl")
    assert {row["meta"]["task"] for row in kept} == {"answers"}
    assert all(row["meta"]["agreement"] == pytest.approx(2 / 3, abs=0.01) for row in kept)
    assert (project.run / "4_student" / "model.safetensors").is_file()
    assert (project.run / "7_report.html").is_file()


def test_another_student_at_the_same_path_is_another_teacher(tmp_path: Path) -> None:
    from pipeline.config import ModelConfig

    student = tmp_path / "runs" / "small" / "4_student"
    make_tiny_model(student, seed=1)
    config = ModelConfig(backend="transformers", model=str(student))
    before = model_identity(config)
    assert model_identity(config) == before
    moved = tmp_path / "elsewhere"
    shutil.copytree(student, moved)
    assert model_identity(ModelConfig(backend="transformers", model=str(moved))) == before
    shutil.rmtree(student)
    make_tiny_model(student, seed=2)
    assert model_identity(config) != before


def harvested(text: str) -> tuple[list[str], list[str]]:
    seed = Seed("s", "t", {"question": "Ann has 4 figs and buys 3 more. How many has she?"})
    request = Request("0" * 32, "s", "r", PromptRef("p", "h"), (), Sampling(), 0, "m")
    answer = seed, request, Generation("0" * 32, text, Finish.STOP)
    rows = list(hard_examples.harvest(iter([answer]), iter([seed])))
    taken = [row["question"] for row in rows if not isinstance(row, Lost)]
    return taken, [row.reason for row in rows if isinstance(row, Lost)]


@pytest.mark.parametrize(
    "text",
    [
        "A shelf holds 9 books; 2 are lent. What is left?",
        "New problem: A shelf holds 9 books; 2 are lent. What is left?",
        "A shelf holds 9 books; 2 are lent. What is left?\n\nAnswer: 7",
        "A shelf holds 9 books; 2 are lent. What is left?\n\n**Solution:**\n9 - 2 = 7\nSo 7.",
    ],
)
def test_a_new_problem_is_taken_without_its_solution(text: str) -> None:
    assert harvested(text) == (["A shelf holds 9 books; 2 are lent. What is left?"], [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Ann has 5 figs and buys 8 more. How many has she?", "too close to another"),
        ("The task is to find out how many figs Ann has now.", "asks nothing"),
        ("7?", "much shorter or longer than its seed"),
        ("word " * 60 + "?", "much shorter or longer than its seed"),
        ("", "asks nothing"),
    ],
)
def test_a_problem_that_is_none_is_lost_with_a_reason(text: str, reason: str) -> None:
    assert harvested(text) == ([], [reason])


def test_a_problem_is_asked_about_once_however_many_samples_failed() -> None:
    seeds = [Seed(f"s/{i}", "t", {"question": f"Q{i // 3}"}) for i in range(9)]
    assert [seed.id for seed in hard_examples.arrange(iter(seeds))] == ["s/0", "s/3", "s/6"]


def test_the_shipped_config_is_the_second_round_of_the_quickstart(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("prompts", "data", "configs"):
        (project.folder / name).symlink_to(ROOT / name)
    run = project.folder / "runs" / "quickstart"
    shutil.copytree(project.model, run / "4_student")
    shutil.copy(ROOT / "configs" / "quickstart.yaml", run / "config.yaml")
    load_prompt.cache_clear()
    from pipeline.config import load_config
    from pipeline.stage1_generate.task_seeds import write_seeds

    write_seeds(load_config(Path("configs/quickstart.yaml")), 0)
    done = project.call("plan", "configs/hard_examples.yaml", "--prompts", "4")
    assert done.returncode == 0, done.stderr
    assert "task harder: recipe hard_examples; its seeds come from" in done.stdout
    held = int(done.stdout.split("task probe: recipe chain_of_thought, ")[1].split()[0])
    assert 0 < held < 40
