"""`distill plan`: what would be asked, what is paid for, tokens, cost and time.

Asks nothing, unless `--pilot N` lets it ask N requests of each task: these are rows of the run like
any others, and the estimate for the rest is made from them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from pipeline import stopping
from pipeline.commands import printable
from pipeline.config import Budget, Config, Task
from pipeline.errors import DONE, DriftError, UserError
from pipeline.flow import all_steps, checked_config
from pipeline.ledger import Ledger, LedgerRow
from pipeline.models import model_identity, open_model
from pipeline.models.ask import Spending, ask, cost_of
from pipeline.models.batch_records import open_parts
from pipeline.progress import Progress
from pipeline.records import Answer, Extraction, Finish, Request, Seed, Usage
from pipeline.stage1_generate.generate import requests_of
from pipeline.stage1_generate.task_seeds import seeds_of, stored_seeds
from pipeline.stage1_generate.used import RUNS
from pipeline.stage3_evaluate.evaluate import questions_of
from pipeline.stage3_evaluate.metrics import primary_items
from pipeline.stage3_evaluate.questions import Question
from pipeline.stage3_evaluate.statistics import smallest_detectable
from pipeline.steps import State, state

SAMPLE = 200  # stored answers read to estimate the new ones
DIFFERING = (0.1, 0.5)  # shares of items on which before and after may differ
CHARACTERS_PER_TOKEN = 4  # of a prompt nothing like which was asked yet


class Estimate(msgspec.Struct):
    """What a task would still buy. Intervals are 95 % of a bootstrap over the rows asked so far."""

    requests: int = 0
    new: int = 0
    asked: int = 0  # rows the estimate is made from; 0: from the limits alone
    input: tuple[float, float, float] = (0.0, 0.0, 0.0)  # tokens: low, expected, high
    output: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seconds: float | None = None  # at the concurrency of the config
    first: list[Request] = []  # of the first seeds, to be shown


def plan(path: Path, overrides: Sequence[str], prompts: int, pilot: int = 0) -> int:
    stopping.install()
    config = checked_config(path, overrides)
    print(f"run: {config.run_dir}\n")
    pairs = [(task, name) for task in config.tasks for name in config.teachers_of(task)]
    if pilot:
        for task, teacher in pairs:
            _ask_pilot(config, task, teacher, pilot)
    costs, usage = [0.0, 0.0, 0.0], Usage()
    shown = max(1, prompts // len(config.tasks))
    firsts: dict[str, list[Request]] = {}
    for task, teacher in pairs:
        found = _estimate(config, task, teacher, shown)
        firsts.setdefault(task.name, found.first)
        _print_task(config, task, teacher, found)
        price = config.all_teachers[teacher].price
        for i in range(3):
            costs[i] += cost_of(Usage(round(found.input[i]), round(found.output[i])), price)
        usage = Usage(usage.input + round(found.input[1]), usage.output + round(found.output[1]))
    _add_evaluation(config, costs)
    _print_detectable(config)
    if costs[2]:
        print(f"\ncost: {costs[1]:.4f} USD ({costs[0]:.4f} to {costs[2]:.4f})")
    print(f"tokens: about {usage.input:,} in, {usage.output:,} out\n")
    _print_steps(config)
    for task in config.tasks[:prompts]:
        _print_prompts(firsts[task.name])
    return DONE


def _all(config: Config, task: Task, teacher: str) -> tuple[Ledger, Iterator[Request]]:
    ledger = Ledger(RUNS, model_identity(config.all_teachers[teacher]))
    return ledger, requests_of(config, task, teacher, ledger, partial(_seeds, config))


def _seeds(config: Config, task: Task) -> Iterator[Seed]:
    """A task's seeds; those that another task's answers hold, as far as a run has come."""
    if task.seeds.from_task is None:
        return seeds_of(config, task)
    if not (config.run_dir / "0_seeds.jsonl").is_file():
        return iter(())
    return (seed for _, seed in stored_seeds(config, task))


def _ask_pilot(config: Config, task: Task, name: str, pilot: int) -> None:
    """Ask rows drawn from the whole task: the first ones of a file are seldom like the rest."""
    teacher = config.all_teachers[name]
    ledger, requests = _all(config, task, name)
    if out := open_parts(ledger.folder):
        raise UserError(
            f"{len(out)} batches of {ledger.model} are open at the provider, and a pilot could buy "
            "their rows again; plan without --pilot, or run first, which collects them"
        )
    chosen: list[Request] = []
    rng = random.Random(config.seed)
    missing = (r for r in requests if not ledger.answered(r.id))
    for number, request in enumerate(missing):  # reservoir sampling: any length, N in memory
        if number < pilot:
            chosen.append(request)
        elif (place := rng.randrange(number + 1)) < pilot:
            chosen[place] = request
    if not chosen:
        return
    progress = Progress(f"pilot of {task.name}", len(chosen))
    with Ledger(RUNS, ledger.model) as store:
        try:
            ask(
                lambda: open_model(teacher, name, online=True, run=config.run_dir),
                chosen,
                store,
                progress,
                Spending(Budget()),
                teacher.price,
            )
        finally:
            progress.close()


def _estimate(config: Config, task: Task, name: str, shown: int) -> Estimate:
    teacher = config.all_teachers[name]
    ledger, requests = _all(config, task, name)
    found = Estimate()
    known: list[LedgerRow] = []
    characters = 0
    for request in requests:
        found.requests += 1
        if request.sample_index == 0 and len(found.first) < shown:
            found.first.append(request)
        if not ledger.answered(request.id):
            found.new += 1
            characters += sum(len(m.content) for m in request.messages)
        elif len(known) < SAMPLE and (row := ledger.get(request.id)):
            known.append(row)
    found.asked = len(known)
    limit = config.sampling_of(task, name).max_tokens
    if len(known) < 2:  # nothing to go by: an answer may take anything up to the limit
        tokens = characters / CHARACTERS_PER_TOKEN
        found.input = (tokens, tokens, tokens)
        found.output = (0.0, found.new * limit / 2, float(found.new * limit))
        return found
    per_character = np.array([_prompt_tokens_per_character(row) for row in known])
    found.input = _scaled(per_character, characters)
    found.output = _scaled(np.array([row.generation.usage.output for row in known]), found.new)
    seconds = float(np.mean([row.generation.seconds for row in known]))
    found.seconds = found.new * seconds / teacher.serving.endpoint_concurrency
    return found


def _prompt_tokens_per_character(row: LedgerRow) -> float:
    return row.generation.usage.input / max(1, sum(len(m.content) for m in row.request.messages))


def _scaled(values: np.ndarray, by: float) -> tuple[float, float, float]:
    """`by` times the mean, with its bootstrap interval: (low, expected, high)."""
    rng = np.random.default_rng(0)
    draws = rng.choice(values, (2000, len(values))).mean(axis=1) * by
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(values.mean() * by), float(high)


def _add_evaluation(config: Config, costs: list[float]) -> None:
    """The teacher answers the evaluation's items too."""
    if "teacher" not in config.evaluate.arms:
        return
    teacher = config.teacher_of(config.evaluate.teacher)
    ledger = Ledger(RUNS, model_identity(teacher))
    requests = [q.request(ledger.model) for q in questions_of(config, "teacher")]
    missing = [r for r in requests if not ledger.answered(r.id)]
    print(
        f"evaluation: {len(requests):,} requests to the teacher "
        f"({len(requests) - len(missing):,} in the ledger, {len(missing):,} new)"
    )
    characters = sum(len(m.content) for r in missing for m in r.messages)
    tokens, most = characters / CHARACTERS_PER_TOKEN, sum(r.sampling.max_tokens for r in missing)
    for i, share in enumerate((0.0, 0.5, 1.0)):
        costs[i] += cost_of(Usage(round(tokens), round(share * most)), teacher.price)
    if missing:
        print(f"  tokens to buy: about {tokens + most / 2:,.0f} (at most {tokens + most:,.0f})")


