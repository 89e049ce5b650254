"""Filters: small pure units that say keep, or drop with a reason and a score.

    validity.py       finish, empty, length, unfinished
    loops.py          repetition
    refusals.py       refusal
    language.py       language
    leaks.py          unclosed_reasoning, leaked_prompt
    formats.py        format
    fits.py           fits_student
    safety.py         secrets, personal_data
    correctness.py    answer (against the reference), constraints (verified), schema
    stated.py         unit, one_answer
    code_answers.py   code (run with the seed's tests, in a sandbox)
    confidence.py     logprob, pass_rate
    agreement.py      vote, diverse_rationales: over all the answers to a seed
    label_set.py      label_set: a label, entities or JSON within the set that the config fixed
    substance.py      substance: says anything at all
    instances.py      instances: inputs and outputs that the recipe `instances` can read
    contamination.py  overlap with the evaluation's items; which those are: against.py
    judgement.py      judge (another task's scores), best_of
    duplicates.py     exact_duplicates, per_seed
    alike.py          near_duplicates, similar_embeddings (each in a file of its name)

A filter is made from its settings (`length(max_tokens=512)`) and called with a `Candidate`. Most
look at one row. Some have more:

    gather(row)     it judges a row by other rows (a vote, a share that passed): it is first shown
                    every row that the filters before it keep; `saw(row)`, where it has that, all
    looks_back      true: its verdict depends on the rows that it kept before; it comes last
    mask(text)      the text without what it finds, for files that people read
    by, load(...)   it needs the answers of the task `by`, and gets them before the first row

judge.py applies the common ones in the order of the config, then the task's own, then
contamination, and those that look back last of all. Nothing here ever asks a model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.records import Decision, Example, Generation, Request, Seed, Verdict


class Candidate(msgspec.Struct, frozen=True):
    """One answer on its way into the training set."""

    seed: Seed
    request: Request
    generation: Generation
    example: Example  # the main one of `examples`
    examples: tuple[Example, ...] = ()  # all training rows of the answer; empty: that one alone
    teacher: str = ""  # its name in the config


Filter = Callable[[Candidate], Verdict]


def keep(filter_name: str, score: float | None = None) -> Verdict:
    return Verdict(Decision.KEEP, filter_name, score=score)


def drop(filter_name: str, reason: str, score: float | None = None) -> Verdict:
    return Verdict(Decision.DROP, filter_name, reason, score)


def filter_kinds() -> dict[str, Callable[..., Filter]]:
    """Every filter by its name in the config: what makes it from its settings."""
    from pipeline.stage1_generate.curate import (
        agreement,
        code_answers,
        confidence,
        correctness,
        duplicates,
        fits,
        formats,
        instances,
        judgement,
        label_set,
        language,
        leaks,
        loops,
        near_duplicates,
        refusals,
        safety,
        similar_embeddings,
        stated,
        substance,
        validity,
    )

    return {
        "finish": validity.finish,
        "empty": validity.empty,
        "length": validity.length,
        "repetition": loops.repetition,
        "refusal": refusals.refusal,
        "language": language.language,
        "unfinished": validity.unfinished,
        "unclosed_reasoning": leaks.unclosed_reasoning,
        "leaked_prompt": leaks.leaked_prompt,
        "format": formats.format,
        "fits_student": fits.fits_student,
        "secrets": safety.secrets,
        "personal_data": safety.personal_data,
        "answer": correctness.answer,
        "unit": stated.unit,
        "one_answer": stated.one_answer,
        "constraints": correctness.constraints,
        "schema": correctness.schema,
        "judge": judgement.Judge,
        "best_of": judgement.BestOf,
        "code": code_answers.code,
        "logprob": confidence.logprob,
        "pass_rate": confidence.PassRate,
        "label_set": label_set.label_set,
        "vote": agreement.vote,
        "diverse_rationales": agreement.diverse_rationales,
        "substance": substance.substance,
        "instances": instances.instances,
        "exact_duplicates": duplicates.ExactDuplicates,
        "near_duplicates": near_duplicates.NearDuplicates,
        "similar_embeddings": similar_embeddings.SimilarEmbeddings,
        "per_seed": duplicates.PerSeed,
    }


def make_filter(
    name: str, settings: dict[str, Any], place: str, config: Config | None = None
) -> Filter:
    """A filter by its name in the config; a wrong name or setting is a `UserError`.

    A filter with a parameter `config` (it looks at the student, say) is given it.
    """
    known = filter_kinds()
    if name not in known:
        raise UserError(f"{place}: filter {name!r} is not known; allowed: {', '.join(known)}")
    parameters = inspect.signature(known[name], eval_str=True).parameters
    allowed = [key for key in parameters if key != "config"]
    wrong = [key for key in settings if key not in allowed]
    if wrong:
        raise UserError(
            f"{place}.{name}: unknown setting {wrong[0]!r}; allowed: {', '.join(allowed) or 'none'}"
        )
    for key, value in settings.items():
        try:
            msgspec.convert(value, parameters[key].annotation)
        except msgspec.ValidationError as error:
            raise UserError(f"{place}.{name}.{key}: {error}; seen: {value!r}") from None
    given = {"config": config} if "config" in parameters else {}
    try:
        return known[name](**settings, **given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{place}.{name}: {error}") from None
