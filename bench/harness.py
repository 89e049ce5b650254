"""What the measurements share: the server, its counts, rows to ask for, memory of a process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

if TYPE_CHECKING:
    from pipeline.records import Request

MODEL = "bench"
QUESTION = "question {} " + "x" * 300


@contextlib.contextmanager
def server(**options: float | str) -> Iterator[int]:
    """`bench_server.py` on a free port, on core 0 where there are several; yields the port."""
    command = [sys.executable, str(HERE / "bench_server.py")]
    if several_cores():
        command += ["--core", "0"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def stats(port: int) -> dict[str, Any]:
    """What the server was asked so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def several_cores() -> bool:
    return len(os.sched_getaffinity(0)) > 1


def off_core_0() -> None:
    """For `preexec_fn` of a client: leave core 0 to the server."""
    if several_cores():
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {0})


def requests(first: int, end: int) -> Iterator[Request]:
    """Rows of one user message of 310 letters, as the engine is asked for them."""
    from pipeline.records import Message, PromptRef, Request, Sampling, request_id

    sampling, prompt = Sampling(), PromptRef("bench", "0")
    for i in range(first, end):
        messages = (Message("user", QUESTION.format(i)),)
        key = request_id(MODEL, messages, sampling, 0)
        yield Request(key, str(i), "bench", prompt, messages, sampling, 0, MODEL)


def memory() -> tuple[float, float]:
    """(resident, peak) MB."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if line
    )
    resident = int(fields["VmRSS"].split()[0])
    peak = int(fields["VmHWM"].split()[0])
    return resident / 1024, peak / 1024


def table(head: list[str]) -> None:
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head), flush=True)


def line(cells: list[object]) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)
