"""Does the code in an answer pass its seed's tests? Run in the sandbox (pipeline/sandbox)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from pipeline.errors import RunFatal
from pipeline.records import Verdict
from pipeline.sandbox import Ended, Limits, SandboxRun, run_python
from pipeline.sandbox.probes import require_sandbox
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*$")
_PYTHON = ("python", "python3", "py", "")
_STARTS = re.compile(r"\s*(?:def|class|import|from|async def|@\w|#!|if __name__)\b")
_DEFINED = re.compile(r"^(?:async def|def|class)[ \t]+(\w+)|^(\w+)[ \t]*=(?!=)", re.MULTILINE)


class Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A test that is a program's input and what it has to print."""

    input: str
    output: str


def code(
    tests_from: str = "tests",
    language: Literal["python"] = "python",
    seconds: float = 5.0,
    memory_mb: int = 256,
    allow: bool = False,
) -> Filter:
    """Keep answers whose Python code passes the tests in the seed's field `tests_from`.

    The tests are Python statements (asserts, one text or a list), or a list of `{input, output}`
    for a program that reads and prints. Refused unless `allow` is true and the sandbox holds.
    """
    if not allow:
        raise ValueError(
            "this filter runs programs that a model wrote; read what the sandbox protects against "
            "(docs/curation.md, Code), then write `code: {allow: true}`"
        )
    if not 1 <= seconds <= 600 or not 64 <= memory_mb <= 65536:
        raise ValueError("seconds is from 1 to 600, memory_mb from 64 to 65536")
    require_sandbox()
    limits = Limits(seconds, memory_mb)

    def check(row: Candidate) -> Verdict:
        try:
            tests = _tests(row.seed.fields.get(tests_from))
        except msgspec.ValidationError as error:
            return drop("code", f"the seed's {tests_from} cannot be read: {error}")
        if not tests:
            return drop("code", f"the seed has no {tests_from}")
        program = python_code(row.generation.text, " ".join(t for t in tests if isinstance(t, str)))
        if program is None:
            return drop("code", "no code block")
        if isinstance(tests[0], Pair):
            return _as_program(program, tests, limits)
        return _as_module(program, tests, limits)

    return check


def _tests(found: Any) -> list[Any]:
    """Statements or pairs; raises `msgspec.ValidationError` for anything else."""
    if isinstance(found, str):
        return [found] if found.strip() else []
    tests = msgspec.convert(found or [], list[str | Pair])
    if len({type(test) for test in tests}) > 1:
        raise msgspec.ValidationError("statements and {input, output} are mixed")
    return tests


def _run(
    program: str, limits: Limits, tests: Sequence[str] | None = None, stdin: str = ""
) -> SandboxRun:
    try:
        return run_python(program, limits, tests, stdin)
    except OSError as error:  # it held a moment ago: the machine is out of something
        raise RunFatal(f"the sandbox can no longer be put up: {error}") from error


def _as_module(program: str, tests: Sequence[str], limits: Limits) -> Verdict:
    found = _run(program, limits, tests)
    if found.passed and found.ended is Ended.FINISHED:
        return keep("code", 1.0)
    if found.test is not None and found.test < len(tests) and found.error == "AssertionError":
        return drop("code", f"wrong: {' '.join(tests[found.test].split())[:120]}", 0.0)
    return drop("code", _trouble(found) or "ended before its tests", 0.0)


def _as_program(program: str, pairs: Sequence[Pair], limits: Limits) -> Verdict:
    for number, pair in enumerate(pairs):
        found = _run(program, limits, stdin=pair.input)
        if trouble := _trouble(found):
            return drop("code", trouble, round(number / len(pairs), 3))
        if _printed(found.output) != _printed(pair.output):
            reason = f"wrong: printed {found.output[:60]!r} for input {number + 1}"
            return drop("code", reason, round(number / len(pairs), 3))
    return keep("code", 1.0)


def _trouble(found: SandboxRun) -> str | None:
    """How a program ended other than well."""
    if found.ended is not Ended.FINISHED:
        return str(found.ended)
    if found.error == "MemoryError":
        return "out of memory"
    if found.error is not None:
        return f"raised: {found.error}"
    return f"ended badly: status {found.status}" if found.status else None


def _printed(text: str) -> list[str]:
    """Lines without the spaces and the blank lines at their ends."""
    return [line.rstrip() for line in text.strip().splitlines()]


def python_code(text: str, tests: str = "") -> str | None:
    """The answer's Python code, or None.

    Of several code blocks the first that defines a name which the tests use, else the first. An
    answer without a block counts where its first line is code. A block that is not closed is none.
    """
    blocks = _blocks(text)
    if not blocks and "```" not in text and _STARTS.match(text):
        return text
    used = set(re.findall(r"\w+", tests))
    for block in blocks:
        if used & {name for pair in _DEFINED.findall(block) for name in pair if name}:
            return block
    return blocks[0] if blocks else None


def _blocks(text: str) -> list[str]:
    """The closed code blocks that are marked as Python or not at all."""
    found: list[str] = []
    opened: tuple[str, str] | None = None
    lines: list[str] = []
    for line in text.splitlines():
        fence = _FENCE.match(line)
        if opened is None:
            if fence:
                opened, lines = (fence.group(1), fence.group(2).lower()), []
        elif fence and not fence.group(2) and fence.group(1).startswith(opened[0]):
            if opened[1] in _PYTHON and any(line.strip() for line in lines):
                found.append("\n".join(lines) + "\n")
            opened = None
        else:
            lines.append(line)
    return found
