"""Rows that mean nearly the same: embeddings of a local model, compared each with each.

The embedding is the mean of a model's last hidden states over the text's tokens, of length 1
(Reimers and Gurevych 1908.10084). The threshold is a cosine; what it means differs from model to
model, so look at some dropped rows first. Vectors go to a file without a name in the folder for
temporary files, 2 bytes a number. Time grows with the square of the rows: meant for tens of
thousands, after near_duplicates.
"""

from __future__ import annotations

import tempfile
from functools import partial
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.models.locate import unpack
from pipeline.records import Verdict
from pipeline.stage1_generate.curate import Candidate
from pipeline.stage1_generate.curate.alike import Alike, Array, Over, choice

_TEXTS = 32  # through the model at a time
_BLOCK = 2048  # rows compared with as many others at a time


class SimilarEmbeddings:
    """Keep the first of the rows whose embeddings have a cosine of `threshold` or more.

    `model`: a hub id, a folder, a .gguf file or package:NAME; its code never runs. Texts are cut
    off after `max_tokens`. Score: the cosine to the row that is kept.
    """

    looks_back = True

    def __init__(
        self, model: str, threshold: float = 0.95, over: str = "both", max_tokens: int = 512
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is a cosine above 0, up to 1; seen: {threshold}")
        if max_tokens < 1:
            raise ValueError(f"max_tokens is a whole number from 1; seen: {max_tokens}")
        opened = partial(Vectors, model, threshold, max_tokens)
        self._rows = Alike("similar_embeddings", choice("over", over, Over), opened)

    def gather(self, row: Candidate) -> None:
        self._rows.gather(row)

    def __call__(self, row: Candidate) -> Verdict:
        return self._rows.verdict(row)


class Vectors:
    """Embeddings of numbered texts, on disk."""

    def __init__(self, model: str, threshold: float, max_tokens: int) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        checkpoint = unpack(model)
        if checkpoint.remote_code:
            raise UserError(
                f"similar_embeddings: the model {model} wants to run code of its own; take one of "
                "the architectures that transformers has"
            )
        place = {"revision": checkpoint.revision, "trust_remote_code": False}
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.source, **place)
            self._model: Any = AutoModel.from_pretrained(
                checkpoint.source, dtype=torch.float32, use_safetensors=True, **place
            )
        except (OSError, ValueError) as error:
            raise UserError(f"similar_embeddings: {model!r} cannot be opened: {error}") from None
        self._tokenizer.padding_side = "right"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device).eval()
        longest = getattr(self._model.config, "max_position_embeddings", None) or max_tokens
        self._max_tokens = min(max_tokens, longest)
        self._threshold = threshold
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self._size, self._width = 0, int(self._model.config.hidden_size)

    def add(self, texts: list[str]) -> None:
        found = np.zeros((len(texts), self._width), np.float16)
        # Neighbours in length share a batch, so that little of it is padding; a text without
        # words stays zero, and is like no other.
        order = [i for i, text in enumerate(texts) if text.strip()]
        order.sort(key=lambda i: len(texts[i]))
        for at in range(0, len(order), _TEXTS):
            part = order[at : at + _TEXTS]
            found[part] = self._embed([texts[i] for i in part])
        self._file.write(found.tobytes())
        self._size += len(texts)

    def _embed(self, texts: list[str]) -> Array:
        import torch

        batch = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            states = self._model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).last_hidden_state
            there = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
            means = torch.nn.functional.normalize((states * there).sum(1) / there.sum(1), dim=-1)
        found: Array = means.float().cpu().numpy()
        return found

    def firsts(self) -> Array:
        """(n,) int32: for each text the first kept one that it is like; -1 if it is kept."""
        import torch

        self._file.flush()
        self._read = np.memmap(self._file, np.float16, mode="r", shape=(self._size, self._width))
        first = np.full(self._size, -1, np.int32)
        for start in range(0, self._size, _BLOCK):
            block = self._block(np.arange(start, min(start + _BLOCK, self._size)))
            for at in range(0, start, _BLOCK):
                kept = at + np.flatnonzero(first[at : at + _BLOCK] < 0)
                alike = (block @ self._block(kept).T >= self._threshold).cpu().numpy()
                fresh = np.flatnonzero(alike.any(axis=1) & (first[start : start + _BLOCK] < 0))
                first[start + fresh] = kept[alike[fresh].argmax(axis=1)]
            within = torch.tril(block @ block.T, diagonal=-1) >= self._threshold
            for later, earlier in within.nonzero().cpu().numpy():
                if first[start + later] < 0 and first[start + earlier] < 0:
                    first[start + later] = start + earlier
        del self._model, self._tokenizer
        return first

    def _block(self, rows: Array) -> Any:
        import torch

        return torch.from_numpy(self._read[rows].astype(np.float32)).to(self._device)

    def similarity(self, left: int, right: int) -> float:
        return float(self._read[left].astype(np.float32) @ self._read[right].astype(np.float32))

    def close(self) -> None:
        del self._read
        self._file.close()
