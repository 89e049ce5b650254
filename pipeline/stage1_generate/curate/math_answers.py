"""Is an answer the same mathematics as the reference? Asked of math-verify, in other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from contextlib import suppress
from enum import StrEnum
from typing import Any

from pipeline.errors import RunFatal

_MODULE = "pipeline.stage1_generate.curate.math_worker"
_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR")  # and no key


class MathOutcome(StrEnum):
    """What math-verify made of an answer, or what became of math-verify."""

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no answer"
    NO_REFERENCE = "no reference"
    FAILED = "failed"  # SymPy raised
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    DIED = "died"


class MathVerifier:
    """One worker process, started at the first question; see math_worker.py.

    `seconds` is CPU time and `memory_mb` address space for one answer.
    """

    def __init__(self, seconds: float = 2.0, memory_mb: int = 1024) -> None:
        self._limits = {"seconds": seconds, "memory_mb": memory_mb}
        self._process: subprocess.Popen[bytes] | None = None

    def verify(self, answer: str, reference: str) -> MathOutcome:
        """Raises `RunFatal` where the worker cannot be started (math-verify is not installed)."""
        process = self._process or self._start()
        order = {"answer": answer, "reference": reference, **self._limits}
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
            reply = _reply(process)
        except BrokenPipeError:
            reply = {}
        if "outcome" not in reply:  # somebody killed it: the next row starts another
            self._process = None
            return MathOutcome.DIED
        return MathOutcome(reply["outcome"])

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            start_new_session=True,  # Ctrl-C is for the run, which then lets go of it
        )
        first = _reply(process)
        if "ready" not in first:
            process.kill()
            process.wait()
            raise RunFatal(
                "the math verifier does not start: "
                f"{first.get('failed', 'it ended at once')}; type `pip install math-verify`"
            )
        self._process = process
        weakref.finalize(self, _end, process)
        return process


def _reply(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The worker's next line; empty where it has ended."""
    assert process.stdout is not None
    line = process.stdout.readline()
    return dict(json.loads(line)) if line.endswith(b"\n") else {}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):  # half a row, for a worker that somebody killed
                pipe.close()
