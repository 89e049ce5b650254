"""Ask a model what the ledger does not have yet, and store every answer as it arrives."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import msgspec

from pipeline import stopping
from pipeline.config import Budget, Price
from pipeline.errors import Stopped
from pipeline.ledger import Ledger
from pipeline.models import Model
from pipeline.progress import Progress
from pipeline.records import Generation, Request, Usage


def cost_of(usage: Usage, price: Price) -> float:
    """USD."""
    return (usage.input * price.input + usage.output * price.output) / 1e6


class Spending:
    """What a run has used, over all its sessions, against what it may use."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.tokens = 0
        self.usd = 0.0
        self._begin = time.monotonic()

    def add(self, usage: Usage, price: Price) -> None:
        self.tokens += usage.input + usage.output
        self.usd += cost_of(usage, price)

    def exceeded(self) -> str | None:
        """The limit that is reached, in words."""
        minutes = (time.monotonic() - self._begin) / 60
        for name, used, limit in (
            ("max_usd", self.usd, self.budget.max_usd),
            ("max_tokens", self.tokens, self.budget.max_tokens),
            ("max_minutes", minutes, self.budget.max_minutes),
        ):
            if limit is not None and used >= limit:
                return f"budget.{name} of {limit:g} is used up ({used:.4g})"
        return None

    @property
    def limited(self) -> bool:
        return self.budget.max_usd is not None or self.budget.max_tokens is not None


def ask(
    model: Model,
    requests: Iterable[Request],
    ledger: Ledger,
    progress: Progress,
    spending: Spending,
    price: Price,
) -> None:
    """Ask every request without an answer in the ledger; return when all are stored.

    Raises `Stopped` after a signal or at a budget's end, with everything in flight stored.
    """
    in_flight: dict[str, Request] = {}

    def missing() -> Iterator[Request]:
        for request in requests:
            if stopping.requested() or spending.exceeded():
                return
            if ledger.answered(request.id):
                if spending.limited and (row := ledger.get(request.id)):
                    spending.add(row.generation.usage, price)
                progress.skip()
            elif request.id not in in_flight:
                in_flight[request.id] = request
                yield request

    for generation in model.generate(missing()):
        request = in_flight.pop(generation.request_id)
        _store(request, generation, ledger)
        spending.add(generation.usage, price)
        progress.add(generation)
    ledger.flush()
    stopping.raise_if_requested()
    if limit := spending.exceeded():
        raise Stopped(
            f"{limit}; every answer is stored. Raise the budget and run the same command again"
        )


def _store(request: Request, generation: Generation, ledger: Ledger) -> None:
    if tried := ledger.attempts(request.id):
        generation = msgspec.structs.replace(generation, attempts=generation.attempts + tried)
    ledger.append(request, generation)
