"""What the tasks of a config ask each teacher, and how it is asked: whole, or one shard of it.

A shard (`distill generate CONFIG --shard 3/16`) has every 16th prompt, by the hash of its messages.
So all samples of a prompt, and its longer second tries, are in one shard: `accept: per_seed` counts
there, an engine's prefix cache is used, and two seeds with the same words ask it once. Seeds are
read from their sources and nothing but the ledger is written, by a segment of its own: shards need
nothing of each other.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from pipeline.config import Budget, Config, Task, Teacher
from pipeline.errors import Stopped, UserError
from pipeline.ledger import Ledger, ledger_folder
from pipeline.models import model_identity, open_model
from pipeline.models.ask import Spending, ask
from pipeline.models.batch_records import open_parts
from pipeline.progress import Progress
from pipeline.prompts import load_prompt
from pipeline.records import ErrorKind, Generation, Message, Request, Seed, digest, read_jsonl
from pipeline.stage1_generate.demand import Demand
from pipeline.stage1_generate.recipes import hook, recipe_identity, recipe_named
from pipeline.stage1_generate.request_ids import RequestIds
from pipeline.stage1_generate.task_seeds import (
    SeedTask,
    count_seeds,
    seeds_of,
    stored_seeds,
    waves,
)
from pipeline.stage1_generate.used import RUNS
from pipeline.stage1_generate.watch import Acceptance, Probe
from pipeline.steps import stamp_of

Watcher = Callable[[Progress], None]


class Shard(msgspec.Struct, frozen=True):
    """Part `number` (from 1) of `of`."""

    number: int
    of: int

    def holds(self, messages: tuple[Message, ...]) -> bool:
        return int(digest(messages, 16), 16) % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def shard_of(text: str) -> Shard:
    """ "3/16"; a `UserError` for anything that is no such part."""
    first, slash, last = text.partition("/")
    if slash and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= 99_999:
        return Shard(int(first), int(last))
    raise UserError(f"--shard {text}: give a part and how many there are, from 1/16 to 16/16")


def asked_settings(config: Config, task: Task) -> dict[str, Any]:
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


class Job(msgspec.Struct, frozen=True):
    """One teacher and the tasks that ask it."""

    config: Config
    name: str
    teacher: Teacher
    tasks: list[Task]
    shard: Shard | None = None

    def demand(self, ledger: Ledger, *, online: bool = False) -> Demand:
        """What is wanted; online it judges every answer, and passes over what is known."""
        whole = self.shard is None
        kept = self._request_ids(ledger.model) if online and whole else None
        reader = partial(stored_seeds, self.config) if whole else self._own_seeds
        return Demand(
            self.config,
            self.tasks,
            self.name,
            reader,
            ledger,
            judge_all=online,
            request_ids=kept,
        )

    def _own_seeds(self, task: Task, _: Any) -> Iterator[tuple[int, Seed]]:
        """The seeds whose prompt is in the shard, numbered as in the whole."""
        assert self.shard is not None
        render = hook(recipe_named(task.recipe), "requests", task.options)
        assert render is not None, task.recipe
        asking = load_prompt(task.teacher_prompt)
        for number, seed in enumerate(seeds_of(self.config, task)):
            if self.shard.holds(render(seed, asking)):
                yield number, seed

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
            [model, seeds, self.teacher.sampling, asked_settings(self.config, task)],
        )

    def expected(self) -> int:
        """Requests in all; with `accept`, the fewest there can be; of a shard, about so many."""
        if self.shard is None:
            lines = read_jsonl(self.config.run_dir / "0_seeds.jsonl", SeedTask)
            seeds = Counter(line.task for line in lines)
        else:
            every = {t.name: count_seeds(self.config, t) for t in self.tasks}
            seeds = Counter({name: round(n / self.shard.of) for name, n in every.items()})
        total = 0
        for task in self.tasks:
            if task.accept is None:
                total += seeds[task.name] * task.samples
            else:
                total += task.accept.total or seeds[task.name] * (task.accept.per_seed or 0)
        return total


def jobs_of(config: Config, tasks: list[Task], shard: Shard | None = None) -> list[Job]:
    """The teachers that some of these tasks ask, with the tasks that ask them."""
    jobs = []
    for name, teacher in config.all_teachers.items():
        theirs = [task for task in tasks if name in config.teachers_of(task)]
        if theirs:
            jobs.append(Job(config, name, teacher, theirs, shard))
    return jobs


class _Watching:
    """Listens to a teacher's answers: the demand, the acceptance, the probe, the progress line."""

    def __init__(self, job: Job, ledger: Ledger, progress: Progress) -> None:
        self._acceptance = Acceptance(job.config.budget.min_acceptance)
        self._progress = progress
        self._demand = job.demand(ledger, online=True)
        every = job.config.execution.probe_every
        # The probes of a run are one row of questions: the first shard asks them.
        hosted = job.teacher.backend == "openai" and (job.shard is None or job.shard.number == 1)
        self.failed_for_now = 0
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
        self.failed_for_now += generation.error_kind is ErrorKind.TRANSIENT
        for settled in self._demand.answered(request, generation):
            self._acceptance.add(settled)
        self._progress.judged(self._acceptance.passed, self._acceptance.seen)
        self._progress.passed_over(self._demand.passed_over)

    def halted(self) -> str | None:
        return self._acceptance.collapsed


