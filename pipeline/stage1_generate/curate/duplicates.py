"""The same row twice teaches nothing new."""

from __future__ import annotations

import hashlib
import unicodedata

from pipeline.records import Example, Verdict
from pipeline.stage1_generate.curate import Candidate, drop, keep


def identity(example: Example) -> bytes:
    """16 bytes, the same for equal rows.

    Compared as written, but for spacing around a text and Unicode's composed forms: case and
    punctuation may be the very thing that a constraint or a sum asks for.
    """
    texts = [
        (m.role, unicodedata.normalize("NFC", m.content.strip()))
        for m in (*example.prompt, *example.completion)
    ]
    return hashlib.blake2b(repr(texts).encode(), digest_size=16).digest()


class ExactDuplicates:
    """Keep the first of the rows whose prompt and completion are equal.

    Runs after every other filter, wherever the config names it: a row that is dropped for another
    reason must not make a good one its duplicate. Memory: 16 bytes a row (and Python's set around
    it).
    """

    looks_back = True

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __call__(self, row: Candidate) -> Verdict:
        key = identity(row.example)
        if key in self._seen:
            return drop("exact_duplicates", "same prompt and completion as an earlier row")
        self._seen.add(key)
        return keep("exact_duplicates")
