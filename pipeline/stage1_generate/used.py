"""The answers that a run uses: 1_generations.jsonl, joined with their seeds and the ledger."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from pipeline.config import Config, Task
from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.models import model_identity
from pipeline.records import Finish, Seed, digest, read_jsonl
from pipeline.stage1_generate.curate import Candidate
from pipeline.stage1_generate.curate.judge import candidate

RUNS = Path("runs")


class UsedRow(msgspec.Struct, frozen=True):
    """A line of 1_generations.jsonl."""

    request_id: str
    seed_id: str
    task: str
    sample_index: int
    model: str  # the ledger that holds the answer
    finish: Finish
    teacher: str = ""  # its name in the config


class StoredSeeds:
    """0_seeds.jsonl by task and id. Memory: 16 bytes a seed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._decoder = msgspec.json.Decoder(Seed)
        hashes, offsets = array("Q"), array("Q")
        glance, place = msgspec.json.Decoder(_Name), 0
        for line in self._file:
            name = glance.decode(line)
            hashes.append(_hash(name.task, name.id))
            offsets.append(place)
            place += len(line)
        found = np.frombuffer(hashes, dtype=np.uint64)
        order = np.argsort(found, kind="stable")
        self._hashes = found[order]
        self._offsets = np.frombuffer(offsets, dtype=np.uint64)[order]

    def get(self, task: str, seed_id: str) -> Seed:
        wanted = np.uint64(_hash(task, seed_id))
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            self._file.seek(int(self._offsets[at]))
            seed = self._decoder.decode(self._file.readline())
            if (seed.task, seed.id) == (task, seed_id):
                return seed
            at += 1
        raise UserError(
            f"{self._file.name} no longer holds the seed {seed_id!r} of task {task}; type "
            "`--redo generate` to write it again (answers that are paid for are not asked again)"
        )

    def close(self) -> None:
        self._file.close()


class _Name(msgspec.Struct):
    """All of a seed's line that finding it needs."""

    task: str
    id: str


def _hash(task: str, seed_id: str) -> int:
    return int(digest([task, seed_id], 16), 16)


def candidates(
    config: Config, used: Iterable[UsedRow] | None = None
) -> Iterator[tuple[Task, Candidate]]:
    """Every stored answer of the run with its seed and the row it would become, in order."""
    run = config.run_dir
    if used is None:
        used = read_jsonl(run / "1_generations.jsonl", UsedRow)
    seeds = StoredSeeds(run / "0_seeds.jsonl")
    tasks = {task.name: task for task in config.tasks}
    names = {model_identity(t): name for name, t in config.all_teachers.items()}
    ledgers = {model: Ledger(RUNS, model) for model in names}
    try:
        for line in used:
            row = ledgers[line.model].get(line.request_id)
            if row is None:
                raise UserError(
                    f"{ledgers[line.model].folder} no longer holds {line.request_id}; type "
                    "`--redo generate` to ask for what is missing"
                )
            task, seed = tasks[line.task], seeds.get(line.task, line.seed_id)
            teacher = line.teacher or names[line.model]
            yield task, candidate(task, seed, row.request, row.generation, teacher)
    finally:
        seeds.close()
