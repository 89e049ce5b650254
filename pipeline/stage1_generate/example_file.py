"""A JSONL file of examples whose rows are found by number, without holding them in memory."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipeline.records import Example
from pipeline.stage1_generate.split import PLACES, Split

EASE = ("pass_rate", "agreement")  # scores that say how easy a row is, 1 the easiest


class Head(msgspec.Struct):
    """What finding, splitting and mixing need of a row."""

    source: tuple[str, ...]
    meta: dict[str, Any]


class ExampleFile:
    """The index of such a file. Memory: about 45 bytes a row.

    Arrays of one entry a row: `task` (number in `tasks`), `group` (hash of the seed's group),
    `validates`, `key` (a random but repeatable number that orders rows), `ease` (NaN: not known),
    `characters`.
    """

    def __init__(self, path: Path, split: Split, seed: int) -> None:
        self.path = path
        self.columns: dict[str, set[type]] = {}
        self.recipes: dict[str, str] = {}
        decoder = msgspec.json.Decoder(Head)
        offsets, groups, keys = array("Q"), array("Q"), array("Q")
        codes, ease, characters = array("H"), array("f"), array("L")
        numbers: dict[str, int] = {}
        shapes: set[tuple[object, ...]] = set()
        at = 0
        with path.open("rb") as file:
            for line in file:
                head = decoder.decode(line)
                meta = head.meta
                offsets.append(at)
                at += len(line)
                task = str(meta["task"])
                codes.append(numbers.setdefault(task, len(numbers)))
                self.recipes.setdefault(task, str(meta["recipe"]))
                groups.append(split.number(meta["seed_id"]))
                keys.append(_key(seed, head.source, meta.get("view", "")))
                known = (float(meta[k]) for k in EASE if meta.get(k) is not None)
                ease.append(next(known, math.nan))
                characters.append(int(meta.get("characters", 0)))
                shape = (*meta, *map(type, meta.values()))
                if shape not in shapes:
                    shapes.add(shape)
                    for name, value in meta.items():
                        self.columns.setdefault(name, set()).add(type(value))
        self.tasks = list(numbers)
        self.task = np.array(codes, dtype=np.uint16)
        self.group = np.array(groups, dtype=np.uint64)
        self.key = np.array(keys, dtype=np.uint64)
        self.ease = np.array(ease, dtype=np.float32)
        self.characters = np.array(characters, dtype=np.int64)
        self.validates = _validating(self.group >> np.uint64(32), split.share)
        self._offsets = np.array(offsets, dtype=np.int64)
        self._decoder = msgspec.json.Decoder(Example)

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, numbers: Iterable[int] | np.ndarray) -> Iterator[Example]:
        """Rows by number, in the order that is asked for."""
        with self.path.open("rb") as file:
            for number in numbers:
                file.seek(int(self._offsets[number]))
                yield self._decoder.decode(file.readline())


def _validating(places: np.ndarray, share: float) -> np.ndarray:
    """Where the share would leave nothing to train on, the rows of one seed are trained on."""
    last = int(places.max(initial=0))
    found: np.ndarray = places < min(share * PLACES, last)
    return found


def _key(seed: int, source: tuple[str, ...], view: str) -> int:
    text = f"{seed}\0{view}\0{source}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
