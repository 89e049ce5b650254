"""Several workers on one endpoint: how much faster four shards are than one process.

    python bench/workers.py                    # 9,000 rows: some 3 minutes
    python bench/workers.py --rows 1200 --workers 2

The endpoint takes `--latency` seconds an answer and a worker keeps `--concurrency` requests in
flight, so one worker is limited by the endpoint's answers and not by a core. Said are the seconds
of each, from the start of the processes to the end of the last one, their ratio, what gathering
takes, and how many requests were sent twice.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import harness
from kills import make_project


def start(folder: Path, words: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "generate", "config.yaml", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(harness.HERE.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=harness.off_core_0,
    )


def seconds_of(folder: Path, all_words: Sequence[Sequence[str]]) -> float:
    """Of processes that start together, until the last has ended."""
    begin = time.monotonic()
    processes = [start(folder, words) for words in all_words]
    for process in processes:
        said, _ = process.communicate()
        if process.returncode:
            sys.exit(f"exit code {process.returncode}:\n{said}")
    return time.monotonic() - begin


def measured(rows: int, workers: int, latency: float, concurrency: int) -> tuple[float, float, int]:
    """(seconds of asking, of gathering, requests that were sent twice)."""
    with tempfile.TemporaryDirectory() as name, harness.server(latency=latency) as port:
        folder = Path(name)
        make_project(folder, port, rows, set(), concurrency)
        words = [["--shard", f"{i + 1}/{workers}"] for i in range(workers)] if workers > 1 else [[]]
        asking = seconds_of(folder, words)
        gathering = seconds_of(folder, [["--gather"]]) if workers > 1 else 0.0
        seen = harness.stats(port)
    if seen["distinct"] != rows:
        sys.exit(f"{seen['distinct']} of {rows} rows were asked")
    return asking, gathering, int(seen["requests"]) - rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=9000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.4)
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    rows, latency, concurrency = options.rows, options.latency, options.concurrency
    alone, _, _ = measured(rows, 1, latency, concurrency)
    shards, gathering, twice = measured(rows, options.workers, latency, concurrency)
    harness.table(["workers", "seconds", "rows/s", "times one worker", "gathering, seconds"])
    harness.line([1, f"{alone:.1f}", f"{rows / alone:.0f}", "1.00", ""])
    ratio = f"{alone / shards:.2f}"
    row = [options.workers, f"{shards:.1f}", f"{rows / shards:.0f}", ratio, f"{gathering:.1f}"]
    harness.line(row)
    print(f"ratio {ratio}; {twice} requests were sent twice")


if __name__ == "__main__":
    main()
