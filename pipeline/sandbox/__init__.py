"""Run a Python program that nobody trusts, in a process that can reach nothing.

    run_python(job)          one program, its output and how it ended
    require_sandbox(limits)  try to break out first; a `UserError` names what got through
    confine.py               the walls: limits, files (Landlock), system calls (seccomp)
    inside.py                what runs behind them

The program gets the standard library, an empty folder to write to and nothing else: no network, no
other file, no environment, no further processes. It is gone when `run_python` returns.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import msgspec

from pipeline.sandbox.syscalls import program

FILE_BYTES = 4 << 20  # of one file
FOLDER_BYTES = 16 << 20  # of all files together, looked at while the program runs
OUTPUT_BYTES = 1 << 20
_OUT_OF_TIME = (-signal.SIGXCPU, -signal.SIGKILL)  # nobody else kills it
_LOOK_SECONDS = 0.05  # between two looks at the folder
_SPARE_SECONDS = 2.0  # by the clock, for a program that mostly waits on a busy machine


class Limits(msgspec.Struct, frozen=True):
    """CPU seconds (by the clock: thrice as long) and MB of address space, Python's own included."""

    seconds: float = 5
    memory_mb: int = 256


class Ended(StrEnum):
    FINISHED = "finished"  # by itself; `status` says how
    TIMED_OUT = "timed out"
    PRINTED_TOO_MUCH = "printed too much"
    WROTE_TOO_MUCH = "wrote too much"


class SandboxRun(msgspec.Struct, frozen=True):
    """How a program ended: exit status (negative: a signal), what it printed, its tests' report."""

    ended: Ended
    status: int
    output: str
    errors: str
    passed: bool = False  # every test ran and held
    error: str | None = None  # the type of the exception that ended it or a test
    test: int | None = None  # the test that failed, from 0


class NoWalls(OSError):
    """This kernel or container cannot put a wall up; the message says which."""


def run_python(
    code: str, limits: Limits, tests: Sequence[str] | None = None, stdin: str = ""
) -> SandboxRun:
    """Run `code`; with `tests` (Python statements) as a module they are run in, else as a program.

    Raises `NoWalls`, and OSError where no process can be started.
    """
    token = secrets.token_hex(16)
    order = {
        "code": code,
        "calls": program().hex(),
        "tested": tests is not None,
        "cpu_seconds": max(1, round(limits.seconds)),
        "memory_bytes": limits.memory_mb << 20,
        "file_bytes": FILE_BYTES,
    }
    later = {"tests": list(tests or ()), "token": token}
    folder = tempfile.mkdtemp(prefix="sandbox-")
    try:
        # Files and not pipes: neither side can wait for the other.
        with tempfile.TemporaryFile() as job, tempfile.TemporaryFile() as given:
            job.write(json.dumps(order).encode() + b"\n" + json.dumps(later).encode() + b"\n")
            job.seek(0)
            given.write(stdin.encode(errors="replace"))
            given.seek(0)
            found = _watch(job, given, folder, limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _told(found, token)


class _Found(msgspec.Struct):
    ended: Ended = Ended.FINISHED
    status: int = 0
    output: bytes = b""
    errors: bytes = b""
    report: bytes = b""


def _watch(job: IO[bytes], given: IO[bytes], folder: str, limits: Limits) -> _Found:
    """Start the process, read what it says, end it when it goes too far."""
    reads, writes = os.pipe()
    inside = str(Path(__file__).with_name("inside.py"))
    command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", inside]
    with (
        os.fdopen(reads, "rb", buffering=0) as report,
        subprocess.Popen(
            [*command, str(job.fileno()), str(writes)],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=(job.fileno(), writes),
            env={},
            cwd=folder,
            start_new_session=True,
        ) as process,
    ):
        os.close(writes)
        assert process.stdout is not None and process.stderr is not None
        found = _Found()
        try:
            streams = {process.stdout: "output", process.stderr: "errors", report: "report"}
            deadline = time.monotonic() + 3 * limits.seconds + _SPARE_SECONDS
            _read(found, streams, folder, deadline)
        finally:
            process.kill()
        found.status = process.wait()
    if found.ended is Ended.FINISHED and found.status in _OUT_OF_TIME:
        found.ended = Ended.TIMED_OUT
    return found


def _read(found: _Found, streams: dict[Any, str], folder: str, deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        looked = time.monotonic()
        while selector.get_map():
            for key, _ in selector.select(_LOOK_SECONDS):
                name = streams[key.fileobj]
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                setattr(found, name, getattr(found, name) + piece)
                if len(getattr(found, name)) > OUTPUT_BYTES:
                    found.ended = Ended.PRINTED_TOO_MUCH
                    return
            now = time.monotonic()
            if now > deadline:
                found.ended = Ended.TIMED_OUT
                return
            if now - looked > _LOOK_SECONDS:
                looked = now
                if _overfull(folder):
                    found.ended = Ended.WROTE_TOO_MUCH
                    return


def _overfull(folder: str) -> bool:
    """Do the files in the folder, and a block for each of their names, exceed FOLDER_BYTES?"""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                total += 4096 + entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
            if total > FOLDER_BYTES:
                return True
    return False


def _told(found: _Found, token: str) -> SandboxRun:
    """What the process said; from the second line of its report on it is the word of a stranger."""
    walls, _, rest = found.report.partition(b"\n")
    errors = found.errors.decode(errors="replace")
    if walls != b"{}":
        raise NoWalls(_table(walls).get("walls") or f"it ended at once: {errors[-200:]}")
    report = _table(rest.partition(b"\n")[0])
    error, test = report.get("error"), report.get("test")
    if error is None and found.status == 1 and errors.strip():
        error = errors.strip().splitlines()[-1].partition(":")[0]
    return SandboxRun(
        found.ended,
        found.status,
        found.output.decode(errors="replace"),
        errors,
        passed=report.get("passed") == token,
        error=error[:60] if isinstance(error, str) else None,
        test=test if isinstance(test, int) else None,
    )


def _table(line: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}
