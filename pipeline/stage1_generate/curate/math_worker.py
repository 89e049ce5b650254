"""The process that reads answers with math-verify; nothing it does can hurt the run.

    python -P -m pipeline.stage1_generate.curate.math_worker    one JSON line in, one out

math-verify hands strings of strangers to SymPy, which may compute for years, take all memory or
recurse until the process dies. So every row is read in a fork of this process: with a limit of CPU
time and memory, behind the sandbox's walls where the kernel has them. This process itself never
looks at a row; when its fork is gone it makes the next, in milliseconds, for SymPy is loaded.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import resource
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

WALL_FACTOR = 10  # by the clock a row may take so many times its CPU time, on a busy machine

_PRICE = re.compile(r"\\\$\s?(?=[\d.])")  # "\$12", which math-verify cannot read

Reader = Callable[[str, str], dict[str, str]]  # (answer, reference) -> {"outcome": ..., ...}


def main() -> None:
    try:
        read = _load()
    except Exception as error:
        _say({"failed": f"{type(error).__name__}: {error}"[:300]})
        return
    gc.freeze()
    _say({"ready": True})
    fork: _Fork | None = None
    for line in sys.stdin.buffer:
        order = json.loads(line)
        if fork is None:
            fork = _Fork(read, order["memory_mb"])
        reply = fork.ask(line, WALL_FACTOR * order["seconds"])
        if reply is None:
            _say({"outcome": fork.ended()})
            fork = None
        else:
            sys.stdout.buffer.write(reply)
            sys.stdout.buffer.flush()


def _load() -> Reader:
    """math-verify, with the grammars it builds at its first use."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # it would print answers

    def parsed(text: str) -> list[Any]:
        found: list[Any] = parse(_PRICE.sub("", text), parsing_timeout=None)
        return found

    @lru_cache(maxsize=256)
    def references(text: str) -> tuple[Any, ...]:
        """The reference read as LaTeX and as plain text: "1,234" is a pair or a number."""
        marked = text if "$" in text or "\\boxed" in text else f"${text}$"
        return (*parsed(marked), *parsed(text))

    def read(answer: str, reference: str) -> dict[str, str]:
        wanted = references(reference)
        if not wanted:
            return {"outcome": "no reference"}
        found = parsed(answer)
        if not found:
            return {"outcome": "no answer"}
        failed = ""
        for target in found:
            for gold in wanted:
                try:
                    if verify([gold], [target], timeout_seconds=None, raise_on_error=True):
                        return {"outcome": "right"}
                except Exception as error:  # SymPy raises many kinds; the next pair may be equal
                    failed = type(error).__name__
        return {"outcome": "failed", "error": failed} if failed else {"outcome": "wrong"}

    assert read("The answer is $\\frac{1}{2}$.", "0.5") == {"outcome": "right"}
    return read


class _Fork:
    """A copy of this process that reads rows until one of them ends it."""

    def __init__(self, read: Reader, memory_mb: int) -> None:
        in_reads, self._in = os.pipe()
        self._out, out_writes = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._in)
                os.close(self._out)
                _serve(read, in_reads, out_writes, memory_mb)
            finally:
                os._exit(0)
        os.close(in_reads)
        os.close(out_writes)
        self._timed_out = False

    def ask(self, line: bytes, seconds: float) -> bytes | None:
        """The reply, or None where the fork died or took too long."""
        rest = line
        try:
            while rest:
                rest = rest[os.write(self._in, rest) :]
        except BrokenPipeError:
            return None
        ready, _, _ = select.select([self._out], [], [], seconds)
        self._timed_out = not ready
        reply = os.read(self._out, 65536) if ready else b""
        return reply if reply.endswith(b"\n") else None

    def ended(self) -> str:
        """Why it gave no reply; the fork is gone then."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL if self._timed_out else 0)
        _, status = os.waitpid(self._pid, 0)
        os.close(self._in)
        os.close(self._out)
        out_of_time = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF
        return "timed out" if self._timed_out or out_of_time else "died"


def _serve(read: Reader, source: int, replies: int, memory_mb: int) -> None:
    from pipeline.sandbox import confine
    from pipeline.sandbox.syscalls import program

    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    confine.die_with_parent()
    for what, most in (
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    with suppress(OSError):  # an old kernel: math-verify runs no code of answers by design
        confine.wall_in(
            program(), [*confine.library_folders(), *filter(os.path.isdir, sys.path)], None
        )
    with os.fdopen(source, "rb") as rows:
        for line in rows:
            order = json.loads(line)
            # The kernel ends the process itself: no handler of Python's runs inside a long sum.
            signal.setitimer(signal.ITIMER_PROF, order["seconds"])
            try:
                told = read(order["answer"], order["reference"])
            except MemoryError:
                told = {"outcome": "out of memory"}
            except Exception as error:
                told = {"outcome": "failed", "error": type(error).__name__}
            signal.setitimer(signal.ITIMER_PROF, 0)
            os.write(replies, json.dumps(told).encode() + b"\n")


def _say(reply: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
