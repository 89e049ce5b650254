"""TERM, INT, USR1 and USR2 all mean: start nothing new, store what is in flight, exit 75."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from pipeline.errors import RUN_AGAIN, Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
# torchrun hands a TERM on that its children got as well: the second one is the same wish.
SAME_TERM_SECONDS = 3.0
_received: list[int] = []
_first = 0.0
_work: list[Callable[[], None]] = []


def install() -> None:
    """Catch the signals in this process; a second INT, or a later TERM, ends it at once."""
    for number in SIGNALS:
        signal.signal(number, _note)


def _note(number: int, _frame: FrameType | None) -> None:
    global _first
    now = time.monotonic()
    again = number == signal.SIGINT or (
        number == signal.SIGTERM and now - _first > SAME_TERM_SECONDS
    )
    if _received and again:
        end_now()
    _first = _first or now
    _received.append(number)


def before_the_end(work: Callable[[], None]) -> None:
    """Have this done when the process is ended where it stands."""
    _work.append(work)


def end_now() -> NoReturn:
    """Exit 75 where the process stands: what is in flight is lost, what is stored is stored."""
    for work in _work:
        with suppress(OSError):
            work()
    os._exit(RUN_AGAIN)


def request() -> None:
    """Stop as a TERM would make it: the process has no business with its work any more."""
    _received.append(signal.SIGTERM)


def requested() -> bool:
    return bool(_received)


def raise_if_requested() -> None:
    if _received:
        name = signal.Signals(_received[0]).name
        raise Stopped(f"stopped by {name}; run the same command again to go on")
