"""Rows that say nearly the same: MinHash signatures, met in bands, then compared.

The filter gathers: it sees every row that passed the filters before it, and then judges each.
While it gathers, signatures go to files without a name in the folder for temporary files (set
TMPDIR to choose it), about 350 bytes a row. Memory while it looks for pairs, one band after the
other: 15 bytes a row, and about 100 more for a row that meets another one; 4 bytes after that.

Two rows are a pair if they agree in all slots of one band at least and in `threshold` of all 128
slots. With `threshold: 0.8` there are 18 bands of 7 slots: a pair of Jaccard 0.8 meets in one of
them in 98.5 % of all cases, of 0.9 in all but one of 100,000 (Leskovec, Rajaraman and Ullman,
Mining of Massive Datasets, chapter 3).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial

import numpy as np

from pipeline.records import Verdict
from pipeline.stage1_generate.curate import Candidate
from pipeline.stage1_generate.curate.alike import Alike, Over, choice
from pipeline.stage1_generate.curate.minhash import (
    MAX_NGRAM,
    SLOTS,
    Array,
    By,
    band_keys,
    bands_for,
    signatures,
)

_COMPARED = 4096  # pairs at a time
_LEADERS = 16  # rows of one bucket that the others in it are compared with, at most
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


class NearDuplicates:
    """Keep the first of the rows that share most of their shingles; says which row that was.

    A row is dropped if its Jaccard similarity to an earlier row that is kept, estimated from 128
    slots, is at least `threshold`; the estimate is the score. Rows of fewer than `ngram` words (or
    characters) are left to exact_duplicates. A Chinese character counts as a word; case,
    punctuation and spacing do not count, the signs of arithmetic do.
    """

    looks_back = True

    def __init__(
        self, threshold: float = 0.8, ngram: int = 5, by: str = "words", over: str = "both"
    ) -> None:
        if not 0.2 <= threshold <= 1:
            raise ValueError(f"threshold is a number from 0.2 to 1; seen: {threshold}")
        if not 1 <= ngram <= MAX_NGRAM:
            raise ValueError(f"ngram is a whole number from 1 to {MAX_NGRAM}; seen: {ngram}")
        opened = partial(Signatures, threshold, ngram, choice("by", by, By))
        self._rows = Alike("near_duplicates", choice("over", over, Over), opened)

    def gather(self, row: Candidate) -> None:
        self._rows.gather(row)

    def __call__(self, row: Candidate) -> Verdict:
        return self._rows.verdict(row)


class Signatures:
    """Signatures of numbered texts, on disk, and the pairs among them."""

    def __init__(self, threshold: float, ngram: int, by: By) -> None:
        self._threshold, self._ngram, self._by = threshold, ngram, by
        self._bands, self._band_rows = bands_for(threshold)
        self._files = ExitStack()
        self._slots, *self._keys = (
            self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            for _ in range(1 + self._bands)
        )
        self._size = 0

    def add(self, texts: list[str]) -> None:
        slots, counts = signatures(texts, self._ngram, self._by)
        # 16 bits of a slot are enough to compare it: 1 of 65,536 slots that differ looks equal.
        self._slots.write(slots.astype(np.uint16).tobytes())
        keys = np.maximum(band_keys(slots, self._bands, self._band_rows), 1)
        keys[:, counts == 0] = 0
        for file, of_band in zip(self._keys, keys, strict=True):
            file.write(of_band.tobytes())
        self._size += len(slots)

    def close(self) -> None:
        del self._read
        self._files.close()

    def similarity(self, left: int, right: int) -> float:
        return float((self._read[left] == self._read[right]).mean())

    def similar(self, left: Array, right: Array) -> Array:
        """The estimated Jaccard similarity of pairs of rows."""
        found = np.empty(len(left))
        for at in range(0, len(left), _COMPARED):
            part = slice(at, at + _COMPARED)
            found[part] = (self._read[left[part]] == self._read[right[part]]).mean(axis=1)
        return found

    def firsts(self) -> Array:
        self._slots.flush()
        first = np.full(self._size, -1, np.int32)
        self._read = np.memmap(self._slots, np.uint16, mode="r", shape=(self._size, SLOTS))
        for later, earlier in _by_later(self._pairs()):
            kept = [row for row in earlier if first[row] < 0]
            if not kept:
                # Like rows that are dropped themselves; it goes if it is also like what they
                # were dropped for.
                kept = self._alike({int(first[row]) for row in earlier}, later)
            if kept:
                first[later] = min(kept)
        return first

    def _alike(self, rows: Iterable[int], other: int) -> list[int]:
        found = np.array(sorted(rows))
        scores = self.similar(found, np.full(len(found), other))
        return [int(row) for row in found[scores >= self._threshold]]

    def _pairs(self) -> Array:
        """Sorted uint64, later row << 32 | earlier row, of pairs that are similar."""
        pairs = np.empty(0, np.uint64)
        for file in self._keys:
            file.seek(0)
            packed = np.arange(self._size, dtype=np.uint64)
            _keys(packed)[:] = np.frombuffer(file.read(), np.uint32)
            packed.sort()
            packed = packed[np.searchsorted(packed, np.uint64(1 << 32)) :]  # without key 0
            pairs = np.union1d(pairs, self._of_band(packed, pairs))
        return pairs

    def _of_band(self, packed: Array, known: Array) -> Array:
        """The similar pairs in the buckets of one band.

        packed: sorted, key << 32 | row. The first row of a bucket is compared with the others; then
        the first of those that are not like it, and so on.
        """
        found = []
        for _ in range(_LEADERS):
            packed = _in_company(packed)
            if not len(packed):
                break
            keys = _keys(packed)
            fresh = np.concatenate([[True], keys[1:] != keys[:-1]])
            starts = np.flatnonzero(fresh)
            leader = packed[np.repeat(starts, np.diff(starts, append=len(packed)))] & _LOW
            others = ~fresh
            packed, leader = packed[others], leader[others]
            rows = packed & _LOW
            pairs = (rows << _HALF) | leader
            alike = np.isin(pairs, known)
            unknown = np.flatnonzero(~alike)
            scores = self.similar(leader[unknown], rows[unknown])
            alike[unknown[scores >= self._threshold]] = True
            found.append(pairs[alike])
            packed = packed[~alike]
        return np.concatenate(found) if found else np.empty(0, np.uint64)


def _keys(packed: Array) -> Array:
    """The upper halves, without a copy of them all."""
    return packed.view(np.uint32)[1 if sys.byteorder == "little" else 0 :: 2]


def _in_company(packed: Array) -> Array:
    """Those of the sorted key << 32 | row whose key another one has too: mostly few."""
    keys = _keys(packed)
    same = keys[1:] == keys[:-1]
    company = np.zeros(len(packed), bool)
    company[1:] = same
    company[:-1] |= same
    found: Array = packed[company]
    return found


def _by_later(pairs: Array) -> Iterator[tuple[int, list[int]]]:
    """Each later row with the earlier ones that it is like, in order."""
    later, earlier = -1, list[int]()
    for at in range(0, len(pairs), _COMPARED):
        for pair in pairs[at : at + _COMPARED].tolist():
            if pair >> 32 != later:
                if earlier:
                    yield later, earlier
                later, earlier = pair >> 32, []
            earlier.append(pair & 0xFFFFFFFF)
    if earlier:
        yield later, earlier
