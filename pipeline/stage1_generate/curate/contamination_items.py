"""The evaluation's items, ready to be looked for: what each is compared by, and how it is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from pipeline.records import Seed
from pipeline.stage1_generate.curate.contamination_index import (
    MASKED_RUN,
    Masked,
    Meetings,
    Postings,
    Vocabulary,
    capital_names,
    has_number,
)
from pipeline.stage1_generate.curate.episodes import (
    Episode,
    episode,
    in_a_row,
    same_form,
    shots_of,
)
from pipeline.stage1_generate.curate.word_hashes import (
    Flags,
    Hashes,
    Places,
    Runs,
    Words,
    is_alone,
    longest_common,
    runs_of,
    words_of,
)

SHARED = 3  # items of one set that hold a run of words: it is no sign of any of them
POPULAR = 3  # the same for masked runs, which say less and are counted together
SHORTEST = 4  # words; fewer ("Say hello.") would be found in rows that have nothing of the item
EIGHT = 8
SIMILAR = 0.8
ALIKE = 0.02
LEAST = 0.5  # of an item's masked words, in the row: with fewer nothing comes to SIMILAR
SAMPLE = 200  # items of a set that are compared with the rest of it
SHORT_RUN = 3  # masked words, for items of which one changed word may hide all longer runs
NEAR_WORDS = 9  # with fewer, one changed word is below SIMILAR
MASKED_WORDS = 8  # words beside numbers and names
CHARACTER = 0.6  # of a word; Chinese words have 1.7 characters in the mean


class Piece(msgspec.Struct, frozen=True):
    """What an item is compared by: its question, or its shots in a row (by n-grams alone)."""

    item: str
    of_set: int
    words: Words
    masked: Masked
    whole: bool


class Likeness(msgspec.Struct, frozen=True):
    """How much a row's words start..end are like an item: Jaccard similarities, 0 to 1."""

    piece: int
    start: int
    end: int
    words: float
    masked: float


