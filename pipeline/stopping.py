"""TERM, INT, USR1 and USR2 all mean: start nothing new, store what is in flight, exit 75."""

from __future__ import annotations

import os
import signal
from types import FrameType

from pipeline.errors import RUN_AGAIN, Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_received: list[int] = []


def install() -> None:
    """Catch the signals in this process; a second TERM or INT ends it at once."""
    for number in SIGNALS:
        signal.signal(number, _note)


def _note(number: int, _frame: FrameType | None) -> None:
    if _received and number in (signal.SIGTERM, signal.SIGINT):
        os._exit(RUN_AGAIN)
    _received.append(number)


def requested() -> bool:
    return bool(_received)


def raise_if_requested() -> None:
    if _received:
        name = signal.Signals(_received[0]).name
        raise Stopped(f"stopped by {name}; run the same command again to go on")
