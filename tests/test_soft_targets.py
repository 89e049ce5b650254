"""Training on a teacher's stored probabilities: with a real tiny teacher and a real trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.config import load_config
from pipeline.config_train import SoftTargets
from pipeline.errors import UserError
from pipeline.records import TokenLogprob
from pipeline.stage2_train.soft_rows import NOWHERE, Vocabulary, soft_row, unpacked
from pipeline.stage2_train.student_scores import student_scores
from tests.project import Project
from tests.tiny import make_tiny_model
from tests.trainers import dataset, loss_and_gradient, make_trainer, taught_by, weighted


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
def test_a_teacher_can_give_its_probabilities_at_another_temperature(taught: Project) -> None:
    taught.edit(
        teacher__sampling={
            "max_tokens": 12, "logprobs": 6, "temperature": 1.0, "logprobs_temperature": 3.0,
        },
        train__soft_targets__temperature=3.0,
    )  # fmt: skip
    done = taught.distill("run", "config.yaml", "--until", "train")
    assert done.returncode == 0, done.stderr
    losses = _losses(taught)
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


VLLM = {"backend": "vllm", "model": "x/y", "serving": {"engine": {}}}
PROCESSED = {"engine": {"logprobs_mode": "processed_logprobs"}}
HOT = {"temperature": 2.0, "logprobs": 5, "logprobs_temperature": 2.0}


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"backend": "openai", "model": "x", "sampling": HOT}, "gives them at 1 only"),
        (VLLM | {"sampling": HOT}, "logprobs_mode: processed_logprobs"),
        (VLLM | {"serving": PROCESSED, "sampling": HOT | {"top_p": 0.9}}, "no top_p"),
        (VLLM | {"serving": PROCESSED, "sampling": HOT | {"temperature": 1.0}}, "temperature: 2"),
        (
            VLLM | {"serving": PROCESSED, "sampling": {"temperature": 0.7, "logprobs": 5}},
            "write logprobs_temperature: 0.7",
        ),
        (
            VLLM | {"serving": PROCESSED, "sampling": {"top_p": 0.9, "logprobs": 5}},
            "after top_p",
        ),
        (VLLM | {"serving": PROCESSED, "sampling": HOT}, None),
    ],
)
def test_where_log_probabilities_at_a_temperature_can_be_had(
    project: Project, teacher: dict[str, Any], message: str | None
) -> None:
    project.edit(teacher=teacher)
    if message is None:
        load_config(project.config)
    else:
        with pytest.raises(UserError, match=message):
            load_config(project.config)


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
        (
            {"teacher__sampling": {"logprobs": 6, "logprobs_temperature": 2.0}},
            "takes them at 2",
        ),
        ({"train__sft": {"label_smoothing_factor": 0.1}}, "label_smoothing_factor 0.1"),
        ({"train__sft": {"loss_type": "dft"}}, "loss_type 'dft'"),
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
    prompt = [{"role": "user", "content": "q"}]
    begin = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"])
    whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": text}])
    row_ids = whole["input_ids"]
    rows = []
    for given in (names, [tokenizer.decode([i]) for i in ids]):
        tokens = tuple(TokenLogprob(name, -0.5, ((name, -0.5), ("x", -2.0))) for name in given)
        rows.append(soft_row(vocabulary, row_ids, begin, tokens, text, 3))
    assert rows[0].matched == len(ids)
    # Of é's two bytes neither is a text of its own; the others are found.
    assert rows[1].matched == len(ids) - 2
    places, found, values = unpacked(rows[0].entries, 3)
    assert places.tolist() == list(range(begin, begin + len(ids)))
    assert found[0].tolist() == [ids[0], tokenizer.convert_tokens_to_ids("x"), NOWHERE]
    assert values[0].tolist() == [-0.5, -2.0, 0.0]
    assert {len(entry) for entry in rows[0].entries} == {0, 3 * 6}


@pytest.mark.slow
def test_another_tokenizer_is_refused(taught: Project) -> None:
    taught.edit(train__soft_targets={"min_coverage": 1.0})
    done = taught.distill("run", "config.yaml", "--until", "train")
    # The end of the turn is no token that the teacher gave a probability for.
    assert done.returncode == 2 and "min_coverage is 100%" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("support", "temperature"),
    [("topk_tail", 1.0), ("topk_tail", 2.0), ("topk_renormalised", 1.0)],
)
def test_a_student_that_is_its_teacher_has_no_gradient(
    tmp_path: Path, tiny_model: Path, support: str, temperature: float
) -> None:
    soft = SoftTargets(weight=1.0, top_k=8, support=support, temperature=temperature)
    add = taught_by(AutoModelForCausalLM.from_pretrained(tiny_model), 8, temperature)
    trainer = make_trainer(tmp_path, tiny_model, dataset(), add, soft)
    loss, gradient = loss_and_gradient(trainer)
    _, plain = loss_and_gradient(make_trainer(tmp_path, tiny_model, dataset()))
    # To the rounding of the float16 that log-probabilities are kept in.
    assert loss == pytest.approx(0, abs=1e-5)
    assert gradient.norm() < 2e-3 * plain.norm()


def test_lambda_0_has_the_loss_of_plain_training(tmp_path: Path, tiny_model: Path) -> None:
    add = taught_by(AutoModelForCausalLM.from_pretrained(tiny_model), 4)
    soft = make_trainer(tmp_path, tiny_model, dataset(), add, SoftTargets(weight=0.0, top_k=4))
    plain = make_trainer(tmp_path, tiny_model, dataset())
    found, expected = loss_and_gradient(soft), loss_and_gradient(plain)
    assert found[0] == expected[0]
    torch.testing.assert_close(found[1], expected[1], atol=0, rtol=0)


def test_soft_targets_and_weights_are_packed_with_their_rows(
    tmp_path: Path, tiny_model: Path
) -> None:
    teacher = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "t", seed=3))
    soft, rows = SoftTargets(weight=0.7, top_k=4), dataset((2.0, 0.5, 1.0))
    found = {}
    for packing in (False, True):
        settings = {"packing": packing, "max_length": 200}
        trainer = make_trainer(
            tmp_path,
            tiny_model,
            rows,
            lambda rows: weighted(taught_by(teacher, 4)(rows)),
            soft,
            **settings,
        )
        assert (len(trainer.train_dataset) < len(rows)) == packing
        found[packing] = loss_and_gradient(trainer)
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-5)
    torch.testing.assert_close(found[True][1], found[False][1], atol=1e-6, rtol=1e-3)
    plain, _ = loss_and_gradient(make_trainer(tmp_path, tiny_model, dataset()))
    assert found[True][0] != pytest.approx(plain, rel=1e-2)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_the_trainers_loss_is_that_of_the_dense_logits(
    tmp_path: Path, tiny_model: Path, temperature: float
) -> None:
    teacher = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "t", seed=3))
    soft = SoftTargets(weight=0.7, top_k=4, temperature=temperature)
    add = taught_by(teacher, 4, temperature)
    trainer = make_trainer(tmp_path, tiny_model, dataset(), add, soft)
    loss, _ = loss_and_gradient(trainer)
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        mine, its = (m(**inputs).logits[:, :-1].double() for m in (trainer.model, teacher))
    q, p = ((logits / temperature).log_softmax(-1) for logits in (mine, its))
    labels, ids = batch["labels"][:, 1:], p.topk(4).indices
    hard = -mine.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    a, b = p.exp().gather(-1, ids), q.exp().gather(-1, ids)
    rest = (1 - a.sum(-1)), (1 - b.sum(-1))
    kl = (a * (a / b).log()).sum(-1) + rest[0] * (rest[0] / rest[1]).log()
    expected = (0.7 * temperature**2 * kl + 0.3 * hard)[labels != -100].mean()
    assert loss == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Llama", {}),
        ("Gemma2", {"final_logit_softcapping": 2.0, "head_dim": 8}),
        ("Granite", {"logits_scaling": 3.0}),
        ("Cohere", {"logit_scale": 0.25}),
    ],
)
def test_the_scores_are_those_of_the_models_own_logits(kind: str, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.5,
        **settings,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.randint(0, 50, (1, 9))
    dense = model(tokens).logits[0].log_softmax(-1)
    ids, labels = torch.randint(0, 50, (9, 4)), torch.randint(0, 50, (9,))
    known = dense.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    hidden = model.base_model(tokens).last_hidden_state[0]
    found = student_scores(model, hidden, ids, labels, known)
    torch.testing.assert_close(found, dense.gather(-1, ids), atol=1e-5, rtol=1e-5)
