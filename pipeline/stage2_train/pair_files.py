"""3_dataset/ read for its prompts, and 3_preference/ in TRL's conversational preference form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config
from pipeline.records import Message
from pipeline.stage1_generate.dataset_card import data_head

GROUP = 1000  # rows read or written at a time


class LeftOut(StrEnum):
    """Why a row of the dataset is no pair."""

    FURTHER = "further answers"  # of the teacher to a prompt that has its pair
    ERROR = "errors"
    EMPTY = "empty"
    SAME = "same as the teacher's"
    RIGHT = "right"


class Report(msgspec.Struct, frozen=True):
    """3_preference/pairs.json. `cut_off`: pairs whose rejected answer max_tokens has ended."""

    pairs: dict[str, int]  # by split
    cut_off: int
    left_out: dict[str, int]

    def reasons(self) -> str:
        return ", ".join(f"{n:,} {reason}" for reason, n in self.left_out.items())


class Row(msgspec.Struct, frozen=True):
    """A row of the dataset, as far as a pair needs it."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    weight: float
    source: tuple[str, ...]
    task: str
    seed_id: str


class Pair(msgspec.Struct, frozen=True):
    """`ended`: the student ended its answer itself; false: max_tokens has cut it off."""

    row: Row
    rejected: str
    rejected_source: str
    ended: bool


def read_rows(dataset: Path, side: str) -> Iterator[Row]:
    """The rows of a split, in order; GROUP of them in memory."""
    import pyarrow.parquet

    columns = ["prompt", "completion", "weight", "source", "task", "seed_id"]
    for path in sorted(dataset.glob(f"{side}-*.parquet")):
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(GROUP, columns=columns):
            for row in batch.to_pylist():
                yield Row(
                    _chat(row["prompt"]),
                    _chat(row["completion"]),
                    row["weight"],
                    tuple(row["source"]),
                    row["task"],
                    row["seed_id"],
                )


def _chat(messages: list[dict[str, str]]) -> tuple[Message, ...]:
    return tuple(Message(m["role"], m["content"]) for m in messages)


def write_pairs(folder: Path, side: str, pairs: Iterable[Pair]) -> int:
    """Write `SIDE-00000-of-00001.parquet`, no file where there are no pairs; return how many.

    Columns: prompt, chosen, rejected (messages), weight, source (the teacher's request ids),
    rejected_source (the student's), ended, task, seed_id.
    """
    import pyarrow as pa
    import pyarrow.parquet

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    schema = pa.schema(
        [
            *((name, messages) for name in ("prompt", "chosen", "rejected")),
            ("weight", pa.float64()),
            ("source", pa.list_(pa.string())),
            ("rejected_source", pa.string()),
            ("ended", pa.bool_()),
            ("task", pa.string()),
            ("seed_id", pa.string()),
        ]
    )
    path, count = folder / f"{side}-00000-of-00001.parquet", 0
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        rest = iter(pairs)
        while group := list(islice(rest, GROUP)):
            writer.write_table(pa.Table.from_pylist([_columns(p) for p in group], schema=schema))
            count += len(group)
    if not count:
        path.unlink()
    return count


def _columns(pair: Pair) -> dict[str, Any]:
    row = pair.row
    return {
        "prompt": msgspec.to_builtins(row.prompt),
        "chosen": msgspec.to_builtins(row.chosen),
        "rejected": [{"role": "assistant", "content": pair.rejected}],
        "weight": row.weight,
        "source": list(row.source),
        "rejected_source": pair.rejected_source,
        "ended": pair.ended,
        "task": row.task,
        "seed_id": row.seed_id,
    }


def pair_card(config: Config, folder: Path, rejected: str, report: Report) -> str:
    """3_preference/README.md."""
    which = (
        "Where a task has a verifier, only answers that it does not pass stand as rejected."
        if rejected == "wrong"
        else "Right answers of the student stand as rejected, too."
    )
    return f"""---
{data_head(folder)}
---

# {config.name}: preference pairs

The teacher's answer (`chosen`) beside the own answer of the student before training
(`rejected`, `{config.student.model}`) to the same prompt, for TRL's `DPOTrainer`
(SODA, 2604.03873). {which}

Left out of the dataset's rows: {report.reasons() or "none"}. {report.cut_off:,} rejected answers
were cut off by max_tokens (`ended` is false) and are trained on without an end of the turn.
`source` and `rejected_source` are the ids of the requests in the ledger. Made by blackbox-distill.
"""
