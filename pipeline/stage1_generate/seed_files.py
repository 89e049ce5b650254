"""Seed files: JSON lines, JSON, CSV, TSV, and text with a label and a text on each line.

`columns` says which column of the file (by its name, or its number from 0 in a file without a
header) gives which field of a seed; several in a list are joined by a space. `answers` gives the
values of the answer other names: {0: negative, 1: positive}. `where` takes some of the rows alone:
{language: en}.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import UserError

Columns = Mapping[str, str | int | list[str | int]]
Line = tuple[str, dict[str, Any]]  # place for messages, row


def read_file(
    path: Path,
    columns: Columns | None = None,
    answers: Mapping[Any, str] | None = None,
    where: Mapping[Any, Any] | None = None,
) -> Iterator[Line]:
    """Every row of a seed file, with its place. A mistake in it is a `UserError` that names it."""
    if not path.is_file():
        raise UserError(f"{path}: no such seed file (looked from {Path.cwd()})")
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv", ".txt"):
        rows = _read_table(path, kind, columns)
    else:
        rows = _read_document(path) if kind == ".json" else _read_lines(path)
    names = {str(old): new for old, new in (answers or {}).items()}
    if where:
        rows = _where(path, rows, where)
    for place, row in rows:
        if columns:
            row = row | {field: _value(row, column, place) for field, column in columns.items()}
        if names:
            said = str(row.get("answer"))
            if said not in names:
                raise UserError(
                    f"{place}: the answer {said!r} has no entry in answers: {', '.join(names)}; "
                    "add it there"
                )
            row = row | {"answer": names[said]}
        yield place, {str(key): value for key, value in row.items() if isinstance(key, str)}


def _where(path: Path, rows: Iterator[Line], where: Mapping[Any, Any]) -> Iterator[Line]:
    """The rows whose columns have these values, compared as they are written."""
    wanted = {column: str(value) for column, value in where.items()}
    found = False
    seen: list[str] = []
    for place, row in rows:
        seen = seen or [str(key) for key in row]
        if all(str(row.get(column)) == value for column, value in wanted.items()):
            found = True
            yield place, row
    if not found:
        said = ", ".join(f"{column}: {value}" for column, value in wanted.items())
        raise UserError(
            f"{path}: no row has {{{said}}} (`where`); the columns of the first: {', '.join(seen)}"
        )


def _value(row: Mapping[Any, Any], column: str | int | list[str | int], place: str) -> Any:
    wanted = column if isinstance(column, list) else [column]
    if missing := [one for one in wanted if one not in row]:
        raise UserError(
            f"{place}: there is no column {missing[0]!r}; seen: {', '.join(map(str, row))}"
        )
    if not isinstance(column, list):
        return row[column]
    return " ".join(str(row[one]).strip() for one in wanted)


def _read_document(path: Path) -> Iterator[Line]:
    """One JSON document: a list of rows, or a single one; else JSON lines under another name."""
    try:
        document = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError):
        yield from _read_lines(path)
        return
    rows = document if isinstance(document, list) else [document]
    for number, row in enumerate(rows, 1):
        place = f"{path}:{number}"
        if not isinstance(row, dict):
            raise UserError(f"{place}: not a JSON object: {row!r:.60}")
        yield place, row


def _read_lines(path: Path) -> Iterator[Line]:
    import jsonlines

    with path.open(encoding="utf-8-sig", newline="\n") as file, jsonlines.Reader(file) as reader:
        try:
            for number, row in enumerate(reader.iter(type=dict, skip_empty=True), 1):
                yield f"{path}:{number}", row
        except jsonlines.InvalidLineError as error:
            raise UserError(f"{path}:{error.lineno}: not a JSON object: {error}") from None
        except (UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{path}: not UTF-8 JSON lines: {error}") from None


def _read_table(path: Path, kind: str, columns: Columns | None) -> Iterator[tuple[str, Any]]:
    """Rows by the header's names, or by column numbers where `columns` has numbers."""
    named = [one for c in (columns or {}).values() for one in (c if isinstance(c, list) else [c])]
    numbers = [one for one in named if isinstance(one, int)]
    if len(numbers) not in (0, len(named)):
        raise UserError(f"{path}: columns has names and numbers; a file has a header or has none")
    if kind == ".txt" and not numbers:
        raise UserError(
            f"{path}: a text file needs `columns` with numbers, as {{answer: 0, text: 1}} for "
            "lines of a label, a space and a text"
        )
    width = max(numbers, default=0) + 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = _cells(file, path, kind, width)
        try:
            first = next(rows, None)
            if first is None:
                return
            header: list[Any] = list(range(width)) if numbers else first[1]
            for place, cells in chain([first], rows) if numbers else rows:
                if len(cells) < len(header) or (len(cells) > len(header) and not numbers):
                    raise UserError(f"{place}: {len(cells)} columns, {len(header)} expected")
                yield place, dict(zip(header, cells, strict=False))
        except csv.Error as error:
            raise UserError(f"{path}: not a {kind[1:].upper()} file: {error}") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text: {error}") from None


def _cells(file: Any, path: Path, kind: str, width: int) -> Iterator[tuple[str, list[str]]]:
    if kind == ".txt":
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}:{number}", line.strip().split(None, width - 1)
        return
    if kind == ".csv":
        reader = csv.reader(file, strict=True)
    else:  # the tab-separated files of benchmarks have quotation marks as plain characters
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    for cells in reader:
        if cells:
            yield f"{path}:{reader.line_num}", cells
