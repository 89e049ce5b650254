"""The step `suite` in a run: its budget, its numbers in scores and report, its inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.config import load_config
from pipeline.errors import UserError
from pipeline.records import Message, PromptRef, Sampling, Score, Seed
from pipeline.stage3_evaluate.evaluate import step as evaluate_step
from pipeline.stage3_evaluate.harness_tasks import _settings, task_names
from pipeline.stage3_evaluate.questions import Question
from pipeline.stage3_evaluate.report import write_report
from pipeline.stage3_evaluate.score import Scores
from pipeline.steps import records
from tests.project import Project

pytest.importorskip("lm_eval", reason="needs the extra lm-eval")

# The target is a number, and no filter is named.
TASK = """
task: numbers
custom_dataset: !function own.items
output_type: generate_until
test_split: test
num_fewshot: 0
doc_to_text: "Add {{a}} and {{b}}."
doc_to_target: total
generation_kwargs: {until: [], max_gen_toks: 4, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
OWN = """
from datasets import Dataset, DatasetDict

def items(**settings):
    rows = [{"a": a, "b": a + 2, "total": 2 * a + 2} for a in range(1, 5)]
    return DatasetDict({"test": Dataset.from_list(rows)})
"""
# Right on the even ones.
TEACHER = """
import os, re

def answer(request):
    with open(os.environ["ASKED_LOG"], "a") as file:
        file.write(request.id + "\\n")
    a, b = map(int, re.findall(r"\\d+", request.messages[-1].content)[:2])
    return str(a + b + a % 2)
"""
NAMED = ("--set", "evaluate.suite.include=[own_tasks]", "--suite", "lm-eval:numbers")


@pytest.fixture
def plain(project: Project) -> Project:
    """A project whose config names no suite; `NAMED` does."""
    folder = project.folder / "own_tasks"
    folder.mkdir()
    (folder / "numbers.yaml").write_text(TASK)
    (folder / "own.py").write_text(OWN)
    (project.folder / "teacher.py").write_text(TEACHER)
    project.edit(evaluate__arms=["teacher"])
    return project


def evaluated(project: Project, *words: str) -> set[str]:
    """The metrics of lm-eval in 6_scores.json."""
    done = project.call("evaluate", "config.yaml", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads((project.run / "6_scores.json").read_text())["scores"]
    return {one["metric"] for one in found if one["ability"] == "lm-eval"}


def test_a_suite_alone_is_scored_and_in_the_report(plain: Project) -> None:
    plain.edit(evaluate__abilities=[])
    assert evaluated(plain, *NAMED) == {"numbers/exact_match"}
    scores = json.loads((plain.run / "6_scores.json").read_text())
    assert scores["arms"] == ["teacher"] and scores["scores"][0]["value"] == 0.5
    for path in write_report(plain.run):
        text = path.read_text("utf-8")
        assert "numbers/exact match" in text or "numbers, exact match" in text
        assert "50%" in text and "has no answers" not in text


def test_numbers_of_the_suite_are_those_of_the_config(plain: Project) -> None:
    assert evaluated(plain, *NAMED)
    assert evaluated(plain, "--rescore") == set()
    assert evaluated(plain, *NAMED, "--rescore") == {"numbers/exact_match"}


def test_a_redo_forgets_the_suite_and_the_costs_of_the_models_before(plain: Project) -> None:
    assert evaluated(plain, *NAMED)
    (plain.run / "5_cost.json").write_text("[]")
    assert evaluated(plain, *NAMED, "--rescore")  # what follows the suite
    assert (plain.run / "5_suite").exists() and (plain.run / "5_cost.json").exists()
    assert evaluated(plain, "--redo", "evaluate") == set()
    assert not (plain.run / "5_suite").exists() and not (plain.run / "5_cost.json").exists()
    assert "suite" not in records(plain.run)


def test_the_budget_counts_what_priced_arms_used_and_no_student(plain: Project) -> None:
    assert evaluated(plain) == set()
    teacher = records(plain.run)["evaluate"].tokens
    plain.edit(evaluate__arms=["teacher", "before"])
    assert evaluated(plain, "--redo", "evaluate") == set()
    everyone = records(plain.run)["evaluate"].tokens
    asked = plain.asked()

    used, limit = teacher.input + teacher.output, everyone.input + everyone.output
    plain.edit(budget={"max_tokens": used})
    done = plain.call("evaluate", "config.yaml", *NAMED)
    assert done.returncode != 0 and "budget.max_tokens" in done.stderr
    assert plain.asked() == asked
    plain.edit(budget={"max_tokens": limit})
    assert evaluated(plain, *NAMED) == {"numbers/exact_match"}


def test_data_files_that_a_task_names_are_inputs_of_the_suite(plain: Project) -> None:
    rows = [{"a": a, "b": a, "total": 2 * a} for a in (2, 4)]
    data = plain.folder / "sums.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    source = "dataset_path: json\ndataset_kwargs: {data_files: {test: sums.jsonl}}"
    task = TASK.replace("custom_dataset: !function own.items", source)
    (plain.folder / "own_tasks" / "numbers.yaml").write_text(task)
    plain.edit(evaluate__abilities=[])
    assert evaluated(plain, *NAMED)
    data.write_text(json.dumps({"a": 1, "b": 1, "total": 2}))
    done = plain.call("evaluate", "config.yaml", *NAMED)
    assert done.returncode == 2 and "sums.jsonl: its content changed" in done.stderr


def test_what_reads_ifeval_answers_is_part_of_the_evaluation(
    plain: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plain.folder)
    Path("prompts.jsonl").write_text("")
    assert "lm_eval" not in evaluate_step(load_config(plain.config)).settings
    table = {"ifeval": {"path": "prompts.jsonl"}, "prompt": "show.yaml"}
    plain.edit(evaluate__instruction_following=table)
    assert "lm_eval" not in evaluate_step(load_config(plain.config)).settings
    plain.edit(evaluate__abilities=["instruction_following"])
    assert evaluate_step(load_config(plain.config)).settings["lm_eval"]


def score_of(metric: str, value: float, model: str = "before") -> Score:
    return Score(model, "lm-eval", metric, value, n=40, low=value * 0.9, high=value * 1.1)


def test_numbers_that_are_no_shares_are_shown_as_they_are(tmp_path: Path) -> None:
    found = [
        score_of("t/bleu", 23.4), score_of("t/bleu", 0.75, "after"), score_of("t/acc", 0.25),
        score_of("t/gone", 0.5, "an arm of before"),
    ]  # fmt: skip
    scores = Scores(["before", "after"], found, [], [])
    (tmp_path / "6_scores.json").write_bytes(msgspec.json.encode(scores))
    for path in write_report(tmp_path):
        text = path.read_text("utf-8")
        assert "23.40" in text and "0.75" in text and "25%" in text
        assert "2340" not in text and "75%" not in text


# --- our items as its tasks


def question(**settings: Any) -> Question:
    item = Seed("i", "t", {"question": "1 and 1?"}, reference="2")
    return Question(
        "chain_of_thought", "direct", item, PromptRef("p", "h"), (Message("user", "1 and 1?"),),
        Sampling(**settings),
    )  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_an_exported_task_asks_with_the_whole_decoding(temperature: float) -> None:
    from pipeline.stage3_evaluate.harness_model import sampling_of

    asked = question(
        temperature=temperature, top_p=0.9, seed=4, frequency_penalty=0.5, presence_penalty=-0.5,
        repetition_penalty=1.1, stop=("\n\n",), max_tokens=9,
    )  # fmt: skip
    assert sampling_of(_settings(asked), "t", "fake") == asked.sampling


@pytest.mark.parametrize("settings", [{"extra_body": {"think": False}}, {"logprobs": 2}])
def test_a_decoding_that_a_task_cannot_say_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        _settings(question(**settings))


def test_sets_of_other_letters_have_names_of_their_own(project: Project) -> None:
    names = task_names("r", [("in_context", f"{name} k=1") for name in ("情感", "主题", "set2")])
    assert names == ["r_in_context_k_1", "r_in_context_k_1_set2", "r_in_context_set2_k_1"]
    shots = [{"text": "fig", "label": "red"}]
    item = {"id": "i", "text": "sky", "shots": shots, "labels": ["red", "blue"], "answer": "red"}
    (project.folder / "icl.jsonl").write_text(json.dumps(item))
    (project.folder / "label.yaml").write_text("user: '{{ text }}:'\n")
    tasks = [{"name": name, "items": "icl.jsonl"} for name in ("情感", "主题")]
    project.edit(
        evaluate__abilities=["in_context"],
        evaluate__in_context={"tasks": tasks, "shots": [1], "prompt": "label.yaml"},
    )
    words = ("export", "config.yaml", "--what", "items", "--to", "folder", "tasks", "--yes")
    done = project.call(*words)
    assert done.returncode == 0, done.stderr
    assert len(list((project.folder / "tasks").glob("*.yaml"))) == 2


def test_a_name_with_outer_spaces_is_refused(project: Project) -> None:
    tasks = [{"name": "words ", "items": "icl.jsonl"}]
    project.edit(evaluate__in_context={"tasks": tasks, "shots": [1]})
    with pytest.raises(UserError, match="name"):
        load_config(project.config)
