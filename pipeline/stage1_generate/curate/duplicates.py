"""The same row twice teaches nothing new."""

from __future__ import annotations

import hashlib
import unicodedata

from pipeline.records import Example, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.curate.validity import words


def normalised(example: Example) -> str:
    """Prompt and completion without case, spacing, punctuation and Unicode variants."""
    texts = [m.content for m in (*example.prompt, *example.completion)]
    return "\n".join(" ".join(words(unicodedata.normalize("NFKC", text))) or text for text in texts)


def exact_duplicates() -> Filter:
    """Keep the first of the rows whose normalised prompt and completion are equal.

    Memory: 16 bytes of digest a row (and Python's set around it).
    """
    seen: set[bytes] = set()

    def check(row: Candidate) -> Verdict:
        key = hashlib.blake2b(normalised(row.example).encode(), digest_size=16).digest()
        if key in seen:
            return drop("exact_duplicates", "same prompt and completion as an earlier row")
        seen.add(key)
        return keep("exact_duplicates")

    return check
