"""Step `generate`: seeds -> requests -> the teacher's answers, in the ledger.

Writes 0_seeds.jsonl and, last, 1_generations.jsonl (which ledger rows this run uses).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config, Task
from pipeline.errors import UserError
from pipeline.launch.units import UnitState, statuses
from pipeline.ledger import Ledger
from pipeline.models import grade_of, model_identity
from pipeline.models.ask import Spending
from pipeline.models.transformers_local import refuse_unsupported
from pipeline.prompts import load_prompt
from pipeline.records import (
    Finish,
    Generation,
    Grade,
    Request,
    Sampling,
    Seed,
    read_jsonl,
    write_jsonl,
)
from pipeline.stage1_generate.asking import Watcher, ask_teacher, asked_settings, jobs_of
from pipeline.stage1_generate.curate.judge import candidate
from pipeline.stage1_generate.demand import Demand
from pipeline.stage1_generate.recipes import (
    check_options,
    hook,
    recipe_named,
    teaches,
)
from pipeline.stage1_generate.tally import Missing, Tally
from pipeline.stage1_generate.task_seeds import (
    Derived,
    seeds_of,
    used_path,
    waves,
    write_seeds,
)
from pipeline.stage1_generate.used import RUNS, UsedRow
from pipeline.steps import Step, StepResult

MOST_NOTED = 1000  # failed rows that steps.jsonl names


def step(config: Config) -> Step:
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
            "tasks": {task.name: asked_settings(config, task) for task in config.tasks},
        },
        inputs=[
            *(Path(t.seeds.path) for t in config.tasks if t.seeds.path),
            *(RUNS / t.seeds.run / "0_seeds.jsonl" for t in config.tasks if t.seeds.run),
        ],
        outputs=[run / "0_seeds.jsonl", run / "1_generations.jsonl"],
        work=lambda: generate(config),
    )


def check_tasks(config: Config) -> None:
    """Everything about the tasks that can be wrong before anything is asked."""
    for task in config.tasks:
        place = f"tasks.{task.name}"
        recipe = recipe_named(task.recipe)
        check_options(recipe, task.options, place)
        if getattr(recipe, "POOL", False) and len(config.teachers_of(task)) < 2:
            raise UserError(
                f"{place}: recipe {task.recipe} needs `teachers: [NAME, NAME, ...]`, at least two "
                f"of: {', '.join(config.all_teachers)}"
            )
        for name in config.teachers_of(task):
            _check_teacher(config, task, name)
        asking = load_prompt(task.teacher_prompt)
        load_prompt(task.student_prompt)
        # A hub's dataset is not fetched for this, and what another task will make is not known.
        if task.seeds.dataset is None and task.seeds.from_task is None:
            first = next(seeds_of(config, task))
            ask_with = hook(recipe, "requests", task.options)
            assert ask_with is not None, task.recipe
            ask_with(first, asking)
            request = Request("", first.id, task.recipe, asking.ref, (), Sampling(), 0, "")
            candidate(task, first, request, Generation("", "an answer", Finish.STOP))
        _check_waiting(config, task)
    if not any(teaches(task) for task in config.tasks):
        raise UserError("no task has `train: true`, so there would be nothing to train on")


def _check_waiting(config: Config, task: Task) -> None:
    """A filter that reads another task's answers needs one that is about this task's."""
    for entry in task.filters:
        for name, settings in entry.items():
            about = [t.name for t in config.tasks if t.seeds.from_task == task.name]
            if "by" in settings and name == "judge" and settings["by"] not in about:
                raise UserError(
                    f"tasks.{task.name}.filters.{name}.by: {settings['by']!r} is no task whose "
                    f"seeds come `from: {task.name}`; these do: {', '.join(about) or 'none'}"
                )


def _check_teacher(config: Config, task: Task, name: str) -> None:
    """Can this teacher do what the task wants?"""
    place, teacher = f"tasks.{task.name}", config.all_teachers[name]
    order, recipe, has = list(Grade), recipe_named(task.recipe), grade_of(teacher)
    if order.index(recipe.GRADE) > order.index(has):
        raise UserError(
            f"{place}: recipe {task.recipe} needs a teacher of grade {recipe.GRADE}, and the "
            f"backend {teacher.backend} gives {has} "
            "(docs/teachers.md lists what each backend returns)"
        )
    if getattr(recipe, "OPEN_TURN", False) and teacher.over_http:
        raise UserError(
            f"{place}: recipe {task.recipe} lets the teacher write the user's turn, for which the "
            "prompt's template must be in our hands; a chat endpoint adds it on its own side. Use "
            "the backend vllm or transformers, or the recipe self_instruct"
        )
    if teacher.backend == "transformers":
        refuse_unsupported(config.sampling_of(task, name), task.response_schema, place)


def requests_of(
    config: Config,
    task: Task,
    teacher: str,
    ledger: Ledger,
    seeds: Callable[[Task], Iterator[Seed]],
) -> Iterator[Request]:
    """What a task asks a teacher as far as the ledger's answers lead, in order; asks nothing."""
    demand = Demand(config, [task], teacher, lambda t, _: enumerate(seeds(t)), ledger)
    for request in demand.requests():
        if request is None:
            return
        if ledger.answered(request.id):
            demand.known(request)
        yield request


def generate(config: Config, *, gather: bool = False, watch: Watcher | None = None) -> StepResult:
    """Ask what is missing; return counts, tokens and cost of all rows this run uses.

    `gather`: ask nothing; a `UserError` where something is missing.
    """
    spending = Spending(config.budget)
    tally, new = Tally(), 0
    derived: dict[str, Derived] = {}
    last = len(waves(config)) - 1
    for wave, tasks in enumerate(waves(config)):
        derived |= write_seeds(config, wave)
        # From here on seeds are read from that file: they need no place in memory.
        jobs = jobs_of(config, tasks)
        if not gather:
            new += sum(ask_teacher(job, spending, watch)[0] for job in jobs)
        rows = (row for job in jobs for row in tally.rows(job))
        earlier = (row for w in range(last) for row in read_jsonl(used_path(config, w), UsedRow))
        try:
            if wave < last:
                write_jsonl(used_path(config, wave), rows)
            else:
                write_jsonl(config.run_dir / "1_generations.jsonl", chain(earlier, rows))
        except Missing as missing:
            raise _not_all(config, *missing.args) from None
    with (config.run_dir / "0_seeds.jsonl").open("rb") as file:
        seeds = sum(1 for _ in file)
    counts = {"seeds": seeds, "requests": tally.requests, "new": new, "errors": tally.errors}
    notes: dict[str, Any] = {}
    if tally.failed:
        notes["failed_requests"] = tally.failed[:MOST_NOTED]
    if derived:
        notes["derived_seeds"] = {name: msgspec.to_builtins(d) for name, d in derived.items()}
    return StepResult(
        counts=counts | ({"accepted": tally.accepted} if tally.judged else {}),
        tokens=tally.usage,
        cost_usd=round(tally.cost, 6),
        notes=notes,
    )


def _not_all(config: Config, unanswered: int, failed: int) -> UserError:
    at_work = [s for s in statuses(config.run_dir) if s.unit.command == "generate" and s.unit.of]
    ended = [f"{s.unit.part}/{s.unit.of}" for s in at_work if s.state is not UnitState.DONE]
    return UserError(
        f"{unanswered + failed:,} requests have no answer yet"
        + (f" (shards that have not ended: {', '.join(ended)})" if ended else "")
        + f"; `distill status {config.run_dir.name}` shows every shard. Run those that are "
        "missing, or type `distill generate CONFIG` without --gather, which asks them itself"
    )
