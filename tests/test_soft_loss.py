"""Soft targets against a dense reference, at their limits and at the edges of float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.stage2_train.soft_loss import Support
from pipeline.stage2_train.soft_loss import divergence as sparse_divergence
from pipeline.stage2_train.soft_loss import soft_loss as sparse_loss

VOCABULARY, POSITIONS = 11, 6


@pytest.fixture
def student() -> torch.Tensor:
    logits = torch.randn(POSITIONS, VOCABULARY, generator=torch.Generator().manual_seed(1)) * 2
    return logits.requires_grad_()


def _teacher(k: int, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = torch.randn(POSITIONS, VOCABULARY, generator=torch.Generator().manual_seed(2)) * 2
    dense = (logits / temperature).log_softmax(-1)
    values, ids = dense.topk(k)
    return dense, ids, values


def divergence(
    logits: torch.Tensor,
    ids: torch.Tensor,
    teacher: torch.Tensor,
    support: Support,
    temperature: float,
    taken_at: float,
) -> torch.Tensor:
    """Of a student that gives all its logits."""
    student = (logits / taken_at).log_softmax(-1).gather(-1, ids.clamp(min=0))
    found: torch.Tensor = sparse_divergence(student, ids, teacher, support, temperature, taken_at)
    return found


def soft_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    ids: torch.Tensor,
    teacher: torch.Tensor,
    *,
    taken_at: float = 1.0,
    **settings: Any,
) -> torch.Tensor:
    hard = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    student = (logits / taken_at).log_softmax(-1).gather(-1, ids.clamp(min=0))
    found: torch.Tensor = sparse_loss(hard, student, ids, teacher, taken_at=taken_at, **settings)
    return found


def _bucketed(dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The dense reference: probabilities of the kept tokens and of all others together."""
    kept = dense.exp().gather(-1, ids)
    return torch.cat([kept, 1 - kept.sum(-1, keepdim=True)], -1)


@pytest.mark.parametrize("k", [1, 3, VOCABULARY - 1])
def test_the_tail_is_one_more_outcome(student: torch.Tensor, k: int) -> None:
    dense, ids, values = _teacher(k)
    p, q = _bucketed(dense, ids), _bucketed(student.log_softmax(-1), ids)
    expected = (p * (p.log() - q.log())).sum(-1)
    found = divergence(student, ids, values, Support.TOPK_TAIL, 1.0, 1.0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (found >= 0).all()


def test_the_whole_vocabulary_is_the_usual_divergence(student: torch.Tensor) -> None:
    dense, ids, values = _teacher(VOCABULARY)
    expected = torch.nn.functional.kl_div(
        student.log_softmax(-1), dense, log_target=True, reduction="none"
    ).sum(-1)
    found = divergence(student, ids, values, Support.TOPK_TAIL, 1.0, 1.0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_of_log_probabilities_at_that_temperature(student: torch.Tensor) -> None:
    dense, ids, values = _teacher(4, temperature=2.0)
    p, q = _bucketed(dense, ids), _bucketed((student / 2).log_softmax(-1), ids)
    expected = (p * (p.log() - q.log())).sum(-1)
    found = divergence(student, ids, values, Support.TOPK_TAIL, 2.0, 2.0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_another_temperature_needs_the_named_approximation(student: torch.Tensor) -> None:
    _, ids, values = _teacher(4)
    with pytest.raises(ValueError, match="topk_renormalised"):
        divergence(student, ids, values, Support.TOPK_TAIL, 2.0, 1.0)
    found = divergence(student, ids, values, Support.TOPK_RENORMALISED, 2.0, 1.0)
    p = (values / 2).softmax(-1)
    q = (student / 2).gather(-1, ids).softmax(-1)
    torch.testing.assert_close(found, (p * (p / q).log()).sum(-1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("support", list(Support))
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_student_that_is_the_teacher_has_nothing_to_learn(
    support: Support, temperature: float
) -> None:
    logits = torch.randn(POSITIONS, VOCABULARY, requires_grad=True)
    values, ids = (logits.detach() / temperature).log_softmax(-1).topk(5)
    labels = ids[:, 0]
    loss = soft_loss(
        logits,
        labels,
        ids,
        values,
        weight=1.0,
        temperature=temperature,
        taken_at=temperature,
        support=support,
    )
    # As a cross-entropy the loss is the teacher's own entropy; as a divergence it is zero.
    assert loss.abs().max() < 1e-5
    loss.sum().backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-5
    if support is Support.TOPK_TAIL:
        p = _bucketed((logits.detach() / temperature).log_softmax(-1), ids)
        q = _bucketed((logits.detach() / temperature).log_softmax(-1), ids)
        entropy, cross = -(p * p.log()).sum(-1), -(p * q.log()).sum(-1)
        torch.testing.assert_close(loss.detach() + entropy, cross)


def test_lambda_0_is_plain_training(student: torch.Tensor) -> None:
    _, ids, values = _teacher(3)
    labels = torch.arange(POSITIONS)
    loss = soft_loss(student, labels, ids, values, weight=0.0)
    plain = torch.nn.functional.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(loss, plain, atol=0, rtol=0)


def test_a_position_the_teacher_says_nothing_of_has_the_hard_loss(student: torch.Tensor) -> None:
    _, ids, values = _teacher(3)
    ids = ids.clone()
    ids[2] = -1
    labels = torch.arange(POSITIONS)
    loss = soft_loss(student, labels, ids, values, weight=0.5)
    plain = torch.nn.functional.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(loss[2], plain[2])
    assert not torch.isclose(loss[1], plain[1])
    loss.sum().backward()
    assert student.grad is not None and student.grad.isfinite().all()


def test_fewer_tokens_than_k_are_left_out(student: torch.Tensor) -> None:
    _, ids, values = _teacher(5)
    short_ids, short_values = ids[:, :2], values[:, :2]
    padded = ids.clone()
    padded[:, 2:] = -1
    for support in Support:
        torch.testing.assert_close(
            divergence(student, padded, values, support, 1.0, 1.0),
            divergence(student, short_ids, short_values, support, 1.0, 1.0),
        )


def test_a_certain_teacher_and_a_certain_student_stay_finite() -> None:
    logits = torch.full((1, VOCABULARY), -200.0)
    logits[0, 3] = 200.0
    logits.requires_grad_()
    ids, values = torch.tensor([[3, 4]]), torch.tensor([[0.0, -50.0]])
    loss = soft_loss(logits, torch.tensor([3]), ids, values, weight=0.5)
    loss.sum().backward()
    assert loss.isfinite().all() and loss.item() < 1e-3
    assert logits.grad is not None and logits.grad.isfinite().all()
