"""Filters that look at all the answers to one seed: what most of them say, and how they differ.

Both are group filters: curation first shows them every row, then asks for the verdict on each.
Memory: some dozen bytes an answer for a vote, some hundred a seed for rationales.
"""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from pipeline.records import Extraction, Finish, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.rationales import equations, words
from pipeline.stage3_evaluate.answers import AnswerKind, expected_of, read_answer, spelled

Kind = Literal[
    "auto", "number", "label", "choice", "option", "yes_no", "true_false", "letters", "words",
    "text", "exact", "json",
]  # fmt: skip


def vote(min_agreement: float = 0.6, min_votes: int = 2, kind: Kind = "auto") -> Filter:
    """Keep the answers that say what most answers to their seed say (2203.11171, 2210.11610).

    Agreement (the score) is the votes of the majority over all the seed's answers that the teacher
    ended, of whichever teacher. One that an earlier filter dropped, or without a readable value,
    counts there and has no vote. Dropped: other answers, a seed whose agreement is below
    `min_agreement` or whose majority has fewer than `min_votes`, and a tie. `kind` says how answers
    are compared: by their number, by the label of the seed's `labels`, by the letter of its
    `choices` or as another kind that evaluation reads, as JSON, or exactly (but for case and
    spacing); `auto` goes by what the seed has: `answer_kind`, labels, a schema or entity types
    (JSON), choices, else a number.
    """
    if not 0 < min_agreement <= 1:
        raise ValueError(f"min_agreement is a share above 0 and up to 1; seen {min_agreement}")
    if min_votes < 1:
        raise ValueError(f"min_votes is a whole number from 1; seen {min_votes}")
    return _Vote(min_agreement, min_votes, kind)


class _Vote:
    """Memory: 40 bytes an answer."""

    def __init__(self, min_agreement: float, min_votes: int, kind: Kind) -> None:
        self._least = min_agreement
        self._votes = min_votes
        self._kind: Kind = kind
        self._ended = array("Q")  # the seed of every answer that the teacher ended
        self._rows = array("Q")  # of every gathered answer: itself, its seed, what it says (or 0)
        self._seeds = array("Q")
        self._values = array("Q")
        self._next = 0
        self._count: _Count | None = None

    def saw(self, row: Candidate) -> None:
        if row.generation.finish is Finish.STOP:
            self._ended.append(group(row))

    def gather(self, row: Candidate) -> None:
        self._rows.append(_identity(row))
        self._seeds.append(group(row))
        self._values.append(self._value(row))
        self._count = None

    def __call__(self, row: Candidate) -> Verdict:
        value = self._known_value(row)
        if not value:
            return drop("vote", "no readable answer")
        if self._count is None:
            self._count = _count(self._ended, self._seeds, self._values)
        majority = self._count.of(group(row))
        score = round(majority.agreement, 3)
        if majority.tie:
            return drop("vote", "tie", score)
        if majority.votes < self._votes:
            return drop("vote", f"fewer than {self._votes} votes for one answer", score)
        if majority.agreement < self._least:
            return drop("vote", f"agreement below {self._least}", score)
        if value != majority.value:
            return drop("vote", "not what most answers say", score)
        return keep("vote", score)

    def _value(self, row: Candidate) -> int:
        said = comparable(row, self._kind)
        return 0 if said is None else _hash(said) | 1

    def _known_value(self, row: Candidate) -> int:
        """Reading an answer is dear; curation judges rows in the order in which they were shown."""
        if self._next < len(self._rows) and self._rows[self._next] == _identity(row):
            self._next += 1
            return self._values[self._next - 1]
        return self._value(row)


class _Majority(NamedTuple):
    value: int
    votes: int
    tie: bool
    agreement: float


class _Count(NamedTuple):
    """The outcome of the vote for each seed, by its hash in ascending order."""

    seeds: Any
    values: Any
    votes: Any
    ties: Any
    answers: Any

    def of(self, seed: int) -> _Majority:
        at = int(np.searchsorted(self.seeds, np.uint64(seed)))
        votes = int(self.votes[at])
        agreement = votes / max(int(self.answers[at]), 1)
        return _Majority(int(self.values[at]), votes, bool(self.ties[at]), agreement)


