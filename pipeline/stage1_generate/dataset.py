"""3_dataset/: what the student is trained on, as `datasets.load_dataset` opens it.

Parquet in TRL's conversational prompt-completion form, split by groups of seeds, with a card that
says where every row comes from, `lengths.json` (tokens a row) and `mixture.json` (what was taken
and what was left out). Rows go from 2_kept.jsonl to disk a thousand at a time.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from pipeline.config import Config
from pipeline.records import sync_folder
from pipeline.stage1_generate.dataset_card import TaskLine, dataset_card
from pipeline.stage1_generate.example_file import ExampleFile
from pipeline.stage1_generate.lengths import MOST, Lengths, measure, too_long
from pipeline.stage1_generate.mixture import Mixed, Part, mix, rendered, shots_by_k
from pipeline.stage1_generate.parquet import dataset_files, write_split
from pipeline.stage1_generate.split import Split

if TYPE_CHECKING:
    from pipeline.stage1_generate.curate.funnel import Funnel

__all__ = ["MixtureReport", "dataset_files", "read_mixture", "split_of", "write_dataset"]


class MixtureReport(msgspec.Struct, frozen=True):
    """3_dataset/mixture.json. Rows and tokens of the parts are those of the train split, as they
    are before shots are put in front."""

    kept: int
    train: int
    validation: int
    left_out: int
    order: str
    budget: int | None
    parts: dict[str, Part]
    shots: dict[str, int]  # shots -> rows that have so many


def split_of(config: Config) -> Split:
    """Which seeds of a run are held back."""
    seeds = config.run_dir / "0_seeds.jsonl"
    return Split(seeds, config.seed, config.curate.validation_share)


def write_dataset(config: Config, funnel: Funnel) -> Lengths:
    """Write the folder from 2_kept.jsonl under a temporary name, then rename it.

    Prints a warning where rows are longer than training reads.
    """
    run = config.run_dir
    rows = ExampleFile(run / "2_kept.jsonl", split_of(config), config.seed)
    mixed = mix(config, rows)
    folder, partial = run / "3_dataset", run / "3_dataset.partial"
    new_folder(partial)
    counts = write_rows(config, partial, rows, mixed)
    lengths = measure(config, sum(counts.values()), rendered(rows, mixed, _sample(rows, mixed)))
    report = _report(config, rows, mixed)
    (partial / "lengths.json").write_bytes(msgspec.json.encode(lengths) + b"\n")
    (partial / "mixture.json").write_bytes(_pretty(report))
    card = dataset_card(config, partial, funnel, counts, _by_task(rows, mixed), lengths, report)
    (partial / "README.md").write_text(card, encoding="utf-8")
    put_in_place(partial, folder)
    if warning := too_long(config, lengths):
        print(f"warning: {warning}", file=sys.stderr)
    for name, part in report.parts.items():
        if part.short:
            print(
                f"warning: curate.mixture: {name} has {part.tokens:,} tokens, all of its rows and "
                f"less than its share; ask for more of it, or lower curate.mixture.tokens",
                file=sys.stderr,
            )
    return lengths


def write_rows(config: Config, folder: Path, rows: ExampleFile, mixed: Mixed) -> dict[str, int]:
    """The Parquet shards of both splits; rows of each (a split without rows has no file)."""
    columns: Mapping[str, set[type]] = rows.columns
    if config.curate.mixture is not None and config.curate.mixture.k_shot is not None:
        columns = {**columns, "shots": {int}, "shot_sources": {list}}
    sides = {"train": mixed.train, "validation": mixed.validation}
    megabytes = config.curate.dataset.shard_megabytes
    return {
        side: write_split(folder, side, rendered(rows, mixed, numbers), columns, megabytes)
        for side, numbers in sides.items()
        if len(numbers)
    }


def read_mixture(folder: Path) -> MixtureReport | None:
    """That of a dataset's folder; None for one that was written before there were any."""
    path = folder / "mixture.json"
    return msgspec.json.decode(path.read_bytes(), type=MixtureReport) if path.is_file() else None


def new_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def put_in_place(partial: Path, folder: Path) -> None:
    """Sync the files of a finished folder and give it its name."""
    for path in partial.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    sync_folder(folder.parent)


def _sample(rows: ExampleFile, mixed: Mixed) -> np.ndarray:
    numbers: np.ndarray = np.concatenate([mixed.train, mixed.validation])
    if len(numbers) > MOST:
        numbers = numbers[np.argsort(rows.key[numbers], kind="stable")[:MOST]]
    return np.sort(numbers)


def _by_task(rows: ExampleFile, mixed: Mixed) -> list[TaskLine]:
    numbers = np.concatenate([mixed.train, mixed.validation])
    lines = []
    for code, name in enumerate(rows.tasks):
        mine = numbers[rows.task[numbers] == code]
        if len(mine):
            seeds = len(np.unique(rows.group[mine]))
            lines.append(TaskLine(name, len(mine), seeds, float(rows.characters[mine].mean())))
    return lines


def _report(config: Config, rows: ExampleFile, mixed: Mixed) -> MixtureReport:
    settings = config.curate.mixture
    used = len(mixed.train) + len(mixed.validation)
    return MixtureReport(
        kept=len(rows),
        train=len(mixed.train),
        validation=len(mixed.validation),
        left_out=len(rows) - used,
        order=settings.order if settings else "as_is",
        budget=settings.tokens if settings else None,
        parts=mixed.parts,
        shots=shots_by_k(mixed),
    )


def _pretty(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
