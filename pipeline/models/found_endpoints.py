"""Endpoints that come and go while a job runs: the servers of a run, as their files tell of them.

A server is asked from the moment its file says `ready`. It is left when its file is gone or says
otherwise, or when its beats have stopped and it does not answer a health check either; what was in
flight there is asked elsewhere. With none left, the job waits for another one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from pipeline import stopping
from pipeline.errors import RunFatal, Stopped
from pipeline.models.endpoints import Endpoint
from pipeline.models.http_errors import public_url
from pipeline.models.limits import Window
from pipeline.models.served import (
    ServerState,
    ServerStatus,
    Sightings,
    reachable,
    say_none,
    servers,
)

LOOK_SECONDS = 2.0  # between two looks at the files
WAITING_LOOK_SECONDS = 0.5  # the same, while there is no server
SAY_SECONDS = 30.0  # between two words about waiting

log = logging.getLogger(__name__)


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Which servers: those of a run that answer for a model."""

    run: Path
    model: str  # its identity
    wait_seconds: float


class Asking(Protocol):
    """The part of a `Flow` that endpoints are changed under."""

    def widen(self, concurrency: int) -> None: ...


class FoundEndpoints:
    """`endpoints` is the list that a `Flow` chooses from; `watch` changes it in place."""

    def __init__(
        self, served: Served, concurrency: int, healthy: Callable[[str], Awaitable[bool]]
    ) -> None:
        self.endpoints: list[Endpoint] = []
        self._served = served
        self._concurrency = concurrency  # requests in flight at each
        self._healthy = healthy
        self._by_url: dict[str, Endpoint] = {}
        self._sightings = Sightings()
        self._waiting_since = self._said = time.monotonic()
        self._said_once = False

    async def watch(self, flow: Asking) -> None:
        """Until cancelled. Raises `Stopped` when no server came in time, or at a stop signal.

        `RunFatal` when none came and all that there were had failed for good.
        """
        self._waiting_since = time.monotonic()
        while True:
            known = servers(self._served.run, self._served.model)
            if await self._update(known):
                flow.widen(self._concurrency * max(1, len(self.endpoints)))
            if self.endpoints:
                self._waiting_since = time.monotonic()
                self._said_once = False
                await asyncio.sleep(LOOK_SECONDS)
            else:
                self._wait_or_stop(known)
                await asyncio.sleep(WAITING_LOOK_SECONDS)

    async def _update(self, known: list[ServerStatus]) -> bool:
        """Take up and leave what has come and gone; whether anything has."""
        now = time.monotonic()
        alive = {s.start: self._sightings.alive(s, now) for s in known}
        ready = {
            s.url: alive[s.start] for s in known if s.state is ServerState.READY and reachable(s)
        }
        changed = False
        for url, endpoint in list(self._by_url.items()):
            if ready.get(url) or (url in ready and await self._healthy(url)):
                continue
            why = "its beats have stopped, and it does not answer" if url in ready else "it ended"
            log.warning("%s is no longer asked: %s", endpoint.name, why)
            del self._by_url[url]
            self.endpoints.remove(endpoint)
            endpoint.leave()
            changed = True
        for url, lives in ready.items():
            if lives and url not in self._by_url:
                window = Window(self._concurrency)
                endpoint = Endpoint(f"{url}/chat/completions", public_url(url), window)
                self._by_url[url] = endpoint
                self.endpoints.append(endpoint)
                changed = True
        return changed

    def _wait_or_stop(self, known: list[ServerStatus]) -> None:
        stopping.raise_if_requested()
        now, served = time.monotonic(), self._served
        waited = now - self._waiting_since
        if waited > served.wait_seconds:
            # A scheduler would start this again, to wait for what nobody starts again.
            hopeless = known and all(s.state is ServerState.FAILED for s in known)
            ending = RunFatal if hopeless else Stopped
            raise ending(
                f"no server of {served.model} was ready within {waited / 60:.3g} minutes "
                f"({say_none(known)}); start one with `distill serve CONFIG`, or let `distill run` "
                "do that (serving.serve.servers), and run the same command again"
            )
        if not self._said_once or now - self._said > SAY_SECONDS:
            self._said, self._said_once = now, True
            log.warning(
                "waiting for a server of %s (%s); `distill serve CONFIG` keeps one",
                served.model,
                say_none(known),
            )