def _count(ended: array[int], seeds: array[int], values: array[int]) -> _Count:
    asked, answers = np.unique(np.array(ended, dtype=np.uint64), return_counts=True)
    cast = np.array([seeds, values], dtype=np.uint64)
    # One line for each (seed, value), the most votes of a seed first.
    pairs, votes = np.unique(cast[:, cast[1] != 0], axis=1, return_counts=True)
    order = np.lexsort((-votes, pairs[0]))
    found, said, votes = pairs[0][order], pairs[1][order], votes[order]
    first = np.ones(len(found), dtype=bool)
    first[1:] = found[1:] != found[:-1]
    follows = np.zeros(len(found), dtype=bool)
    follows[:-1] = ~first[1:] & (votes[1:] == votes[:-1])
    places = np.flatnonzero(first)
    total = np.add.reduceat(votes, places) if len(places) else votes
    everyone = dict(zip(asked.tolist(), answers.tolist(), strict=True))
    least = np.array([everyone.get(seed, 0) for seed in found[places].tolist()], dtype=np.int64)
    return _Count(
        found[places], said[places], votes[places], follows[places], np.maximum(least, total)
    )


def comparable(row: Candidate, kind: Kind = "auto") -> str | None:
    """What an answer says, spelled so that two answers which say the same are equal."""
    text, finish = row.generation.text, row.generation.finish
    fields = row.seed.fields
    structured = (
        row.request.schema is not None
        or "entity_types" in fields
        or isinstance(fields.get("schema"), dict)
    )
    if kind == "auto" and structured and not {"answer_kind", "labels"} & fields.keys():
        kind = "json"
    if kind == "exact":
        folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        return _short(folded) if folded else None
    if kind == "json":
        try:
            value = msgspec.json.decode(row.example.completion[-1].content.encode())
        except msgspec.DecodeError:
            return None
        return _short(msgspec.json.encode(value, order="sorted").decode())
    named = None if kind == "auto" else AnswerKind(kind)
    expected = expected_of(row.seed, named, look_at_reference=False)
    found, said = read_answer(text, expected, finish)
    return spelled(said, expected) if found is Extraction.VALUE and said is not None else None


def diverse_rationales(at_most: int = 4, similarity: float = 0.8) -> Filter:
    """Keep a seed's rationales that differ, the first `at_most` of them (RFT, 2308.01825).

    Two rationales are the same when their lists of equations are; without any equation, when
    the Jaccard similarity of their words (the score) is `similarity` or more.
    """
    if at_most < 1:
        raise ValueError(f"at_most is a whole number from 1; seen {at_most}")
    if not 0 < similarity <= 1:
        raise ValueError(f"similarity is a share above 0 and up to 1; seen {similarity}")
    return _DiverseRationales(at_most, similarity)


class _DiverseRationales:
    def __init__(self, at_most: int, similarity: float) -> None:
        self._most = at_most
        self._similarity = similarity
        self._kept: dict[int, list[tuple[str, ...] | frozenset[str]]] = {}
        self._dropped: dict[int, Verdict] = {}

    def gather(self, row: Candidate) -> None:
        text = row.example.completion[-1].content
        steps = equations(text)
        sign: tuple[str, ...] | frozenset[str] = steps or words(text)
        earlier = self._kept.setdefault(group(row), [])
        for other in earlier:
            if isinstance(sign, tuple) and sign == other:
                verdict = drop("diverse_rationales", "the equations of an earlier rationale", 1.0)
            elif isinstance(sign, frozenset) and isinstance(other, frozenset):
                alike = len(sign & other) / (len(sign | other) or 1)
                if alike < self._similarity:
                    continue
                reason = "the words of an earlier rationale"
                verdict = drop("diverse_rationales", reason, round(alike, 3))
            else:
                continue
            self._dropped[_identity(row)] = verdict
            return
        if len(earlier) >= self._most:
            reason = f"the seed has {self._most} different rationales"
            self._dropped[_identity(row)] = drop("diverse_rationales", reason)
            return
        earlier.append(sign)

    def __call__(self, row: Candidate) -> Verdict:
        return self._dropped.get(_identity(row), keep("diverse_rationales"))


def group(row: Candidate) -> int:
    """The seed of a row, over all its samples and teachers."""
    return _hash(f"{row.seed.task}\0{row.seed.id}")


def _identity(row: Candidate) -> int:
    return _hash(f"{row.seed.task}\0{row.seed.id}\0{row.request.id}")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _short(text: str) -> str:
    """A long text by its hash: a ballot keeps every value."""
    return text if len(text) <= 32 else hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
