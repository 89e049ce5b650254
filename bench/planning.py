"""The arithmetic of docs/planning.md: what a run of so many rows needs.

    python bench/planning.py                                  # the table of the page
    python bench/planning.py --rows 5000000 --tokens-per-second 900 --output-tokens 600

A row is one answer of the teacher. The constants are measured by plan_scale.py and the other
programs of this folder; how fast a teacher answers is yours to give.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from dataclasses import dataclass

GB = 1e9
HOUR = 3600.0


@dataclass(frozen=True)
class Job:
    """What is asked. Tokens and bytes are means of a row."""

    rows: int
    rows_per_shard: int = 100_000
    samples: int = 4  # of a seed
    input_tokens: float = 200
    output_tokens: float = 400
    bytes_per_token: float = 4.0  # of text
    kept: float = 0.6  # of the rows
    tokens_per_second: float = 2_600  # that one GPU writes
    gpus: int = 8  # each with an engine of its own, which is one shard at a time


@dataclass(frozen=True)
class Measured:
    """2 shared cores of an AMD EPYC, local disk, 2026-11-21; docs/results.md says by what."""

    line_bytes: float = 490  # of a ledger's row beside its texts
    index_bytes: float = 24.0  # an id, on the disk and in a shard's memory
    index_peak: float = 28.0  # bytes an id, while a whole ledger is opened
    index_load: float = 1.1e-6  # seconds an id of a whole ledger, from index files
    used_bytes: float = 152  # a row of 1_generations.jsonl
    seed_line_bytes: float = 120  # a row of 0_seeds.jsonl beside its text
    seed_pass: float = 16e-6  # seconds a seed, which each shard spends on all of them
    kept_line_bytes: float = 310  # a row of 2_kept.jsonl beside its texts
    dropped_line_bytes: float = 220  # a row of 2_dropped.jsonl beside its answer
    parquet: float = 0.33  # of the same rows in 2_kept.jsonl; quickstart's texts
    gather: float = 41e-6  # seconds a row
    curate: float = 180e-6  # seconds a row, with six filters
    curate_bytes: float = 83  # of memory a row: index, places of seeds, exact_duplicates
    status_file_bytes: float = 490
    block: int = 4096  # of a filesystem: the least that a file takes


@dataclass(frozen=True)
class Plan:
    """Counts, bytes, seconds and GPU hours."""

    shards: int
    segments: int
    files: int
    status_bytes: float
    ledger_bytes: float
    index_bytes: float
    run_bytes: float  # 0_seeds, 1_generations, 2_kept and 2_dropped
    dataset_bytes: float
    input_tokens: float
    output_tokens: float
    gpu_hours: float
    asking_hours: float
    shard_hours: float
    rows_found: float  # a second: as fast as a shard can find its own among all seeds
    rows_written: float  # a second, by one GPU
    seed_pass_hours: float  # of each shard, all in all
    shard_index_bytes: float  # in memory
    whole_index_bytes: float
    whole_index_hours: float
    gather_hours: float
    curate_hours: float
    curate_memory: float


SEGMENT_BYTES = 256 * 2**20  # pipeline/ledger.py; a test compares them


def plan(job: Job, measured: Measured = Measured()) -> Plan:
    shards = max(1, math.ceil(job.rows / job.rows_per_shard))
    seeds = job.rows / job.samples
    prompt, answer = (n * job.bytes_per_token for n in (job.input_tokens, job.output_tokens))
    row_bytes = measured.line_bytes + prompt + answer
    per_shard = math.ceil(job.rows / shards * row_bytes / SEGMENT_BYTES)
    segments = shards * per_shard
    gpu_seconds = job.rows * job.output_tokens / job.tokens_per_second
    kept_row = measured.kept_line_bytes + prompt + answer
    return Plan(
        shards=shards,
        segments=segments,
        # a segment and its index file, a status file and a log of each shard; a few of the run
        files=2 * segments + 2 * shards + 40,
        status_bytes=shards * max(measured.block, measured.status_file_bytes),
        ledger_bytes=job.rows * row_bytes,
        index_bytes=job.rows * measured.index_bytes,
        run_bytes=seeds * (measured.seed_line_bytes + prompt)
        + job.rows * measured.used_bytes
        + job.rows
        * (job.kept * kept_row + (1 - job.kept) * (measured.dropped_line_bytes + answer)),
        dataset_bytes=job.rows * job.kept * kept_row * measured.parquet,
        input_tokens=job.rows * job.input_tokens,
        output_tokens=job.rows * job.output_tokens,
        gpu_hours=gpu_seconds / HOUR,
        asking_hours=gpu_seconds / job.gpus / HOUR,
        shard_hours=gpu_seconds / shards / HOUR,
        rows_found=job.samples / (shards * measured.seed_pass),
        rows_written=job.tokens_per_second / job.output_tokens,
        seed_pass_hours=seeds * measured.seed_pass / HOUR,
        shard_index_bytes=job.rows / shards * measured.index_bytes,
        whole_index_bytes=job.rows * measured.index_peak,
        whole_index_hours=job.rows * measured.index_load / HOUR,
        gather_hours=job.rows * measured.gather / HOUR,
        curate_hours=job.rows * measured.curate / HOUR,
        curate_memory=job.rows * measured.curate_bytes,
    )


JOBS = (
    Job(1_000_000, rows_per_shard=62_500),
    Job(100_000_000, gpus=64),
    Job(1_000_000_000, gpus=512),
)


def lines(jobs: tuple[Job, ...] = JOBS) -> list[str]:
    """The page's table."""
    plans = [plan(job) for job in jobs]
    rows: list[tuple[str, list[str]]] = [
        ("shards", [f"{p.shards:,}" for p in plans]),
        ("ledger segments, of at most 256 MiB", [f"{p.segments:,}" for p in plans]),
        ("files (inodes)", [f"{p.files:,}" for p in plans]),
        ("status files, on the disk", [_bytes(p.status_bytes) for p in plans]),
        ("ledger", [_bytes(p.ledger_bytes) for p in plans]),
        ("its index files", [_bytes(p.index_bytes) for p in plans]),
        ("files of the run beside it", [_bytes(p.run_bytes) for p in plans]),
        ("dataset (Parquet)", [_bytes(p.dataset_bytes) for p in plans]),
        ("tokens in", [_count(p.input_tokens) for p in plans]),
        ("tokens out", [_count(p.output_tokens) for p in plans]),
        ("GPU hours", [_count(p.gpu_hours) for p in plans]),
        ("GPUs, as an example", [f"{job.gpus}" for job in jobs]),
        ("asking, wall-clock", [_hours(p.asking_hours) for p in plans]),
        ("one shard", [_hours(p.shard_hours) for p in plans]),
        ("its pass over all seeds", [_hours(p.seed_pass_hours) for p in plans]),
        ("rows/s it can find so", [_count(p.rows_found) for p in plans]),
        ("rows/s that one GPU writes", [_count(p.rows_written) for p in plans]),
        ("index in a shard's memory", [_bytes(p.shard_index_bytes) for p in plans]),
        ("index of all, in memory", [_bytes(p.whole_index_bytes) for p in plans]),
        ("to open it", [_hours(p.whole_index_hours) for p in plans]),
        ("gather, one process with that index", [_hours(p.gather_hours) for p in plans]),
        ("curate, one process", [_hours(p.curate_hours) for p in plans]),
        ("its memory", [_bytes(p.curate_memory) for p in plans]),
    ]
    head = ["", *(f"{job.rows:,} rows" for job in jobs)]
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return table + [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows]


def _bytes(n: float) -> str:
    return _count(n) + ("B" if n >= 1e3 else " B")


def _count(n: float) -> str:
    for size, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if n >= size:
            return f"{n / size:.3g}{name}"
    return f"{n:.3g}"


def _hours(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * HOUR:.1f} s"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:,.1f} h" if hours < 100 else f"{hours / 24:,.0f} days"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for field in dataclasses.fields(Job):
        kind = int if field.name in ("rows", "rows_per_shard", "samples", "gpus") else float
        parser.add_argument("--" + field.name.replace("_", "-"), type=kind)
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    jobs = (Job(**given),) if "rows" in given else JOBS
    changed = {name: value for name, value in given.items() if name != "rows"}
    print("\n".join(lines(tuple(dataclasses.replace(job, **changed) for job in jobs))))


if __name__ == "__main__":
    main()