def _print_detectable(config: Config) -> None:
    """What the evaluation can show at all, before anything is spent on it."""
    asked = [_unanswered(question) for question in questions_of(config, "before")]
    for ability in config.evaluate.abilities:
        for metric, items in primary_items(ability, asked).items():
            few, many = (smallest_detectable(len(items), share) for share in DIFFERING)
            if few is None or many is None:
                shows = "too few to show any change"
            else:
                shows = (
                    f"a change of {100 * few:.0f} to {100 * many:.0f} points is found 4 times in 5"
                )
            print(f"evaluation, {ability}: {len(items):,} items of {metric}; {shows}")


def _unanswered(question: Question) -> Answer:
    return Answer(
        model="",
        ability=question.ability,
        variant=question.variant,
        item_id=question.item.id,
        text="",
        finish=Finish.STOP,
        extraction=Extraction.NO_ANSWER,
        extracted=None,
        correct=0.0,
    )


def _print_task(config: Config, task: Task, teacher: str, found: Estimate) -> None:
    if not found.requests and task.seeds.from_task is not None:
        print(
            f"task {task.name}: recipe {task.recipe}; its seeds come from the answers of task "
            f"{task.seeds.from_task}, so its requests are known, and counted here, once these are "
            "there (`budget` bounds what a run spends)"
        )
        return
    least = "at least " if task.accept else ""
    by = f" to {teacher}" if task.teachers else ""
    print(
        f"task {task.name}{by}: recipe {task.recipe}, {least}{found.requests:,} requests "
        f"({found.requests - found.new:,} in the ledger, {found.new:,} new)"
    )
    if not found.new:
        return
    low, expected, high = (a + b for a, b in zip(found.input, found.output, strict=True))
    base = f"from {found.asked} rows" if found.asked > 1 else "from max_tokens; --pilot asks some"
    print(f"  tokens to buy: about {expected:,.0f} ({low:,.0f} to {high:,.0f}; {base})")
    if found.seconds is not None:
        print(f"  time: about {time.strftime('%H:%M:%S', time.gmtime(found.seconds))}")


def _print_steps(config: Config) -> None:
    for step in all_steps(config):
        try:
            now = state(step)
        except DriftError as error:
            print(f"step {step.name}: settings moved\n{error}")
            return
        print(f"step {step.name}: {now.value}")
        if now is State.TO_DO:
            print("(and what follows it)")
            return


def _print_prompts(requests: list[Request]) -> None:
    for request in requests:
        print(f"\n--- what the teacher is asked ({request.recipe}, {request.prompt.name}) ---")
        for message in request.messages:
            print(f"[{message.role}] {printable(message.content, 1200)}")
