"""The same row twice teaches nothing new, and one seed must not crowd out the others."""

from __future__ import annotations

import hashlib
import unicodedata

from pipeline.records import Example, Verdict
from pipeline.stage1_generate.curate import Candidate, drop, keep
from pipeline.stage1_generate.curate.digest_set import DigestSet


def identity(example: Example) -> bytes:
    """16 bytes, the same for equal rows.

    Compared as written, but for spacing around a text and Unicode's composed forms: case and
    punctuation may be the very thing that a constraint or a sum asks for.
    """
    parts = []
    for message in (*example.prompt, *example.completion):
        text = message.content.strip()
        if not text.isascii():
            text = unicodedata.normalize("NFC", text)
        # Lengths, so that no text can pass for the border between two.
        parts.append(f"{len(message.role)} {len(text)} {message.role}{text}")
    written = "".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(written, digest_size=16).digest()


class ExactDuplicates:
    """Keep the first of the rows whose prompt and completion are equal.

    Runs after every other filter, wherever the config names it: a row that is dropped for another
    reason must not make a good one its duplicate. Memory: 25 to 40 bytes a kept row.
    """

    looks_back = True

    def __init__(self) -> None:
        self._seen = DigestSet()

    def __call__(self, row: Candidate) -> Verdict:
        if self._seen.add(identity(row.example)):
            return _KEEP
        return drop("exact_duplicates", "same prompt and completion as an earlier row")


_KEEP = keep("exact_duplicates")


class PerSeed:
    """Keep at most `at_most` rows of a seed: the first that passed everything before.

    Seeds that are easy for the teacher would fill the training set otherwise. Score: which row of
    its seed this is, from 1. Memory: about 100 bytes a seed (its id and a count).
    """

    looks_back = True

    def __init__(self, at_most: int) -> None:
        if at_most < 1:
            raise ValueError(f"at_most is a whole number from 1; seen: {at_most}")
        self._at_most = at_most
        self._kept: dict[str, dict[str, int]] = {}  # by task and seed

    def __call__(self, row: Candidate) -> Verdict:
        of_task = self._kept.setdefault(row.seed.task, {})
        number = of_task.get(row.seed.id, 0) + 1
        if number > self._at_most:
            return drop("per_seed", f"its seed has {self._at_most} rows already", number)
        of_task[row.seed.id] = number
        return keep("per_seed", number)
