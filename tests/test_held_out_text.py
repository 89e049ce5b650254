"""Perplexity on plain text, and the matrix of what each training changed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.config import ModelConfig
from pipeline.stage3_evaluate.held_out_text import Document, TextRow, text_rows, text_scores
from pipeline.stage3_evaluate.statistics import Kept
from tests.project import Project
from tests.tiny import make_tiny_model

TEXTS = ["A first text.", "And another one, which is longer.", "The third."]


def test_a_text_counts_every_token_once_also_past_the_context(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text = "one two three " * 400
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    context = model.config.max_position_embeddings
    assert len(ids) > context
    (row,) = text_rows(
        ModelConfig(backend="transformers", model=str(folder)), [Document(text, "long")]
    )
    assert (row.id, row.bytes, row.tokens) == ("long", len(text), len(ids))
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    expected = 0.0
    for at in range(0, len(ids), context - 1):
        seen = [start, *ids[at : at + context - 1]]
        with torch.inference_mode():
            scores = model(torch.tensor([seen])).logits[0].log_softmax(-1)
        expected -= sum(float(scores[i, token]) for i, token in enumerate(seen[1:]))
    assert row.nats == pytest.approx(expected, rel=1e-4)


def test_a_ratio_above_one_is_a_loss_and_the_margin_says_when_nothing_was_lost() -> None:
    def rows(factor: float, spread: float = 0.0) -> list[TextRow]:
        nats = [100 * factor * (1 + spread * (-1) ** i) for i in range(20)]
        return [TextRow(str(i), 120, 50, value) for i, value in enumerate(nats)]

    found = {
        score.arm: score
        for score in text_scores(
            {"before": rows(1), "after": rows(1.1, 0.01), "seed-1": rows(1.001, 0.001),
             "only-x": rows(1.0, 0.3)},
            ["before", "after", "seed-1", "only-x"],
            seed=0,
            margin=0.05,
        )
    }  # fmt: skip
    assert found["before"].perplexity == pytest.approx(math.exp(2))
    assert found["before"].bits_per_byte == pytest.approx(100 / 120 / math.log(2))
    assert found["before"].ratio is None
    assert found["after"].ratio == pytest.approx(math.exp(0.2), rel=1e-6)
    assert found["after"].low is not None and found["after"].low > 1
    assert [found[arm].kept for arm in ("after", "seed-1", "only-x")] == [
        Kept.LOST, Kept.KEPT, Kept.UNCLEAR,
    ]  # fmt: skip


def test_what_a_training_cost_is_measured_and_in_the_report(project: Project) -> None:
    lines = [json.dumps({"id": f"t{i}", "text": text}) for i, text in enumerate(TEXTS)]
    (project.folder / "texts.jsonl").write_text("\n".join(lines))
    task = "sums"
    project.edit(
        evaluate__arms=["teacher", "before", "after", f"only-{task}"],
        evaluate__held_out_text="texts.jsonl",
    )
    done = project.call("run", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (project.run / "5_text").iterdir()} == {
        "before.jsonl", "after.jsonl", f"only-{task}.jsonl",
    }  # fmt: skip
    scores = json.loads((project.run / "6_scores.json").read_text())
    assert [text["arm"] for text in scores["text"]] == ["before", "after", f"only-{task}"]
    assert {change["found"]["arm"] for change in scores["changes"]} == {"after", f"only-{task}"}
    record = next(row for row in project.rows("steps.jsonl") if row["step"] == "text")
    assert record["notes"] == {"not measured, only known by answers": ["teacher"]}
    page = (project.run / "7_report.md").read_text()
    assert (
        page.count("| everything |") == 1
        and f"the task {task} alone" in page
        and "Held-out text: perplexity" in page
    )
    assert project.call("verify", "small").returncode == 0
    assert "nothing to do" in project.call("run", "config.yaml").stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not there"),
        ('{"text": "only one"}', "two documents or more"),
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "the id 'a' twice"),
        ('{"words": 1}\n{"words": 2}', "missing required field `text`"),
    ],
)
def test_a_file_without_texts_is_one_message(
    project: Project, content: str | None, message: str
) -> None:
    if content is not None:
        (project.folder / "texts.jsonl").write_text(content)
    project.edit(evaluate__held_out_text="texts.jsonl")
    done = project.call("evaluate", "config.yaml")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_instead_of_texts_is_one_message(project: Project) -> None:
    project.edit(evaluate__held_out_text=".")
    done = project.call("evaluate", "config.yaml")
    assert done.returncode == 2 and "held_out_text: .: Is a directory" in done.stderr, done.stderr
