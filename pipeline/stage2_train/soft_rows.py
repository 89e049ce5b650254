"""A teacher's top-k log-probabilities, brought to the positions and ids of the student's tokens.

The teacher gives strings: of the vocabulary ("Ġriver", the transformers backend) or decoded ones
(" river", servers). Both are looked up in the student's vocabulary. A position counts where the
student's tokens have the same token in the same place of the answer; everything else has the hard
loss alone. Another tokenizer cuts texts elsewhere, so few positions match, and below a stated share
the run is refused.

Kept for training as int32 ids and float16 log-probabilities: 6 bytes for each of the k tokens of
a position (120 at k = 20), against some 400 in the ledger's JSON.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from pipeline.records import Message, TokenLogprob

NOWHERE = -1  # an id that is no token of the student


class SoftRow(msgspec.Struct, frozen=True):
    """One training row. `ids` and `logprobs` have shape (tokens, k); an id is -1 where none is."""

    input_ids: list[int]
    labels: list[int]  # -100 where no loss is taken
    soft_ids: np.ndarray
    soft_logprobs: np.ndarray
    matched: int  # positions with soft targets
    taught: int  # positions with a loss


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
    prompt: list[Message],
    completion: list[Message],
    tokens: tuple[TokenLogprob, ...] | None,
    text: str,
    k: int,
    max_length: int | None,
) -> SoftRow:
    """A row as TRL tokenizes it, with the teacher's probabilities where they belong.

    `tokens` is what the teacher gave for `text`, or None: then every position has the hard loss.
    """
    from trl.data_utils import common_prefix_length

    def render(messages: list[Message], start: bool) -> list[int]:
        found = vocabulary.tokenizer.apply_chat_template(
            [msgspec.to_builtins(m) for m in messages],
            add_generation_prompt=start,
            return_dict=True,
        )
        return list(found["input_ids"])

    whole = render([*prompt, *completion], False)
    begin = common_prefix_length(render(prompt, True), whole)
    whole = whole[:max_length]
    labels = [-100] * min(begin, len(whole)) + whole[begin:]
    ids = np.full((len(whole), k), NOWHERE, dtype=np.int32)
    logprobs = np.zeros((len(whole), k), dtype=np.float16)
    matched = 0
    if tokens:
        names = vocabulary.lookup(tokens, text)
        sampled = [names.get(token.token, NOWHERE) for token in tokens]
        blocks = SequenceMatcher(None, sampled, whole[begin:], autojunk=False)
        for block in blocks.get_matching_blocks():
            for step in range(block.size):
                place, token = begin + block.b + step, tokens[block.a + step]
                known = [(names[n], p) for n, p in token.top if n in names][:k]
                for rank, (token_id, logprob) in enumerate(known):
                    ids[place, rank], logprobs[place, rank] = token_id, logprob
                matched += bool(known)
    return SoftRow(whole, labels, ids, logprobs, matched, len(whole) - begin)
