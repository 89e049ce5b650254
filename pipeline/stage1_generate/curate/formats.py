"""`format`: the answer has the form that was asked for (regular expression, JSON, schema)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import regex

from pipeline.records import Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep

SECONDS = 1.0  # that one answer may take a pattern; a hostile text can take it for ever
LONGEST_REASON = 160  # characters of what a schema's checker says


def format(
    regex: str | None = None, json: bool = False, schema: str | dict[str, Any] | None = None
) -> Filter:
    """Keep answers of the given form; what is not given is not asked for.

    `regex`: the whole answer, without the white space around it, matches (the `regex` library's
    dialect; `.` is any character but a line break unless the pattern begins with `(?s)`). `json`:
    it is JSON and nothing else. `schema`: it is JSON and fits the schema, written out or the path
    of a file.
    """
    if regex is None and not json and schema is None:
        raise ValueError("give at least one of regex, json and schema")
    pattern = _compiled(regex) if regex is not None else None
    checker = schema_checker(_loaded(schema)) if schema is not None else None

    def check(row: Candidate) -> Verdict:
        text = row.generation.text.strip()
        if pattern is not None:
            try:
                found = pattern.fullmatch(text, timeout=SECONDS)
            except TimeoutError:
                return drop("format", f"the regex took more than {SECONDS:g} s")
            if found is None:
                return drop("format", "does not match the regex")
        if json or checker is not None:
            try:
                value = msgspec.json.decode(text.encode())
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
                return drop("format", f"not JSON: {error}")
            if checker is not None and (broken := first_break(checker, value)):
                return drop("format", f"breaks the schema: {broken}")
        return keep("format")

    return check


def schema_checker(schema: dict[str, Any]) -> Any:
    """A checker of one JSON schema; a `ValueError` says what is wrong with the schema."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"not a JSON schema: {error.message}") from None
    return Draft202012Validator(schema)


def first_break(checker: Any, value: Any) -> str:
    """Where and how `value` breaks the schema first, or ""."""
    broken = next(iter(checker.iter_errors(value)), None)
    if broken is None:
        return ""
    return f"{broken.json_path} {broken.message:.{LONGEST_REASON}}"


def _compiled(pattern: str) -> Any:
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"regex: {error}; seen: {pattern!r}") from None


def _loaded(schema: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema, dict):
        return schema
    try:
        found = msgspec.json.decode(Path(schema).read_bytes())
    except OSError as error:
        raise ValueError(f"schema: cannot read the file: {error}") from None
    except msgspec.DecodeError as error:
        raise ValueError(f"schema: {schema} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"schema: {schema} holds no JSON object")
    return found
