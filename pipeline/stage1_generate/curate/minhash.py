"""MinHash signatures of texts, many at a time in numpy.

A text is a set of shingles: every run of `ngram` words (or characters). Two signatures agree in a
share of their slots that estimates the Jaccard similarity of the two sets (Broder 1997). Made by
one permutation hashing (Li et al. 1208.1259), which hashes a shingle once instead of once for every
slot: it goes into one slot, and the smallest value of a slot stays. A text of few shingles draws
again with fresh hashes for the slots that are still empty (the idea of Dahlgaard, Knudsen and
Thorup 1704.04370), and the very last ones copy another slot by a fixed random rule (Shrivastava
1703.04664). The standard error is that of 128 hash functions, at most 0.044.
"""

from __future__ import annotations

import functools
import random
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class By(StrEnum):
    """What a shingle is made of."""

    WORDS = "words"
    CHARACTERS = "characters"


SLOTS = 128
MAX_NGRAM = 32
_SLOT_BITS = 7
_EMPTY = 0xFFFFFFFF
_DRAWS = 6 * SLOTS  # shingles times draws of a text, at least: 0.25 % of its slots stay empty
_DRAW_BITS = 7
_TRIES = 64  # other slots that an empty one looks at

_LETTER, _ALONE = 1, 2  # part of a word; a word by itself
# Written without spaces: Chinese characters, kana.
_ALONE_RANGES = ((0x3040, 0x3100), (0x3400, 0xA000), (0xF900, 0xFB00), (0x20000, 0x323B0))
_LAST_CODE = 0x323B0  # beyond are no letters
# 2 + 3 and 2 - 3 are not the same; * and | are left to Markdown.
_ALONE_SIGNS = "+-−±×÷/=<>≤≥≠^%"
_FIRST_LETTER = 32  # values below it are those of the signs
_UTF32 = ("utf-32-le", "surrogatepass")

_rng = random.Random(20)
_ODD = [np.uint64(_rng.getrandbits(64) | 1) for _ in range(MAX_NGRAM + 4)]
_BASE = _rng.getrandbits(64) | 1
_HALF = np.uint64(32)
# After so many characters the weights repeat: a word on that border has a hash of its own.
_PERIOD = 1 << 17


