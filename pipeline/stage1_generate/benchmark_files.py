"""Rows of published benchmarks in the form they are published in, as rows of a seed file.

    gsm8k   {"question", "answer": "... #### 42"}              (2110.14168)
    svamp   {"Body", "Question", "Answer": 42.0, ...}          (2103.07191)
    bbh     {"examples": [{"input", "target"}, ...]}           (BIG-Bench Hard, 2210.09261)

`form` names one, or a row is recognised by its form; `form: rows` takes rows as they are. A file in
the form of BBH shows by all its targets together which kind of answer its items expect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.stage3_evaluate import numerals
from pipeline.stage3_evaluate.answers import AnswerKind, kind_of_references

Form = Literal["rows", "gsm8k", "svamp", "bbh"]
Row = dict[str, Any]
Line = tuple[str, Row]  # place for messages, row

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_OPTION = re.compile(r"^\s*\(([A-Z])\)\s*(.+?)\s*$", re.MULTILINE)
_DASHED = re.compile(r"^Options:\s*\n((?:\s*-\s*.+(?:\n|$))+)", re.MULTILINE)
_SORTABLE = re.compile(r"[^\s,;]+(?: [^\s,;]+)*")


def benchmark_rows(rows: Iterator[Line], form: Form | None) -> Iterator[Line]:
    """The rows of a file as rows with `question`, `answer` and `answer_kind`.

    A row that is not of the `form` that was named is a `UserError` with its place.
    """
    if form == "bbh":
        yield from _bbh(rows)
        return
    for place, row in rows:
        if form != "rows" and _is_bbh(row):
            yield from _bbh(iter([(place, row)]))
        elif form == "gsm8k" or (form is None and _is_gsm8k(row)):
            yield place, _gsm8k(place, row)
        elif form == "svamp" or (form is None and _is_svamp(row)):
            yield place, _svamp(place, row)
        else:
            yield place, row


def _is_gsm8k(row: Mapping[str, Any]) -> bool:
    answer = row.get("answer")
    return (
        "question" in row
        and isinstance(answer, str)
        and re.search(r"####\s*\S", answer) is not None
    )


def _is_svamp(row: Mapping[str, Any]) -> bool:
    return {"Body", "Question", "Answer"} <= row.keys()


def _is_bbh(row: Mapping[str, Any]) -> bool:
    examples = row.get("examples")
    return isinstance(examples, list) and bool(examples) and all(map(_is_example, examples))


def _is_example(row: Any) -> bool:
    return isinstance(row, dict) and {"input", "target"} <= row.keys()


def _gsm8k(place: str, row: Row) -> Row:
    """The number behind "####" is the answer; the worked solution stays in `solution`."""
    if not _is_gsm8k(row):
        raise UserError(
            f"{place}: form gsm8k has `question`, and `answer` with the result behind ####; "
            f"seen: {_seen(row)}"
        )
    solution, _, result = row["answer"].rpartition("####")
    return row | {
        "answer": _number(place, "gsm8k", result),
        "answer_kind": AnswerKind.NUMBER.value,
        "solution": _CALCULATOR.sub("", solution).strip(),
    }


def _svamp(place: str, row: Row) -> Row:
    if not _is_svamp(row):
        raise UserError(
            f"{place}: form svamp has `Body`, `Question` and `Answer`; seen: {_seen(row)}"
        )
    question = " ".join(str(row[part]).strip() for part in ("Body", "Question"))
    found = {
        "question": question,
        "answer": _number(place, "svamp", str(row["Answer"])),
        "answer_kind": AnswerKind.NUMBER.value,
    }
    if row.get("ID"):
        found["id"] = str(row["ID"])
    return row | found


def _number(place: str, form: str, text: str) -> str:
    value = numerals.parse(text)
    if value is None:
        raise UserError(f"{place}: form {form}: the answer {text.strip()!r} is no number")
    return numerals.canonical(value)


def _bbh(rows: Iterator[Line]) -> Iterator[Line]:
    """Items with the kind of answer that all targets of the file show."""
    found: list[tuple[str, str, str]] = []
    name = ""
    for place, row in rows:
        name = name or Path(place.rpartition(":")[0] or place).stem
        examples = row["examples"] if _is_bbh(row) else [row]
        for number, example in enumerate(examples, 1):
            where = f"{place}, example {number}" if _is_bbh(row) else place
            if not _is_example(example):
                raise UserError(
                    f"{where}: form bbh has {{examples: [{{input, target}}, ...]}}, or `input` and "
                    f"`target` on each line; seen: {_seen(example)}"
                )
            found.append((where, str(example["input"]), str(example["target"]).strip()))
    kind = _kind([text for _, text, _ in found], [target for _, _, target in found])
    for number, (where, text, target) in enumerate(found, 1):
        row = {"id": f"{name}-{number}", "question": text, "answer": target}
        row["answer_kind"] = kind.value
        if kind in (AnswerKind.CHOICE, AnswerKind.OPTION):
            choices = _choices(kind, text)
            if not choices:
                raise UserError(
                    f"{where}: form bbh: the target is {target!r}, but the input lists no options; "
                    "write them as lines `(A) ...` or `- ...` behind `Options:`"
                )
            yield where, row | {"choices": choices}
        else:
            yield where, row


def _kind(inputs: list[str], targets: list[str]) -> AnswerKind:
    kind = kind_of_references(targets)
    if kind is not None:
        return kind
    if all(
        target in _choices(AnswerKind.OPTION, text)
        for text, target in zip(inputs, targets, strict=True)
    ):
        return AnswerKind.OPTION
    # Lists to sort: every word of the target stands in the input.
    sorts = all(
        _SORTABLE.fullmatch(target) and set(target.split()) <= set(text.split())
        for text, target in zip(inputs, targets, strict=True)
    )
    if sorts and any(" " in target for target in targets):
        return AnswerKind.WORDS
    return AnswerKind.TEXT


def _choices(kind: AnswerKind, text: str) -> Any:
    """The options of an input: letter -> text, or a list of texts; empty where there are none."""
    if kind is AnswerKind.CHOICE:
        return dict(_OPTION.findall(text))
    listed = _DASHED.search(text)
    lines = listed.group(1).splitlines() if listed else []
    return [line.strip().lstrip("-").strip() for line in lines if line.strip()]


def _seen(row: Any) -> str:
    return ", ".join(map(str, row)) if isinstance(row, dict) else f"{row!r:.60}"
