"""A row's weight multiplies its loss, packed or not; weights of 1 leave TRL its own trainer."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer
from trl import SFTTrainer

from pipeline.config import load_config
from pipeline.errors import UserError
from pipeline.stage2_train.packing import check_packing, leak
from pipeline.stage2_train.targets import trained_rows, trainer_kind
from pipeline.stage2_train.targets_trainer import TargetsTrainer
from tests.project import Project
from tests.trainers import ROWS, dataset, loss_and_gradient, make_trainer, weighted

ITEMS = 50  # any number that all losses here are divided by


def test_weights_2_and_0_are_twice_the_first_row_alone(tmp_path: Path, tiny_model: Path) -> None:
    rows = dataset((2.0, 0.0), ROWS[:2])
    _, both = loss_and_gradient(make_trainer(tmp_path, tiny_model, rows, weighted), ITEMS)
    alone = make_trainer(tmp_path, tiny_model, dataset(rows=ROWS[:1]))
    _, first = loss_and_gradient(alone, ITEMS)
    torch.testing.assert_close(both, 2 * first, atol=1e-6, rtol=1e-4)
    assert first.abs().max() > 1e-3


def test_a_weight_of_2_is_the_row_twice(tmp_path: Path, tiny_model: Path) -> None:
    rows = dataset((1.0, 2.0, 1.0))
    loss, gradient = loss_and_gradient(make_trainer(tmp_path, tiny_model, rows, weighted), ITEMS)
    again = make_trainer(tmp_path, tiny_model, dataset(rows=(*ROWS, ROWS[1])))
    expected, same = loss_and_gradient(again, ITEMS)
    assert loss == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradient, same, atol=1e-6, rtol=1e-4)


def test_the_loss_is_divided_by_the_tokens_as_without_weights(
    tmp_path: Path, tiny_model: Path
) -> None:
    plain, _ = loss_and_gradient(make_trainer(tmp_path, tiny_model, dataset()))
    half = make_trainer(tmp_path, tiny_model, dataset((0.5,) * 3), weighted)
    loss, _ = loss_and_gradient(half)
    assert loss == pytest.approx(plain / 2, rel=1e-5)


def test_the_metrics_are_those_of_plain_training(tmp_path: Path, tiny_model: Path) -> None:
    found = []
    for rows, add in ((dataset(), None), (dataset((3.0, 1.0, 0.2)), weighted)):
        trainer = make_trainer(tmp_path, tiny_model, rows, add)
        loss_and_gradient(trainer)
        found.append(dict(trainer._metrics["train"]))
    assert found[0].keys() == {"entropy", "mean_token_accuracy", "num_tokens"}
    assert found[0] == found[1]


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split", "wrapped"])
def test_packing_keeps_each_rows_weight(tmp_path: Path, tiny_model: Path, strategy: str) -> None:
    rows = dataset((2.0, 0.5, 1.0))
    settings = {"packing": True, "max_length": 200, "packing_strategy": strategy}
    trainer = make_trainer(tmp_path, tiny_model, rows, weighted, **settings)
    batch = next(iter(trainer.get_train_dataloader()))
    taught = batch["labels"] != -100
    sums = {w: int((batch["token_weights"][taught] == w).sum()) for w in (2.0, 0.5, 1.0)}
    # The text, the end of the turn and its line break; the tokens are bytes.
    assert sums == {w: len(a) + 2 for w, (_, a) in zip((2.0, 0.5, 1.0), ROWS, strict=True)}


def test_packed_or_not_the_loss_is_the_same(tmp_path: Path, tiny_model: Path) -> None:
    rows = dataset((2.0, 0.5, 1.0))
    alone = loss_and_gradient(make_trainer(tmp_path, tiny_model, rows, weighted))
    trainer = make_trainer(tmp_path, tiny_model, rows, weighted, packing=True, max_length=200)
    assert len(trainer.train_dataset) < len(rows)
    packed = loss_and_gradient(trainer)
    assert packed[0] == pytest.approx(alone[0], rel=1e-5)
    torch.testing.assert_close(packed[1], alone[1], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
def test_rows_are_cut_and_left_out_as_by_trl(tmp_path: Path, tiny_model: Path, mode: str) -> None:
    settings = {"max_length": 40, "truncation_mode": mode}
    ours = make_trainer(tmp_path, tiny_model, dataset((2.0, 2.0, 2.0)), weighted, **settings)
    theirs = make_trainer(tmp_path, tiny_model, dataset(), **settings)
    assert ours.train_dataset["input_ids"][:] == theirs.train_dataset["input_ids"][:]
    assert ours.train_dataset["labels"][:] == theirs.train_dataset["labels"][:]
    assert len(theirs.train_dataset) > 0


def test_trl_trains_where_all_rows_weigh_1(project: Project) -> None:
    config = load_config(project.config)
    tokenizer = AutoTokenizer.from_pretrained(project.model)
    _, kind, more = trainer_kind(config, dataset((1.0, 1.0, 0.0)), tokenizer)
    assert kind is SFTTrainer and not more
    rows, kind, _ = trainer_kind(config, dataset((1.0, 0.0, 0.5)), tokenizer)
    assert kind is TargetsTrainer and rows["weight"][:] == [1.0, 0.5]


@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (1.0, -1.0, 1.0), (1.0, math.nan, 1.0)])
def test_weights_that_cannot_be_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="weight"):
        trained_rows(dataset(weights))


def test_losses_that_are_no_sum_of_tokens_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UserError, match="loss_type 'dft'"):
        make_trainer(tmp_path, tiny_model, dataset((2.0,) * 3), weighted, loss_type="dft")


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_packed_documents_do_not_see_each_other(
    tmp_path: Path, tiny_model: Path, implementation: str
) -> None:
    trainer = make_trainer(tmp_path, tiny_model, dataset(), packing=True, max_length=200)
    trainer.model.set_attn_implementation(implementation)
    assert leak(trainer) == 0
    check_packing(trainer)


def test_a_model_that_mixes_packed_documents_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    trainer = make_trainer(tmp_path, tiny_model, dataset(), packing=True, max_length=200)
    whole = trainer.model.forward
    trainer.model.forward = lambda position_ids=None, **rest: whole(**rest)
    with pytest.raises(UserError, match="sees the one before it"):
        check_packing(trainer)


def test_wrapped_packs_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = SimpleNamespace(packing=True, packing_strategy="wrapped")
    check_packing(SimpleNamespace(args=arguments, padding_free=False))
    assert "packing_strategy wrapped" in capsys.readouterr().err


def _log(project: Project) -> list[dict[str, float]]:
    return project.rows("4_student/training_log.jsonl")


@pytest.mark.slow
def test_a_tasks_weight_reaches_training(project: Project) -> None:
    project.edit(tasks__0__weight=0.5, train__sft__logging_steps=1)
    done = project.distill("run", "config.yaml", "--until", "train")
    assert done.returncode == 0, done.stderr
    half = [entry["loss"] for entry in _log(project) if "loss" in entry]
    project.edit(tasks__0__weight=1.0)
    done = project.distill("run", "config.yaml", "--until", "train", "--redo", "curate")
    assert done.returncode == 0, done.stderr
    whole = [entry["loss"] for entry in _log(project) if "loss" in entry]
    assert half[0] == pytest.approx(whole[0] / 2, rel=0.02)
