"""Where workers wait that may not send yet, and the one alarm that wakes the next of them."""

from __future__ import annotations

import asyncio
import math
from collections import deque


class Parking:
    """First come, first woken. One timer in all, not one a worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parked: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def wait(self) -> None:
        future = self._loop.create_future()
        self._parked.append(future)
        await future

    def wake(self) -> None:
        """Wake the worker that waited longest, if any; it wakes the next if there is room."""
        while self._parked:
            future = self._parked.popleft()
            if not future.done():
                future.set_result(None)
                return

    def wake_all(self) -> None:
        for _ in range(len(self._parked)):
            self.wake()

    def set_alarm(self, at: float) -> None:
        """Wake one worker at `at` (loop time), unless an earlier alarm is set; inf: never."""
        if at == math.inf:
            return
        if self._alarm is not None:
            if self._alarm.when() <= at:
                return
            self._alarm.cancel()
        self._alarm = self._loop.call_at(at, self._ring)

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _ring(self) -> None:
        self._alarm = None
        self.wake()
