"""One `generate` call: a fixed set of workers between the requests and the answers.

There is no task per row. Each worker takes a row (one whose wait is over, else the next of the
iterator), asks an endpoint, hands the answer over and loops. Rows that wait for a retry hold no
worker and no slot. An answer holds its slot until the caller has dealt with it and comes back for
the next: what a kill makes us ask again is what was in flight or not stored yet, together never
more than the window. A worker that may not send parks; whoever makes room wakes one, which wakes
the next while there is room.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

import msgspec

from pipeline.errors import RunFatal
from pipeline.models.endpoints import Endpoint, choose, lost
from pipeline.models.http_errors import Failure, Fate
from pipeline.models.limits import Ceilings, backoff
from pipeline.models.parking import Parking
from pipeline.records import ErrorKind, Finish, Generation, Request

REFUSALS_PER_RETRY = 4  # a 429 is the usual way to be slowed down, not a fault of the row
RECENT_ROWS = 200  # the share of errors is judged on so many rows, and not on fewer than a quarter
PUMP_ROWS = 4  # answers that the caller deals with before the loop may send for their slots
GRACE_SECONDS = 10.0  # for answers in flight (they are paid for) when the run must end

Ask = Callable[[Request, Endpoint, int], Awaitable[Generation | Failure]]


class _Row(msgspec.Struct):
    request: Request
    attempts: int = 0
    failures: int = 0
    refusals: int = 0
    endpoint: Endpoint | None = None


class Flow:
    """The state of one `generate` call."""

    def __init__(
        self,
        requests: Iterable[Request | None],
        ask: Ask,
        endpoints: Sequence[Endpoint],
        *,
        concurrency: int,
        max_retries: int,
        max_error_share: float,
        ceilings: Ceilings,
        counters: Counter[str],
        watch: Callable[[Flow], Awaitable[None]] | None = None,
    ) -> None:
        """`watch` runs beside the workers, and may change `endpoints` and then `widen`."""
        self._ready: list[Generation] = []
        self._failed: BaseException | None = None  # ends the call after `ready` was taken
        self._feed: Iterator[Request | None] = iter(requests)
        self._ask = ask
        self._endpoints = endpoints
        self._concurrency = concurrency
        self._max_retries = max_retries
        self._max_error_share = max_error_share
        self._ceilings = ceilings
        self._counters = counters
        self._recent: deque[bool] = deque(maxlen=RECENT_ROWS)
        self._exhausted = False
        self._starved = False  # the feed said None: nothing to ask until answers are read
        self._waiting: list[tuple[float, int, _Row]] = []
        self._sequence = 0
        self._in_flight = 0
        self._taken = 0  # answers that the caller took and has not dealt with yet
        self._workers: list[asyncio.Task[None]] = []
        self._watch = watch
        self._watcher: list[asyncio.Task[None]] = []
        self._alive = 0
        self._closing = False

    def run(self, loop: asyncio.AbstractEventLoop) -> Iterator[Generation]:
        """Yield the answers. The loop runs only while the caller waits for the next one."""
        self._start(loop)
        try:
            while batch := self._wait():
                self._taken = len(batch)
                for generation in batch:
                    yield generation
                    self._taken -= 1
                    self._parking.wake()  # its slot is free
                    if self._taken % PUMP_ROWS == 1:
                        self._pump()
                self._read()
        finally:
            self._stop()
        if self._failed is not None:
            raise self._failed

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parking = Parking(loop)
        self.widen(self._concurrency)
        if self._watch is not None:
            self._watcher = [loop.create_task(self._watched(self._watch))]

    def widen(self, concurrency: int) -> None:
        """So many requests in flight from now on, at most; fewer than before is fine."""
        self._concurrency = concurrency
        for _ in range(concurrency - len(self._workers)):
            self._workers.append(self._loop.create_task(self._work()))
            self._alive += 1
        self._parking.wake()

    async def _watched(self, watch: Callable[[Flow], Awaitable[None]]) -> None:
        try:
            await watch(self)
        except Exception as error:
            self._end(error)

    def _wait(self) -> list[Generation]:
        """Run the loop until there are answers or nothing is left; return and forget them."""
        while not self._ready and self._alive:
            if self._starved and not self._in_flight and not self._waiting:
                self._starved = False  # the caller has read everything: ask the feed again
                self._parking.wake()
                self._loop.call_soon(self._end_if_still_starved)
            self._loop.run_forever()
        ready, self._ready = self._ready, []
        return ready

    def _pump(self) -> None:
        """Let the loop catch up for an instant while the caller is busy with the answers."""
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()

    def _read(self) -> None:
        """The caller has dealt with what it took: a starved feed may know more now."""
        self._starved = False
        self._parking.wake()

    def _stop(self) -> None:
        """Cancel what still runs; nothing is left behind on the loop."""
        self._parking.close()
        self._closing = True
        tasks = [*self._workers, *self._watcher]
        for task in tasks:
            task.cancel()
        while not all(task.done() for task in tasks):
            self._loop.call_later(0.001, self._loop.stop)
            self._loop.run_forever()

    def _halt(self) -> None:
        if not self._closing:
            self._loop.stop()

    def _end_if_still_starved(self) -> None:
        if self._starved and not self._in_flight:
            self._exhausted = True
            self._parking.wake()

    async def _work(self) -> None:
        try:
            while True:
                now = self._loop.time()
                step = self._next(now)
                if step is None:
                    if self._exhausted and not self._waiting:
                        return
                    await self._parking.wait()
                    continue
                self._parking.wake()
                await self._one(*step)
        except Exception as error:  # a defect of ours: end the call with it, not in silence
            self._end(error)
        finally:
            self._alive -= 1
            self._parking.wake()
            if not self._alive:
                self._halt()

    def _next(self, now: float) -> tuple[_Row, Endpoint] | None:
        """A row and an endpoint that may be asked now, or None with the alarm set."""
        if self._in_flight + len(self._ready) + self._taken >= self._concurrency:
            return None  # whoever reads the answers wakes us
        waiting = self._waiting
        due = bool(waiting) and waiting[0][0] <= now
        if not due and (
            self._exhausted or self._starved or len(waiting) >= max(256, 4 * self._concurrency)
        ):
            self._parking.set_alarm(waiting[0][0] if waiting else math.inf)
            return None
        if (at := self._ceilings.ready_at(now)) > now:
            self._parking.set_alarm(at)
            return None
        row = waiting[0][2] if due else None
        endpoint, at = choose(self._endpoints, now, row.endpoint if row else None)
        if endpoint is None:
            self._parking.set_alarm(at)
            return None
        if row is not None:
            heapq.heappop(waiting)
        else:
            request = self._pull()
            if request is None:
                self._parking.set_alarm(waiting[0][0] if waiting else math.inf)
                return None
            row = _Row(request)
        return row, endpoint

    def _pull(self) -> Request | None:
        try:
            request = next(self._feed)
        except StopIteration:
            self._exhausted = True
            return None
        except BaseException as error:  # the caller's own; raised again once all is handed over
            self._end(error)
            return None
        if request is None:
            self._starved = True
            if not self._in_flight:
                self._halt()
        return request

    async def _one(self, row: _Row, endpoint: Endpoint) -> None:
        loop = self._loop
        started = loop.time()
        row.attempts += 1
        row.endpoint = endpoint
        endpoint.window.sent(started)
        cost = self._ceilings.charge(row.request, started)
        self._in_flight += 1
        try:
            outcome = await self._ask(row.request, endpoint, row.attempts)
        except asyncio.CancelledError:
            endpoint.window.left()
            raise
        finally:
            self._in_flight -= 1
        now = loop.time()
        self._counters["requests"] += 1
        if isinstance(outcome, Failure):
            endpoint.failed(now, outcome)
            self._counters[outcome.kind] += 1
            self._handle(row, outcome, now)
            return
        endpoint.answered(now, now - started)
        self._ceilings.correct(cost, outcome.usage)
        self._emit(outcome)

    def _handle(self, row: _Row, failure: Failure, now: float) -> None:
        """Retry later, give the row up, or end the run."""
        fate = failure.fate
        if fate is Fate.ROW:
            return self._give_up(row, failure, ErrorKind.FINAL)
        if fate is Fate.RUN:
            self._end(RunFatal(failure.message))
        if message := lost(self._endpoints, now):
            self._end(RunFatal(message))
        if self._failed is not None:
            return  # not the row's doing: the next run asks it
        if fate is Fate.BUSY:
            row.refusals += 1
        elif fate is not Fate.UNREACHABLE:
            row.failures += 1
        if (
            row.failures > self._max_retries
            or row.refusals > REFUSALS_PER_RETRY * self._max_retries
        ):
            return self._give_up(row, failure, ErrorKind.TRANSIENT)
        tries = row.failures + min(row.refusals, 6)
        self._sequence += 1
        due = now + backoff(tries, failure.retry_after)
        heapq.heappush(self._waiting, (due, self._sequence, row))

    def _give_up(self, row: _Row, failure: Failure, kind: ErrorKind) -> None:
        self._emit(
            Generation(
                request_id=row.request.id,
                text="",
                finish=Finish.ERROR,
                error=failure.message,
                error_kind=kind,
                attempts=row.attempts,
            )
        )

    def _emit(self, generation: Generation) -> None:
        self._ready.append(generation)
        error = generation.finish is Finish.ERROR
        self._recent.append(error)
        if error and self._failed is None and len(self._recent) >= RECENT_ROWS // 4:
            self._check_share(generation)
        if len(self._ready) == 1:
            self._loop.call_soon(self._halt)  # after all that came in this turn of the loop

    def _check_share(self, last: Generation) -> None:
        """End the run when the share of failed rows says that something is broken."""
        errors, rows = sum(self._recent), len(self._recent)
        if errors > self._max_error_share * rows:
            self._end(
                RunFatal(
                    f"{errors} of the last {rows} rows failed (max_error_share is "
                    f"{self._max_error_share:g}); the last one: {last.error}"
                )
            )

    def _end(self, error: BaseException) -> None:
        """Start nothing new; answers in flight get a little time, for they are paid for."""
        if self._failed is None:
            self._failed = error
            if isinstance(error, RunFatal):
                self._loop.call_later(GRACE_SECONDS, self._cut_off)
        self._exhausted = True
        self._waiting.clear()
        self._parking.wake_all()

    def _cut_off(self) -> None:
        for task in self._workers:
            task.cancel()
