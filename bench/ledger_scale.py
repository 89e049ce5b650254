"""Memory of a long run and the start after it: engine and ledger, 10 k to 1 M rows.

    python bench/ledger_scale.py                              # some 3 minutes, 2.7 GB of disk
    python bench/ledger_scale.py --engine 10000 100000 1000000          # some 8 minutes, 5.4 GB

`engine` is what `generate` does for a row: ask() over the HTTP engine against the server of
this folder, 256 at a time, answers of 2 KB, every row durable. `ledger` appends the same rows
without asking anybody. `restart` opens what a finished run left and goes through all its known
requests until the first new one is asked: without the index file (the first start after the run)
and with it. Each line is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import harness

HEAD = ["what", "rows", "seconds", "rows/s", "MB before", "peak MB"]
RECENT = 50_000  # ids that are kept in a dictionary before they go to the arrays


class Known:
    """A model that is asked one new row and notes when."""

    identity = harness.MODEL

    def __init__(self) -> None:
        self.asked_at = 0.0

    def generate(self, requests: Iterable[Any]) -> Iterator[Any]:
        from pipeline.records import Finish, Generation

        for request in requests:
            self.asked_at = self.asked_at or time.time()
            yield Generation(request.id, "", Finish.STOP)

    def close(self) -> None:
        pass


def ask_rows(model: Any, folder: Path, rows: int) -> None:
    from pipeline.config import Budget, Price
    from pipeline.ledger import Ledger
    from pipeline.models.ask import Spending, ask
    from pipeline.progress import Progress

    with open(os.devnull, "w") as nowhere, Ledger(folder, harness.MODEL) as ledger:
        progress = Progress("rows", rows, stream=nowhere)
        requests = harness.requests(0, rows)
        ask(lambda: model, requests, ledger, progress, Spending(Budget()), Price())


def run_engine(options: argparse.Namespace) -> None:
    from pipeline.models.openai_api import OpenAIModel, Serving

    url = f"http://127.0.0.1:{options.port}/v1"
    serving = Serving(base_url=(url,), concurrency=options.concurrency)
    model = OpenAIModel(harness.MODEL, revision=None, serving=serving)
    ask_rows(model, options.folder, options.rows)
    model.close()


def run_ledger(options: argparse.Namespace) -> None:
    from pipeline.ledger import Ledger
    from pipeline.records import Finish, Generation, Usage

    with Ledger(options.folder, harness.MODEL) as ledger:
        for request in harness.requests(0, options.rows):
            text = (request.id * 64)[:2048]
            ledger.append(request, Generation(request.id, text, Finish.STOP, Usage(64, 512)))


def run_restart(options: argparse.Namespace) -> None:
    model = Known()
    # One row more than there are, at the end: the worst place for the first new one. It gets a
    # new question each time, so that the next restart has one too.
    ask_rows(model, options.folder, options.rows + 1)
    options.first_asked = model.asked_at


def child(options: argparse.Namespace) -> None:
    import pipeline.ledger
    import pipeline.models.ask
    import pipeline.models.openai_api  # noqa: F401  (imports are no part of what grows)

    before, _ = harness.memory()
    begin = time.time()
    {"engine": run_engine, "ledger": run_ledger, "restart": run_restart}[options.role](options)
    end = getattr(options, "first_asked", 0.0) or time.time()
    _, peak = harness.memory()
    since = options.started if options.role == "restart" else begin
    print(json.dumps([end - since, before, peak]))


def measure(role: str, rows: int, folder: Path, *more: str) -> float:
    """Run one child, print its line; its peak MB."""
    command = [sys.executable, __file__, "--role", role, "--rows", str(rows)]
    name = role + (" (index file)" if role == "restart" and list(folder.rglob("*.idx")) else "")
    command += ["--folder", str(folder), "--started", str(time.time()), *more]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=harness.off_core_0)
    if done.returncode:
        sys.exit(done.stderr)
    seconds, before, peak = json.loads(done.stdout)
    numbers = [f"{rows:,}", f"{seconds:.1f}", f"{rows / seconds:,.0f}"]
    harness.line([name, *numbers, f"{before:.0f}", f"{peak:.0f}"])
    return float(peak)


def growth(sizes: dict[int, float]) -> None:
    """Print what the peak grows by a million rows, from the smallest run of merged ids on."""
    large = [rows for rows in sizes if rows > RECENT]
    if len(large) < 2:
        return
    few, many = min(large), max(large)
    grown = (sizes[many] - sizes[few]) / (many - few) * 1e6
    print(
        f"growth of the peak from {few:,} to {many:,} rows: {grown:.0f} MB a million rows, "
        f"{grown - 16:.0f} beyond 16 bytes an id"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--engine", type=int, nargs="*", default=[10_000, 100_000], metavar="ROWS")
    parser.add_argument(
        "--ledger", type=int, nargs="*", default=[100_000, 1_000_000], metavar="ROWS"
    )
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument(
        "--work", type=Path, help="where the ledgers go (default: a temporary folder)"
    )
    for name, kind in (("--role", str), ("--rows", int), ("--port", int), ("--folder", Path)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.role:
        child(options)
        return
    harness.table(HEAD)
    for role, counts in (("engine", options.engine), ("ledger", options.ledger)):
        sizes: dict[int, float] = {}
        for rows in sorted(counts):
            with tempfile.TemporaryDirectory(dir=options.work) as name:
                folder = Path(name)
                if role == "engine":
                    with harness.server(latency=0.05) as port:
                        more = ("--port", str(port), "--concurrency", str(options.concurrency))
                        sizes[rows] = measure(role, rows, folder, *more)
                else:
                    sizes[rows] = measure(role, rows, folder)
                if rows == max(counts):
                    for extra in range(2):
                        measure("restart", rows + extra, folder)
        if sizes:
            growth(sizes)


if __name__ == "__main__":
    main()
