"""Is the answer right? Against a reference, or by verifying its constraints."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.constraints import Outcome
from pipeline.constraints import check as check_constraint
from pipeline.records import Extraction, Verdict, digest
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage3_evaluate.answers import extract_label, extract_number, numbers_equal


def answer(kind: Literal["auto", "number", "label"] = "auto") -> Filter:
    """Keep answers whose extracted value equals the seed's reference.

    The extractor is the one that evaluation uses. `auto`: a label where the seed has `labels`,
    else a number.
    """
    if kind not in ("auto", "number", "label"):
        raise ValueError(f"kind is auto, number or label; seen {kind!r}")

    def check(row: Candidate) -> Verdict:
        if row.seed.reference is None:
            return drop("answer", "the seed has no reference answer")
        labels = row.seed.fields.get("labels")
        use_label = kind == "label" or (kind == "auto" and labels is not None)
        if use_label:
            found, value = extract_label(row.generation.text, labels or [], row.generation.finish)
        else:
            found, value = extract_number(row.generation.text, row.generation.finish)
        if found is not Extraction.VALUE or value is None:
            return drop("answer", found.value.replace("_", " "))
        right = (
            value == row.seed.reference if use_label else numbers_equal(value, row.seed.reference)
        )
        return keep("answer", 1.0) if right else drop("answer", "wrong", 0.0)

    return check


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
