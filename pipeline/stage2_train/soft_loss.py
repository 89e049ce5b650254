"""The loss of soft targets: a teacher's top-k probabilities, position by position.

Source: Hinton et al. (1503.02531); the tail as one more outcome is what keeps top-k from pretending
that the rest has no probability.

    loss = lambda * T^2 * KL(teacher_T || student_T) + (1 - lambda) * CE(token)

over a support of the teacher's k likeliest tokens and, with `TOPK_TAIL`, one bucket for all others.
T other than 1 cannot be had from log-probabilities at 1: p^(1/T) needs the sum over the whole
vocabulary. So it is allowed where the teacher gave them at that T, or, as the approximation that it
is, with `TOPK_RENORMALISED`, where both sides are renormalised over the k tokens.

Of the student nothing is needed but its log-probabilities of the same k tokens (student_scores.py).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch


class Support(StrEnum):
    TOPK_TAIL = "topk_tail"
    TOPK_RENORMALISED = "topk_renormalised"


def divergence(
    student: Any, ids: Any, teacher: Any, support: Support, temperature: float, taken_at: float
) -> Any:
    """KL(teacher_T || student_T) of each position, in nats and before the factor T^2: shape (n,).

    `student` and `teacher` (n, k): the log-probabilities that each gives the same k tokens, both
    taken at the temperature `taken_at`; `ids` (n, k): those tokens, -1 where there are fewer.
    Raises `ValueError` for a temperature that such log-probabilities cannot give.
    """
    present = ids >= 0
    student, teacher = student.float(), teacher.float()
    if support is Support.TOPK_RENORMALISED:
        change = taken_at / temperature
        teacher = _renormalised(teacher * change, present)
        student = _renormalised(student * change, present)
        return _sum(teacher, student, present)
    if temperature != taken_at:
        raise ValueError(
            f"log-probabilities taken at temperature {taken_at:g} do not give those at "
            f"{temperature:g}; use support: {Support.TOPK_RENORMALISED}"
        )
    kept = _sum(teacher, student, present)
    teacher_tail = _log_rest(teacher, present)
    student_tail = _log_rest(student, present)
    return kept + teacher_tail.exp() * (teacher_tail - student_tail)


def soft_loss(
    hard: Any,
    student: Any,
    ids: Any,
    teacher: Any,
    *,
    weight: float,
    temperature: float = 1.0,
    taken_at: float = 1.0,
    support: Support = Support.TOPK_TAIL,
) -> Any:
    """The loss of each position, shape (n,); `weight` is lambda, from 0 (plain SFT) to 1.

    `hard` (n,): the cross-entropy of the words. A position without any teacher probability (all
    `ids` -1) has it alone.
    """
    if weight == 0:
        return hard
    soft = divergence(student, ids, teacher, support, temperature, taken_at)
    mixed = weight * temperature**2 * soft + (1 - weight) * hard
    return torch.where((ids >= 0).any(-1), mixed, hard)


def _sum(teacher: Any, student: Any, present: Any) -> Any:
    each = teacher.exp() * (teacher - student)
    return torch.where(present, each, torch.zeros_like(each)).sum(-1)


def _renormalised(scores: Any, present: Any) -> Any:
    return scores.masked_fill(~present, -torch.inf).log_softmax(-1)


def _log_rest(logprobs: Any, present: Any) -> Any:
    """log(1 - sum of exp) of each row, finite: a tail below rounding counts as 1e-7."""
    held = logprobs.masked_fill(~present, -torch.inf).logsumexp(-1)
    return torch.log(-torch.expm1(held.clamp(max=-1e-7)))
