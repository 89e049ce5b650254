"""Evaluation items by their runs of words, so that a row is compared with few of them.

Two views of a text are searched. *Plain*: all its words. *Masked*: without numbers (digits and
number words) and without names. A name is any word that no item writes in lower case, and in a row
any word that no item has at all: no list of first names is needed, and the new name in a copied
problem is left out like the old one. Chinese has no capitals: there a usual character of names
behind a surname, 小, 老 or 阿 is a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from pipeline.stage1_generate.curate.word_hashes import (
    Flags,
    Hashes,
    Places,
    Words,
    words_of,
)

MASKED_RUN = 5  # masked words; of ten words with one changed in the middle, a run of five is left

FLAGS = 16  # slots a run: one in 16 runs that no item has is searched for in vain

_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred hundreds thousand thousands million millions billion dozen dozens "
    "零 〇 一 二 两 三 四 五 六 七 八 九 十 百 千 万 亿"
)
_BEFORE_NAME = (
    "小老阿王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗郑梁谢宋唐许韩冯邓曹彭曾萧田董袁潘蒋蔡余杜"
)
_IN_NAME = (
    "明红华刚丽强军芳李王张刘陈杨赵吴周孙英敏静磊洋勇杰娟涛超燕玲辉鹏霞飞兰梅雷娜玉珍平鑫波斌"
    "宇浩凯健俊帆雪琳倩婷晨佳欣怡轩阳楠晓薇萍"
)

_SENTENCE_END = re.compile(r"[.!?:;\n\x1e]")


class Masked(msgspec.Struct, frozen=True):
    """`hashes` of the words that are neither number nor name; `at`: which words they are."""

    hashes: Hashes
    at: Places


class Vocabulary:
    """The words of all items, as a table of 2^bits slots; a row's words are looked up at once.

    Of two words in one slot one is left out, and then counts as a name on both sides.
    """

    def __init__(self, texts: Sequence[Words]) -> None:
        lower = [words.hashes[_flags(map(_is_lower, words.first.tolist()))] for words in texts]
        known = np.unique(np.concatenate([*lower, np.zeros(0, np.uint64)]))
        known = known[~np.isin(known, words_of(_NUMBER_WORDS).hashes)]
        bits = max(12, int(16 * len(known)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._slots = np.zeros(1 << bits, np.uint16)  # the hash's low bits: small, for the cache
        self._slots[known >> self._shift] = known.astype(np.uint16)
        self._before, self._inside = _flags_of(_BEFORE_NAME), _flags_of(_IN_NAME)

    def mask(self, words: Words) -> Masked:
        hashes = words.hashes
        kept = self._slots[hashes >> self._shift] == hashes.astype(np.uint16)
        if words.first.dtype != np.uint8:
            inside = self._inside.take(words.first[1:], mode="clip")
            name = self._before.take(words.first[:-1], mode="clip") & inside
            kept[:-1][name] = False
            kept[1:][name] = False
        at = kept.nonzero()[0]
        return Masked(hashes[at], at)


def capital_names(words: Words, start: int, end: int) -> Hashes:
    """Words that are written with a capital inside a sentence, among the words start..end."""
    names = [
        int(words.hashes[i])
        for i in range(start + 1, end)
        if (word := words.text_of(i, i + 1))[0].isupper()
        and word[1:].islower()
        and not _SENTENCE_END.search(words.text, int(words.ends[i - 1]), int(words.starts[i]))
    ]
    return np.array(names, np.uint64)


def has_number(words: Words) -> bool:
    numbers = np.isin(words.hashes, words_of(_NUMBER_WORDS).hashes)
    return bool(numbers.any()) or any(chr(code).isdigit() for code in words.first.tolist())


class Meetings(msgspec.Struct, frozen=True):
    """Runs that a row and an item have in common: places in the row, items, places in the item."""

    rows: Places
    items: Places
    places: Places

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, item: int) -> Meetings:
        mine = self.items == item
        return Meetings(self.rows[mine], self.items[mine], self.places[mine])


_NONE = Meetings(*(np.zeros(0, np.int64),) * 3)


class Postings:
    """run -> the items that hold it, and where. Memory: some 40 bytes a run."""

    def __init__(self, runs: Sequence[Hashes], items: Sequence[int]) -> None:
        keys = np.concatenate([*runs, np.zeros(0, np.uint64)])
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        owners = np.repeat(np.asarray(items, np.int64), [len(r) for r in runs])
        self._items = owners[order]
        places = [np.arange(len(r)) for r in runs]
        self._places = np.concatenate([*places, np.zeros(0, np.int64)])[order]
        # A run that is in no item mostly stops here: one look-up in a table of flags.
        self._shift = np.uint64(64 - max(16, int(FLAGS * len(keys)).bit_length()))
        self._flags = np.zeros(1 << int(64 - self._shift), np.bool_)
        self._arrange()

    def _arrange(self) -> None:
        self._flags[:] = False
        self._flags[self._keys >> self._shift] = True
        unique, self._first, self._counts = np.unique(
            self._keys, return_index=True, return_counts=True
        )
        self._unique = np.append(unique, np.uint64(2**64 - 1))  # a search ends before it

    def drop_shared(self, sets: Places, limit: int) -> None:
        """Forget the runs that stand in `limit` or more items of one set.

        `sets[item]` is the item's. A run shared in one set is no sign of an item in another.
        """
        order = np.lexsort((self._items, sets[self._items], self._keys))
        keys, owners = self._keys[order], self._items[order]
        group = np.stack([keys, sets[owners].astype(np.uint64)])
        first = np.ones(len(keys), np.bool_)  # of a run in a set
        first[1:] = (group[:, 1:] != group[:, :-1]).any(axis=0)
        other = first.copy()
        other[1:] |= owners[1:] != owners[:-1]
        counts = np.bincount(np.cumsum(first)[other] - 1)
        shared = np.unique(keys[first][counts >= limit])
        self.keep(~np.isin(self._keys, shared))

    def keep(self, kept: Flags) -> None:
        self._keys, self._items = self._keys[kept], self._items[kept]
        self._places = self._places[kept]
        self._arrange()

    def keep_items(self, kept: Flags) -> None:
        """Forget all runs of the items whose flag is not set."""
        self.keep(kept[self._items])

    def sizes(self, items: int) -> Places:
        """How many runs each item has left."""
        return np.bincount(self._items, minlength=items)

    def meet(self, runs: Hashes) -> Meetings:
        maybe = self._flags[runs >> self._shift].nonzero()[0]
        if not len(maybe):
            return _NONE
        keys = runs[maybe]
        at = self._unique.searchsorted(keys)
        held = (self._unique[at] == keys).nonzero()[0]
        if not len(held):
            return _NONE
        at = at[held]
        counts = self._counts[at]
        ends = counts.cumsum()
        found = (self._first[at] - ends + counts).repeat(counts) + np.arange(ends[-1])
        return Meetings(maybe[held].repeat(counts), self._items[found], self._places[found])


def _flags(values: Iterable[bool]) -> Flags:
    return np.fromiter(values, np.bool_)


def _is_lower(code: int) -> bool:
    return not (chr(code).isupper() or chr(code).isdigit())


def _flags_of(characters: str) -> Flags:
    flags = np.zeros(0x10001, np.bool_)
    flags[[ord(c) for c in characters]] = True
    return flags
