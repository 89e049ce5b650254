"""What is on disk about the batches that a provider works on: one small record a part.

    runs/ledger/<model>/batches/
        <part>.json      the record: phase, file id, batch id
        <part>.ids       its request ids, one a line
        <part>.input     the JSONL to upload; gone once the batch exists
        <part>.output    what came back, as it came, until the ledger holds all of it
        <part>.errors

A record is replaced by a rename and synced, before and after each effect at the provider, so a
kill leaves the old or the new one. No key is ever in it. `COLLECTED` and `FAILED` records stay:
they say which batches were paid for.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO

import msgspec

from pipeline import file_locks
from pipeline.errors import Stopped, UserError


class Phase(StrEnum):
    UPLOADED = "uploaded"  # the file is there; the batch may exist or not
    CREATED = "created"  # the provider works on the batch, or has ended it unseen
    ENDED = "ended"  # its answers are in our files, and perhaps not yet in the ledger
    COLLECTED = "collected"  # all its answers are in the ledger
    FAILED = "failed"  # refused as a whole: nothing was asked


OPEN = (Phase.UPLOADED, Phase.CREATED, Phase.ENDED)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One batch, as far as it is known."""

    id: str  # ours; also in the batch's metadata
    phase: Phase
    rows: int
    endpoint: str  # its public URL
    file_id: str
    uploaded_at: float  # Unix seconds
    batch_id: str | None = None
    status: str | None = None  # the provider's last word


def batches_folder(ledger: Path) -> Path:
    """Beside the segments of a model's ledger, and out of the way of their `*.jsonl`."""
    return ledger / "batches"


def all_parts(ledger: Path) -> list[Part]:
    """Every record, oldest first; [] where there never was a batch."""
    found: list[Part] = []
    for path in sorted(batches_folder(ledger).glob("*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Part))
        except msgspec.DecodeError as error:
            raise UserError(
                f"{path}: this record of a batch is damaged ({error}). Its rows may be paid for: "
                "look the batch up at the provider, then delete the file; what is still missing "
                "is then asked again"
            ) from error
    return sorted(found, key=lambda part: part.uploaded_at)


def open_parts(ledger: Path) -> list[Part]:
    """Those whose answers may not all be in the ledger."""
    return [part for part in all_parts(ledger) if part.phase in OPEN]


class Records:
    """The records of one model's batches; one process may hold them at a time."""

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger
        self.folder = batches_folder(ledger)
        self._lock: IO[str] | None = None

    def acquire(self) -> None:
        """Keep other processes out, or say that one is here. The kernel frees a dead one's lock."""
        if self._lock is not None:
            return
        with enough_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        taken = file_locks.lock(lock)
        if taken is file_locks.Lock.NONE_HERE:
            print(
                f"{self.folder}: this filesystem has no locks; see to it that one run at a time "
                "works with batches of this model",
                file=sys.stderr,
            )
        if taken is file_locks.Lock.TAKEN:
            lock.close()
            raise UserError(
                f"{self.folder}: another distill process works with batches of this model; wait "
                "for it, or stop it (its batches go on) and type the command again"
            )
        self._lock = lock

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def open_parts(self) -> list[Part]:
        return open_parts(self.ledger)

    def file(self, part_id: str, kind: str) -> Path:
        """`kind`: json, ids, input, output or errors."""
        return self.folder / f"{part_id}.{kind}"

    def write(self, part: Part) -> Part:
        path = self.file(part.id, "json")
        self._replace(path, msgspec.json.encode(part) + b"\n")
        return part

    def write_ids(self, part_id: str, ids: Iterable[str]) -> None:
        self._replace(self.file(part_id, "ids"), "".join(f"{i}\n" for i in ids).encode())

    def ids(self, part: Part) -> list[str]:
        try:
            ids = self.file(part.id, "ids").read_text().split()
        except FileNotFoundError:
            ids = []
        if len(ids) != part.rows:
            raise UserError(
                f"{self.file(part.id, 'ids')}: {len(ids)} request ids instead of {part.rows}, so "
                f"the answers of batch {part.batch_id} cannot be told apart. Put the file back, or "
                f"delete {self.file(part.id, 'json')} to ask its rows again"
            )
        return ids

    def shed(self, part_id: str, *kinds: str) -> None:
        """Delete files of a part that are no longer needed."""
        for kind in kinds:
            self.file(part_id, kind).unlink(missing_ok=True)

    def close(self, part: Part, phase: Phase, status: str | None = None) -> None:
        """The last record of a part; its files go."""
        self.write(msgspec.structs.replace(part, phase=phase, status=status or part.status))
        self.shed(part.id, "ids", "input", "output", "errors")

    def forget(self, part_id: str) -> None:
        """There is no batch: the record goes first, the rest is then litter."""
        self.shed(part_id, "json", "ids", "input", "output", "errors")

    def tidy(self) -> None:
        """Delete what a killed process had begun and nothing was asked of, or had done with."""
        open_ids = {part.id for part in self.open_parts()}
        for path in self.folder.iterdir():
            litter = path.suffix != ".json" and path.stem not in open_ids
            if path.name != ".lock" and (path.suffix == ".partial" or litter):
                path.unlink(missing_ok=True)

    def _replace(self, path: Path, data: bytes) -> None:
        with enough_disk(self.folder):
            partial = path.with_name(path.name + ".partial")
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            settle(partial, path)


def settle(partial: Path, path: Path) -> None:
    """Give a synced file its name, durably."""
    os.replace(partial, path)
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def enough_disk(folder: Path) -> Iterator[None]:
    """A full disk ends the run with exit 75; batches that exist go on without us."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Stopped(
            f"the disk of {folder} is full; nothing paid for is lost. Make room and run the same "
            "command again"
        ) from error
