"""Step `generate`: seeds -> requests -> the teacher's answers, in the ledger.

Writes 0_seeds.jsonl and, last, 1_generations.jsonl (which ledger rows this run uses).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config, Price, Task, Teacher
from pipeline.errors import NAMED, Stopped, UserError
from pipeline.ledger import Ledger
from pipeline.models import grade_of, model_identity, open_model
from pipeline.models.ask import Spending, ask, cost_of
from pipeline.models.transformers_local import refuse_unsupported
from pipeline.progress import Progress
from pipeline.prompts import load_prompt
from pipeline.records import (
    Decision,
    ErrorKind,
    Finish,
    Generation,
    Grade,
    Request,
    Sampling,
    Seed,
    Usage,
    Verdict,
    read_jsonl,
    write_jsonl,
)
from pipeline.stage1_generate.curate.judge import candidate
from pipeline.stage1_generate.demand import Demand
from pipeline.stage1_generate.recipes import (
    check_options,
    hook,
    recipe_identity,
    recipe_named,
    teaches,
)
from pipeline.stage1_generate.request_ids import RequestIds
from pipeline.stage1_generate.task_seeds import (
    Derived,
    SeedTask,
    seeds_of,
    stored_seeds,
    used_path,
    waves,
    write_seeds,
)
from pipeline.stage1_generate.used import RUNS, UsedRow
from pipeline.stage1_generate.watch import Acceptance, Probe
from pipeline.steps import Step, StepResult, stamp_of

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
            "tasks": {task.name: _asked_settings(config, task) for task in config.tasks},
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
    if getattr(recipe, "OPEN_TURN", False) and teacher.backend == "openai":
        raise UserError(
            f"{place}: recipe {task.recipe} lets the teacher write the user's turn, for which the "
            "prompt's template must be in our hands; a chat endpoint adds it on its own side. Use "
            "the backend vllm or transformers, or the recipe self_instruct"
        )
    if teacher.backend == "transformers":
        refuse_unsupported(config.sampling_of(task, name), task.response_schema, place)


def _asked_settings(config: Config, task: Task) -> dict[str, Any]:
    """What decides which requests a task makes, beside its seeds' content and the model."""
    return {
        "recipe": recipe_identity(task.recipe),
        "seeds": task.seeds.described(),
        "teacher": task.teacher,
        "teacher_prompt": load_prompt(task.teacher_prompt).ref.hash,
        "samples": task.samples,
        "sampling": task.sampling,
        "options": task.options,
    } | _wishes(config, task)


def _wishes(config: Config, task: Task) -> dict[str, Any]:
    """What else decides which rows are asked; absent where unused, so that old runs stay done."""
    found: dict[str, Any] = {}
    if task.longer_max_tokens is not None:
        found["longer_max_tokens"] = task.longer_max_tokens
    if task.response_schema is not None:
        found["response_schema"] = task.response_schema
    if task.teachers is not None:
        found["teachers"] = task.teachers
    judged_by = {
        "filters": [*config.curate.filters, *task.filters],
        "student_prompt": load_prompt(task.student_prompt).ref.hash,
    }
    if task.accept is not None:
        found["accept"] = task.accept.model_dump(mode="json", exclude_none=True) | judged_by
    if any(other.seeds.from_task == task.name for other in config.tasks):
        found["seeds_for_others"] = judged_by
    return found


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


def generate(config: Config) -> StepResult:
    """Ask what is missing; return counts, tokens and cost of all rows this run uses."""
    spending = Spending(config.budget)
    tally, new = Tally(), 0
    derived: dict[str, Derived] = {}
    last = len(waves(config)) - 1
    for wave, tasks in enumerate(waves(config)):
        derived |= write_seeds(config, wave)
        # From here on seeds are read from that file: they need no place in memory.
        jobs = _jobs(config, tasks)
        new += sum(_ask_teacher(job, spending) for job in jobs)
        rows = (row for job in jobs for row in tally.rows(job))
        if wave < last:
            write_jsonl(used_path(config, wave), rows)
            continue
        before = (row for w in range(last) for row in read_jsonl(used_path(config, w), UsedRow))
        write_jsonl(config.run_dir / "1_generations.jsonl", chain(before, rows))
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


