"""Examples -> Parquet shards in TRL's conversational prompt-completion form, row by row."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline import stopping
from pipeline.records import Example, Message

GROUP = 1000  # rows converted and written at a time


def write_split(
    folder: Path,
    name: str,
    rows: Iterable[Example],
    columns: Mapping[str, set[type]],
    shard_megabytes: float,
) -> int:
    """Write `NAME-00000-of-0000N.parquet`; return how many rows.

    `columns`: the types seen under each key of `Example.meta`. A shard holds rows of about
    `shard_megabytes` of text. Memory: GROUP rows.
    """
    import pyarrow.parquet

    schema = _schema(columns)
    partials: list[Path] = []
    writer: Any = None
    written = characters = 0
    try:
        for group in _groups(rows):
            stopping.raise_if_requested()
            if writer is None:
                partials.append(folder / f"{name}-{len(partials):05d}.partial")
                writer = pyarrow.parquet.ParquetWriter(partials[-1], schema)
            writer.write_table(_table(group, schema))
            written += len(group)
            characters += sum(len(m.content) for r in group for m in (*r.prompt, *r.completion))
            if characters >= shard_megabytes * 1e6:
                writer.close()
                writer, characters = None, 0
    finally:
        if writer is not None:
            writer.close()
    for i, path in enumerate(partials):
        os.replace(path, folder / f"{name}-{i:05d}-of-{len(partials):05d}.parquet")
    return written


def dataset_files(folder: Path) -> dict[str, str]:
    """split -> path pattern, for `datasets.load_dataset("parquet", data_files=...)`."""
    return {
        name: str(folder / f"{name}-*.parquet")
        for name in ("train", "validation")
        if any(folder.glob(f"{name}-*.parquet"))
    }


def _groups(rows: Iterable[Example]) -> Iterator[list[Example]]:
    group: list[Example] = []
    for row in rows:
        group.append(row)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


def _schema(columns: Mapping[str, set[type]]) -> Any:
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    fixed = [("prompt", messages), ("completion", messages), ("weight", pa.float64())]
    fixed.append(("source", pa.list_(pa.string())))
    return pa.schema(fixed + [(name, _type(seen)) for name, seen in sorted(columns.items())])


def _type(seen: set[type]) -> Any:
    """The column type that holds all values seen; JSON text for what has no plain one."""
    import pyarrow as pa

    kinds = seen - {type(None)}
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    if kinds in ({float}, {int, float}):
        return pa.float64()
    return pa.list_(pa.string()) if kinds == {list} else pa.string()


def _table(group: Sequence[Example], schema: Any) -> Any:
    import pyarrow as pa

    arrays = [
        _messages([row.prompt for row in group], schema.field("prompt").type),
        _messages([row.completion for row in group], schema.field("completion").type),
        pa.array([row.weight for row in group], pa.float64()),
        pa.array([list(row.source) for row in group], pa.list_(pa.string())),
    ]
    for name in schema.names[len(arrays) :]:
        kind = schema.field(name).type
        values = [row.meta.get(name) for row in group]
        if kind == pa.string():
            values = [_text(value) for value in values]
        elif pa.types.is_list(kind):
            values = [None if value is None else [_text(v) for v in value] for value in values]
        arrays.append(pa.array(values, kind))
    return pa.Table.from_arrays(arrays, schema=schema)


def _messages(chats: Sequence[Sequence[Message]], kind: Any) -> Any:
    import pyarrow as pa

    offsets = [0]
    for chat in chats:
        offsets.append(offsets[-1] + len(chat))
    flat = [message for chat in chats for message in chat]
    columns = [pa.array([m.role for m in flat], pa.string())]
    columns.append(pa.array([m.content for m in flat], pa.string()))
    items = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, type=kind)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
