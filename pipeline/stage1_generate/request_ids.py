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

from pipeline.records import digest

BUFFER = 4096  # ids


class RequestIds:
    """`known`: (n, 2) array of 64-bit halves, of the first n requests."""

    def __init__(self, path: Path, key: Any) -> None:
        head = digest(key).encode()
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        whole = (len(data) - len(head)) // 16 * 16  # a kill may have cut the last one
        path.parent.mkdir(parents=True, exist_ok=True)
        if whole < 0 or not data.startswith(head):
            path.write_bytes(head)
            whole = 0
        else:
            os.truncate(path, len(head) + whole)
        body = data[len(head) : len(head) + whole]
        self.known = np.frombuffer(body, ">u8").astype(np.uint64).reshape(-1, 2)
        self._path = path
        self._new: list[bytes] = []

    def add(self, position: int, request_id: str) -> None:
        """The id at a position; the positions of one pass come in order."""
        if position >= len(self.known):
            self._new.append(bytes.fromhex(request_id))
            if len(self._new) == BUFFER:
                self.flush()

    def flush(self) -> None:
        if self._new:
            with self._path.open("ab") as file:
                file.write(b"".join(self._new))
            self._new.clear()
