"""What rows are compared with: the evaluation's items and further files; and the finished dataset
compared once more, for the evaluation may have changed since it was made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config, Task
from pipeline.errors import UserError
from pipeline.records import Decision, Example, Message, Seed, Verdict, digest, read_jsonl
from pipeline.stage1_generate.curate import Candidate
from pipeline.stage1_generate.curate.contamination import Contamination, Hit
from pipeline.stage3_evaluate.items import evaluation_items, named_sources

# The first that a row has is the item; `input` is added to it where both are there.
TEXT_FIELDS = ("question", "problem", "instruction", "prompt", "query", "text", "input")
# Generators whose rows are all made from a few patterns.
PATTERNS = ("word_problems", "symbol_mapping", "list_functions", "constrained_instructions")


class DatasetHit(msgspec.Struct, frozen=True):
    """A row of 3_dataset that overlaps with an evaluation item; `row` counts from 0."""

    split: str
    row: int
    seed_id: str
    source: tuple[str, ...]  # request ids
    hit: Hit


class Overlap(msgspec.Struct, frozen=True):
    """A row that curation dropped: the item, in what way it is the same, the words."""

    request_id: str
    task: str
    seed_id: str
    item: str
    kind: str
    span: str


def contamination_filter(config: Config) -> Contamination | None:
    """As `curate.contamination` says; None where there is nothing to compare with."""
    return _filter(config, config.curate.contamination.against == "evaluation")


def overlap(
    check: Contamination | None, task: Task, row: Candidate, verdict: Verdict
) -> list[Overlap]:
    """What `check` found in a row that it dropped; nothing for other verdicts."""
    if check is None or verdict.decision is Decision.KEEP or verdict.filter != "contamination":
        return []
    hit = check.find(row.seed, row.examples or (row.example,))
    if hit is None:
        return []
    return [Overlap(row.request.id, task.name, row.seed.id, hit.item, hit.kind, hit.span)]


def contaminated_rows(config: Config) -> Iterator[DatasetHit]:
    """Rows of the finished dataset that overlap with what the config evaluates now.

    Also where curation did not look (`against: nothing`). For whoever publishes the dataset: none
    is expected, and each names its item and the words.
    """
    check = _filter(config, evaluation=True)
    if check is None:
        return
    seeds = {(s.task, s.id): s for s in read_jsonl(config.run_dir / "0_seeds.jsonl", Seed)}
    for split, number, row in _dataset_rows(config.run_dir / "3_dataset"):
        key = (str(row.get("task")), str(row.get("seed_id")))
        seed = seeds.get(key) or Seed(key[1], key[0], {})
        example = Example(
            msgspec.convert(row["prompt"], tuple[Message, ...]),
            msgspec.convert(row["completion"], tuple[Message, ...]),
            1.0,
            tuple(row["source"]),
        )
        if hit := check.find(seed, (example,)):
            yield DatasetHit(split, number, seed.id, example.source, hit)


def _filter(config: Config, evaluation: bool) -> Contamination | None:
    settings = config.curate.contamination
    named = named_sources(config.evaluate) if evaluation else []
    made = frozenset(
        f"{ability}/{name}" for ability, name, source in named if source.generator in PATTERNS
    )
    items = list(evaluation_items(config)) if evaluation else []
    for path in settings.files:
        items += file_items(Path(path))
    return _index(_Items(items), settings.ngram, settings.alike, made) if items else None


class _Items(tuple[Seed, ...]):
    """Items that are the same to a cache when their texts are: seeds hold dictionaries."""

    def __hash__(self) -> int:
        return hash(tuple(seed.id for seed in self))


@lru_cache(maxsize=1)
def _index(items: _Items, ngram: int, alike: bool, made: frozenset[str]) -> Contamination:
    """Every task of a step compares with the same items; their index is made once."""
    return Contamination(items, ngram, alike, made)


def file_items(path: Path) -> Iterator[Seed]:
    """The items of a file: JSON lines, or JSON with one list of objects (`{"examples": [...]}`).

    A text stands in one of TEXT_FIELDS, or in `messages` (the user's). `shots` make an in-context
    item. Raises `UserError` where a row has no text.
    """
    for number, row in enumerate(_rows(path), 1):
        text = _text(row)
        if not text:
            raise UserError(
                f"{path}: row {number} has no text to compare with: one of "
                f"{', '.join(TEXT_FIELDS)}, messages; seen keys: {', '.join(sorted(row)) or 'none'}"
            )
        fields = {"question": text} | ({"shots": row["shots"]} if "shots" in row else {})
        name = row.get("id", row.get("key"))
        item = digest(row, 16) if name in (None, "") else str(name)
        yield Seed(f"{path} {item}", str(path), fields, origin=f"{path}:{number}")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file (curate.contamination.files, from {Path.cwd()})")
    try:
        whole = path.read_text("utf-8-sig")
        found: Any
        if path.suffix == ".json":
            found = json.loads(whole)
            if isinstance(found, dict):
                lists = [value for value in found.values() if isinstance(value, list)]
                found = lists[0] if len(lists) == 1 else None
        else:
            found = [json.loads(line) for line in whole.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON lines in UTF-8: {error}") from None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise UserError(
            f"{path}: a file to compare with is JSON lines, or .json with one list of objects"
        )
    yield from found


def _text(row: dict[str, Any]) -> str:
    first = next((key for key in TEXT_FIELDS if row.get(key)), None)
    if first is None:
        return _spoken(row.get("messages"))
    texts = [row[first]] + ([row["input"]] if first != "input" and row.get("input") else [])
    return "\n".join(_spoken(text) if isinstance(text, list) else str(text) for text in texts)


def _spoken(messages: Any) -> str:
    """What the user says in a list of chat messages."""
    if not isinstance(messages, list):
        return ""
    said = [m for m in messages if isinstance(m, dict) and m.get("role") == "user"]
    return "\n".join(str(message.get("content", "")) for message in said)


def _dataset_rows(folder: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    import pyarrow.parquet

    for split in ("train", "validation"):
        number = 0
        for shard in sorted(folder.glob(f"{split}-*.parquet")):
            for batch in pyarrow.parquet.ParquetFile(shard).iter_batches(1000):
                for row in batch.to_pylist():
                    yield split, number, row
                    number += 1
