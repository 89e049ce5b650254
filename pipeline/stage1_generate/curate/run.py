"""Step `curate`: stored answers -> kept and dropped rows, the funnel, the dataset.

Writes 2_kept.jsonl, 2_dropped.jsonl (with filter, reason, score), 2_funnel.json, 3_dataset/.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from pipeline import stopping
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.models import student_identity
from pipeline.prompts import load_prompt
from pipeline.records import Decision, read_jsonl
from pipeline.stage1_generate.curate import Filter
from pipeline.stage1_generate.curate.against import contamination_filter
from pipeline.stage1_generate.curate.funnel import Counting, Funnel, dropped
from pipeline.stage1_generate.curate.judge import (
    common_filters,
    filters_of,
    judged,
    task_filters,
)
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
    found = {"student": student_identity(config)}
    lists = [config.curate.filters, *(task.filters for task in config.tasks)]
    mixture = config.curate.mixture
    shots = mixture is not None and mixture.k_shot is not None
    if shots or any("fits_student" in entry for filters in lists for entry in filters):
        found["max_length"] = config.train.sft.get("max_length", MAX_LENGTH)
    return found


def curate(config: Config) -> StepResult:
    against = contamination_filter(config)
    filters = all_filters(config, against)
    counting = Counting(config, filters, against)
    quality = measured(config)
    run = config.run_dir
    encoder = msgspec.json.Encoder()
    with (
        _replacing(run / "2_kept.jsonl") as kept_file,
        _replacing(run / "2_dropped.jsonl") as dropped_file,
    ):
        for found in judged(partial(candidates, config), filters, counting.stages):
            stopping.raise_if_requested()
            counting.add(found)
            if found.task.name in quality:
                kept = found.verdict.decision is Decision.KEEP
                quality[found.task.name].add(found.row, kept)
            if found.verdict.decision is Decision.DROP:
                line = dropped(found, filters[found.task.name])
                dropped_file.write(encoder.encode(line) + b"\n")
                continue
            for example in found.row.examples if teaches(found.task) else ():
                row = msgspec.structs.replace(example, meta=example.meta | found.scores)
                kept_file.write(encoder.encode(row) + b"\n")
    funnel = counting.result()
    if not funnel.kept:
        _refuse_nothing(config, funnel)
    if quality:
        with _replacing(run / "2_label_quality.json") as file:
            tables = [table for one in quality.values() if (table := one.result())]
            file.write(msgspec.json.format(encoder.encode(tables), indent=2))
    with _replacing(run / "2_funnel.json") as file:
        file.write(msgspec.json.format(encoder.encode(funnel), indent=2))
    write_dataset(config, funnel)
    return StepResult(counts={"answers": funnel.asked, "kept": funnel.kept})


def _refuse_nothing(config: Config, funnel: Funnel) -> None:
    worst = max(funnel.stages, key=lambda s: s.dropped)
    raise UserError(
        f"no answer of {funnel.asked} passed the filters; {worst.filter} dropped "
        f"{worst.dropped} ({', '.join(worst.reasons)}). `distill show {config.name}` prints "
        "dropped rows; loosen the filter or change the teacher's prompt"
    )


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
