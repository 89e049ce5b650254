"""The filters of a task in their order, and the verdict they come to on one answer.

Used twice: by the step `curate` on every stored answer, and while answers arrive (demand.py), where
a task wants a number of accepted rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from pipeline.config import Config, Task
from pipeline.errors import UserError
from pipeline.prompts import load_prompt
from pipeline.records import Decision, Example, Generation, Request, Seed, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, make_filter
from pipeline.stage1_generate.recipes import Row, hook, recipe_named


class Stage(msgspec.Struct):
    filter: str
    into: int = msgspec.field(default=0, name="in")
    dropped: int = 0
    reasons: dict[str, int] = {}


def filters_of(
    config: Config, task: Task, common: list[Filter], against: Filter | None = None
) -> list[Filter]:
    """The common filters, shared by all tasks, the task's own, `against` (contamination).

    Those that look back come last: an answer that another filter drops must not make a good one
    its duplicate.
    """
    place = f"tasks.{task.name}.filters"
    _require_logprobs(config, task)
    own = [make_filter(name, settings, place, config) for name, settings in task_filters(task)]
    every = [*common, *own, *([against] if against else [])]
    return sorted(every, key=looks_back)


def _require_logprobs(config: Config, task: Task) -> None:
    """Before anything is asked: answers without them could only be dropped."""
    named = {name for entry in (*config.curate.filters, *task.filters) for name in entry}
    if "logprob" not in named:
        return
    for teacher in config.teachers_of(task):
        if config.sampling_of(task, teacher).logprobs is None:
            raise UserError(
                f"tasks.{task.name}: the filter logprob needs the log-probabilities of its "
                f"answers, and the sampling of {teacher} asks for none; write "
                "`sampling: {logprobs: 0}` (0: of the sampled token only), which asks anew, or "
                "take the filter out"
            )


def task_filters(task: Task) -> list[tuple[str, dict[str, Any]]]:
    """A task's own filters with their settings, and before them those that always belong to it:
    `schema` where it has one, and its recipe's FILTERS (unless the task has them itself)."""
    named = [item for entry in task.filters for item in entry.items()]
    always: dict[str, dict[str, Any]] = {} if task.response_schema is None else {"schema": {}}
    always |= getattr(recipe_named(task.recipe), "FILTERS", {})
    return [item for item in always.items() if item[0] not in dict(named)] + named


def common_filters(config: Config) -> list[Filter]:
    entries = [item for entry in config.curate.filters for item in entry.items()]
    return [make_filter(name, settings, "curate.filters", config) for name, settings in entries]


# Scores that a training row keeps, by the filter that gives them: for orders and mixtures.
KEPT_SCORES = {
    "vote": "agreement",
    "pass_rate": "pass_rate",
    "logprob": "mean_logprob",
    "judge": "judge_score",
}


def looks_back(check: Any) -> bool:
    """Does its verdict depend on the rows that came before?"""
    return bool(getattr(check, "looks_back", False))


def unsafe(row: Candidate, filters: list[Filter]) -> bool:
    """Does it hold what one of the filters would mask? Then it goes into no file of a run."""
    masking = [check for check in filters if hasattr(check, "mask")]
    return any(check(row).decision is Decision.DROP for check in masking)


def needs_others(check: Filter) -> bool:
    """Does its verdict depend on other rows, or on the answers of another task?"""
    return looks_back(check) or hasattr(check, "gather") or hasattr(check, "load")


def judge(
    row: Candidate,
    filters: list[Filter],
    stages: dict[str, Stage] | None = None,
    scores: dict[str, float] | None = None,
) -> Verdict:
    """The first verdict that drops the row, or the last that kept it.

    Counts into `stages`; `scores` takes those that a training row keeps.
    """
    verdict = Verdict(Decision.KEEP, "none")
    for check in filters:
        verdict = check(row)
        if stages is not None:
            stage = stages[verdict.filter]
            stage.into += 1
            if verdict.decision is Decision.DROP:
                stage.dropped += 1
                reason = verdict.reason.split(":")[0]
                stage.reasons[reason] = stage.reasons.get(reason, 0) + 1
        if verdict.decision is Decision.DROP:
            return verdict
        if scores is not None and verdict.score is not None and verdict.filter in KEPT_SCORES:
            scores[KEPT_SCORES[verdict.filter]] = verdict.score
    return verdict


class Judged(msgspec.Struct, frozen=True):
    """A row and what became of it."""

    task: Task
    row: Candidate
    verdict: Verdict
    scores: dict[str, float]


def judged(
    source: Callable[[], Iterable[tuple[Task, Candidate]]],
    filters: dict[str, list[Filter]],
    stages: dict[str, Stage] | None = None,
) -> Iterator[Judged]:
    """Every row of `source` with its verdict, in order.

    A filter that gathers must have seen all rows before it can judge one, so `source` is read once
    more for each such filter of a task. Memory: a pointer a row, and the verdicts of rows that were
    dropped before the last reading.
    """
    parts = {task: _parts(checks) for task, checks in filters.items()}
    readings = max(len(found) for found in parts.values())
    early: list[Verdict | None] = []  # by row: dropped in an earlier reading
    scores: dict[int, dict[str, float]] = {}
    for reading in range(readings - 1):
        for number, (task, row) in enumerate(source()):
            if reading == 0:
                early.append(None)
            # A task with fewer parts starts later, so that all end in the last reading.
            part = reading - readings + len(parts[task.name])
            if part < 0:
                continue
            gatherer: Any = parts[task.name][part + 1][0]
            if hasattr(gatherer, "saw"):
                gatherer.saw(row)
            if early[number] is None:
                verdict = judge(row, parts[task.name][part], stages, scores.setdefault(number, {}))
                if verdict.decision is Decision.DROP:
                    early[number] = verdict
                    del scores[number]
                else:
                    gatherer.gather(row)
                    if not scores[number]:
                        del scores[number]
    for number, (task, row) in enumerate(source()):
        known = early[number] if early else None
        found = scores.pop(number, {})
        if known is None:
            known = judge(row, parts[task.name][-1], stages, found)
        yield Judged(task, row, known, found)


def _parts(checks: list[Filter]) -> list[list[Filter]]:
    """A task's filters, cut before each one that gathers."""
    parts: list[list[Filter]] = [[]]
    for check in checks:
        if hasattr(check, "gather"):
            parts.append([])
        parts[-1].append(check)
    return parts


def candidate(
    task: Task, seed: Seed, request: Request, generation: Generation, teacher: str = ""
) -> Candidate:
    """The training rows that an answer would become, for the filters to look at."""
    recipe = recipe_named(task.recipe)
    showing = load_prompt(task.student_prompt)
    if several := hook(recipe, "rows", task.options):
        rows: list[Row] = several(seed, generation, showing)
    else:
        example = hook(recipe, "example", task.options)
        assert example is not None, task.recipe
        rows = [Row(*example(seed, generation, showing))]
    examples = tuple(_example(task, seed, request, teacher, row) for row in rows)
    return Candidate(seed, request, generation, examples[0], examples, teacher)


def _example(task: Task, seed: Seed, request: Request, teacher: str, row: Row) -> Example:
    meta = {
        "task": task.name,
        "recipe": task.recipe,
        "view": row.view,
        "seed_id": seed.id,
        "sample_index": request.sample_index,
        "temperature": request.sampling.temperature,
        "teacher": teacher,
        "model": request.model,
        "characters": sum(len(m.content) for m in row.completion),
    }
    return Example(row.prompt, row.completion, task.weight * row.weight, (request.id,), meta)
