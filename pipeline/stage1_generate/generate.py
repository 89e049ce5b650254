"""Step `generate`: seeds -> requests -> the teacher's answers, in the ledger.

Writes 0_seeds.jsonl and, last, 1_generations.jsonl (which ledger rows this run uses).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config, Task, Teacher
from pipeline.errors import Stopped, UserError
from pipeline.ledger import Ledger
from pipeline.models import grade_of, model_identity, open_model
from pipeline.models.ask import Spending, ask, cost_of
from pipeline.progress import Progress
from pipeline.prompts import load_prompt
from pipeline.records import (
    ErrorKind,
    Finish,
    Grade,
    Request,
    Seed,
    Usage,
    request_id,
    write_jsonl,
)
from pipeline.stage1_generate.recipes import recipe_named
from pipeline.stage1_generate.seeds import load_seeds
from pipeline.steps import Step, StepResult

RUNS = Path("runs")


class UsedRow(msgspec.Struct, frozen=True):
    """A line of 1_generations.jsonl."""

    request_id: str
    seed_id: str
    task: str
    sample_index: int
    model: str  # the ledger that holds the answer
    finish: Finish


def step(config: Config) -> Step:
    tasks = [
        {
            "recipe": task.recipe,
            "seeds": task.seeds.model_dump(mode="json", exclude_none=True),
            "teacher": task.teacher,
            "teacher_prompt": load_prompt(task.teacher_prompt).ref.hash,
            "samples": task.samples,
            "sampling": task.sampling,
            "options": task.options,
        }
        for task in config.tasks
    ]
    teachers = {
        name: {"model": model_identity(t), "sampling": t.sampling}
        for name, t in config.all_teachers.items()
    }
    run = config.run_dir
    return Step(
        name="generate",
        run=run,
        settings={
            "seed": config.seed,
            "teachers": teachers,
            "tasks": {t.name: s for t, s in zip(config.tasks, tasks, strict=True)},
        },
        inputs=[Path(t.seeds.path) for t in config.tasks if t.seeds.path],
        outputs=[run / "0_seeds.jsonl", run / "1_generations.jsonl"],
        work=lambda: generate(config),
    )


def check_tasks(config: Config) -> None:
    """Everything about the tasks that can be wrong before anything is asked."""
    order = list(Grade)
    for task in config.tasks:
        place = f"tasks.{task.name}"
        recipe = recipe_named(task.recipe)
        has = grade_of(config.teacher_of(task.teacher))
        if order.index(recipe.GRADE) > order.index(has):
            raise UserError(
                f"{place}: recipe {task.recipe} needs a teacher of grade {recipe.GRADE}, and the "
                f"backend {config.teacher_of(task.teacher).backend} gives {has} "
                "(docs/teachers.md lists what each backend returns)"
            )
        for prompt in (task.teacher_prompt, task.student_prompt):
            load_prompt(prompt)


def seeds_of(config: Config, task: Task) -> list[Seed]:
    """A task's seeds, prepared by its recipe."""
    seeds = load_seeds(task.seeds, task.name, config.seed)
    prepare: Any = getattr(recipe_named(task.recipe), "prepare", None)
    if not task.options:
        return seeds
    if prepare is None:
        raise UserError(f"tasks.{task.name}.options: recipe {task.recipe} has no options")
    try:
        prepared: list[Seed] = prepare(seeds, **task.options)
    except TypeError as error:
        raise UserError(f"tasks.{task.name}.options: {error}") from None
    return prepared


def requests_of(config: Config, task: Task, seeds: list[Seed], model: str) -> Iterator[Request]:
    """Every request of a task, in a fixed order: seed by seed, sample by sample."""
    asking = load_prompt(task.teacher_prompt)
    sampling = config.sampling_of(task)
    recipe = recipe_named(task.recipe)
    for seed in seeds:
        messages = recipe.requests(seed, asking)
        for index in range(task.samples):
            yield Request(
                id=request_id(model, messages, sampling, index),
                seed_id=seed.id,
                recipe=task.recipe,
                prompt=asking.ref,
                messages=messages,
                sampling=sampling,
                sample_index=index,
                model=model,
            )


def generate(config: Config) -> StepResult:
    """Ask what is missing; return counts, tokens and cost of all rows this run uses."""
    seeds = {task.name: seeds_of(config, task) for task in config.tasks}
    write_jsonl(config.run_dir / "0_seeds.jsonl", (s for rows in seeds.values() for s in rows))
    spending = Spending(config.budget)
    used: list[UsedRow] = []
    usage, cost, new = Usage(), 0.0, 0
    for name, teacher in config.all_teachers.items():
        tasks = [t for t in config.tasks if config.teacher_of(t.teacher) is teacher]
        asked, rows = _ask_teacher(config, name, teacher, tasks, seeds, spending)
        new += asked
        for row, spent in rows:
            used.append(row)
            usage = Usage(usage.input + spent.input, usage.output + spent.output)
            cost += cost_of(spent, teacher.price)
    failed = [row.request_id for row in used if row.finish is Finish.ERROR]
    write_jsonl(config.run_dir / "1_generations.jsonl", used)
    return StepResult(
        counts={
            "seeds": sum(len(rows) for rows in seeds.values()),
            "requests": len(used),
            "new": new,
            "errors": len(failed),
        },
        tokens=usage,
        cost_usd=round(cost, 6),
        notes={"failed_requests": failed[:100]} if failed else {},
    )


def _ask_teacher(
    config: Config,
    name: str,
    teacher: Teacher,
    tasks: list[Task],
    seeds: dict[str, list[Seed]],
    spending: Spending,
) -> tuple[int, list[tuple[UsedRow, Usage]]]:
    """(how many requests were new, every row with its token use) of one teacher."""
    model = model_identity(teacher)

    def planned() -> Iterator[tuple[Task, Request]]:
        for task in tasks:
            for request in requests_of(config, task, seeds[task.name], model):
                yield task, request

    total = sum(len(seeds[t.name]) * t.samples for t in tasks)
    with Ledger(RUNS, model) as ledger:
        if ledger.torn:
            print(f"{ledger.folder}: {ledger.torn} half-written rows of a stopped run cut off")
        if any(not ledger.answered(request.id) for _, request in planned()):
            progress = Progress(f"asking {name}", total, seconds=config.execution.progress_seconds)
            opened = open_model(teacher, name)
            try:
                ask(opened, (r for _, r in planned()), ledger, progress, spending, teacher.price)
            finally:
                progress.close()
                opened.close()
            new = progress.rows
        else:
            new = 0
        rows = [_used(task, request, ledger) for task, request in planned()]
    _stop_if_unfinished([row for row, _, kind in rows if kind is ErrorKind.TRANSIENT])
    return new, [(row, usage) for row, usage, _ in rows]


def _used(task: Task, request: Request, ledger: Ledger) -> tuple[UsedRow, Usage, ErrorKind | None]:
    row = ledger.get(request.id)
    assert row is not None, request.id
    got = row.generation
    used = UsedRow(
        request.id, request.seed_id, task.name, request.sample_index, request.model, got.finish
    )
    return used, got.usage, got.error_kind


def _stop_if_unfinished(transient: list[UsedRow]) -> None:
    if transient:
        for row in transient[:10]:
            print(f"  failed: {row.request_id} (seed {row.seed_id})", file=sys.stderr)
        raise Stopped(
            f"{len(transient)} requests failed for now (retries ran out); all other answers are "
            "stored. Run the same command again to ask only these"
        )
