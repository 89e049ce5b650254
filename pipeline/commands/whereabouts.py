"""Where a row is: in 2_kept.jsonl, in 2_dropped.jsonl, in the shards of 3_dataset/."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import UserError
from pipeline.records import Example, Message, read_jsonl
from pipeline.stage1_generate.curate.funnel import Dropped

PLACE = re.compile(r"(train|validation):(\d+)")  # how a row of the dataset is named


class Place(msgspec.Struct, frozen=True):
    """A row of 3_dataset/: `row` counts over all shards of the split, from 0."""

    split: str
    row: int
    file: str
    row_of_file: int
    weight: float
    shots: int
    source: tuple[str, ...]
    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]


def kept_rows(run: Path, task: str, request_id: str) -> Iterator[Example]:
    """The training rows of an answer, as 2_kept.jsonl has them."""
    path = run / "2_kept.jsonl"
    if path.is_file():
        for example in read_jsonl(path, Example):
            if request_id in example.source and example.meta["task"] == task:
                yield example


def verdict_of(run: Path, task: str, request_id: str) -> Dropped | None:
    """The line of 2_dropped.jsonl, or None for a row that passed."""
    rows = read_jsonl(run / "2_dropped.jsonl", Dropped)
    return next((r for r in rows if (r.task, r.request_id) == (task, request_id)), None)


def place_of(run: Path, example: Example) -> Place | None:
    """Where a kept row is in the dataset, or None where a mixture left it out."""
    meta = example.meta
    wanted = (list(example.source), meta["task"], meta.get("view"))
    for split in ("train", "validation"):
        first = 0
        for path in _shards(run, split):
            for row, found in enumerate(_columns(path, ("source", "task", "view"))):
                if found == wanted:
                    return _place(path, split, first, row)
            first += _count(path)
    return None


def row_at(run: Path, split: str, number: int) -> Place:
    """The dataset's row with this number; a `UserError` where there are fewer."""
    first = 0
    for path in _shards(run, split):
        if number < first + _count(path):
            return _place(path, split, first, number - first)
        first += _count(path)
    raise UserError(
        f"{run}/3_dataset has {first:,} rows in {split}, numbered from 0; seen: {split}:{number}"
    )


def whole_row(run: Path, place: Place) -> dict[str, Any]:
    """All columns of a row of the dataset."""
    file, row = _group(run / "3_dataset" / place.file, place.row_of_file)
    return dict(file.slice(row, 1).to_pylist()[0])


def count_rows(run: Path, split: str) -> int:
    """Rows of the dataset's split; 0 where it has none."""
    return sum(map(_count, _shards(run, split)))


def _shards(run: Path, split: str) -> list[Path]:
    return sorted((run / "3_dataset").glob(f"{split}-*.parquet"))


def _count(path: Path) -> int:
    import pyarrow.parquet

    return int(pyarrow.parquet.read_metadata(path).num_rows)


def _columns(path: Path, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """These columns of a shard, row by row; None for one that it does not have."""
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    there = [name for name in names if name in file.schema_arrow.names]
    for batch in file.iter_batches(columns=there):
        columns = [
            batch.column(name).to_pylist() if name in there else [None] * batch.num_rows
            for name in names
        ]
        yield from zip(*columns, strict=True)


def _place(path: Path, split: str, first: int, row: int) -> Place:
    """A row of a shard, which begins at the split's row `first`."""
    group, place = _group(path, row)
    found = group.slice(place, 1).to_pylist()[0]
    fixed = {"split": split, "row": first + row, "file": path.name, "row_of_file": row}
    return msgspec.convert({"shots": 0, **found} | fixed, Place)


def _group(path: Path, row: int) -> tuple[Any, int]:
    """(the row group of a shard that has this row, the row's place in it)."""
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if row < rows:
            return file.read_row_group(group), row
        row -= rows
    raise IndexError(f"{path}: no such row")
