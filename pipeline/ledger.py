"""The one store of what was paid for: append-only JSONL segments, one writer each.

    runs/ledger/<model>/<writer>-<number>.jsonl      (names: ledger_segments.py)

A line is `{"k":ID,"f":FINISH,"row":{...},"crc":CRC32}`: the id and the finish stand at fixed
places, so that an index of a million rows needs no JSON parsing, and the checksum ends the line.
A row is written as it comes and synced together with others, by a thread of its own while the next
ones come; never are more than 64 rows unsynced, nor one for long (50 ms and a sync). A process
always opens a new segment and never appends to an old one: no locks, and a torn tail (a kill in
the middle of a write) can only be the last line of a file. It is skipped and counted; a bad line
before the end is damage and is refused with its offset (`distill verify --repair`).
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import RunFatal, Stopped, UserError, disk_failure
from pipeline.ledger_index import MOST_SEGMENTS, WORTH_A_FILE, Index, Location
from pipeline.ledger_segments import by_age, may_share, next_number, segment_name
from pipeline.records import Finish, Generation, Request, digest, sync_folder

GROUP_ROWS = 64
GROUP_SECONDS = 0.05
LOOKS = 3  # at a bad line, before it is called damage
LOOK_SECONDS = 0.2
SEGMENT_BYTES = 256 * 2**20  # a larger one is ended: a start after a kill scans the last one only

_HEAD = len(b'{"k":"')
_ID_END = _HEAD + 32
_FINISH = _ID_END + len(b'","f":"')
_TAIL = len(b',"crc":"00000000"}')


class LedgerRow(msgspec.Struct, frozen=True):
    """One paid call: what was asked and what came back."""

    request: Request
    generation: Generation


class _Line(msgspec.Struct, frozen=True):
    k: str
    f: Finish
    row: LedgerRow


class Damage(msgspec.Struct, frozen=True):
    path: Path
    offset: int
    reason: str


def encode_line(row: LedgerRow) -> bytes:
    body = msgspec.json.encode(_Line(row.request.id, row.generation.finish, row))[:-1]
    return body + b',"crc":"%08x"}\n' % zlib.crc32(body)


def check_line(line: bytes) -> bool:
    """Is the checksum of a line (without its newline) right?"""
    body, tail = line[:-_TAIL], line[-_TAIL:]
    return tail == b',"crc":"%08x"}' % zlib.crc32(body)


def decode_line(line: bytes) -> LedgerRow:
    return msgspec.json.decode(line, type=_Line).row


def line_key(line: bytes) -> tuple[str, str]:
    """(request id, finish) of a checked line, by position."""
    end = line.index(b'"', _FINISH)
    return line[_HEAD:_ID_END].decode(), line[_FINISH:end].decode()


def ledger_folder(root: Path, model: str) -> Path:
    """Folder of one model identity: readable, unique, and free of anything a path could abuse."""
    slug = re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-.")[:48]
    return root / "ledger" / f"{slug}-{digest(model, 8)}"


def scan(path: Path, start: int = 0) -> Iterator[tuple[int, bytes] | Damage]:
    """(offset, line) of every whole line from `start`; a `Damage` for each bad one.

    A last line that was cut off comes as a Damage with reason "torn".
    """
    with path.open("rb", buffering=1 << 20) as file:
        file.seek(start)
        offset = start
        for line in file:
            if check_line(line.removesuffix(b"\n")):
                yield offset, line.removesuffix(b"\n")
            else:
                yield Damage(path, offset, "checksum" if line.endswith(b"\n") else "torn")
            offset += len(line)


class Ledger:
    """Answers of one model. Open it, ask `answered`, `append` what arrives, `close`.

    `shard` of `of`: it reads only the segments that can hold that shard's requests, and knows no
    others; 0 of 0 is the whole. What `append` took survives a kill at once, and a loss of power
    within 50 ms or after `flush`.
    Errors of the disk surface at this call or the next: a full disk as `Stopped` (exit 75), any
    other as `RunFatal`, never retried.
    """

    def __init__(self, root: Path, model: str, shard: int = 0, of: int = 0) -> None:
        self.folder = ledger_folder(root, model)
        self.model = model
        self.shard = shard
        self.of = of
        self.torn = 0
        self._file: int | None = None
        self._segment = -1
        self._size = 0  # bytes of whole lines
        self._rows = 0  # of the segment
        self._pending: dict[str, tuple[Location, bytes]] = {}  # written, not yet synced
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._syncing = threading.Lock()  # held during a sync; taken before _lock, never inside
        self._wake = threading.Event()
        self._enough = threading.Event()
        self._closing = threading.Event()
        self._flusher: threading.Thread | None = None
        try:
            _make_folder(self.folder)
            # listdir and not glob, which in later Pythons takes a failing disk for an empty folder
            found = (name for name in os.listdir(self.folder) if name.endswith(".jsonl"))
            names = sorted(found, key=by_age)
            self._next_number = next_number(names)
            mine = [name for name in names if may_share(name, shard, of)]
            self._refuse_too_many(len(mine))
            self._paths: list[Path] = [self.folder / name for name in mine]
            self._index = Index()
            for number, path in enumerate(self._paths):
                self._load(number, path)
        except OSError as error:
            raise self._failed(error) from error
        self._index.drop_replaced()

    def _load(self, number: int, path: Path) -> None:
        def rows(start: int, looks: int = 1) -> Iterator[tuple[int, str, str]]:
            for item in scan(path, start):
                if not isinstance(item, Damage):
                    yield item[0], *line_key(item[1])
                elif item.reason == "torn":
                    self.torn += 1
                elif looks < LOOKS and _has_a_hole(item):
                    # On a shared filesystem the parts of what another machine writes just now may
                    # arrive in any order; opened again a little later the file is whole.
                    time.sleep(LOOK_SECONDS)
                    yield from rows(item.offset, looks + 1)
                    return
                else:
                    raise UserError(
                        f"{path}: damaged at byte {item.offset} ({item.reason}); type "
                        "`distill verify RUN --repair` to set the bad lines aside; they are then "
                        "asked again"
                    )

        self._index.add_segment(number, path, rows)

    def answered(self, request_id: str) -> bool:
        """Is there an answer that needs no asking again (anything but an ERROR row)?"""
        with self._lock:
            if (waiting := self._pending.get(request_id)) is not None:
                return not waiting[0].error
            where = self._index.find(request_id)
        return where is not None and not where.error

    def all_answered(self, ids: Any) -> Any:
        """`answered` for an (n, 2) array of ids in 64-bit halves, as n booleans."""
        return self._index.answered(ids)

    def attempts(self, request_id: str) -> int:
        """How often an unanswered request has been tried."""
        row = self.get(request_id)
        return row.generation.attempts if row else 0

    def __len__(self) -> int:
        return len(self._index)

    def get(self, request_id: str) -> LedgerRow | None:
        """The stored row, its checksum tested again."""
        with self._lock:
            if (waiting := self._pending.get(request_id)) is not None:
                return decode_line(waiting[1].removesuffix(b"\n"))
            where = self._index.find(request_id)
        if where is None:
            return None
        with self._paths[where.segment].open("rb") as file:
            file.seek(where.offset)
            line = file.readline().removesuffix(b"\n")
        if not check_line(line):
            raise UserError(
                f"{self._paths[where.segment]}: damaged at byte {where.offset}; "
                "type `distill verify RUN --repair`"
            )
        return decode_line(line)

    def append(self, request: Request, generation: Generation) -> None:
        """Write a row; it is synced with its group.

        A second row of an id takes the first one's place for readers; both are kept.
        """
        line = encode_line(LedgerRow(request, generation))
        full = self._size >= SEGMENT_BYTES
        if full or len(self._pending) >= GROUP_ROWS or request.id in self._pending:
            self._sync()
        with self._lock:
            self._raise_failure()
            if full and self._file is not None:
                self._close_segment()
            if self._file is None:
                self._open_segment()
            # Written at once, for a killed process loses nothing that the kernel has; synced in
            # groups, for that is what takes time.
            at = Location(self._segment, self._size, generation.finish is Finish.ERROR)
            self._write(line)
            self._rows += 1
            self._pending[request.id] = at, line
            self._wake.set()
            if len(self._pending) >= GROUP_ROWS // 2:
                self._enough.set()

    def flush(self) -> None:
        """Return once everything appended is on the disk."""
        self._sync()

    def close(self) -> None:
        self._closing.set()
        self._wake.set()
        self._enough.set()
        if self._flusher is not None:
            self._flusher.join()
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._close_segment()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_segment(self) -> None:
        self._refuse_too_many(len(self._paths) + 1)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            while True:  # another worker may take the number: O_EXCL decides, without a lock
                path = self.folder / segment_name(self.shard, self.of, self._next_number)
                self._next_number += 1
                with suppress(FileExistsError):
                    self._file = os.open(path, flags, 0o644)
                    break
            sync_folder(self.folder)
        except OSError as error:
            raise self._failed(error) from error
        self._paths.append(path)
        self._segment = len(self._paths) - 1
        self._size = self._rows = 0
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flush_in_time, daemon=True)
            self._flusher.start()

    def _refuse_too_many(self, segments: int) -> None:
        if segments > MOST_SEGMENTS:
            raise UserError(
                f"{self.folder}: {segments:,} segments, and an index can tell {MOST_SEGMENTS:,} "
                "apart. Shards read only their own: ask with --shard (docs/planning.md)"
            )

    def _close_segment(self) -> None:
        """With the index file that spares later starts its scan, if it was written well."""
        assert self._file is not None
        os.close(self._file)
        self._file = None
        if self._failure is None and self._rows > WORTH_A_FILE:
            self._index.write_segment(self._segment, self._paths[self._segment], self._size)

    def _flush_in_time(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            self._enough.wait(GROUP_SECONDS)
            self._enough.clear()
            if self._closing.is_set():
                return
            try:
                self._sync()
            except (Stopped, RunFatal):
                return  # kept in _failure; the next append or close raises it

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            # Leave no torn line behind if the file system still lets us; if it does not, the
            # next start cuts it off.
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise self._failed(error) from error
        self._size += len(line)

    def _sync(self) -> None:
        """Return once every row that was pending is on the disk; meanwhile others may be added."""
        with self._syncing:
            with self._lock:
                self._raise_failure()
                group, file = list(self._pending.items()), self._file
            if not group:
                return
            assert file is not None
            try:
                if os.fstat(file).st_nlink == 0:
                    raise OSError(errno.ESTALE, "the segment was removed while it was written")
                os.fdatasync(file)
            except OSError as error:
                raise self._failed(error) from error
            with self._lock:
                for request_id, (at, _) in group:
                    self._index.add(request_id, at)
                    del self._pending[request_id]

    def _failed(self, error: OSError) -> Exception:
        """The failure every later call raises too; nothing is written after it.

        After a failed sync the kernel may have dropped the pages and call them clean (ATC'20,
        "Can Applications Recover from fsync Failures?"): only a restart, which reads the file
        again, tells what is there.
        """
        self._failure = disk_failure(error, self.folder)
        return self._failure

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _has_a_hole(bad: Damage) -> bool:
    """Are there zeros in a bad line, where something is still to come? A written line has none."""
    with bad.path.open("rb") as file:
        file.seek(bad.offset)
        return b"\0" in file.readline()


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents, each name durable: they hold what was paid for."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def repair(path: Path, also: Collection[int] = ()) -> tuple[int, Path | None]:
    """Set the bad lines of a segment aside, into `<segment>.damaged`; return how many and where.

    `also`: offsets of lines that are bad in spite of a right checksum.

    The good lines are rewritten under a temporary name and renamed, so a kill loses nothing.
    """
    good: list[bytes] = []
    bad: list[bytes] = []
    offset = 0
    for line in path.read_bytes().split(b"\n"):
        if line:
            (good if check_line(line) and offset not in also else bad).append(line)
        offset += len(line) + 1
    if not bad:
        return 0, None
    aside = path.with_suffix(".damaged")
    with aside.open("ab") as file:
        file.write(b"\n".join(bad) + b"\n")
        os.fsync(file.fileno())
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(b"".join(line + b"\n" for line in good))
        os.fsync(file.fileno())
    path.with_suffix(".idx").unlink(missing_ok=True)
    os.replace(partial, path)
    sync_folder(path.parent)
    return len(bad), aside
