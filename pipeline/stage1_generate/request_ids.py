"""The ids of a task's requests, kept from an earlier start so that the next one need not make them.

To know whether a request is answered one must render its prompt and hash it, about 20 us; for a
million rows that is what a restart would wait for. So the first pass over a task keeps the ids, 16
bytes each in the order of the requests, under a key of all that makes them. They only ever let a
start pass over rows: what is asked, and what a run uses, is always worked out anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.ledger import Ledger
from pipeline.records import digest

BUFFER = 4096  # ids written at a time
BLOCK = 1 << 16  # ids looked up at a time


class RequestIds:
    """The ids of the first `count` requests; in memory are only those that were added last."""

    def __init__(self, path: Path, key: Any) -> None:
        head = digest(key).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._head = path, len(head)
        try:
            with path.open("rb") as file:
                same = file.read(len(head)) == head
                self.count = (os.fstat(file.fileno()).st_size - len(head)) // 16 if same else 0
        except FileNotFoundError:
            same, self.count = False, 0
        if same:
            os.truncate(path, len(head) + 16 * self.count)  # a kill may have cut the last one
        else:
            path.write_bytes(head)
        self._new: list[bytes] = []

    def answered(self, ledger: Ledger) -> Any:
        """Which of the first `count` requests are surely answered, as so many booleans."""
        found = np.zeros(self.count, bool)
        with self._path.open("rb") as file:
            file.seek(self._head)
            for at in range(0, self.count, BLOCK):
                halves = np.fromfile(file, ">u8", 2 * min(BLOCK, self.count - at))
                ids = halves.astype(np.uint64).reshape(-1, 2)
                found[at : at + len(ids)] = ledger.all_answered(ids)
        return found

    def add(self, position: int, request_id: str) -> None:
        """The id at a position; the positions of one pass come in order."""
        if position >= self.count:
            self._new.append(bytes.fromhex(request_id))
            if len(self._new) == BUFFER:
                self.flush()

    def flush(self) -> None:
        if self._new:
            with self._path.open("ab") as file:
                file.write(b"".join(self._new))
            self._new.clear()
