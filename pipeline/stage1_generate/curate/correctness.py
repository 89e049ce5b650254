"""Is the answer right? Against a reference, or by verifying its constraints."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

import msgspec

from pipeline.constraints import Outcome
from pipeline.constraints import check as check_constraint
from pipeline.errors import UserError
from pipeline.records import Extraction, Finish, Verdict, digest
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.curate.math_answers import MathOutcome, MathVerifier
from pipeline.stage3_evaluate.answers import (
    AnswerKind,
    expected_of,
    is_right,
    read_answer,
)
from pipeline.stage3_evaluate.choices import plain, right_choice

_PREFIX = re.compile(
    r"^\W*(?:(?:the|my|final|correct|so|therefore),?\s+)*(?:answer|答案)\s*(?:is\b|[:：=是为]|->)*\s*",
    re.IGNORECASE,
)


Kind = Literal[
    "auto", "number", "label", "choice", "option", "yes_no", "true_false", "list", "letters",
    "words",
    "text", "exact", "math",
]  # fmt: skip


def answer(
    kind: Kind = "auto", seconds: float | None = None, memory_mb: int | None = None
) -> Filter:
    """Keep answers that come to the seed's reference.

    number, label, list, choice, option, yes_no, true_false, letters, words, text: by the extractor
    that evaluation uses (docs/evaluating.md); `auto` is the seed's `answer_kind`, a label where it
    has `labels`, a choice where it has `choices`, else what its reference looks like. exact: the
    whole answer, or its last line after "Answer:", but for case, spaces and marks around it. math:
    by math-verify, in a process of its own with `seconds` of CPU time (2) and `memory_mb` (1024)
    for each answer.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind is one of {', '.join(get_args(Kind))}; seen {kind!r}")
    if kind != "math" and (seconds is not None or memory_mb is not None):
        raise ValueError("seconds and memory_mb are limits of kind: math")
    limits = 2.0 if seconds is None else seconds, 1024 if memory_mb is None else memory_mb
    if not 0 < limits[0] <= 600 or limits[1] < 512:
        raise ValueError("seconds is above 0 and up to 600, memory_mb from 512 (SymPy's own)")
    verifier = MathVerifier(*limits)

    def check(row: Candidate) -> Verdict:
        if row.seed.reference is None:
            return drop("answer", "the seed has no reference answer")
        match kind:
            case "math":
                return _mathematics(row, verifier)
            case "exact":
                return _right_or_wrong(plain(row.seed.reference) in _readings(row.generation.text))
            case "auto":
                return _value(row, None)
            case named:
                return _value(row, AnswerKind(named))

    return check


def _value(row: Candidate, kind: AnswerKind | None) -> Verdict:
    reference = row.seed.reference
    assert reference is not None
    try:
        expected = expected_of(row.seed, kind)
    except UserError as error:
        return drop("answer", str(error).removeprefix(f"{row.seed.origin}: "))
    if expected.kind is AnswerKind.CHOICE and right_choice(reference, expected.options) is None:
        return drop("answer", "the reference is none of the seed's choices")
    found, value = read_answer(row.generation.text, expected, row.generation.finish)
    if found is not Extraction.VALUE or value is None:
        return drop("answer", found.value.replace("_", " "))
    return _right_or_wrong(is_right(value, reference, expected))


def _readings(text: str) -> set[str]:
    """What an answer may mean as a whole: all of it, or its last line without "Answer:"."""
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    return {plain(text), plain(_PREFIX.sub("", last))} - {""}


def _mathematics(row: Candidate, verifier: MathVerifier) -> Verdict:
    if row.generation.finish is Finish.LENGTH:
        return drop("answer", "truncated")  # math-verify would take the last number there is
    assert row.seed.reference is not None
    match verifier.verify(row.generation.text, row.seed.reference):
        case MathOutcome.RIGHT | MathOutcome.WRONG as found:
            return _right_or_wrong(found is MathOutcome.RIGHT)
        case MathOutcome.NO_ANSWER:
            return drop("answer", "no answer")
        case MathOutcome.NO_REFERENCE:
            return drop("answer", "the reference is no mathematics")
        case trouble:
            return drop("answer", f"verifier {trouble}")


def _right_or_wrong(right: bool) -> Verdict:
    return keep("answer", 1.0) if right else drop("answer", "wrong", 0.0)


def schema() -> Filter:
    """Keep answers that are JSON and fit the request's schema; every task with one has this filter.

    A server may ignore the schema and say 200 all the same: vLLM did with the options of its
    earlier releases.
    """
    from jsonschema import Draft202012Validator

    checkers: dict[str, Any] = {}

    def check(row: Candidate) -> Verdict:
        wanted = row.request.schema
        if wanted is None:
            return keep("schema")
        try:
            value = msgspec.json.decode(row.generation.text.encode())
        except msgspec.DecodeError as error:
            return drop("schema", f"not JSON: {error}")
        key = digest(wanted)
        if key not in checkers:
            checkers[key] = Draft202012Validator(wanted)
        broken = next(iter(checkers[key].iter_errors(value)), None)
        if broken is not None:
            return drop("schema", f"breaks the schema: {broken.json_path} {broken.message:.160}")
        return keep("schema")

    return check


def constraints() -> Filter:
    """Keep answers that follow every constraint of their seed. Score: the share followed."""

    def check(row: Candidate) -> Verdict:
        asked = row.seed.constraints
        if not asked:
            return drop("constraints", "the seed has no constraints")
        broken = [
            constraint.type
            for constraint in asked
            if check_constraint(constraint, row.generation.text).outcome is Outcome.BROKEN
        ]
        score = 1 - len(broken) / len(asked)
        if broken:
            names = ", ".join(broken)
            return drop("constraints", f"broken: {names}", round(score, 3))
        return keep("constraints", 1.0)

    return check
