"""Keep the first of rows that are alike: what near_duplicates and similar_embeddings share.

Both gather: they see every row that passed the filters before them, keep little of it in a store on
disk, find for each row the earlier one that it is like, and then judge the rows in the same order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.records import Message, Verdict
from pipeline.stage1_generate.curate import Candidate, drop, keep

Array = NDArray[Any]

BATCH = 1 << 16  # characters given to a store at once: numpy's work on them stays in the cache
_ID_BYTES = 16


class Over(StrEnum):
    """What of two rows is compared."""

    COMPLETION = "completion"
    PROMPT = "prompt"
    BOTH = "both"


class Store(Protocol):
    """Numbered texts of which it keeps just enough to compare them."""

    def add(self, texts: list[str]) -> None: ...

    def firsts(self) -> Array:
        """(n,) int32: for each text the earlier one that it goes for; -1 if it is kept."""
        ...

    def similarity(self, left: int, right: int) -> float: ...

    def close(self) -> None: ...


E = TypeVar("E", bound=StrEnum)


def choice(name: str, value: str, kind: type[E]) -> E:
    if value not in set(kind):
        raise ValueError(f"{name} is one of {', '.join(kind)}; seen: {value!r}")
    return kind(value)


def text_of(row: Candidate, over: Over) -> str:
    """What two rows are compared by; system turns are left out, they are the same everywhere."""
    turns: list[Message] = []
    if over is not Over.COMPLETION:
        turns += [turn for turn in row.example.prompt if turn.role != "system"]
    if over is not Over.PROMPT:
        turns += row.example.completion
    return "\n".join(turn.content for turn in turns)


class Alike:
    """The filter `name` over the rows of a store that is opened with the first row."""

    def __init__(self, name: str, over: Over, open_store: Callable[[], Store]) -> None:
        self._name, self._over, self._open = name, over, open_store
        self._keep = keep(name)
        self._store: Store | None = None
        self._texts: list[str] = []
        self._waiting = 0  # characters
        self._first: Array | None = None
        self._asked = 0

    def gather(self, row: Candidate) -> None:
        if self._first is not None:
            raise UserError(
                f"{self._name} must see all rows before it judges one; put every filter that "
                "compares rows into curate.filters, or each into the task's own filters"
            )
        if self._store is None:
            self._store = self._open()
            self._ids = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the last verdict)
        text = text_of(row, self._over)
        self._texts.append(text)
        self._ids.write(bytes.fromhex(row.request.id))
        self._waiting += len(text)
        if self._waiting >= BATCH:
            self._hand_over(self._store)

    def verdict(self, row: Candidate) -> Verdict:
        store, number = self._store, self._asked
        if store is not None and self._first is None:
            self._hand_over(store)
            self._first = store.firsts()
        if store is None or self._first is None or self._id(number) != row.request.id:
            raise RuntimeError(f"row {number} ({row.request.id}) is not the one that was gathered")
        self._asked += 1
        first = int(self._first[number])
        if first < 0:
            verdict = self._keep
        else:
            score = round(store.similarity(first, number), 3)
            verdict = drop(self._name, f"like an earlier row: {self._id(first)}", score)
        if self._asked == len(self._first):
            self._store = None
            store.close()
            self._ids.close()
        return verdict

    def _hand_over(self, store: Store) -> None:
        if self._texts:
            store.add(self._texts)
        self._texts, self._waiting = [], 0

    def _id(self, number: int) -> str:
        self._ids.seek(number * _ID_BYTES)
        return self._ids.read(_ID_BYTES).hex()
