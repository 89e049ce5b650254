"""What a Ray worker does: start a command as a process of its own and give back its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from pipeline.launch.children import wait_or_kill, with_parent

START_SECONDS = 3.0  # of eight workers on two cores


def run_command(words: Sequence[str], folder: str, log: str, end_seconds: float) -> int:
    """`words` follow this node's Python; output goes to the end of `log`.

    `end_seconds`: from being told to stop to being killed. A cancelled task (Ray interrupts the
    worker) hands a TERM on, so that the command stores what has arrived; so does the death of the
    worker.
    """
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ
            # torchrun would kill its processes after 30 s.
            | {"DISTILL_LOG": log, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(int(end_seconds))},
            preexec_fn=with_parent(signal.SIGTERM),
        )
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            wait_or_kill(process, end_seconds)
            raise


def keep_worker() -> None:
    """So long that each of several has to get a worker of its own; the next task finds it there."""
    time.sleep(START_SECONDS)
