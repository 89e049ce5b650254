"""The state of each endpoint: its window, its health, and the choice between several."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence

from pipeline.models.http_errors import Failure, Fate
from pipeline.models.limits import Window

FAILURES_TO_TAKE_OUT = 5
REFUSALS_TO_PAUSE = 8
LONGEST_PAUSE = 60.0
NEVER_REACHED_SECONDS = 60.0  # a wrong address is told soon, a lost server may come back
LOST_SECONDS = 600.0

log = logging.getLogger(__name__)


class Endpoint:
    """One base URL, or one engine.

    Taken out after failures in a row; one request at a time then proves it again.
    """

    def __init__(self, url: str, name: str, window: Window) -> None:
        self.url = url
        self.name = name  # for messages
        self.window = window
        self.proven = False  # has answered at least one row
        self.failing_since: float | None = None
        self.last_failure = ""
        self._failures = 0
        self._refusals = 0
        self._pauses = 0
        self._closed_until = -math.inf
        self.left = False
        self.calls: set[asyncio.Timeout] = set()  # in flight, where they can be called off

    def leave(self) -> None:
        """Ask it nothing more; what is in flight there ends now."""
        self.left = True
        for call in self.calls:
            call.reschedule(0.0)

    def ready_at(self, now: float) -> float:
        """`now`, a later time, or inf when only an answer can make room."""
        if self._closed_until > now:
            return self._closed_until
        if self._failures >= FAILURES_TO_TAKE_OUT and self.window.in_flight:
            return math.inf
        return self.window.ready_at(now)

    def answered(self, now: float, seconds: float) -> None:
        if self._failures >= FAILURES_TO_TAKE_OUT:
            log.warning("%s answers again", self.name)
        self.window.answered(now, seconds)
        self.proven = True
        self.failing_since = None
        self._failures = self._refusals = self._pauses = 0

    def failed(self, now: float, failure: Failure) -> None:
        """Book a failure on the window and on the endpoint's health."""
        if failure.fate is Fate.BUSY:
            self.window.refused(now)
            self._refusals += 1
            # single refusals only slow the pace; a closed door is not knocked at again at once
            if self._refusals >= REFUSALS_TO_PAUSE:
                asked = failure.retry_after if failure.retry_after is not None else 1.0
                self._closed_until = now + min(max(asked, 0.05), LONGEST_PAUSE)
                self._refusals = 0
            return
        if failure.fate is Fate.TIMEOUT:
            self.window.refused(now)
        else:
            self.window.left()
        if failure.fate in (Fate.ROW, Fate.RUN):
            return
        self.last_failure = failure.message
        if self.failing_since is None:
            self.failing_since = now
        self._failures += 1
        if self._failures >= FAILURES_TO_TAKE_OUT and self._closed_until <= now:
            pause = min(2.0**self._pauses, LONGEST_PAUSE)
            self._pauses += 1
            self._closed_until = now + pause
            log.warning("%s is out for %.0f s: %s", self.name, pause, failure.message)


def choose(
    endpoints: Sequence[Endpoint], now: float, avoid: Endpoint | None
) -> tuple[Endpoint | None, float]:
    """The least loaded endpoint that may be asked now; else None and the next time to look.

    `avoid` (where this row failed last) is taken only if no other one is free.
    """
    best: Endpoint | None = None
    best_load: tuple[bool, int] = (True, 1 << 60)
    soonest = math.inf
    for endpoint in endpoints:
        ready = endpoint.ready_at(now)
        if ready > now:
            soonest = min(soonest, ready)
            continue
        load = (endpoint is avoid, endpoint.window.in_flight)
        if load < best_load:
            best, best_load = endpoint, load
    return best, soonest


def lost(endpoints: Sequence[Endpoint], now: float) -> str | None:
    """Why the run should end: no endpoint has answered for too long. None if it should not."""
    since = [endpoint.failing_since for endpoint in endpoints]
    if not since or any(at is None for at in since):
        return None
    silent = now - max(at for at in since if at is not None)
    proven = any(endpoint.proven for endpoint in endpoints)
    if silent <= (LOST_SECONDS if proven else NEVER_REACHED_SECONDS):
        return None
    names = ", ".join(endpoint.name for endpoint in endpoints)
    return f"nothing answered for {silent:.0f} s ({names}): {endpoints[0].last_failure}"
