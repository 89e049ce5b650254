"""How a process of ours and what it has started end together."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def with_parent(number: signal.Signals) -> Callable[[], None]:
    """For `preexec_fn`: the child gets this signal when its parent dies, however (on Linux).

    KILL where nothing may go on unseen; TERM where the child has something to store or to end.
    """

    def ask() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)

    return ask


def kill_marked(mark: str) -> None:
    """Kill all of our processes here with `mark`, a VARIABLE=value, in their environment (Linux).

    That finds also what a child has left behind that got its parent's signal and handed none on.
    """
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # of another user, or just ended
            if mark.encode() in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)


def wait_or_kill(process: subprocess.Popen[bytes], seconds: float) -> None:
    """For a process that was told to end."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
