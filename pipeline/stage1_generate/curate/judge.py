"""The filters of a task in their order, and the verdict they come to on one answer.

Used twice: by the step `curate` on every stored answer, and while answers arrive (demand.py), where
a task wants a number of accepted rows.
"""

from __future__ import annotations

import msgspec

from pipeline.config import Config, Task
from pipeline.prompts import load_prompt
from pipeline.records import Decision, Example, Generation, Request, Seed, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, make_filter
from pipeline.stage1_generate.curate.contamination import contamination
from pipeline.stage1_generate.curate.duplicates import ExactDuplicates
from pipeline.stage1_generate.recipes import recipe_named
from pipeline.stage1_generate.seeds import load_seeds
from pipeline.stage3_evaluate.items import evaluation_items


class Stage(msgspec.Struct):
    filter: str
    into: int = msgspec.field(default=0, name="in")
    dropped: int = 0
    reasons: dict[str, int] = {}


def filters_of(
    config: Config, task: Task, common: list[Filter], against: Filter | None = None
) -> list[Filter]:
    """The common filters, shared by all tasks, the task's own, `against` (contamination).

    Duplicates are looked for last: an answer that another filter drops must not make a good one
    its duplicate.
    """
    place = f"tasks.{task.name}.filters"
    if task.response_schema is not None:
        common = [*common, make_filter("schema", {}, place)]
    own = [make_filter(n, s, place) for entry in task.filters for n, s in entry.items()]
    every = [*common, *own, *([against] if against else [])]
    return sorted(every, key=lambda check: isinstance(check, ExactDuplicates))


def common_filters(config: Config) -> list[Filter]:
    entries = [item for entry in config.curate.filters for item in entry.items()]
    return [make_filter(name, settings, "curate.filters") for name, settings in entries]


def contamination_filter(config: Config) -> Filter | None:
    settings = config.curate.contamination
    items = list(evaluation_items(config)) if settings.against == "evaluation" else []
    for path in settings.files:
        source = config.tasks[0].seeds.model_validate({"path": path})
        for seed in load_seeds(source, "contamination", config.seed):
            items.append(msgspec.structs.replace(seed, id=f"{path} {seed.id}"))
    return contamination(items, settings.ngram) if items else None


def judge(row: Candidate, filters: list[Filter], stages: dict[str, Stage] | None = None) -> Verdict:
    """The first verdict that drops the row, or the last that kept it; counts into `stages`."""
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
    return verdict


def candidate(task: Task, seed: Seed, request: Request, generation: Generation) -> Candidate:
    """The training row that an answer would become, for the filters to look at."""
    recipe = recipe_named(task.recipe)
    prompt, completion = recipe.example(seed, generation, load_prompt(task.student_prompt))
    meta = {
        "task": task.name,
        "recipe": task.recipe,
        "seed_id": seed.id,
        "sample_index": request.sample_index,
        "teacher": request.model,
        "characters": sum(len(m.content) for m in completion),
    }
    example = Example(prompt, completion, task.weight, (request.id,), meta)
    return Candidate(seed, request, generation, example)
