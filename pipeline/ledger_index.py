"""Which request ids a ledger holds, and where: 24 bytes an id, ready in seconds.

Old rows lie in sorted arrays (two 64-bit halves of the id and a packed place); new ones in a
small dictionary that is merged in now and then. Beside each segment lies `<segment>.idx`, the
arrays of the rows it held when it was written (at the end of the segment, or when a start had
scanned it); only what came later is scanned again. It can be deleted at any time.
"""

from __future__ import annotations

import ctypes
import os
import zlib
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.records import Finish

MERGE_AT = 16_384  # the dictionary is 3 MB; a merge goes through the arrays
WORTH_A_FILE = 1000  # rows; fewer are scanned faster than a file is written
_OFFSET_BITS = 44  # 16 TiB a segment
_SEGMENT_BITS = 18
MOST_SEGMENTS = 1 << _SEGMENT_BITS
_ERROR_BIT = 62
_ALL = (1 << 64) - 1
_SEGMENT_MASK = ((1 << _SEGMENT_BITS) - 1) << _OFFSET_BITS
_MAGIC = b"distill3"
_HEAD = 24  # bytes: magic, bytes of the segment that are covered, checksum of all the rest
_AT_ONCE = 1 << 16  # rows that are worked on at a time
_MMAP_THRESHOLD = -3  # glibc's malloc.h


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
    """Maps request ids to their rows. An answer is never replaced by a later ERROR row.

    Memory: 24 bytes an id, some 30 while a ledger is opened that has no index files.
    """

    def __init__(self) -> None:
        import numpy as np

        _map_large_blocks()
        self._np = np
        self._high = np.empty(0, np.uint64)
        self._low = np.empty(0, np.uint64)
        self._place = np.empty(0, np.uint64)
        self._recent: dict[bytes, int] = {}
        self._loading: list[tuple[Any, Any, Any]] = []  # columns of segments, for one insertion
        self._loaded = 0  # rows of them

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
        return same & (self._place[at] >> _ERROR_BIT == 0)

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

        `rows_from` yields (offset, request id, finish). After the last one call `drop_replaced`.
        """
        end = start = self._add_file(number, path)
        high, low, place, fresh = array("Q"), array("Q"), array("Q"), 0
        for offset, request_id, finish in rows_from(start):
            # flat buffers: a million small objects would take five times the index itself
            high.append(int(request_id[:16], 16))
            low.append(int(request_id[16:], 16))
            place.append(_pack(Location(number, offset, finish == Finish.ERROR)))
            end, fresh = offset, fresh + 1
            if len(place) >= self._step():
                self._insert(high, low, place)
                high, low, place = array("Q"), array("Q"), array("Q")
        self._insert_with_others(high, low, place)
        if fresh > WORTH_A_FILE:
            with path.open("rb") as file:
                file.seek(end)
                covered = end + len(file.readline())
            self.write_segment(number, path, covered)

    def write_segment(self, number: int, path: Path, covered: int) -> None:
        """Write the .idx file of the latest segment; rows of others may have been replaced since.

        `covered`: bytes of the segment whose rows are all in the index.
        """
        np = self._np
        self._insert_loaded()
        self._merge()
        segment = np.uint64(number << _OFFSET_BITS)
        head = _MAGIC + covered.to_bytes(8, "little")
        crc = zlib.crc32(head)
        partial = path.with_suffix(".idx.partial")  # the checksum tells if two wrote it at once
        try:
            with partial.open("wb") as out:
                out.write(head + bytes(8))
                for column in (self._high, self._low, self._place):
                    for at in range(0, len(column), _AT_ONCE):
                        place = self._place[at : at + _AT_ONCE]
                        mine = place & np.uint64(_SEGMENT_MASK) == segment
                        rows = column[at : at + _AT_ONCE][mine]
                        crc = zlib.crc32(rows.data, crc)
                        out.write(rows.data)
                out.seek(len(head))
                out.write(crc.to_bytes(8, "little"))
            os.replace(partial, path.with_suffix(".idx"))
        except OSError:  # it only saves time: a full disk must not keep a ledger from opening
            with suppress(OSError):
                partial.unlink()

    def _add_file(self, number: int, path: Path) -> int:
        """Add the rows of an .idx file; the bytes of the segment they cover, 0 if unusable.

        Layout: magic, covered, checksum of all else; then the columns high, low and place of the
        segment's rows, 64-bit numbers in the order of high.
        """
        np = self._np
        try:
            with path.with_suffix(".idx").open("rb") as file:
                rows, odd = divmod(os.fstat(file.fileno()).st_size - _HEAD, 24)
                head = file.read(_HEAD)
                covered, crc = (int.from_bytes(part, "little") for part in (head[8:16], head[16:]))
                found = zlib.crc32(head[:16])
                while block := file.read(8 * _AT_ONCE):
                    found = zlib.crc32(block, found)
                if odd or head[:8] != _MAGIC or crc != found or covered > path.stat().st_size:
                    return 0
                step = self._step() if len(self._high) else rows or 1
                for at in range(0, rows, step):
                    n = min(step, rows - at)
                    columns = []
                    for i in range(3):
                        file.seek(_HEAD + 8 * (i * rows + at))
                        columns.append(np.fromfile(file, np.uint64, n))
                    # the segment's number among its neighbours may not be what it was
                    columns[2] &= np.uint64(~_SEGMENT_MASK & _ALL)
                    columns[2] |= np.uint64(number << _OFFSET_BITS)
                    self._insert_with_others(*columns)
        except OSError:
            return 0
        return covered

    def _position(self, key: bytes) -> int | None:
        high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        at = int(self._high.searchsorted(self._np.uint64(high)))
        while at < len(self._high) and int(self._high[at]) == high:
            if int(self._low[at]) == low:
                return at
            at += 1
        return None

    def _merge(self) -> None:
        """Move the recent ids, none of which is in the arrays yet, to where they belong."""
        np = self._np
        if self._recent:
            ids = np.frombuffer(b"".join(self._recent), ">u8").astype(np.uint64)
            places = np.fromiter(self._recent.values(), np.uint64, len(self._recent))
            self._recent.clear()
            self._insert(ids[::2], ids[1::2], places)

    def _step(self) -> int:
        """Rows that are inserted at once: fewer would move the arrays too often."""
        return max(_AT_ONCE, len(self._high) // 8)

    def _insert_with_others(self, high: Any, low: Any, place: Any) -> None:
        """As `_insert`, by `drop_replaced` at the latest. The rows of thousands of small segments,
        put in one by one, would move those of all the others thousands of times."""
        enough = self._step() // 2
        if len(high) >= enough:
            self._insert(high, low, place)
            return
        self._loading.append((high, low, place))
        self._loaded += len(high)
        if self._loaded >= enough:
            self._insert_loaded()

    def _insert_loaded(self) -> None:
        columns = list(zip(*self._loading, strict=True))
        self._loading, self._loaded = [], 0
        if columns:
            joined = [self._np.concatenate(columns.pop(0)) for _ in range(3)]
            self._insert(*joined)

    def _insert(self, high: Any, low: Any, place: Any) -> None:
        """Put rows in where they belong; the arrays grow in place."""
        np = self._np
        high, low, place = (np.asarray(column, np.uint64) for column in (high, low, place))
        if not (high[1:] >= high[:-1]).all():
            order = np.argsort(high)
            high, low, place = high[order], low[order], place[order]
        if not len(self._high):
            # "O": arrays of their own, which can grow
            own = [np.require(column, None, "O") for column in (high, low, place)]
            self._high, self._low, self._place = own
            return
        to = np.searchsorted(self._high, high) + np.arange(len(high))
        _spread(self._high, high, to)
        _spread(self._low, low, to)
        _spread(self._place, place, to)

    def drop_replaced(self) -> None:
        """Of several rows of one id keep an answer before an error, then the latest."""
        self._insert_loaded()
        same = self._high[1:] == self._high[:-1]
        if same.any():
            self._drop(same)

    def _drop(self, same: Any) -> None:
        """`same[i]`: rows i and i + 1 share the first half of their ids. Seldom many."""
        np = self._np
        twice = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        high, low, place = self._high[twice], self._low[twice], self._place[twice]
        # errors have the highest bit set, and the complement of the rest puts the latest first
        order = np.lexsort((place ^ np.uint64((1 << _ERROR_BIT) - 1), low, high))
        low, place = low[order], place[order]
        self._low[twice], self._place[twice] = low, place
        replaced = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
        keep = np.ones(len(self._high), bool)
        keep[twice[1:][replaced]] = False
        self._high = self._high[keep]
        self._low = self._low[keep]
        self._place = self._place[keep]


def _map_large_blocks() -> None:
    """Let malloc keep every block of a megabyte or more out of its heap.

    glibc raises that limit to the size of each such block that is freed. Then the columns would
    grow in the heap and leave holes of their own size: 20 MB at a million ids.
    """
    with suppress(OSError, AttributeError):  # not glibc: leave it as it is
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)


def _spread(column: Any, values: Any, to: Any) -> None:
    """Insert values, in place: `to` are their positions in the result, in ascending order."""
    import numpy as np

    size = len(column) + len(values)
    column.resize(size, refcheck=False)
    for start in range((size - 1) // _AT_ONCE * _AT_ONCE, -1, -_AT_ONCE):
        end = min(start + _AT_ONCE, size)
        first, last = np.searchsorted(to, (start, end))
        if last == 0:
            return  # what stands before stays
        block = np.empty(end - start, np.uint64)
        new = np.zeros(end - start, bool)
        new[to[first:last] - start] = True
        block[new] = values[first:last]
        block[~new] = column[start - first : end - last]
        column[start:end] = block
