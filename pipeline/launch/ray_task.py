"""What a Ray worker does: start a command as a process of its own and give back its exit code."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
END_SECONDS = 20.0


def run_command(words: Sequence[str], folder: str, log: str) -> int:
    """`words` follow this node's Python; output goes to the end of `log`.

    A cancelled task (Ray interrupts the worker) hands a TERM on, so that the command stores what
    has arrived; so does the death of the worker.
    """
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"DISTILL_LOG": log},
            preexec_fn=_die_with_parent,
        )
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
