"""Checks of generator options that several generators share, and their row files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import UserError


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise UserError(f"option {name} is {value!r}; write one of {', '.join(allowed)}")
    return str(value)


def whole(name: str, value: Any, smallest: int, largest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
        raise UserError(
            f"option {name} is {value!r}; write a whole number from {smallest} to {largest}"
        )
    return value


def wholes(name: str, value: Any, smallest: int, largest: int) -> list[int]:
    """One number or a list of numbers, as `steps: 2` or `steps: [1, 2]`."""
    values = value if isinstance(value, list | tuple) and value else [value]
    return [whole(name, item, smallest, largest) for item in values]


def read_rows(name: str, path: Any, needed: Sequence[str], language: str) -> list[dict[str, Any]]:
    """The rows of a JSONL file in one language (a row without `language` is in any).

    Raises `UserError` where the file, a field or the language is missing.
    """
    if not isinstance(path, str) or not Path(path).is_file():
        raise UserError(
            f"option {name} is {path!r}, which is no file (looked from {Path.cwd()}); "
            "write the path of a JSONL file, as data/seeds/topics.jsonl"
        )
    rows = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}:{number}: not a JSON object: {error}") from None
        if missing := [key for key in needed if not row.get(key)]:
            raise UserError(
                f"{path}:{number}: {', '.join(missing)} is missing; each line needs "
                f"{', '.join(needed)}"
            )
        if row.get("language", language) == language:
            rows.append(row)
    if not rows:
        raise UserError(f"{path} has no row in the language {language!r}; write another file")
    return rows
