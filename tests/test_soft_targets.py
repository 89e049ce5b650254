"""Training on a teacher's stored probabilities: with a real tiny teacher and a real trainer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipeline.records import Message, TokenLogprob
from pipeline.stage2_train.soft_rows import NOWHERE, Vocabulary, soft_row
from tests.project import Project
from tests.tiny import make_tiny_model


@pytest.fixture
def taught(project: Project) -> Project:
    """The tiny model teaches another one of its kind, with its log-probabilities."""
    student = make_tiny_model(project.folder / "student", seed=5)
    project.edit(
        teacher={
            "backend": "transformers",
            "model": str(project.model),
            "sampling": {"max_tokens": 12, "logprobs": 6, "temperature": 1.0},
        },
        student={"model": str(student)},
        tasks__0__recipe="response",
        tasks__0__filters=[],
        tasks__0__samples=2,
        curate={"filters": [{"finish": {"allow": ["stop", "length"]}}], "validation_share": 0.2},
        budget={"min_acceptance": 0},
        train={
            "sft": {
                "max_steps": 12,
                "per_device_train_batch_size": 4,
                "learning_rate": 3e-3,
                "logging_steps": 1,
                "lr_scheduler_type": "constant",
            },
            "soft_targets": {"weight": 1.0, "top_k": 6, "min_coverage": 0.1},
        },
    )
    return project


def _losses(project: Project) -> list[float]:
    lines = (project.run / "4_student" / "training_log.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.mark.slow
def test_a_student_comes_nearer_to_the_teachers_probabilities(taught: Project) -> None:
    done = taught.distill("run", "config.yaml", "--until", "train")
    assert done.returncode == 0, done.stderr
    assert "soft targets: " in done.stdout and "rows have the teacher's log" in done.stdout
    losses = _losses(taught)
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


@pytest.mark.slow
def test_lambda_0_trains_as_plain_sft(taught: Project) -> None:
    taught.edit(train__soft_targets={"weight": 0.0, "top_k": 6, "min_coverage": 0.1})
    done = taught.distill("run", "config.yaml", "--until", "train")
    assert done.returncode == 0, done.stderr
    soft = _losses(taught)
    taught.edit(train__soft_targets=None)
    done = taught.distill("run", "config.yaml", "--until", "train", "--redo", "train")
    assert done.returncode == 0, done.stderr
    assert soft == pytest.approx(_losses(taught), abs=2e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher__sampling": {"max_tokens": 4}}, "asks for no log-probabilities"),
        ({"train__soft_targets": {"temperature": 2.0}}, "support: topk_renormalised"),
        ({"train__sft": {"packing": True}}, "packing is not possible"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_asked(
    taught: Project, changes: dict[str, Any], message: str
) -> None:
    taught.edit(**changes)
    done = taught.distill("run", "config.yaml", "--until", "train")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (taught.run / "1_generations.jsonl").exists()


def test_both_ways_of_naming_tokens_find_their_ids(project: Project) -> None:
    tokenizer = AutoTokenizer.from_pretrained(project.model)
    vocabulary = Vocabulary(tokenizer)
    text = "a bé"
    ids = tokenizer(text)["input_ids"]
    names = tokenizer.convert_ids_to_tokens(ids)
    rows = []
    for given in (names, [tokenizer.decode([i]) for i in ids]):
        tokens = tuple(TokenLogprob(name, -0.5, ((name, -0.5), ("x", -2.0))) for name in given)
        prompt, completion = [Message("user", "q")], [Message("assistant", text)]
        rows.append(soft_row(vocabulary, prompt, completion, tokens, text, 3, None))
    assert rows[0].matched == len(ids)
    # Of é's two bytes neither is a text of its own; the others are found.
    assert rows[1].matched == len(ids) - 2
    start = len(rows[0].input_ids) - rows[0].taught
    assert rows[0].soft_ids[start].tolist() == [
        ids[0],
        tokenizer.convert_tokens_to_ids("x"),
        NOWHERE,
    ]
    assert (rows[0].soft_ids[:start] == NOWHERE).all()


@pytest.mark.slow
def test_another_tokenizer_is_refused(taught: Project) -> None:
    taught.edit(train__soft_targets={"min_coverage": 1.0})
    done = taught.distill("run", "config.yaml", "--until", "train")
    # The end of the turn is no token that the teacher gave a probability for.
    assert done.returncode == 2 and "min_coverage is 100%" in done.stderr, done.stderr
