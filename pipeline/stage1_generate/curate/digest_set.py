"""A set of 16-byte digests in 25 to 40 bytes each, where Python's own set takes about 130.

Open addressing with linear probing over two flat arrays, cut into parts by the first byte: a part
that fills up is laid out anew, so that no more than a small share of the set is ever there twice.
"""

from __future__ import annotations

import struct
from array import array

import numpy as np

_HALVES = struct.Struct("<QQ")
_PARTS = 64
_FULL = 0.7  # of the slots; at more, looking for a digest that is not there takes many steps
_GROWTH = 1.5
_TAIL = 16  # slots behind the last home, for those that it pushes on


class DigestSet:
    def __init__(self) -> None:
        self._parts = [_Part() for _ in range(_PARTS)]

    def __len__(self) -> int:
        return sum(part.used for part in self._parts)

    def add(self, digest: bytes) -> bool:
        """Is it new? `digest`: 16 evenly distributed bytes."""
        low, high = _HALVES.unpack(digest)
        low = low or 1  # 0 is an empty slot
        part = self._parts[low % _PARTS]
        lows = part.lows
        at = high % part.homes
        while found := lows[at]:
            if found == low and part.highs[at] == high:
                return False
            at += 1
        lows[at] = low
        part.highs[at] = high
        part.used += 1
        # The last slot stays empty: it ends every search.
        if part.used > part.room or at >= len(lows) - 2:
            part.grow()
        return True


class _Part:
    __slots__ = ("highs", "homes", "lows", "room", "used")

    def __init__(self) -> None:
        self.homes = 64
        self.used = 0
        self.lows = array("Q", bytes(8 * (self.homes + _TAIL)))
        self.highs = array("Q", self.lows)
        self.room = int(self.homes * _FULL)

    def grow(self) -> None:
        """More slots. In the order of their homes each digest gets its own or the next free one."""
        lows, highs = (np.frombuffer(half, np.uint64) for half in (self.lows, self.highs))
        used = np.flatnonzero(lows)
        self.homes = int(self.homes * _GROWTH)
        self.room = int(self.homes * _FULL)
        homes = (highs[used] % np.uint64(self.homes)).astype(np.int64)
        order = np.argsort(homes, kind="stable")
        count = np.arange(len(order))
        places = np.maximum.accumulate(homes[order] - count) + count
        size = max(self.homes, int(places[-1]) + 1) + _TAIL
        for name, old in (("lows", lows), ("highs", highs)):
            new = array("Q", bytes(8 * size))
            np.frombuffer(new, np.uint64)[places] = old[used][order]
            setattr(self, name, new)
