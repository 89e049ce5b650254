"""Ask a model what the ledger does not have yet, and store every answer as it arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Protocol

import msgspec

from pipeline import stopping
from pipeline.config import Budget, Price
from pipeline.errors import Paused, Stopped
from pipeline.ledger import Ledger
from pipeline.models import Model
from pipeline.models.deaths import MOST_DEATHS, Begun
from pipeline.progress import Progress
from pipeline.records import ErrorKind, Finish, Generation, Request, Usage


def cost_of(usage: Usage, price: Price) -> float:
    """USD."""
    return (usage.input * price.input + usage.output * price.output) / 1e6


class Spending:
    """What a run has used, over all its steps and starts, against what it may use.

    Only minutes are counted anew at each start of a step.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.tokens = 0
        self.usd = 0.0
        self._begin = time.monotonic()

    def start_from(self, tokens: Usage, usd: float) -> None:
        """What an earlier step of the run has used."""
        self.tokens += tokens.input + tokens.output
        self.usd += usd

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


class Listener(Protocol):
    """Who wants to know of answers: it may want more because of one, or call a halt."""

    def known(self, request: Request) -> None: ...
    def answered(self, request: Request, generation: Generation) -> None: ...
    def halted(self) -> str | None: ...


def ask(
    open_it: Callable[[], Model],
    requests: Iterable[Request | None],
    ledger: Ledger,
    progress: Progress,
    spending: Spending,
    price: Price,
    listener: Listener | None = None,
) -> None:
    """Ask every request without an answer in the ledger; return when all are stored.

    The model is opened when the first such request comes, and closed at the end. Raises `Stopped`
    after a signal, at a budget's end or when the listener calls a halt, with everything in flight
    stored.
    """
    asking = _Asking(ledger, progress, spending, price, listener)
    missing = asking.missing(requests)
    # Nothing is in flight yet, so the first one cannot be None for want of an answer.
    first = next(missing, None)
    if first is not None:
        model = open_it()
        try:
            if getattr(model, "in_process", False):
                asking.ask_recording_deaths(model, chain([first], missing))
            else:
                asking.ask(model, chain([first], missing))
        finally:
            model.close()
    ledger.flush()
    stopping.raise_if_requested()
    if halt := asking.halt():
        raise Paused(halt)


class _Asking:
    """What one call of `ask` keeps between its requests and its answers."""

    def __init__(
        self,
        ledger: Ledger,
        progress: Progress,
        spending: Spending,
        price: Price,
        listener: Listener | None,
    ) -> None:
        self._ledger = ledger
        self._progress = progress
        self._spending = spending
        self._price = price
        self._listener = listener
        self._in_flight: dict[str, Request] = {}

    def missing(self, requests: Iterable[Request | None]) -> Iterator[Request | None]:
        """The requests to ask; those with an answer are told to the listener at once."""
        for request in requests:
            if stopping.requested() or self.halt():
                return
            if request is None:
                if not self._in_flight:
                    return  # it waits for an answer that failed for now: the next run's
                yield None
            elif self._ledger.answered(request.id):
                if self._spending.limited and (row := self._ledger.get(request.id)):
                    self._spending.add(row.generation.usage, self._price)
                self._progress.skip()
                if self._listener:
                    self._listener.known(request)
            elif request.id not in self._in_flight:
                self._in_flight[request.id] = request
                yield request

    def ask(self, model: Model, requests: Iterable[Request | None]) -> None:
        for generation in model.generate(requests):
            self._take(generation)

    def ask_recording_deaths(self, model: Model, requests: Iterator[Request | None]) -> None:
        """As `ask`, for a model that a row can take this process down with (see deaths.py)."""
        begun = Begun(self._ledger.folder, self._ledger.shard, self._ledger.answered)
        if begun.deaths:
            print(f"{len(begun.deaths)} rows were being worked on when a process died")
        try:
            suspects: list[Request] | None = None
            # Answers to suspects may make the demand want more: round again until there are none.
            while suspects is None or suspects:
                suspects = []
                self.ask(model, _harmless(requests, begun, suspects))
                self._ask_suspects(model, {r.id: r for r in suspects}, begun)
        except Stopped:
            begun.close()
            raise
        begun.close()

    def _ask_suspects(self, model: Model, suspects: dict[str, Request], begun: Begun) -> None:
        for request_id in suspects:
            if begun.deaths[request_id] >= MOST_DEATHS:
                self._take(_set_aside(request_id))
        for group in begun.company(list(suspects)):
            if stopping.requested() or self.halt():
                return
            self._ledger.flush()  # so that only this group is unanswered if it kills us
            for request_id in group:
                begun.begin(request_id)
            self.ask(model, [suspects[request_id] for request_id in group])
        self._ledger.flush()

    def halt(self) -> str | None:
        """Why nothing more may be asked."""
        if limit := self._spending.exceeded():
            return (
                f"{limit}; every answer is stored. Raise the budget and run the same command again"
            )
        return self._listener.halted() if self._listener else None

    def _take(self, generation: Generation) -> None:
        request = self._in_flight.pop(generation.request_id)
        if tried := self._ledger.attempts(request.id):
            attempts = generation.attempts + tried
            generation = msgspec.structs.replace(generation, attempts=attempts)
        self._ledger.append(request, generation)
        self._spending.add(generation.usage, self._price)
        self._progress.add(generation)
        if self._listener:
            self._listener.answered(request, generation)


def _harmless(
    requests: Iterator[Request | None], begun: Begun, suspects: list[Request]
) -> Iterator[Request | None]:
    """Requests that were at no death, written down as they begin; the others go to `suspects`."""
    for request in requests:
        if request is not None and begun.deaths.get(request.id):
            suspects.append(request)
            continue
        if request is None and suspects:
            return  # it may wait for one of them
        if request is not None:
            begun.begin(request.id)
        yield request


def _set_aside(request_id: str) -> Generation:
    return Generation(
        request_id,
        "",
        Finish.ERROR,
        error=f"set aside: its process died {MOST_DEATHS} times while it was worked on, the last "
        "time on it alone. To try it once more, delete deaths*.json beside the ledger's segments",
        error_kind=ErrorKind.FINAL,
    )