def ask_teacher(job: Job, spending: Spending, watch: Watcher | None = None) -> tuple[int, int]:
    """Ask one teacher what is missing; how many requests were new, and failed for now."""
    part = (job.shard.number, job.shard.of) if job.shard else (0, 0)
    with Ledger(RUNS, model_identity(job.teacher), *part) as ledger:
        if ledger.torn and job.shard is None:  # beside other shards it may be one just written
            print(f"{ledger.folder}: {ledger.torn} half-written rows of a stopped run cut off")
        progress = Progress(
            f"asking {job.name}",
            job.expected(),
            seconds=job.config.execution.progress_seconds,
            price=job.teacher.price,
        )
        if watch is not None:
            watch(progress)
        watching = _Watching(job, ledger, progress)
        try:
            ask(
                lambda: open_model(job.teacher, job.name, run=job.config.run_dir),
                watching.requests(),
                ledger,
                progress,
                spending,
                job.teacher.price,
                watching,
            )
        finally:
            progress.close()
        return progress.rows, watching.failed_for_now


def left_to_the_last(config: Config) -> list[str]:
    """The tasks that no shard can ask: they hang on answers of all of them."""
    first = waves(config)[0]
    return [t.name for t in config.tasks if t not in first or (t.accept and t.accept.total)]


def ask_shard(config: Config, shard: Shard, watch: Watcher) -> None:
    """Ask a shard's requests that the ledger lacks. Raises `Stopped` where some failed for now."""
    left = left_to_the_last(config)
    tasks = [task for task in config.tasks if task.name not in left]
    if left:
        print(
            f"tasks {', '.join(left)}: what they ask hangs on the answers of all shards, so "
            "`distill generate` without --shard asks them, after the shards"
        )
    jobs = [_part(job) for job in jobs_of(config, tasks, shard)]
    spending = Spending(_share(config.budget, shard))
    failed = sum(ask_teacher(job, spending, watch)[1] for job in jobs)
    if failed:
        raise Stopped(
            f"{failed} requests failed for now (retries ran out); all other answers are stored. "
            "Run the same command again to ask only these"
        )


def _share(budget: Budget, shard: Shard) -> Budget:
    """So that the shards together keep to the budget, whenever and wherever they run."""
    usd, tokens = budget.max_usd, budget.max_tokens
    return budget.model_copy(
        update={
            "max_usd": usd and usd / shard.of,
            "max_tokens": tokens and max(1, tokens // shard.of),
        }
    )


def _part(job: Job) -> Job:
    """With a shard's part of the rates that its teacher allows."""
    serving, shard = job.teacher.serving, job.shard
    assert shard is not None
    folder = ledger_folder(RUNS, model_identity(job.teacher))
    if serving.batch is not None or open_parts(folder):
        raise UserError(
            f"teacher {job.name}: batches at a provider are made and collected by one process; "
            "type `distill generate CONFIG` without --shard"
        )
    rates = (serving.requests_per_minute, serving.tokens_per_minute)
    requests, tokens = (rate and max(1, rate // shard.of) for rate in rates)
    limited = {"requests_per_minute": requests, "tokens_per_minute": tokens}
    teacher = job.teacher.model_copy(update={"serving": serving.model_copy(update=limited)})
    return msgspec.structs.replace(job, teacher=teacher)
