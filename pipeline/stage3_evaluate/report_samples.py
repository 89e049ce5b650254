"""Which texts of a run the report shows, and in what form. The choice is deterministic."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from pipeline.records import Answer, Extraction, Finish
from pipeline.stage3_evaluate.report_data import RunFiles

LONGEST = 1500  # characters of one text


class Outcome(StrEnum):
    """What happened to an item between before and after."""

    GAINED = "gained"
    LOST = "lost"
    BOTH_RIGHT = "both right"
    BOTH_WRONG = "both wrong"


class Shown(msgspec.Struct, frozen=True):
    """One answer as a person reads it."""

    text: str
    right: str  # "right" | "wrong"
    note: str  # what was read in it, and how it ended
    id: str


class Pair(msgspec.Struct, frozen=True):
    """The same item before and after; the teacher's answer where there is one."""

    ability: str
    variant: str
    item_id: str
    question: str
    reference: str
    outcome: Outcome
    before: Shown
    after: Shown
    teacher: Shown | None


class KeptRow(msgspec.Struct, frozen=True):
    id: str
    task: str
    recipe: str
    seed_id: str
    prompt: str
    completion: str


class DroppedText(msgspec.Struct, frozen=True):
    id: str
    task: str
    seed_id: str
    filter: str
    reason: str
    score: str
    text: str


class Samples(msgspec.Struct, frozen=True):
    """The chosen texts, with how many there are in all."""

    pairs: list[Pair]
    all_pairs: int
    kept: list[KeptRow]
    all_kept: int
    dropped: list[DroppedText]
    all_dropped: int


# Control characters, and marks that turn the direction of the text around them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")


def safe(text: str, secrets: Sequence[str] = (), longest: int = LONGEST) -> str:
    """A stranger's text without control characters and secrets, cut with a word about it."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = _INVISIBLE.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))
    if len(text) > longest:
        return f"{text[:longest].rstrip()} … ({len(text) - longest:,} more characters)"
    return text


def choose(run: RunFiles, limit: int) -> Samples:
    """About `limit` texts of each kind, spread over abilities, outcomes, tasks and filters."""
    pairs = paired(run.answers.get("before", []), run.answers.get("after", []))
    kept = [
        KeptRow(
            id=", ".join(row.source),
            task=str(row.meta.get("task", "")),
            recipe=str(row.meta.get("recipe", "")),
            seed_id=str(row.meta.get("seed_id", "")),
            prompt=safe("\n\n".join(m.content for m in row.prompt), run.secrets),
            completion=safe("\n\n".join(m.content for m in row.completion), run.secrets),
        )
        for row in spread(run.kept, lambda row: row.meta.get("task"), limit)
    ]
    dropped = [
        DroppedText(
            id=row.request_id,
            task=row.task,
            seed_id=row.seed_id,
            filter=row.filter,
            reason=safe(row.reason, run.secrets, 300),
            score="" if row.score is None else f"{row.score:.2f}",
            text=safe(row.text, run.secrets),
        )
        for row in spread(run.dropped, lambda row: (row.task, row.filter), limit)
    ]
    teacher = run.answers.get("teacher", [])
    shown = pairs_of(pairs, teacher, 2 * limit, run.secrets)
    return Samples(shown, len(pairs), kept, len(run.kept), dropped, len(run.dropped))


Item = TypeVar("Item")


def spread(rows: Sequence[Item], group: Callable[[Item], Hashable], limit: int) -> list[Item]:
    """The first rows of every group in turn, so that a rare group is not crowded out."""
    groups: dict[Hashable, list[Item]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    found: list[Item] = []
    depth = 0
    while len(found) < min(limit, len(rows)):
        found += [some[depth] for some in groups.values() if depth < len(some)]
        depth += 1
    return found[:limit]


def _key(row: Answer) -> tuple[str, str, str]:
    return row.ability, row.variant, row.item_id


def _by_item(rows: Sequence[Answer]) -> dict[tuple[str, str, str], Answer]:
    found: dict[tuple[str, str, str], Answer] = {}
    for row in rows:
        found.setdefault(_key(row), row)  # of several draws the first
    return found


def paired(first: Sequence[Answer], second: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    """The same items under two arms, those that changed first."""
    before, after = _by_item(first), _by_item(second)
    found = [(row, after[key]) for key, row in before.items() if key in after]
    return sorted(found, key=lambda pair: list(Outcome).index(_outcome(*pair)))


def pairs_of(
    pairs: Sequence[tuple[Answer, Answer]],
    teacher: Sequence[Answer],
    limit: int,
    secrets: Sequence[str],
) -> list[Pair]:
    """At most `limit`, spread over abilities, variants and outcomes."""
    chosen = spread(pairs, lambda p: (p[0].ability, p[0].variant, _outcome(*p)), limit)
    best = _by_item(teacher)
    return [_pair(old, new, best.get(_key(old)), secrets) for old, new in chosen]


def _outcome(old: Answer, new: Answer) -> Outcome:
    if (old.correct >= 0.5) == (new.correct >= 0.5):
        return Outcome.BOTH_RIGHT if new.correct >= 0.5 else Outcome.BOTH_WRONG
    return Outcome.GAINED if new.correct >= 0.5 else Outcome.LOST


def _pair(old: Answer, new: Answer, teacher: Answer | None, secrets: Sequence[str]) -> Pair:
    return Pair(
        ability=old.ability,
        variant=old.variant,
        item_id=old.item_id,
        question=safe(old.question, secrets),
        reference=safe(old.reference or "", secrets, 300),
        outcome=_outcome(old, new),
        before=_shown(old, secrets),
        after=_shown(new, secrets),
        teacher=_shown(teacher, secrets) if teacher else None,
    )


def _shown(row: Answer, secrets: Sequence[str]) -> Shown:
    notes = []
    value = safe(row.extracted or "", secrets, 200)
    if row.ability == "instruction_following":
        notes.append(f"broken: {value}" if value else "all constraints kept")
    elif row.extraction is Extraction.VALUE:
        notes.append(f"read as {value}")
    else:
        notes.append(row.extraction.value.replace("_", " "))
    if row.finish is not Finish.STOP and row.extraction is not Extraction.TRUNCATED:
        notes.append({"length": "cut off"}.get(row.finish.value, row.finish.value))
    if row.output_tokens:
        notes.append(f"{row.output_tokens} token{'' if row.output_tokens == 1 else 's'}")
    verdict = "right" if row.correct >= 0.5 else "wrong"
    return Shown(safe(row.text, secrets), verdict, ", ".join(notes), row.request_id)
