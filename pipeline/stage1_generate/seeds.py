"""Where seeds come from: a file, a generator, or a dataset of the hub.

A seed line has `question`, `instruction` or `text`; optional `id` (else a hash of the content),
`answer` (the reference), `constraints`; anything else is there for prompts to use.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipeline.config import SeedSource
from pipeline.constraints import require_known
from pipeline.errors import UserError
from pipeline.records import Constraint, Seed, canonical_json, digest
from pipeline.stage1_generate.benchmark_files import benchmark_rows
from pipeline.stage1_generate.seed_files import read_file

QUESTION_FIELDS = ("question", "instruction", "text")


def load_seeds(source: SeedSource, task: str, seed: int) -> list[Seed]:
    """All seeds of a source in a list; see `read_seeds`."""
    return list(read_seeds(source, task, seed))


def read_seeds(source: SeedSource, task: str, seed: int) -> Iterator[Seed]:
    """The seeds of a source one by one, checked; ids are unique or it is a `UserError`.

    Memory: 8 bytes a seed, for a hash of its id.
    """
    hashes = array("Q")
    for place, row in source_rows(source, seed):
        if source.path and source.n is not None and len(hashes) >= source.n:
            break
        item = seed_of_row(row, task, place)
        hashes.append(int(digest(item.id, 16), 16))
        yield item
    if not hashes:
        raise UserError(f"task {task}: {source.path or source} holds no seeds")
    ordered = np.frombuffer(hashes, dtype=np.uint64)
    ordered.sort()  # in place: there may be a hundred million
    if (ordered[1:] == ordered[:-1]).any():
        _name_duplicate(source, task, seed)


def _name_duplicate(source: SeedSource, task: str, seed: int) -> None:
    """Two ids have the same hash: find out which, now with all ids in memory."""
    places: dict[str, str] = {}
    for place, row in source_rows(source, seed):
        item = seed_of_row(row, task, place)
        if item.id in places:
            raise UserError(
                f"{place}: the id {item.id!r} is there already ({places[item.id]}); give every "
                "seed its own `id`, or leave `id` out where the lines differ"
            )
        places[item.id] = place


def source_rows(source: SeedSource, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place for messages, row) of every seed; of a file all rows, whatever `n` is."""
    if source.path is None and (source.from_task or source.run):
        raise UserError(f"`from` and `run` are for the seeds of tasks; seen: {source.described()}")
    if source.path is not None:
        lines = read_file(Path(source.path), source.columns, source.answers, source.where)
        named = "rows" if source.columns else source.form  # `columns` says what is what
        yield from benchmark_rows(lines, named)
    elif source.generator is not None:
        from pipeline.stage1_generate.generators import generate

        options = {"seed": seed} | source.options
        for i, row in enumerate(generate(source.generator, source.n or 100, **options)):
            yield f"{source.generator} #{i}", row
    else:
        yield from benchmark_rows(_read_hub(source), None)


def _read_hub(source: SeedSource) -> Iterator[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset

    assert source.dataset is not None
    options = {"split": "train"} | source.options
    try:
        rows = load_dataset(source.dataset, **options)
    except Exception as error:  # the library raises many kinds; all mean "cannot be loaded"
        raise UserError(f"dataset {source.dataset!r} cannot be loaded: {error}") from error
    for i, row in enumerate(rows):
        if source.n is not None and i >= source.n:
            return
        yield f"{source.dataset} #{i}", dict(row)


def seed_of_row(row: dict[str, Any], task: str, place: str) -> Seed:
    """A line of a seed file as a seed; a mistake in it is a `UserError` that names its place."""
    asked = [key for key in QUESTION_FIELDS if row.get(key)]
    if not asked:
        raise UserError(
            f"{place}: a seed needs one of {', '.join(QUESTION_FIELDS)}; "
            f"seen keys: {', '.join(sorted(row)) or 'none'}"
        )
    fields = {k: v for k, v in row.items() if k not in ("id", "constraints", "answer")}
    # Prompts may say {{ question }} whatever the file calls it.
    fields.setdefault("question", row[asked[0]])
    try:
        constraints = msgspec.convert(row.get("constraints") or [], tuple[Constraint, ...])
        for constraint in constraints:  # now, and not at the first answer that was paid for
            require_known(constraint)
    except msgspec.ValidationError as error:
        raise UserError(
            f"{place}: constraints: {error}; write [{{type: ..., params: {{...}}}}]"
        ) from None
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    answer = row.get("answer")
    if isinstance(answer, dict | list):
        answer = canonical_json(answer).decode()
    return Seed(
        id=str(row["id"]) if row.get("id") not in (None, "") else digest(row, 16),
        task=task,
        fields=fields,
        reference=None if answer is None else str(answer),
        constraints=constraints,
        origin=place,
    )
