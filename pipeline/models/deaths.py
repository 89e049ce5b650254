"""Rows that were being worked on when their process died, and what that says about them.

A row may kill its worker (a bug in a kernel, memory for one enormous prompt), and then kills every
worker that tries it. So a model that runs in this process writes down which rows it begins, and
the next start asks the rows of a dead process again in smaller company: in groups of eight, then
each alone. A row that has been there at three deaths was alone at the last, and is set aside.

    runs/ledger/<model>/<shard>-<host>-<pid>.begun    one request id a line; gone after a clean end
    runs/ledger/<model>/deaths.json            request id -> deaths it was there at; a shard has
                                               one of its own, deaths-<shard>.json

A begun line is not synced: it must outlive the process, and the kernel keeps it for that; after a
power cut nobody is to blame. A shard looks only at what its own number left behind: the others'
rows are not its own, and where a shared filesystem has no locks their living would look dead.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from pipeline import stopping
from pipeline.file_locks import Lock, lock
from pipeline.records import write_jsonl

MOST_DEATHS = 3
GROUP = 8
SILENT_SECONDS = 600.0  # then a process on another machine, whose lock we may not see, is dead


class Begun:
    """The rows this process has begun; opening it also counts the deaths of earlier ones."""

    def __init__(self, folder: Path, shard: int, answered: Callable[[str], bool]) -> None:
        self._folder = folder
        self._answered = answered
        self.deaths: dict[str, int] = self._count_the_dead(f"{shard:04d}" if shard else "")
        self._path = folder / f"{shard:04d}-{_host()}-{os.getpid()}.begun"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        # The kernel frees the lock when the process dies, however: a file that can be locked
        # belongs to nobody alive.
        lock(self._file)
        stopping.before_the_end(self._forget)  # told to stop is no death of the rows

    def begin(self, request_id: str) -> None:
        os.write(self._file, request_id.encode() + b"\n")

    def company(self, request_ids: Sequence[str]) -> list[list[str]]:
        """Suspects among `request_ids` in the groups they may be asked in, the worst one last."""
        once = [i for i in request_ids if self.deaths.get(i) == 1]
        more = [i for i in request_ids if 1 < self.deaths.get(i, 0) < MOST_DEATHS]
        return [once[at : at + GROUP] for at in range(0, len(once), GROUP)] + [[i] for i in more]

    def close(self) -> None:
        """A clean end: what was begun is answered, or was told to stop."""
        self._forget()
        os.close(self._file)

    def _forget(self) -> None:
        self._path.unlink(missing_ok=True)

    def _count_the_dead(self, shard: str) -> dict[str, int]:
        """Of the shard; of all where it is ""."""
        counted = self._folder / (f"deaths-{shard}.json" if shard else "deaths.json")
        deaths: dict[str, int] = {}
        for path in [counted] if shard else sorted(self._folder.glob("deaths*.json")):
            if path.is_file():
                before = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
                deaths |= {i: max(n, deaths.get(i, 0)) for i, n in before.items()}
        begun = sorted(self._folder.glob(f"{shard or '*'}-*.begun"))
        graves = [path for path in begun if _is_dead(path)]
        for path in graves:
            for request_id in set(path.read_text(encoding="ascii", errors="replace").split()):
                if not self._answered(request_id):
                    deaths[request_id] = deaths.get(request_id, 0) + 1
        deaths = {i: n for i, n in deaths.items() if not self._answered(i)}
        if graves or counted.is_file():
            write_jsonl(counted, [deaths])
        for path in graves:
            path.unlink(missing_ok=True)
        return deaths


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname())


def _is_dead(path: Path) -> bool:
    try:
        elsewhere = f"-{_host()}-" not in path.name
        if elsewhere and time.time() - path.stat().st_mtime < SILENT_SECONDS:
            return False
        with path.open("r+b") as file:  # NFS locks only what is open for writing
            found = lock(file)
    except FileNotFoundError:
        return False
    if found is Lock.NONE_HERE and not elsewhere:
        return not Path(f"/proc/{path.stem.rpartition('-')[2]}").exists()
    return found is not Lock.TAKEN


def left_behind(root: Path, pid: int) -> bool:
    """Did this process die in the middle of rows, which the next start can tell apart?"""
    mine = root.glob(f"ledger/*/*-{_host()}-{pid}.begun")
    return any(path.stat().st_size and _is_dead(path) for path in mine)
