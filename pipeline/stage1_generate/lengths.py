"""3_dataset/lengths.json: how long the rows are in the student's tokens, before any training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from pipeline.config import Config
from pipeline.records import Example
from pipeline.stage1_generate.tokens import longest_row, student_tokenizer, token_lengths

MOST = 5000  # rows that are counted; a sample of more says nothing new
QUANTILES = (0.5, 0.9, 0.99, 1.0)


class Lengths(msgspec.Struct, frozen=True):
    """Tokens of a row, prompt and completion, in the student's chat template.

    `counted`: ascending, of all rows or of a random `MOST` of them.
    """

    student: str
    rows: int
    counted: list[int]
    histogram: list[tuple[int, int]]  # up to so many tokens (from the line before): rows counted

    @property
    def mean(self) -> float:
        return float(np.mean(self.counted)) if self.counted else 0.0

    def quantile(self, share: float) -> int:
        return self.counted[min(len(self.counted) - 1, int(share * len(self.counted)))]

    def longer_than(self, limit: int) -> int:
        """Rows of the whole dataset longer than a limit; estimated if only a sample is counted."""
        found = len(self.counted) - int(np.searchsorted(self.counted, limit, side="right"))
        return round(found * self.rows / max(1, len(self.counted)))


def measure(config: Config, rows: int, sample: Iterable[Example]) -> Lengths:
    counted = sorted(token_lengths(sample, student_tokenizer(config)))
    edges = [2**i for i in range(4, 31) if 2 ** (i - 1) < counted[-1]]
    edges = sorted({*edges, *(3 * e // 4 for e in edges if e > 16)})
    places = np.searchsorted(counted, edges, side="right")
    histogram = [(e, int(n)) for e, n in zip(edges, np.diff(places, prepend=0), strict=True)]
    while histogram and not histogram[0][1]:
        histogram.pop(0)
    while histogram and not histogram[-1][1]:
        histogram.pop()
    return Lengths(config.student.model, rows, counted, histogram)


def read_lengths(folder: Path) -> Lengths | None:
    """Those of a dataset's folder; None for one that was written before there were any."""
    path = folder / "lengths.json"
    return msgspec.json.decode(path.read_bytes(), type=Lengths) if path.is_file() else None


def too_long(config: Config, found: Lengths) -> str | None:
    """The warning that rows will be cut off in training, or None if all fit."""
    limit = longest_row(config)
    longer = found.longer_than(limit) if limit is not None else 0
    if not longer:
        return None
    about = "about " if found.rows > len(found.counted) else ""
    return (
        f"{about}{longer:,} of {found.rows:,} rows are longer than the {limit:,} tokens that "
        "training reads, and lose their ends; raise train.sft.max_length (up to the student's "
        "context), or drop them with the filter fits_student"
    )
