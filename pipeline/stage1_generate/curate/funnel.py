"""What became of the answers, counted: 2_funnel.json, and the lines of 2_dropped.jsonl."""

from __future__ import annotations

from collections import Counter

import msgspec

from pipeline.config import Config
from pipeline.models.ask import cost_of
from pipeline.records import Decision, Finish
from pipeline.stage1_generate.curate import Filter, filter_kinds
from pipeline.stage1_generate.curate.against import Overlap, overlap
from pipeline.stage1_generate.curate.contamination import Contamination
from pipeline.stage1_generate.curate.judge import Judged, Stage, looks_back, task_filters
from pipeline.stage1_generate.curate.judgement import Agreement, Judge
from pipeline.stage1_generate.recipes import teaches

HITS_SHOWN = 50  # rows that 2_funnel.json shows beside the item they overlap with


class Dropped(msgspec.Struct, frozen=True):
    """A line of 2_dropped.jsonl."""

    request_id: str
    task: str
    seed_id: str
    filter: str
    reason: str
    score: float | None
    text: str


class Yield(msgspec.Struct):
    """What a task's answers came to, and what they took: tokens in and out, USD."""

    asked: int = 0
    answered: int = 0
    kept: int = 0
    tokens: int = 0
    usd: float = 0.0
    alone: int = 0  # of a pool's teacher: seeds of which only its answers were kept


class Funnel(msgspec.Struct):
    """2_funnel.json: how many rows each filter saw and dropped, and why."""

    asked: int
    answered: int
    stages: list[Stage]
    kept: int
    by_task: dict[str, Yield] = {}
    by_teacher: dict[str, Yield] = {}
    judges: dict[str, Agreement] = {}  # by the judging task
    contamination: list[Overlap] = []  # the first HITS_SHOWN


class Counting:
    """Counts every judged row; `stages` takes what each filter saw."""

    def __init__(
        self, config: Config, filters: dict[str, list[Filter]], against: Contamination | None
    ) -> None:
        self._config, self._filters, self._against = config, filters, against
        self._funnel = _empty_funnel(config, against is not None)
        self._covered: dict[tuple[str, str], str] = {}  # a pool's seed: its only teacher, or ""
        self.stages = {stage.filter: stage for stage in self._funnel.stages}

    def add(self, found: Judged) -> None:
        row, task = found.row, found.task
        kept = found.verdict.decision is Decision.KEEP
        self._add_yield(found, kept)
        if kept:
            self._funnel.kept += teaches(task)
            if task.teachers:
                seed = task.name, row.seed.id
                same = self._covered.get(seed, row.teacher) == row.teacher
                self._covered[seed] = row.teacher if same else ""
        elif len(self._funnel.contamination) < HITS_SHOWN:
            checks = self._filters[task.name]
            for hit in overlap(self._against, task, row, found.verdict):
                shown = msgspec.structs.replace(hit, span=_masked(hit.span, checks))
                self._funnel.contamination.append(shown)

    def _add_yield(self, found: Judged, kept: bool) -> None:
        row = found.row
        answered = row.generation.finish is not Finish.ERROR
        usage = row.generation.usage
        cost = cost_of(usage, self._config.all_teachers[row.teacher].price)
        self._funnel.asked += 1
        self._funnel.answered += answered
        by_task, by_teacher = self._funnel.by_task, self._funnel.by_teacher
        for counts in (by_task[found.task.name], by_teacher[row.teacher]):
            counts.asked += 1
            counts.answered += answered
            counts.tokens += usage.input + usage.output
            counts.usd += cost
            counts.kept += kept

    def result(self) -> Funnel:
        """The funnel, once every row was added."""
        for teacher in self._covered.values():
            if teacher:
                self._funnel.by_teacher[teacher].alone += 1
        for checks in self._filters.values():
            for check in checks:
                if isinstance(check, Judge):
                    self._funnel.judges[check.by] = check.agreement
        return self._funnel


def _empty_funnel(config: Config, contaminated: bool) -> Funnel:
    names = [name for entry in config.curate.filters for name in entry]
    names += [name for task in config.tasks for name, _ in task_filters(task)]
    names += ["contamination"] if contaminated else []
    # As filters_of orders them; contamination has no entry of its own.
    kinds = filter_kinds()
    ordered = sorted(Counter(names), key=lambda name: looks_back(kinds.get(name)))
    stages = [Stage(name, reasons={}) for name in ordered]
    by_task = {t.name: Yield() for t in config.tasks}
    by_teacher = {name: Yield() for task in config.tasks for name in config.teachers_of(task)}
    return Funnel(0, 0, stages, 0, by_task, by_teacher)


def dropped(found: Judged, filters: list[Filter]) -> Dropped:
    """The line of 2_dropped.jsonl; what a filter that masks has found reaches no file."""
    row, verdict = found.row, found.verdict
    text, reason = (_masked(t, filters) for t in (row.generation.text, verdict.reason))
    return Dropped(
        row.request.id, found.task.name, row.seed.id, verdict.filter, reason, verdict.score, text
    )


def _masked(text: str, filters: list[Filter]) -> str:
    for mask in (check.mask for check in filters if hasattr(check, "mask")):
        text = mask(text)
    return text
