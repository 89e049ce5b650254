"""Exact and near duplicates: speed, memory, and what is found, beside rensa and datasketch.

    python bench/duplicates.py --work /tmp/duplicates      # installs the rivals there; 20 minutes
    python bench/duplicates.py --only exact near --rows 20000 --exact-rows 100000

Every job runs on one core, in a process of its own, in turn with the others; medians of the rounds.
Seconds are those of the processor (user and system), so that other work on the machine does not
count, and of the job alone: rows are made or read before it (see duplicate_clients.py). In the
rows of `near` every hundred holds 5 copies of Jaccard about 0.9 to an earlier row of the same
hundred, and 5 of about 0.6, measured exactly on sets of 5-word shingles; recall is over the first,
false drops over all other rows. datasketch gets a share of the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import harness

CLIENT = harness.HERE / "duplicate_clients.py"
PACKAGES = {"rensa": ["rensa"], "datasketch": ["datasketch", "xxhash"]}
SHARE = {"datasketch": 0.1}
BLOCK, COPIES = 100, 5
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Trouble(Exception):
    """Why a job has no figure, in a few words."""


def install(name: str, work: Path) -> str:
    folder = work / "environments" / name
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        print(f"installing {name}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES[name]]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if ended.returncode:
            raise Trouble("not installed: " + (ended.stderr.strip().splitlines() or ["?"])[-1])
        done.touch()
    code = f"import importlib.metadata as m; print('{name}', m.version('{name}'))"
    print(subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip())
    return str(python)


def write_near(path: Path, rows: int) -> tuple[set[int], set[int]]:
    """Rows of 2 KB; the numbers of those that are about 0.9 and 0.6 like an earlier one."""
    source = random.Random(4)
    words = ["".join(source.choices(LETTERS, k=source.randint(2, 9))) for _ in range(30_000)]
    weights = [0.0]
    for rank in range(1, len(words)):
        weights.append(weights[-1] + 1 / (rank + 3))  # few words are frequent, as in any text
    near, cousins = set[int](), set[int]()
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            place = number % BLOCK
            if place == 0:
                block: list[list[str]] = []
            if place < BLOCK - 2 * COPIES:
                text: list[str] = []
                while sum(map(len, text)) + len(text) < 2000:
                    text += source.choices(words[1:], cum_weights=weights[1:], k=20)
                block.append(text)
            else:
                close = place < BLOCK - COPIES
                (near if close else cousins).add(number)
                original = block[place - (BLOCK - 2 * COPIES)]
                text = changed(original, 0.9 if close else 0.6, source, words)
            file.write(json.dumps(" ".join(text)) + "\n")
    return near, cousins


def changed(text: list[str], wanted: float, source: random.Random, words: list[str]) -> list[str]:
    """Words replaced one after the other until no more than `wanted` of the shingles are common."""
    found, before = list(text), sets(text)
    while True:
        found[source.randrange(len(found))] = source.choice(words)
        after = sets(found)
        if len(before & after) <= (wanted + 0.01) * len(before | after):
            return found


def sets(text: list[str]) -> set[tuple[str, ...]]:
    return set(zip(*(text[k:] for k in range(5)), strict=False))


def write_exact(path: Path, rows: int) -> set[int]:
    """Rows of 1 KB, one in ten of them there before; the numbers of those."""
    source = random.Random(5)
    body = "".join(source.choices(LETTERS + "      ", k=2000))
    again = set[int]()
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            seen = number % 10 == 9
            again |= {number} if seen else set()
            unique = number - 5 if seen else number
            start = unique % 990
            file.write(json.dumps(f"{unique:08d} {body[start : start + 990]}") + "\n")
    return again


def run(python: str, job: str, *more: object, timeout: float) -> Any:
    command = [python, str(CLIENT), job, *map(str, more)]
    core = str(max(os.sched_getaffinity(0)))
    done = subprocess.run(
        ["taskset", "-c", core, *command],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"PYTHONPATH": str(harness.HERE.parent), "RAYON_NUM_THREADS": "1"},
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("MEASURED ")]
    if not found:
        raise Trouble((done.stderr.strip().splitlines() or ["it said nothing"])[-1][:160])
    return json.loads(found[-1].removeprefix("MEASURED "))


def rounds(jobs: dict[str, tuple[str, int]], options: argparse.Namespace, file: Path) -> Any:
    """By job: (rows, seconds, dropped) of every round; jobs that fail say why and are left out."""
    found: dict[str, list[Any]] = {name: [] for name in jobs}
    for _ in range(options.rounds):
        for name, (python, rows) in jobs.items():
            more = ["--file", file, "--rows", rows, "--ngram", options.ngram]
            try:
                found[name].append(run(python, name, *more, timeout=options.timeout))
            except (Trouble, subprocess.TimeoutExpired) as error:
                print(f"{name}: {error}")
    return {name: runs for name, runs in found.items() if runs}


def exact(options: argparse.Namespace, work: Path) -> None:
    file = work / "exact.jsonl"
    again = write_exact(file, options.exact_rows)
    rows = options.exact_rows
    jobs = {"exact": (sys.executable, rows), "python_set": (sys.executable, rows)}
    print(f"\nexact duplicates, {rows:,} rows of 1 KB, one core")
    harness.table(["job", "rows/CPU s", "us/row", "found", "wrong", "rounds"])
    for name, runs in rounds(jobs, options, file).items():
        rate = statistics.median(count / seconds for count, seconds, _ in runs)
        dropped = set(runs[-1][2])
        found = f"{len(dropped & again)} of {len(again)}"
        wrong = len(dropped - again)
        harness.line([name, f"{rate:,.0f}", f"{1e6 / rate:.2f}", found, wrong, len(runs)])
    file.unlink()


def near(options: argparse.Namespace, work: Path) -> None:
    file = work / "near.jsonl"
    copies, cousins = write_near(file, options.rows)
    jobs = {"ours": (sys.executable, options.rows)}
    for name in options.rivals:
        try:
            share = int(options.rows * SHARE.get(name, 1.0)) // BLOCK * BLOCK
            jobs[name] = (install(name, work), max(share, BLOCK))
        except (Trouble, subprocess.TimeoutExpired) as error:
            print(f"{name}: {error}")
    print(
        f"\nnear duplicates, rows of 2 KB, {options.ngram}-word shingles, threshold 0.8, one core"
    )
    head = "job; rows; rows/CPU s; ours to it; recall at 0.9; dropped at 0.6; of others; rounds"
    harness.table(head.split("; "))
    measured = rounds(jobs, options, file)
    rates = {n: statistics.median(c / s for c, s, _ in runs) for n, runs in measured.items()}
    for name, runs in measured.items():
        rows, _, last = runs[-1]
        dropped = set(last)
        inside = {number for number in copies if number < rows}
        recall = len(dropped & inside) / len(inside)
        ratio = f"{rates['ours'] / rates[name]:.2f}" if "ours" in rates else ""
        wrong = [len(dropped & cousins), len(dropped - copies - cousins)]
        harness.line([name, rows, f"{rates[name]:,.0f}", ratio, f"{recall:.4f}", *wrong, len(runs)])
    file.unlink()


def memory(options: argparse.Namespace, work: Path) -> None:
    print(
        f"\nmemory, {options.memory_rows:,} short rows, much alike (rows/CPU s: with making them)"
    )
    harness.table(
        ["filter", "bytes a row held", "at the peak, with mapped files", "on disk", "rows/CPU s"]
    )
    for name in ("exact_duplicates", "near_duplicates"):
        more = ["--filter", name, "--rows", options.memory_rows]
        found = run(sys.executable, "memory", *more, timeout=options.timeout)
        shown = [f"{found[key]:,.0f}" for key in ("held", "peak", "disk", "rate")]
        harness.line([name, *shown])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="where all goes (default: a temporary folder)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rivals", nargs="*", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--exact-rows", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--memory-rows", type=int, default=5_000_000)
    parser.add_argument("--ngram", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one job")
    return parser.parse_args()


PARTS = {"exact": exact, "near": near, "memory": memory}


def main() -> None:
    options = parse()
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, ",
        end="",
    )
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for name in options.only:
            PARTS[name](options, work)


if __name__ == "__main__":
    main()
