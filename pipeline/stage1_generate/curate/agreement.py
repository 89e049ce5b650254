"""Filters that look at all the answers to one seed: what most of them say, and how they differ.

Both are group filters: curation first shows them every row, then asks for the verdict on each.
Memory: some hundred bytes a seed.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Literal

import msgspec

from pipeline.records import Extraction, Finish, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.rationales import choices_of, equations, words
from pipeline.stage3_evaluate import numerals
from pipeline.stage3_evaluate.answers import extract_label, extract_number
from pipeline.stage3_evaluate.choices import extract_choice

Kind = Literal["auto", "number", "label", "choice", "exact", "json"]


def vote(min_agreement: float = 0.6, min_votes: int = 2, kind: Kind = "auto") -> Filter:
    """Keep the answers that say what most answers to their seed say (2203.11171, 2210.11610).

    Agreement (the score) is the votes of the majority over all the seed's answers that the teacher
    ended, of whichever teacher. One that an earlier filter dropped, or without a readable value,
    counts there and has no vote. Dropped: other answers, a seed whose agreement is below
    `min_agreement` or whose majority has fewer than `min_votes`, and a tie. `kind` says how answers
    are compared: by their number, by the label of the seed's `labels`, by the letter of its
    `choices`, as JSON, or exactly (but for case and spacing); `auto` goes by what the seed has:
    labels, a schema or entity types (JSON), choices, else a number.
    """
    if not 0 < min_agreement <= 1:
        raise ValueError(f"min_agreement is a share above 0 and up to 1; seen {min_agreement}")
    if min_votes < 1:
        raise ValueError(f"min_votes is a whole number from 1; seen {min_votes}")
    return _Vote(min_agreement, min_votes, kind)


class _Vote:
    def __init__(self, min_agreement: float, min_votes: int, kind: Kind) -> None:
        self._least = min_agreement
        self._votes = min_votes
        self._kind: Kind = kind
        self._ended: dict[int, int] = {}  # answers of a seed, whatever they say
        self._ballots: dict[int, dict[str, int]] = {}  # votes by value

    def saw(self, row: Candidate) -> None:
        if row.generation.finish is Finish.STOP:
            seed = group(row)
            self._ended[seed] = self._ended.get(seed, 0) + 1

    def gather(self, row: Candidate) -> None:
        seed = group(row)
        value = comparable(row, self._kind)
        if value is not None:
            ballot = self._ballots.setdefault(seed, {})
            ballot[value] = ballot.get(value, 0) + 1

    def __call__(self, row: Candidate) -> Verdict:
        seed = group(row)
        ballot = self._ballots.get(seed)
        value = comparable(row, self._kind)
        if value is None or not ballot:
            return drop("vote", "no readable answer")
        most = max(ballot.values())
        agreement = most / max(self._ended.get(seed, 0), sum(ballot.values()))
        score = round(agreement, 3)
        if sum(votes == most for votes in ballot.values()) > 1:
            return drop("vote", "tie", score)
        if most < self._votes:
            return drop("vote", f"fewer than {self._votes} votes for one answer", score)
        if agreement < self._least:
            return drop("vote", f"agreement below {self._least}", score)
        if ballot[value] < most:
            return drop("vote", "not what most answers say", score)
        return keep("vote", score)


def comparable(row: Candidate, kind: Kind = "auto") -> str | None:
    """What an answer says, spelled so that two answers which say the same are equal."""
    text, finish = row.generation.text, row.generation.finish
    labels = row.seed.fields.get("labels")
    if kind == "auto":
        fields = row.seed.fields
        structured = (
            row.request.schema is not None
            or "entity_types" in fields
            or isinstance(fields.get("schema"), dict)
        )
        other: Kind = "choice" if "choices" in row.seed.fields else "number"
        kind = "label" if labels else "json" if structured else other
    if kind == "exact":
        folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        return _short(folded) if folded else None
    if kind == "json":
        try:
            value = msgspec.json.decode(row.example.completion[-1].content.encode())
        except msgspec.DecodeError:
            return None
        return _short(msgspec.json.encode(value, order="sorted").decode())
    if kind == "label":
        found, said = extract_label(text, labels, finish) if labels else (None, None)
        return said if found is Extraction.VALUE else None
    if kind == "choice":
        found, said = extract_choice(text, choices_of(row.seed), finish)
        return said if found is Extraction.VALUE else None
    found, said = extract_number(text, finish)
    if found is not Extraction.VALUE or said is None:
        return None
    number = numerals.parse(said)
    return said if number is None else str(number)


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
