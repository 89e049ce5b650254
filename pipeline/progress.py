"""How a long step is doing: a live bar on a terminal, a plain line every n seconds in a log."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TextIO

from pipeline.config import Price
from pipeline.records import Finish, Generation


class Progress:
    """Counts arrivals; prints at most every `seconds` to a log, or keeps a bar on a terminal."""

    def __init__(
        self,
        what: str,
        total: int,
        *,
        seconds: float = 10.0,
        price: Price | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self.what = what
        self.total = total
        self.rows = 0  # arrived now
        self.known = 0  # were in the ledger already
        self.input_tokens = 0
        self.output_tokens = 0
        self.outcomes: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()  # by the first words of what was said
        self.last_error = ""
        self._acceptance = (0, 0)
        self._passed_over = 0
        self._price = price or Price()
        self._stream = stream or sys.stderr
        self._seconds = seconds
        self._begin = self._printed = time.monotonic()
        self._bar = None
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=what, unit="row", file=self._stream)

    def add(self, generation: Generation) -> None:
        self.rows += 1
        self.input_tokens += generation.usage.input
        self.output_tokens += generation.usage.output
        self.outcomes[generation.finish.value] += 1
        if generation.finish is Finish.ERROR:
            self.errors[(generation.error or "unknown").split(":")[0][:40]] += 1
            self.last_error = (generation.error or "unknown")[:300]
        if self._bar is not None:
            self._bar.update()
            self._bar.set_postfix_str(self._details(), refresh=False)
        elif time.monotonic() - self._printed >= self._seconds:
            self._printed = time.monotonic()
            self._line()

    def skip(self) -> None:
        """A row that needs no asking."""
        self.known += 1
        if self._bar is not None:
            self._bar.update()

    def passed_over(self, rows: int) -> None:
        """Rows of this job, all in the ledger, that were not even looked at."""
        if self._bar is not None:
            self._bar.update(rows - self._passed_over)
        self.known += rows - self._passed_over
        self._passed_over = rows

    def judged(self, passed: int, seen: int) -> None:
        """How many of the new answers passed the filters, of those that were looked at."""
        self._acceptance = passed, seen

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self.rows or self.known:
            self._line()

    @property
    def usd(self) -> float:
        """Of the rows that arrived now."""
        price = self._price
        return (self.input_tokens * price.input + self.output_tokens * price.output) / 1e6

    def _details(self) -> str:
        elapsed = max(time.monotonic() - self._begin, 1e-9)
        cut = self.outcomes[Finish.LENGTH.value]
        passed, seen = self._acceptance
        tokens = self.input_tokens + self.output_tokens
        parts = [f"{self.output_tokens / elapsed:.0f} tokens/s", f"{tokens:,} tokens"]
        parts += [f"{self.usd:.4f} USD"] if self.usd else []
        parts += [f"{passed / seen:.0%} accepted"] if seen else []
        parts += [f"{cut} cut off"] if cut else []
        parts += [f"{n} x {kind}" for kind, n in self.errors.most_common(3)] or ["0 errors"]
        return ", ".join(parts)

    def _line(self) -> None:
        elapsed = max(time.monotonic() - self._begin, 1e-9)
        rate = self.rows / elapsed
        done = self.known + self.rows
        total = max(self.total, done)  # of a shard it is an estimate
        left = (total - done) / rate if rate else 0.0
        print(
            f"{self.what}: {done}/{total} rows, {rate:.2f} rows/s, "
            f"{self._details()}, {left:.0f} s left",
            file=self._stream,
            flush=True,
        )
