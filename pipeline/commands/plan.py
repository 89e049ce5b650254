"""`distill plan`: what would be asked, what is paid for, tokens and cost; asks nothing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from pipeline.commands import printable
from pipeline.config import Config, Task
from pipeline.errors import DONE, DriftError
from pipeline.flow import all_steps, checked_config
from pipeline.ledger import Ledger
from pipeline.models import model_identity
from pipeline.models.ask import cost_of
from pipeline.records import Request, Usage
from pipeline.stage1_generate.generate import RUNS, requests_of, seeds_of
from pipeline.steps import State, state

SAMPLE = 200  # stored answers read to estimate the new ones


def plan(path: Path, overrides: Sequence[str], prompts: int) -> int:
    config = checked_config(path, overrides)
    print(f"run: {config.run_dir}\n")
    shown: list[Request] = []
    total, low, high = Usage(), 0.0, 0.0
    for task in config.tasks:
        requests, new, usage, spread = _task(config, task)
        print(
            f"task {task.name}: recipe {task.recipe}, {len(requests):,} requests "
            f"({len(requests) - new:,} in the ledger, {new:,} new), about "
            f"{usage.input + usage.output:,} tokens to buy"
        )
        price = config.teacher_of(task.teacher).price
        total = Usage(total.input + usage.input, total.output + usage.output)
        low += cost_of(Usage(usage.input, int(usage.output * (1 - spread))), price)
        high += cost_of(Usage(usage.input, int(usage.output * (1 + spread))), price)
        shown += islice(requests, max(0, prompts - len(shown)) if len(config.tasks) == 1 else 1)
    if high > 0:
        print(f"\ncost: {low:.4f} to {high:.4f} USD")
    print(f"tokens: about {total.input:,} in, {total.output:,} out\n")
    _print_steps(config)
    for request in shown[:prompts]:
        print(f"\n--- what the teacher is asked ({request.recipe}, {request.prompt.name}) ---")
        for message in request.messages:
            print(f"[{message.role}] {printable(message.content, 1200)}")
    return DONE


def _task(config: Config, task: Task) -> tuple[list[Request], int, Usage, float]:
    """(requests, how many are new, tokens the new ones will take, relative error of output)."""
    model = model_identity(config.teacher_of(task.teacher))
    requests = list(requests_of(config, task, seeds_of(config, task), model))
    ledger = Ledger(RUNS, model)
    known = [r for r in requests if ledger.answered(r.id)]
    missing = [r for r in requests if not ledger.answered(r.id)]
    rows = [row for r in known[:SAMPLE] if (row := ledger.get(r.id))]
    outputs = [row.generation.usage.output for row in rows]
    limit = config.sampling_of(task).max_tokens
    if len(outputs) >= 2:
        mean = statistics.fmean(outputs)
        # Twice the standard error of a mean of this sample.
        spread = 2 * statistics.stdev(outputs) / len(outputs) ** 0.5 / mean if mean else 0.0
    else:  # nothing asked yet: half of the limit, and everything from none to all is possible
        mean, spread = limit / 2, 1.0
    characters = sum(len(m.content) for r in missing for m in r.messages)
    tokens = Usage(characters // 4, round(mean * len(missing)))
    return requests, len(missing), tokens, spread


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
