"""A long job over HTTP: rows a second and resident memory of `distill generate`, as time passes.

    python bench/long_run.py                       # 1,000,000 rows: some 20 minutes, 3 GB of disk
    python bench/long_run.py --rows 20000 --every 2

The server of this folder on one core, the client on another, answers of 2 KB. Then the same
command once more with one new row at the end: the seconds until the server sees it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness
import kills


def memory_of(pid: int) -> tuple[float, float]:
    """(resident, peak) MB; zeros once it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0, 0.0
    found = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if "VmRSS" not in found:
        return 0.0, 0.0
    return int(found["VmRSS"].split()[0]) / 1024, int(found["VmHWM"].split()[0]) / 1024


def answered(port: int) -> int:
    return int(harness.stats(port)["statuses"].get("200", 0))


def watch(process: subprocess.Popen[str], port: int, every: float) -> float:
    """Print a line every so many seconds until the command has ended; its peak MB."""
    harness.table(["seconds", "answered", "rows/s since the line before", "resident MB", "peak MB"])
    begin = last = time.monotonic()
    before, highest = answered(port), 0.0
    while process.poll() is None:
        time.sleep(min(0.5, every))
        resident, peak = memory_of(process.pid)
        highest = max(highest, peak)
        now = time.monotonic()
        if now - last >= every and resident:
            total = answered(port)
            rate = (total - before) / (now - last)
            cells = [f"{now - begin:.0f}", f"{total:,}", f"{rate:,.0f}"]
            harness.line([*cells, f"{resident:.0f}", f"{peak:.0f}"])
            before, last = total, now
    return highest


def started(folder: Path) -> subprocess.Popen[str]:
    """As kills.start, with its words in a file: a pipe that nobody reads would fill up."""
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", "generate", "config.yaml", "--redo", "generate"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(harness.HERE.parent)},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=harness.off_core_0,
        )


def finish(process: subprocess.Popen[str], folder: Path) -> None:
    if process.wait():
        sys.exit((folder / "log").read_text()[-2000:])


def measure(options: argparse.Namespace, folder: Path, port: int) -> None:
    kills.make_project(folder, port, options.rows, set(), options.concurrency)
    begin = time.monotonic()
    process = started(folder)
    peak = watch(process, port, options.every)
    finish(process, folder)
    seconds = time.monotonic() - begin
    print(
        f"\n{options.rows:,} rows in {seconds:.0f} s with start and end "
        f"({options.rows / seconds:,.0f} rows/s); peak {peak:.0f} MB"
    )
    with (folder / "seeds.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "question": "a new question"}) + "\n")
    begin, before = time.monotonic(), harness.stats(port)["requests"]
    process = started(folder)
    while harness.stats(port)["requests"] == before and process.poll() is None:
        time.sleep(0.2)
    first, peak = time.monotonic() - begin, 0.0
    while process.poll() is None:
        peak = max(peak, memory_of(process.pid)[1])
        time.sleep(0.1)
    finish(process, folder)
    asked = harness.stats(port)["requests"] - before
    print(f"one row more: asked after {first:.1f} s, {asked} request; peak {peak:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.05, help="of the server, seconds")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two lines")
    parser.add_argument("--work", type=Path, help="folder to work in (default: a temporary one)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.work) as folder,
        harness.server(latency=options.latency) as port,
    ):
        measure(options, Path(folder), port)


if __name__ == "__main__":
    main()
