"""The words of a text as 64-bit hashes, computed for a whole text at once.

What the search for evaluation items is made of: a training row of 2 KB is some 350 words, and
Python's own loops over them would cost more than everything else. A hash of a run of words is a
difference of two running sums (Karp & Rabin, IBM Journal of Research and Development 31(2), 1987),
so all runs of a length cost the same, whatever the length. Arithmetic is modulo 2^64; a wrong hit
needs two of some 10^6 grams to agree in 64 bits.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BREAK = "\n\x1e\n"  # between texts that are no neighbours; a word that no item has
_BASE = 0x9E3779B97F4A7C15  # odd: has an inverse modulo 2^64
_RUN_BASE = 0xC2B2AE3D27D4EB4F


class Words(msgspec.Struct, frozen=True):
    """n words: lower case, compatibility forms folded; every Chinese character is one.

    `starts`, `ends`: their places in the text, in characters. `first`: code point they begin with.
    """

    text: str
    hashes: Hashes
    starts: Places
    ends: Places
    first: npt.NDArray[np.unsignedinteger]

    def text_of(self, start: int, end: int) -> str:
        """Words start..end with what stands between them."""
        return self.text[int(self.starts[start]) : int(self.ends[end - 1])]

    def __len__(self) -> int:
        return len(self.hashes)

    def show(self, start: int, end: int) -> str:
        """Words start..end as they are compared: lower case, without punctuation."""
        text = unicodedata.normalize("NFKC", " ".join(self._each(start, end)))
        return text.lower()

    def _each(self, start: int, end: int) -> list[str]:
        pairs = zip(self.starts[start:end].tolist(), self.ends[start:end].tolist(), strict=True)
        return [self.text[a:b] for a, b in pairs]


def words_of(text: str) -> Words:
    """The words of a text. The parts around an apostrophe or hyphen are words of their own."""
    letters, alone = _tables()
    plain = text.isascii()
    if plain:
        codes = np.frombuffer(text.encode(), np.uint8)
        values = letters.take(codes)
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        values = letters.take(codes, mode="clip")
    n = len(codes)
    inside = np.zeros(n + 2, np.bool_)
    inside[1:-1] = values
    edges = inside[1:] != inside[:-1]
    if plain:
        places = edges.nonzero()[0]
        starts, ends = places[::2], places[1::2]
    else:
        single = np.zeros(n + 2, np.bool_)
        single[1:-1] = alone.take(codes, mode="clip")
        cut = edges | single[1:] | single[:-1]
        starts = (cut[:-1] & inside[1:-1]).nonzero()[0]
        ends = (cut[1:] & inside[1:-1]).nonzero()[0] + 1
    powers, inverses = _powers(_BASE, n)
    sums = _running(values * powers[:n])
    return Words(text, (sums[ends] - sums[starts]) * inverses[starts], starts, ends, codes[starts])


class Runs:
    """Of some words: the hash of every run of a length, each length for little more."""

    def __init__(self, hashes: Hashes) -> None:
        self._n = len(hashes)
        powers, self._inverses = _powers(_RUN_BASE, self._n)
        self._sums = _running(hashes * powers[: self._n])

    def of(self, length: int) -> Hashes:
        """Empty where there are fewer words."""
        found = max(0, self._n - length + 1)
        runs: Hashes = self._sums[length : length + found] - self._sums[:found]
        runs *= self._inverses[:found]
        return runs


def runs_of(hashes: Hashes, length: int) -> Hashes:
    return Runs(hashes).of(length)


def _running(values: Hashes) -> Hashes:
    sums = np.zeros(len(values) + 1, np.uint64)
    values.cumsum(out=sums[1:])
    return sums


def is_alone(first: npt.NDArray[np.unsignedinteger]) -> Flags:
    """Which words are Chinese characters, by the code points that words begin with."""
    found: Flags = _tables()[1].take(first, mode="clip")
    return found


def longest_common(left: list[int], right: list[int]) -> int:
    """Length of the longest common subsequence (Hyyro's bit-parallel form of it, AWOCA 2004)."""
    places: dict[int, int] = {}
    for i, value in enumerate(left):
        places[value] = places.get(value, 0) | 1 << i
    whole = (1 << len(left)) - 1
    state = whole
    for value in right:
        both = state & places.get(value, 0)
        state = (state + both | state - both) & whole
    return len(left) - state.bit_count()


_grown: dict[int, tuple[Hashes, Hashes]] = {}


def _powers(base: int, n: int) -> tuple[Hashes, Hashes]:
    """base^i and its inverse, for i from 0 to n at least."""
    found = _grown.get(base)
    if found is None or len(found[0]) <= n:
        size = max(8192, 2 * n)
        both: list[Any] = []
        for factor in (base, pow(base, -1, 2**64)):
            steps = np.full(size, factor, np.uint64)
            steps[0] = 1
            both.append(np.cumprod(steps))
        found = _grown[base] = (both[0], both[1])
    return found


@functools.cache
def _tables() -> tuple[Hashes, Flags]:
    """For each code point below 65,536: its value (0 = no part of a word), and if it is a word.

    The last entry stands for all code points above, of which no word is made.
    """
    letters, alone = np.zeros(0x10001, np.uint64), np.zeros(0x10001, np.bool_)
    for code in range(0x10000):
        char = chr(code)
        if char.isalnum() or char == BREAK.strip("\n"):
            folded = unicodedata.normalize("NFKC", char).lower()
            key = hashlib.blake2b(folded.encode("utf-8", "replace"), digest_size=8).digest()
            letters[code] = int.from_bytes(key, "little")
            alone[code] = "\u3400" <= char <= "\u9fff"
    return letters, alone