class Items:
    """All items with their indexes; items with one `task` are one set.

    alike: also find near copies and changed numbers and names, but for the sets named in `made`.
    """

    def __init__(
        self, items: Sequence[Seed], ngram: int, alike: bool, made: frozenset[str]
    ) -> None:
        self.ngram, self.run = ngram, min(EIGHT, ngram)
        texts = [(item, *text) for item in items for text in _texts(item)]
        found = [words_of(text) for _, text, _ in texts]
        self.vocabulary = Vocabulary(found)
        sets: dict[tuple[str, bool], int] = {}
        self.pieces = [
            Piece(
                item.id,
                sets.setdefault((item.task, whole), len(sets)),
                words,
                self.vocabulary.mask(words),
                whole,
            )
            for (item, _, whole), words in zip(texts, found, strict=True)
        ]
        self._sets = np.array([piece.of_set for piece in self.pieces], np.int64)
        self._index_words()
        self._index_questions(items)
        self._index_masked({number for (task, _), number in sets.items() if task in made}, alike)

    def _index_words(self) -> None:
        numbers = range(len(self.pieces))
        found: dict[int, Postings] = {}
        for length in {self.run, self.ngram}:
            runs = [runs_of(piece.words.hashes, length) for piece in self.pieces]
            found[length] = Postings(runs, numbers)
            found[length].drop_shared(self._sets, SHARED)
        self.runs, self.ngrams = found[self.run], found[self.ngram]
        self.own_runs = self.runs.sizes(len(self.pieces))
        self.own_ngrams = self.ngrams.sizes(len(self.pieces))
        heads = [  # items too short for a run are known by their first words
            runs_of(piece.words.hashes[:SHORTEST], SHORTEST)
            if piece.whole and len(piece.words) < self.run
            else np.zeros(0, np.uint64)
            for piece in self.pieces
        ]
        self.heads = Postings(heads, numbers)

    def _index_questions(self, items: Sequence[Seed]) -> None:
        """Items that no run of words finds are known as whole questions, and by their episodes."""
        self.questions: dict[str, str] = {}
        self.episodes: dict[Episode, str] = {}
        self.longest = 0  # characters of a question that may be one of them
        findable = {
            p.item for p, own in zip(self.pieces, self.own_runs.tolist(), strict=True) if own
        }
        for item in items:
            question, shots = str(item.fields["question"]), shots_of(item)
            if not shots and item.id not in findable:
                self.questions.setdefault(same_form(question), item.id)
                self.longest = max(self.longest, 2 * len(question) + 20)
            for k in range(1, len(shots) + 1):  # an evaluation shows the first k of them
                self.episodes.setdefault(episode(shots[:k], question), item.id)

    def _index_masked(self, made: set[int], alike: bool) -> None:
        pieces = self.pieces
        runs = [runs_of(piece.masked.hashes, MASKED_RUN) for piece in pieces]
        self._masked = Postings(runs, range(len(pieces)))
        self._masked.drop_shared(self._sets, POPULAR)
        lengths = np.array([len(piece.masked.hashes) for piece in pieces], np.int64)
        missing = np.array([len(r) for r in runs], np.int64) - self._masked.sizes(len(pieces))
        # The runs that are left where as many words are changed as SIMILAR allows.
        changed = np.array([len(p.words) // NEAR_WORDS for p in pieces], np.int64)
        left = lengths - MASKED_RUN + 1 - missing
        self._needed = np.maximum(1, left - MASKED_RUN * changed)
        short = left <= MASKED_RUN  # one changed word may leave none
        runs = [runs_of(piece.masked.hashes, SHORT_RUN) for piece in pieces]
        self._short = Postings(runs, range(len(pieces)))
        self._short.keep_items(short)
        self._short.drop_shared(self._sets, SHARED)
        on = [alike and piece.whole and piece.of_set not in made for piece in pieces]
        self.near = np.array(on, np.bool_) & _flags(_size(p.words) >= NEAR_WORDS for p in pieces)
        self.problem = np.array(on, np.bool_) & _flags(_is_problem(p) for p in pieces)
        self.pattern = np.array([p.whole and p.of_set in made for p in pieces], np.bool_)
        for number in range(int(self._sets.max(initial=-1)) + 1):
            self._leave_out_pattern(np.flatnonzero(self._sets == number))
        self._masked.keep_items(self.near | self.problem)
        self._short.keep_items(self.near | self.problem)

    def _leave_out_pattern(self, members: Places) -> None:
        """Where the items of a set are like one another, being like one of them says nothing."""
        sample = members[:: max(1, len(members) // SAMPLE)].tolist()
        # In a large set a few may be alike by chance.
        allowed = max(min(2, len(sample) // 2), int(ALIKE * len(sample)))
        seen = [0, 0]
        for number in sample:
            words = self.pieces[number].words
            found = [like for like in self.like(words) if self._other(number, like.piece)]
            seen[0] += any(like.words >= SIMILAR for like in found)
            seen[1] += any(like.masked >= SIMILAR for like in found)
            if min(seen) > allowed:
                break
        for count, flags in zip(seen, (self.near, self.problem), strict=True):
            if count > allowed:
                flags[members] = False
                self.pattern[members] = True

    def _other(self, one: int, two: int) -> bool:
        """Two items of a set that are not the same text."""
        same = np.array_equal(self.pieces[one].words.hashes, self.pieces[two].words.hashes)
        return bool(self._sets[one] == self._sets[two]) and not same

    def like(self, words: Words) -> Iterator[Likeness]:
        """The items with which enough masked runs are shared, the most first, and how alike."""
        masked = self.vocabulary.mask(words)
        runs = Runs(masked.hashes)
        found: list[int] = []
        if len(met := self._masked.meet(runs.of(MASKED_RUN))):
            counts = np.bincount(met.items)
            enough = (counts >= self._needed[: len(counts)]) & (counts > 0)
            found = enough.nonzero()[0].tolist()
            yield from self._those(found, words, masked, met, self._needed)
        if len(met := self._short.meet(runs.of(SHORT_RUN))):
            others = dict.fromkeys(n for n in met.items.tolist() if n not in found)
            yield from self._those([*others], words, masked, met, np.ones_like(self._needed))

    def _those(
        self, numbers: list[int], words: Words, masked: Masked, met: Meetings, needed: Places
    ) -> Iterator[Likeness]:
        for number in numbers:
            beside = _beside(self.pieces[number], masked, met.of(number), int(needed[number]))
            if beside:
                yield self._likeness(number, words, masked, *beside)

    def _likeness(
        self, number: int, words: Words, masked: Masked, first: int, last: int
    ) -> Likeness:
        """Where the row's word `first` stands for the item's first one, or `last` for its last.

        The two differ where words were put in or left out; the best of the stretches counts.
        """
        piece = self.pieces[number]
        length = len(piece.words)
        found = Likeness(number, 0, 0, 0.0, 0.0)
        widest = max(0, min(first, last - length)), max(last, first + length)
        around = masked.hashes[slice(*masked.at.searchsorted(widest))]
        common = longest_common(piece.masked.hashes.tolist(), around.tolist())
        if common < LEAST * len(piece.masked.hashes):
            return found
        for a, b in dict.fromkeys(((first, last), (first, first + length), (last - length, last))):
            start, end = max(0, a), min(len(words), b)
            plain = _jaccard(piece.words.hashes, words.hashes[start:end])
            inside = masked.hashes[masked.at.searchsorted(start) : masked.at.searchsorted(end)]
            other = _jaccard(piece.masked.hashes, inside)
            if max(plain, other) < SIMILAR and other >= SIMILAR / 2:
                # "Mark" and "Will" are words in lower case: read the capitals, too.
                theirs = ~np.isin(inside, capital_names(words, start, end))
                own = ~np.isin(piece.masked.hashes, capital_names(piece.words, 0, length))
                other = _jaccard(piece.masked.hashes[own], inside[theirs])
            if max(plain, other) > max(found.words, found.masked):
                found = Likeness(number, start, end, plain, other)
        return found


def _beside(piece: Piece, masked: Masked, met: Meetings, needed: int) -> tuple[int, int] | None:
    """The stretch of a row's words that enough shared runs point to, if they agree on one."""
    offsets = met.rows - met.places
    middle = offsets[0]
    if needed > 1:
        middle = np.bincount(offsets - offsets.min()).argmax() + offsets.min()
    near = (np.abs(offsets - middle) <= len(piece.masked.at) // 5 + 1).nonzero()[0]
    if len(near) < needed:
        return None
    ends = masked.at[met.rows[near[[0, -1]]]] - piece.masked.at[met.places[near[[0, -1]]]]
    return int(ends[0]), int(ends[1]) + len(piece.words)


def _jaccard(left: Hashes, right: Hashes) -> float:
    """Of the words in order: those in common by all that one of the two has."""
    common = longest_common(left.tolist(), right.tolist())
    return common / max(1, len(left) + len(right) - common)


def _texts(item: Seed) -> Iterator[tuple[str, bool]]:
    yield str(item.fields["question"]), True
    if shots := shots_of(item):
        # Not in shorter runs than n-grams: a shot or two of common words are in many episodes.
        yield in_a_row(shots), False


def _size(words: Words) -> float:
    """Length in words."""
    return len(words) - (1 - CHARACTER) * int(is_alone(words.first).sum())


def _is_problem(piece: Piece) -> bool:
    """A word problem: a number, and enough words to be known by without numbers and names."""
    left = _size(piece.words) - (len(piece.words) - len(piece.masked.hashes))
    return left >= MASKED_WORDS and has_number(piece.words)


def _flags(values: Iterator[bool]) -> Flags:
    return np.fromiter(values, np.bool_)
