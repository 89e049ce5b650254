"""Several workers on one endpoint: how much faster four shards are than one process.

    python bench/workers.py                    # 18,000 rows: some 5 minutes
    python bench/workers.py --rows 1200 --workers 2

The endpoint takes `--latency` seconds an answer and a worker keeps `--concurrency` requests in
flight, so one worker is limited by the endpoint's answers and not by a core. Said are the seconds
of each, from the start of the processes to the end of the last one, and those in which the
endpoint was asked, the ratios of the rows/s in both, what gathering takes, and how many requests
were sent twice.
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


def measured(
    rows: int, workers: int, latency: float, concurrency: int
) -> tuple[float, float, float, int]:
    """(seconds of the processes, of asking, of gathering, requests that were sent twice)."""
    with tempfile.TemporaryDirectory() as name, harness.server(latency=latency) as port:
        folder = Path(name)
        make_project(folder, port, rows, set(), concurrency)
        words = [["--shard", f"{i + 1}/{workers}"] for i in range(workers)] if workers > 1 else [[]]
        seconds = seconds_of(folder, words)
        gathering = seconds_of(folder, [["--gather"]]) if workers > 1 else 0.0
        seen = harness.stats(port)
    if seen["distinct"] != rows:
        sys.exit(f"{seen['distinct']} of {rows} rows were asked")
    return seconds, float(seen["seconds"]), gathering, int(seen["requests"]) - rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=18_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.4)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--alone", type=int, help="rows of the one process; as many as --rows")
    options = parser.parse_args()
    rows, alone = options.rows, options.alone or options.rows
    rest = options.latency, options.concurrency
    seconds_1, asked_1, _, _ = measured(alone, 1, *rest)
    seconds, asked, gathering, twice = measured(rows, options.workers, *rest)
    ratio = f"{rows / seconds / (alone / seconds_1):.2f}"
    head = ["workers", "seconds", "rows/s", "times one worker", "asking, seconds"]
    harness.table([*head, "gathering, seconds"])
    harness.line([1, f"{seconds_1:.1f}", f"{alone / seconds_1:.0f}", "1.00", f"{asked_1:.1f}", ""])
    row = [options.workers, f"{seconds:.1f}", f"{rows / seconds:.0f}", ratio, f"{asked:.1f}"]
    harness.line([*row, f"{gathering:.1f}"])
    of_asking = rows / asked / (alone / asked_1)
    print(f"ratio {ratio}, of asking {of_asking:.2f}; {twice} requests were sent twice")


if __name__ == "__main__":
    main()
