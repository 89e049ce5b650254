"""Step `curate`: stored answers -> kept and dropped rows, the funnel, the dataset.

Writes 2_kept.jsonl, 2_dropped.jsonl (with filter, reason, score), 2_funnel.json, 3_dataset/.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from pipeline import stopping
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.models.ask import cost_of
from pipeline.models.locate import identity_of
from pipeline.prompts import load_prompt
from pipeline.records import Decision, Finish, read_jsonl
from pipeline.stage1_generate.curate import Filter, filter_kinds
from pipeline.stage1_generate.curate.against import Overlap, contamination_filter, overlap
from pipeline.stage1_generate.curate.judge import (
    Judged,
    Stage,
    common_filters,
    filters_of,
    judged,
    looks_back,
    task_filters,
)
from pipeline.stage1_generate.curate.judgement import Agreement, Judge
from pipeline.stage1_generate.curate.label_quality import Measuring
from pipeline.stage1_generate.dataset import write_dataset
from pipeline.stage1_generate.recipes import recipe_identity, teaches
from pipeline.stage1_generate.tokens import MAX_LENGTH
from pipeline.stage1_generate.used import UsedRow, candidates
from pipeline.stage3_evaluate.answers import EXTRACTOR_VERSION
from pipeline.stage3_evaluate.items import item_sources
from pipeline.steps import Step, StepResult

# Raised with every change of what curation keeps from the same answers and settings.
# 2: duplicates come last and are compared as written; episodes and short items count as
# contamination.
# 3: loops and refusals are looked for anywhere in an answer.
# 4: a seed, what was derived from it, and its other tasks are on one side of the split.
# 5: near copies of evaluation items, and copies with other numbers or names, are contamination;
# words that many items share are none.
CURATION_VERSION = 5
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
    by_task: dict[str, Yield]
    by_teacher: dict[str, Yield] = {}
    judges: dict[str, Agreement] = {}  # by the judging task
    contamination: list[Overlap] = []  # the first HITS_SHOWN


def step(config: Config) -> Step:
    run = config.run_dir
    against = config.curate.contamination
    mixture = config.curate.mixture
    evaluated: list[Any] = []
    files = [Path(f) for f in against.files]
    if against.against == "evaluation":
        sources = item_sources(config.evaluate)
        evaluated = [s.model_dump(mode="json", exclude_none=True) for s in sources]
        files += [Path(s.path) for s in sources if s.path]
    return Step(
        name="curate",
        run=run,
        settings={
            "version": CURATION_VERSION,
            "seed": config.seed,
            "filters": config.curate.filters,
            "contamination": against.model_dump(mode="json") | {"items": evaluated},
            "validation_share": config.curate.validation_share,
            "mixture": mixture.model_dump(mode="json") if mixture else None,
            "dataset": config.curate.dataset.model_dump(mode="json"),
            "extractor": EXTRACTOR_VERSION,
            **_student(config),
            "tasks": {
                t.name: {
                    "recipe": recipe_identity(t.recipe),
                    "student_prompt": load_prompt(t.student_prompt).ref.hash,
                    "filters": [{name: given} for name, given in task_filters(t)],
                    "weight": t.weight,
                    "options": t.options,
                }
                | ({} if t.train else {"train": False})
                for t in config.tasks
            },
        },
        inputs=[run / "0_seeds.jsonl", run / "1_generations.jsonl", *files],
        outputs=[
            run / "2_kept.jsonl",
            run / "2_dropped.jsonl",
            run / "2_funnel.json",
            run / "3_dataset",
            *([run / "2_label_quality.json"] if measured(config) else []),
        ],
        work=lambda: curate(config),
    )


def _student(config: Config) -> dict[str, Any]:
    """Whose tokens are counted, and up to how many rows may have where that decides something."""
    found = {"student": identity_of(config.student.model, config.student.revision)}
    lists = [config.curate.filters, *(task.filters for task in config.tasks)]
    mixture = config.curate.mixture
    shots = mixture is not None and mixture.k_shot is not None
    if shots or any("fits_student" in entry for filters in lists for entry in filters):
        found["max_length"] = config.train.sft.get("max_length", MAX_LENGTH)
    return found


def curate(config: Config) -> StepResult:
    against = contamination_filter(config)
    filters = all_filters(config, against)
    funnel = _empty_funnel(config, against is not None)
    stages = {stage.filter: stage for stage in funnel.stages}
    quality = measured(config)
    run = config.run_dir
    encoder = msgspec.json.Encoder()
    covered: dict[tuple[str, str], str] = {}  # seeds of pools: the only teacher so far, or ""
    with (
        _replacing(run / "2_kept.jsonl") as kept_file,
        _replacing(run / "2_dropped.jsonl") as dropped_file,
    ):
        for found in judged(partial(candidates, config), filters, stages):
            stopping.raise_if_requested()
            _count(config, funnel, found)
            if found.task.teachers and found.verdict.decision is Decision.KEEP:
                seed, teacher = (found.task.name, found.row.seed.id), found.row.teacher
                covered[seed] = teacher if covered.get(seed, teacher) == teacher else ""
            if found.task.name in quality:
                was_kept = found.verdict.decision is Decision.KEEP
                quality[found.task.name].add(found.row, was_kept)
            if found.verdict.decision is Decision.DROP:
                checks = filters[found.task.name]
                dropped_file.write(encoder.encode(_dropped(found, checks)) + b"\n")
                if len(funnel.contamination) < HITS_SHOWN:
                    shown = overlap(against, found.task, found.row, found.verdict)
                    funnel.contamination += [
                        msgspec.structs.replace(o, span=_masked(o.span, checks)) for o in shown
                    ]
            elif teaches(found.task):
                funnel.kept += 1
                for example in found.row.examples:
                    meta = example.meta | found.scores
                    row = msgspec.structs.replace(example, meta=meta)
                    kept_file.write(encoder.encode(row) + b"\n")
    if not funnel.kept:
        worst = max(funnel.stages, key=lambda s: s.dropped)
        raise UserError(
            f"no answer of {funnel.asked} passed the filters; {worst.filter} dropped "
            f"{worst.dropped} ({', '.join(worst.reasons)}). `distill show {config.name}` prints "
            "dropped rows; loosen the filter or change the teacher's prompt"
        )
    for teacher in covered.values():
        if teacher:
            funnel.by_teacher[teacher].alone += 1
    for checks in filters.values():
        for check in checks:
            if isinstance(check, Judge):
                funnel.judges[check.by] = check.agreement
    if quality:
        with _replacing(run / "2_label_quality.json") as file:
            tables = [table for one in quality.values() if (table := one.result())]
            file.write(msgspec.json.format(encoder.encode(tables), indent=2))
    with _replacing(run / "2_funnel.json") as file:
        file.write(msgspec.json.format(encoder.encode(funnel), indent=2))
    write_dataset(config, funnel)
    return StepResult(counts={"answers": funnel.asked, "kept": funnel.kept})


def all_filters(config: Config, against: Filter | None) -> dict[str, list[Filter]]:
    """Every task's filters, those that wait for another task's answers with these at hand."""
    shared = common_filters(config)
    filters = {}
    for task in config.tasks:
        # Rows that are not trained on must not make others their duplicates.
        common = shared if teaches(task) else common_filters(config)
        filters[task.name] = filters_of(config, task, common, against)
    for checks in filters.values():
        for check in checks:
            loading: Any = check
            if hasattr(check, "load"):
                used = read_jsonl(config.run_dir / "1_generations.jsonl", UsedRow)
                rows = candidates(config, (row for row in used if row.task == loading.by))
                loading.load((row.seed, row.generation) for _, row in rows)
    return filters


def measured(config: Config) -> dict[str, Measuring]:
    """The tasks whose answers are compared with gold ones, should their seeds have some."""
    found = {}
    for task in config.tasks:
        filters = dict(task_filters(task))
        kind = filters.get("answer", filters.get("vote", {})).get("kind", "auto")
        if task.recipe == "label":
            found[task.name] = Measuring(task.name, labels=True)
        elif "vote" in filters and kind != "json":
            found[task.name] = Measuring(task.name, labels=False, kind=kind)
    return found


def _count(config: Config, funnel: Funnel, found: Judged) -> None:
    row = found.row
    answered = row.generation.finish is not Finish.ERROR
    kept = found.verdict.decision is Decision.KEEP
    funnel.asked += 1
    funnel.answered += answered
    usage = row.generation.usage
    cost = cost_of(usage, config.all_teachers[row.teacher].price)
    for counts in (funnel.by_task[found.task.name], funnel.by_teacher[row.teacher]):
        counts.asked += 1
        counts.answered += answered
        counts.tokens += usage.input + usage.output
        counts.usd += cost
        counts.kept += kept


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


def _dropped(found: Judged, filters: list[Filter]) -> Dropped:
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


class _replacing:
    """A file under a temporary name that takes its real one when the block ends well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")

    def __enter__(self) -> Any:
        self._file = self._partial.open("wb")
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            os.replace(self._partial, self._path)
