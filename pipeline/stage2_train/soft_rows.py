"""A teacher's top-k log-probabilities, brought to the positions and ids of the student's tokens.

The teacher gives strings: of the vocabulary ("Ġriver", the transformers backend) or decoded ones
(" river", servers). Both are looked up in the student's vocabulary. A position counts where the
student's tokens have the same token in the same place of the answer; everything else has the hard
loss alone. Another tokenizer cuts texts elsewhere, so few positions match, and below a stated share
the run is refused.

Kept for training as int32 ids and float16 log-probabilities: 6 bytes for each of the k tokens of
a position (120 at k = 20), against some 400 in the ledger's JSON. A position is one value of a
column, so that cutting and packing rows take it along with its token.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from pipeline.records import TokenLogprob

NOWHERE = -1  # an id that is no token of the student


class SoftRow(msgspec.Struct, frozen=True):
    """The soft targets of one training row."""

    entries: list[bytes]  # of each token; empty where it has the hard loss alone
    matched: int  # tokens with soft targets


def entry_type(k: int) -> np.dtype[Any]:
    """The bytes of one token; an id is -1 where the teacher gave fewer than k."""
    return np.dtype([("ids", "<i4", (k,)), ("logprobs", "<f2", (k,))])


def unpacked(entries: Sequence[bytes], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(places, ids, logprobs) of the tokens that have any: shapes (m,), (m, k), (m, k)."""
    places = np.array([i for i, entry in enumerate(entries) if entry], dtype=np.int64)
    found = np.frombuffer(b"".join(entries), dtype=entry_type(k))
    return places, found["ids"], found["logprobs"]


class Vocabulary:
    """The student's token ids by what a teacher may call them."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._names: dict[str, int] = tokenizer.get_vocab()

    @cached_property
    def _decoded(self) -> dict[str, int]:
        ids = sorted(self._names.values())
        texts = self.tokenizer.batch_decode([[token] for token in ids])
        # Pieces of a character decode to a mark that stands for all of them.
        return {t: i for t, i in zip(texts, ids, strict=True) if t and "\ufffd" not in t}

    def lookup(self, tokens: tuple[TokenLogprob, ...], text: str) -> dict[str, int]:
        """The names in which this answer's tokens are given: decoded, or of the vocabulary."""
        # Up to the first piece of a character, which has no text of its own.
        joined = "".join(token.token for token in tokens).partition("\ufffd")[0]
        return self._decoded if text.strip().startswith(joined.strip()[:200]) else self._names


def soft_row(
    vocabulary: Vocabulary,
    input_ids: Sequence[int],
    begin: int,
    tokens: tuple[TokenLogprob, ...] | None,
    text: str,
    k: int,
) -> SoftRow:
    """The teacher's probabilities where they belong in a row as TRL has tokenised it.

    The completion begins at `begin`. `tokens` is what the teacher gave for `text`, or None: then
    every position has the hard loss.
    """
    entries = [b""] * len(input_ids)
    matched = 0
    if tokens:
        names = vocabulary.lookup(tokens, text)
        sampled = [names.get(token.token, NOWHERE) for token in tokens]
        blocks = SequenceMatcher(None, sampled, list(input_ids[begin:]), autojunk=False)
        for block in blocks.get_matching_blocks():
            for step in range(block.size):
                top = tokens[block.a + step].top
                known = [(names[n], p) for n, p in top if n in names][:k]
                if not known:
                    continue
                entry = np.zeros((), dtype=entry_type(k))
                entry["ids"] = NOWHERE
                entry["ids"][: len(known)] = [token_id for token_id, _ in known]
                entry["logprobs"][: len(known)] = [logprob for _, logprob in known]
                entries[begin + block.b + step] = entry.tobytes()
                matched += 1
    return SoftRow(entries, matched)
