"""Which seeds are held back for validation: decided by each seed's id alone.

A seed and all that was derived from it (`PARENT/...`) are one group, whatever task asks them, so
nothing that is validated was trained on in another form; and adding rows never moves a row to the
other side.
"""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path

import msgspec
import numpy as np

PLACES = 2**32


class Split:
    """Sides of the seeds of one run. Memory: 8 bytes a seed, once a derived one is asked for."""

    def __init__(self, seeds: Path, seed: int, share: float) -> None:
        self._seeds = seeds
        self._seed = seed
        self.share = share
        self._known: np.ndarray | None = None

    def group(self, seed_id: str) -> str:
        """The first ancestor of a seed that is a seed of this run: itself, mostly.

        A slash alone does not make an ancestor: files name their lines `gsm8k/12`, too.
        """
        at = seed_id.find("/")
        while at > 0:
            if self._is_seed(seed_id[:at]):
                return seed_id[:at]
            at = seed_id.find("/", at + 1)
        return seed_id

    def number(self, seed_id: str) -> int:
        """A 64-bit hash of the seed's group; its first 32 bits decide the side."""
        text = f"{self._seed}\0{self.group(seed_id)}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")

    def in_validation(self, seed_id: str) -> bool:
        return self.number(seed_id) >> 32 < self.share * PLACES

    def _is_seed(self, seed_id: str) -> bool:
        if self._known is None:
            self._known = _known_ids(self._seeds)
        wanted = np.uint64(_hash(seed_id))
        at = int(np.searchsorted(self._known, wanted))
        return at < len(self._known) and bool(self._known[at] == wanted)


class _Name(msgspec.Struct):
    id: str


def _known_ids(path: Path) -> np.ndarray:
    decoder = msgspec.json.Decoder(_Name)
    with path.open("rb") as file:
        hashes = array("Q", (_hash(decoder.decode(line).id) for line in file))
    return np.unique(np.frombuffer(hashes, dtype=np.uint64))


def _hash(seed_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(seed_id.encode(), digest_size=8).digest(), "big")