class Job(msgspec.Struct, frozen=True):
    """One teacher and the tasks that ask it."""

    config: Config
    name: str
    teacher: Teacher
    tasks: list[Task]

    def demand(self, ledger: Ledger, *, online: bool = False) -> Demand:
        """What is wanted; online it judges every answer, and passes over what is known."""
        kept = self._request_ids(ledger.model) if online else None
        reader = partial(stored_seeds, self.config)
        return Demand(
            self.config,
            self.tasks,
            self.name,
            reader,
            ledger,
            judge_all=online,
            request_ids=kept,
        )

    def _request_ids(self, model: str) -> Callable[[Task], RequestIds] | None:
        budget = self.config.budget
        if budget.max_usd is not None or budget.max_tokens is not None:
            return None  # what known rows have cost is in them: they must all be read
        run = self.config.run_dir
        seeds = stamp_of(run / "0_seeds.jsonl").sha256
        names = {task.name: number for number, task in enumerate(self.config.tasks)}
        teachers = list(self.config.all_teachers)
        return lambda task: RequestIds(
            run / ".requests" / f"{names[task.name]:03d}-{teachers.index(self.name):03d}.ids",
            [model, seeds, self.teacher.sampling, _asked_settings(self.config, task)],
        )

    def expected(self) -> int:
        """Requests in all; with `accept`, the fewest there can be."""
        lines = read_jsonl(self.config.run_dir / "0_seeds.jsonl", SeedTask)
        seeds = Counter(line.task for line in lines)
        total = 0
        for task in self.tasks:
            if task.accept is None:
                total += seeds[task.name] * task.samples
            else:
                total += task.accept.total or seeds[task.name] * (task.accept.per_seed or 0)
        return total


def _jobs(config: Config, tasks: list[Task]) -> list[Job]:
    """The teachers that some of these tasks ask, with the tasks that ask them."""
    jobs = []
    for name, teacher in config.all_teachers.items():
        theirs = [task for task in tasks if name in config.teachers_of(task)]
        if theirs:
            jobs.append(Job(config, name, teacher, theirs))
    return jobs


class _Watching:
    """Listens to a teacher's answers: the demand, the acceptance, the probe, the progress line."""

    def __init__(self, job: Job, ledger: Ledger, progress: Progress) -> None:
        self._acceptance = Acceptance(job.config.budget.min_acceptance)
        self._progress = progress
        self._demand = job.demand(ledger, online=True)
        every = job.config.execution.probe_every
        hosted = job.teacher.backend == "openai"
        self._probe = Probe(every, ledger.model, ledger) if hosted and every else None

    def requests(self) -> Iterator[Request | None]:
        requests = self._demand.requests()
        return self._probe.among(requests) if self._probe else requests

    def known(self, request: Request) -> None:
        if not (self._probe and self._probe.mine(request)):
            self._demand.known(request)

    def answered(self, request: Request, generation: Generation) -> None:
        if self._probe and self._probe.mine(request):
            if warning := self._probe.answered(generation):
                print(f"warning: {warning}", file=sys.stderr, flush=True)
            return
        for settled in self._demand.answered(request, generation):
            self._acceptance.add(settled)
        self._progress.judged(self._acceptance.passed, self._acceptance.seen)
        self._progress.passed_over(self._demand.passed_over)

    def halted(self) -> str | None:
        return self._acceptance.collapsed


def _ask_teacher(job: Job, spending: Spending) -> int:
    """Ask one teacher what is missing; how many requests were new."""
    with Ledger(RUNS, model_identity(job.teacher)) as ledger:
        if ledger.torn:
            print(f"{ledger.folder}: {ledger.torn} half-written rows of a stopped run cut off")
        progress = Progress(
            f"asking {job.name}",
            job.expected(),
            seconds=job.config.execution.progress_seconds,
            price=job.teacher.price,
        )
        watching = _Watching(job, ledger, progress)
        try:
            ask(
                lambda: open_model(job.teacher, job.name),
                watching.requests(),
                ledger,
                progress,
                spending,
                job.teacher.price,
                watching,
            )
        finally:
            progress.close()
        return progress.rows


class Tally:
    """The rows a run uses, read back from the ledger, and what they came to."""

    def __init__(self) -> None:
        self.requests = self.errors = self.judged = self.accepted = 0
        self.usage = Usage()
        self.cost = 0.0
        self.failed: list[str] = []

    def rows(self, job: Job) -> Iterator[UsedRow]:
        """A teacher's rows, in the order of the requests. Raises `Stopped` where some failed."""
        transient: list[str] = []
        for settled in job.demand(Ledger(RUNS, model_identity(job.teacher))).replay():
            got, request = settled.generation, settled.request
            self._add(got, settled.verdict, job.teacher.price)
            if got.error_kind is ErrorKind.TRANSIENT:
                transient.append(f"{request.id} (seed {request.seed_id}): {got.error}")
            elif got.finish is Finish.ERROR:
                self.failed.append(f"{request.id} (seed {request.seed_id}): {got.error}")
            yield UsedRow(
                request.id,
                request.seed_id,
                settled.slot.task.name,
                request.sample_index,
                request.model,
                got.finish,
                job.name,
            )
        if transient:
            raise Stopped(
                f"{len(transient)} requests failed for now (retries ran out); all other answers "
                "are stored. Run the same command again to ask only these:\n"
                + "\n".join(f"  {line}" for line in transient[:NAMED])
            )

    def _add(self, got: Generation, verdict: Verdict | None, price: Price) -> None:
        self.requests += 1
        self.errors += got.finish is Finish.ERROR
        if verdict is not None:
            self.judged += 1
            self.accepted += verdict.decision is Decision.KEEP
        self.usage = Usage(self.usage.input + got.usage.input, self.usage.output + got.usage.output)
        self.cost += cost_of(got.usage, price)
