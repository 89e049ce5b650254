"""Which request ids a ledger holds, and where: 24 bytes an id, ready in seconds.

Old rows lie in sorted arrays (two 64-bit halves of the id and a packed place); new ones in a
small dictionary that is merged in now and then. Beside each segment lies `<segment>.idx`, the
arrays of the rows that had been scanned when it was written; only what came later is scanned
again. It can be deleted at any time.
"""

from __future__ import annotations

import os
import zlib
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.records import Finish

MERGE_AT = 50_000
WORTH_A_FILE = 1000  # rows; fewer are scanned faster than a file is written
_OFFSET_BITS = 44  # 16 TiB a segment
_SEGMENT_BITS = 18
_ERROR_BIT = 62
_MAGIC = b"distill2"
_HEAD = 24  # bytes: magic, bytes of the segment that are covered, checksum of all the rest


class Location(NamedTuple):
    segment: int
    offset: int  # bytes
    error: bool  # an ERROR row: to be asked again


def _pack(where: Location) -> int:
    return (where.error << _ERROR_BIT) | (where.segment << _OFFSET_BITS) | where.offset


def _unpack(value: int) -> Location:
    segment = (value >> _OFFSET_BITS) & ((1 << _SEGMENT_BITS) - 1)
    return Location(segment, value & ((1 << _OFFSET_BITS) - 1), bool(value >> _ERROR_BIT))


class Index:
    """Maps request ids to their rows. An answer is never replaced by a later ERROR row."""

    def __init__(self) -> None:
        import numpy as np

        self._np = np
        self._high = np.empty(0, np.uint64)
        self._low = np.empty(0, np.uint64)
        self._place = np.empty(0, np.int64)
        self._recent: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._high) + len(self._recent)

    def find(self, request_id: str) -> Location | None:
        key = bytes.fromhex(request_id)
        value = self._recent.get(key)
        if value is None:
            position = self._position(key)
            if position is None:
                return None
            value = int(self._place[position])
        return _unpack(value)

    def answered(self, ids: Any) -> Any:
        """Which of `ids`, (n, 2) halves, are surely answered: an array of n booleans.

        For a freshly opened index; what was added since may be left out.
        """
        np = self._np
        if not len(self._high) or not len(ids):
            return np.zeros(len(ids), bool)
        at = np.minimum(np.searchsorted(self._high, ids[:, 0]), len(self._high) - 1)
        same = (self._high[at] == ids[:, 0]) & (self._low[at] == ids[:, 1])
        return same & (self._place[at] >> 62 == 0)

    def add(self, request_id: str, where: Location) -> None:
        known = self.find(request_id)
        if known is not None and where.error and not known.error:
            return
        key = bytes.fromhex(request_id)
        position = None if key in self._recent else self._position(key)
        if position is not None:
            self._place[position] = _pack(where)
            return
        self._recent[key] = _pack(where)
        if len(self._recent) >= MERGE_AT:
            self._merge()

    def add_segment(
        self,
        number: int,
        path: Path,
        rows_from: Callable[[int], Iterable[tuple[int, str, str]]],
    ) -> None:
        """Add every row of a segment: from its .idx file, then `rows_from(offset)` for the rest.

        `rows_from` yields (offset, request id, finish). Call `sort` after the last segment.
        """
        np = self._np
        rows, start = self._read_file(path)
        # flat buffers: a million small objects would take five times the index itself
        ids, places, end = bytearray(), array("Q"), start
        for offset, request_id, finish in rows_from(start):
            ids += bytes.fromhex(request_id)
            places.append((finish == Finish.ERROR) << _ERROR_BIT | offset)
            end = offset
        if places:
            fresh = np.empty((len(places), 3), np.uint64)
            fresh[:, :2] = np.frombuffer(ids, ">u8").reshape(-1, 2)
            fresh[:, 2] = places
            del ids
            rows = np.concatenate([rows, fresh]) if len(rows) else fresh
            if len(places) > WORTH_A_FILE:
                self._write_file(path, rows, end)
        self._high = np.concatenate([self._high, rows[:, 0]])
        self._low = np.concatenate([self._low, rows[:, 1]])
        place = rows[:, 2].astype(np.int64)
        place |= number << _OFFSET_BITS
        self._place = np.concatenate([self._place, place])

    def _position(self, key: bytes) -> int | None:
        high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        at = int(self._high.searchsorted(self._np.uint64(high)))
        while at < len(self._high) and int(self._high[at]) == high:
            if int(self._low[at]) == low:
                return at
            at += 1
        return None

    def _merge(self) -> None:
        """Insert the recent ids where they belong; none of them is in the arrays yet."""
        np = self._np
        ids = np.frombuffer(b"".join(self._recent), ">u8").reshape(-1, 2).astype(np.uint64)
        places = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        order = np.argsort(ids[:, 0])
        high = ids[order, 0]
        at = np.searchsorted(self._high, high)
        self._high = np.insert(self._high, at, high)
        self._low = np.insert(self._low, at, ids[order, 1])
        self._place = np.insert(self._place, at, places[order])
        self._recent.clear()

    def sort(self) -> None:
        """Sort by id; of several rows of one id keep an answer before an error, then the latest."""
        np = self._np
        order = np.argsort(self._high)
        high = self._high[order]
        if not (high[1:] == high[:-1]).any():  # the usual case: no id twice
            self._high, self._low, self._place = high, self._low[order], self._place[order]
            return
        # errors have the highest bit set, and the complement of the rest puts the latest first
        rank = self._place ^ ((1 << _ERROR_BIT) - 1)
        order = np.lexsort((rank, self._low, self._high))
        self._high, self._low = self._high[order], self._low[order]
        self._place = self._place[order]
        same = (self._high[1:] == self._high[:-1]) & (self._low[1:] == self._low[:-1])
        first = np.concatenate([[True], ~same])
        self._high, self._low = self._high[first], self._low[first]
        self._place = self._place[first]

    def _read_file(self, path: Path) -> tuple[Any, int]:
        """(rows of [high, low, place], bytes of the segment they cover); nothing if unusable."""
        np = self._np
        none = np.empty((0, 3), np.uint64), 0
        try:
            data = memoryview(path.with_suffix(".idx").read_bytes())
        except OSError:
            return none
        head, body = data[:_HEAD], data[_HEAD:]
        if len(head) < _HEAD or head[:8] != _MAGIC or len(body) % 24:
            return none
        covered, crc = int.from_bytes(head[8:16], "little"), int.from_bytes(head[16:], "little")
        if covered > path.stat().st_size or crc != zlib.crc32(body, zlib.crc32(head[:16])):
            return none
        return np.frombuffer(body, np.uint64).reshape(-1, 3), covered

    def _write_file(self, path: Path, rows: Any, last_offset: int) -> None:
        with path.open("rb") as file:
            file.seek(last_offset)
            covered = last_offset + len(file.readline())
        head = _MAGIC + covered.to_bytes(8, "little")
        crc = zlib.crc32(rows.data, zlib.crc32(head))
        partial = path.with_suffix(".idx.partial")  # the checksum tells if two wrote it at once
        try:
            with partial.open("wb") as out:
                out.write(head + crc.to_bytes(8, "little"))
                out.write(rows.data)
            os.replace(partial, path.with_suffix(".idx"))
        except OSError:  # it only saves time: a full disk must not keep a ledger from opening
            with suppress(OSError):
                partial.unlink()