def signatures(texts: Sequence[str], ngram: int, by: By) -> tuple[Array, Array]:
    """Slots, (n, 128) uint32; and how many shingles each text has, (n,).

    A text of fewer than `ngram` words (characters) has no shingle, and its slots mean nothing.
    """
    units, owners = _characters(texts) if by is By.CHARACTERS else _words(texts)
    size = len(units) - ngram + 1
    if size <= 0:
        return np.full((len(texts), SLOTS), _EMPTY, np.uint32), np.zeros(len(texts), np.int64)
    shingles = np.zeros(size, np.uint64)
    for k in range(ngram):
        shingles += units[k : size + k] * _ODD[k]
    whole = owners[:size] == owners[ngram - 1 :]
    shingles, owners = _mix(shingles[whole], MAX_NGRAM), owners[:size][whole]
    counts = np.bincount(owners, minlength=len(texts))
    slots = np.full(len(texts) * SLOTS, _EMPTY, np.uint32)
    draws = np.minimum(-(-_DRAWS // np.maximum(counts, 1)), (1 << _DRAW_BITS) - 1)
    for draw in range(int(draws.max())):
        if draw:
            short = draws[owners] > draw
            shingles, owners = shingles[short], owners[short]
            shingles = _mix(shingles, MAX_NGRAM + 1)
        _throw(slots, shingles, owners, draw)
    found = slots.reshape(-1, SLOTS)
    _fill(found, counts > 0)
    return found, counts


def band_keys(slots: Array, bands: int, rows: int) -> Array:
    """(bands, n) uint32: equal where two signatures agree in all `rows` slots of a band."""
    used = slots[:, : bands * rows].reshape(len(slots), bands, rows)
    keys = np.zeros((len(slots), bands), np.uint64)
    for k in range(rows):
        keys = (keys + used[:, :, k]) * _ODD[k]
        keys ^= keys >> _HALF
    keys *= _ODD[MAX_NGRAM]
    found: Array = np.ascontiguousarray((keys >> _HALF).astype(np.uint32).T)
    return found


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, slots a band): the longest that meet in >= 95 % of pairs right at the threshold."""
    for rows in range(16, 1, -1):
        bands = SLOTS // rows
        if 1 - (1 - threshold**rows) ** bands >= 0.95:
            return bands, rows
    return SLOTS, 1


def _characters(texts: Sequence[str]) -> tuple[Array, Array]:
    """A hash for every character, and the number of its text; all spacing counts as one space."""
    written = [" ".join(_composed(text).lower().split()) for text in texts]
    sizes = np.array([len(text) + 1 for text in written])
    inside = np.ones(int(sizes.sum()), bool)
    inside[np.cumsum(sizes) - 1] = False
    owners = np.repeat(np.arange(len(texts)), sizes)
    codes = np.frombuffer(_lines(written).encode(*_UTF32), np.uint32)[inside]
    return _mix(codes.astype(np.uint64), MAX_NGRAM + 2), owners[inside]


def _words(texts: Sequence[str]) -> tuple[Array, Array]:
    """A hash for every word, and the number of its text.

    The hash of a word is the sum of its letters, each times a power of the base, taken back to the
    word's start; running sums over all texts give those of all words.
    """
    joined = _lines(texts)
    if joined.isascii():
        sizes = [len(text) + 1 for text in texts]
        values = np.frombuffer(joined.encode("ascii").translate(_ascii_values()), np.uint8)
        alone = (values > 0) & (values < _FIRST_LETTER)
    else:
        written = [_composed(text).lower() for text in texts]
        sizes = [len(text) + 1 for text in written]
        codes = np.frombuffer(_lines(written).encode(*_UTF32), np.uint32)
        values, kinds = _tables()
        values, alone = values[codes], kinds[codes] == _ALONE
    letter = values > 0
    letter &= ~alone
    start = letter.copy()
    start[1:] &= ~letter[:-1]
    start |= alone
    starts = np.flatnonzero(start)
    if not len(starts):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    powers, inverses = _powers()
    weighed = values.astype(np.uint64)
    weighed *= powers[: len(weighed)] if len(weighed) <= _PERIOD else np.resize(powers, len(values))
    sums = np.cumsum(weighed, dtype=np.uint64)
    units = np.diff(sums[starts] - weighed[starts], append=sums[-1:])
    units *= inverses[starts % _PERIOD]
    counts = np.diff(np.searchsorted(starts, np.cumsum(sizes)), prepend=0)
    return _mix(units, MAX_NGRAM + 2), np.repeat(np.arange(len(texts)), counts)


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _lines(texts: Sequence[str]) -> str:
    """Each text followed by a line break, which is no part of a word."""
    return "\n".join([*texts, ""])


def _throw(slots: Array, shingles: Array, owners: Array, draw: int) -> None:
    """Each shingle into the slot of its highest bits; the earliest draw's smallest value stays."""
    at = owners * SLOTS + (shingles >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
    values = shingles.astype(np.uint32) >> np.uint32(_DRAW_BITS)
    values += np.uint32(draw << (32 - _DRAW_BITS))
    np.minimum.at(slots, at, values)


def _fill(slots: Array, known: Array) -> None:
    """Let empty slots copy one that is not: slot s looks at the same slots in every text."""
    rows, columns = np.nonzero((slots == _EMPTY) & known[:, None])
    before = slots.copy()
    for tries in range(_TRIES):
        if not len(rows):
            return
        value = before[rows, _others()[columns, tries]]
        slots[rows, columns] = value
        left = value == _EMPTY
        rows, columns = rows[left], columns[left]


def _mix(values: Array, odd: int) -> Array:
    """Spread what the values differ in over all of their 64 bits."""
    values = values ^ (values >> _HALF)
    values *= _ODD[odd]
    values ^= values >> np.uint64(29)
    values *= _ODD[odd + 1 if odd + 1 < len(_ODD) else 0]
    values ^= values >> _HALF
    return values


@functools.cache
def _others() -> Array:
    """(128, tries): for each slot the slots that it copies from."""
    return np.random.default_rng(20).integers(0, SLOTS, (SLOTS, _TRIES))


@functools.cache
def _powers() -> tuple[Array, Array]:
    """Powers of the base and of its inverse, modulo 2**64."""
    found = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        powers = np.full(_PERIOD, base, np.uint64)
        powers[0] = 1
        found.append(np.multiply.accumulate(powers))
    return found[0], found[1]


@functools.cache
def _tables() -> tuple[Array, Array]:
    """By code point: a value, 0 between words; and part of a word, or a word by itself."""
    values, kinds = np.zeros(0x110000, np.uint32), np.zeros(0x110000, np.uint8)
    for code in range(_LAST_CODE):
        if unicodedata.category(chr(code))[0] in "LNM":
            values[code], kinds[code] = code, _LETTER
    for first, end in _ALONE_RANGES:
        kinds[first:end] *= _ALONE
    for number, sign in enumerate(_ALONE_SIGNS, 1):
        values[ord(sign)], kinds[ord(sign)] = number, _ALONE
    return values, kinds


@functools.cache
def _ascii_values() -> bytes:
    """The same values for ASCII, letters in lower case; most texts need no larger table."""
    values = bytearray(256)
    for code in range(128):
        letter = chr(code).lower()
        values[code] = _ALONE_SIGNS.find(letter) + 1 or (ord(letter) if letter.isalnum() else 0)
    return bytes(values)
