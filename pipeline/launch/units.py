"""Units of work: a command, a shard of one or one arm, each with a file that says how it is doing.

    runs/NAME/launch/status/generate-3-of-16.json, evaluate-teacher.json, train.json

The process at work rewrites its file every few seconds (a new file, renamed over the old one). So
`distill status` needs no server and no scheduler, and a second process on the same unit, on this
machine or another one, sees that the first is alive. No lock is needed for that: the beats of a
file count up while its process lives, and of two that began at once the one that began first wins.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from pipeline import stopping

BEAT_SECONDS = 5.0
LOST_BEATS = 6  # missed beats after which `distill status` takes a process for dead
WATCHED_BEATS = 3  # that a second process waits for, before it takes a silent unit over

_PART = re.compile(r"(?P<command>[a-z]+)-(?P<part>\d+)-of-(?P<of>\d+)\.json")


class UnitState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"  # by a signal, or for now: it goes on when it is started again
    PAUSED = "paused"  # a budget, the filters, a full disk: a person must look first
    FAILED = "failed"


class Unit(msgspec.Struct, frozen=True):
    """A command with its part: `generate` 3 of 16, `evaluate` the arm `teacher`, `train`."""

    command: str
    part: int = 0  # from 1; 0: no shard
    of: int = 0
    arm: str = ""

    @property
    def words(self) -> str:
        """As it is typed, without `distill` and the config."""
        if self.of:
            return f"{self.command} --shard {self.part}/{self.of}"
        return f"{self.command} --arm {self.arm}" if self.arm else self.command

    @property
    def file_name(self) -> str:
        if self.of:
            width = len(str(self.of))
            return f"{self.command}-{self.part:0{width}d}-of-{self.of}.json"
        arm = re.sub(r"[^A-Za-z0-9._]+", "-", self.arm)
        return f"{self.command}-{arm}.json" if self.arm else f"{self.command}.json"

    def overlaps(self, other: Unit) -> bool:
        """Might both ask the same request, or write the same file?"""
        if not (self.of or self.arm or other.of or other.arm):
            return True  # two whole commands: one run has one at a time
        if self.command != other.command:
            return False
        if self.of and other.of:
            return self.of != other.of or self.part == other.part
        return not (self.arm and other.arm) or self.arm == other.arm


class UnitStatus(msgspec.Struct):
    """What a unit's file says. Times are seconds since 1970 by its machine's clock."""

    unit: Unit
    identity: str  # of the step's settings and inputs: a unit is done for these only
    host: str
    pid: int
    boot: str  # with `pid_start`: which process, where the reader sees the same ones
    pid_start: str
    start: str  # of this process: random, to tell two apart
    began: float
    state: UnitState = UnitState.RUNNING
    beat: int = 0
    time: float = 0.0
    done: int = 0  # rows
    all: int = 0  # rows; an estimate while it runs
    new: int = 0  # rows asked by this process
    errors: int = 0
    starts: int = 1  # processes that have been at it with this identity
    input_tokens: int = 0  # of all of these, as the output and the cost
    output_tokens: int = 0
    usd: float = 0.0
    last_error: str = ""
    log: str = ""  # where its output goes, when a launcher has sent it to a file

    @property
    def rate(self) -> float:
        """Rows a second since this process began."""
        return self.new / max(self.time - self.began, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        return (self.all - self.done) / self.rate if self.new and self.all else None


def status_folder(run: Path) -> Path:
    return run / "launch" / "status"


def read_status(path: Path) -> UnitStatus | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=UnitStatus)
    except (OSError, msgspec.DecodeError):  # absent, or of another version: nothing is known
        return None


def statuses(run: Path, beside: Unit | None = None) -> Iterator[UnitStatus]:
    """What every unit of a run last said of itself, by file name.

    `beside`: without the other parts of this unit's division, which it has nothing to do with.
    """
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(status_folder(run))):
            if not name.endswith(".json") or (beside and _is_other_part(name, beside)):
                continue
            if (found := read_status(status_folder(run) / name)) is not None:
                yield found


def _is_other_part(name: str, unit: Unit) -> bool:
    """By the name alone: ten thousand shards must not read ten thousand files each."""
    match = _PART.fullmatch(name)
    if match is None or (match["command"], int(match["of"])) != (unit.command, unit.of):
        return False
    return int(match["part"]) != unit.part


def write_status(run: Path, status: UnitStatus) -> None:
    """Whole or not at all, by a rename inside the folder; not synced, for a beat follows soon."""
    folder = status_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / status.unit.file_name
    partial = folder / f".{status.unit.file_name}.{status.start}"
    partial.write_bytes(msgspec.json.encode(status) + b"\n")
    os.replace(partial, path)


def new_status(unit: Unit, identity: str) -> UnitStatus:
    """Of this process, as it begins."""
    now = time.time()
    return UnitStatus(
        unit=unit,
        identity=identity,
        host=socket.gethostname(),
        pid=os.getpid(),
        boot=boot_id(),
        pid_start=start_of(os.getpid()) or "",
        start=secrets.token_hex(8),
        began=now,
        time=now,
        log=os.environ.get("DISTILL_LOG", ""),
    )


class Process(Protocol):
    """Which process a file is about."""

    host: str
    pid: int
    boot: str
    pid_start: str


def here(status: Process) -> bool:
    """Is its process one of this machine, so that it can be looked up?"""
    return (status.host, status.boot) == (socket.gethostname(), boot_id())


def process_lives(status: Process) -> bool:
    """For a status from this machine. A process id that was given out again is another process."""
    return start_of(status.pid) == status.pid_start


def lost(status: UnitStatus) -> bool:
    """Does it say that it runs, and nobody has heard of it? By the clock where it is elsewhere."""
    if status.state is not UnitState.RUNNING:
        return False
    if here(status):
        return not process_lives(status)
    return time.time() - status.time > LOST_BEATS * BEAT_SECONDS


def alive(run: Path, status: UnitStatus, seconds: float | None = None) -> bool:
    """Surely: see `one_alive`."""
    return one_alive(run, [status], seconds) is not None


def one_alive(
    run: Path, several: Iterable[UnitStatus], seconds: float | None = None
) -> UnitStatus | None:
    """One whose process lives, surely. Machines' clocks may be wrong, so for a process on another
    one a beat is waited for, of all of them at once.

    `seconds`: how long at most; the default is three beats. Raises `Stopped` when this process is
    told to stop.
    """
    running = [status for status in several if status.state is UnitState.RUNNING]
    for status in running:
        if here(status) and process_lives(status):
            return status
    watched = [status for status in running if not here(status)]
    patience = WATCHED_BEATS * BEAT_SECONDS if seconds is None else seconds
    end = time.monotonic() + patience
    while watched and time.monotonic() < end:
        stopping.raise_if_requested()
        time.sleep(min(0.5, patience))
        for status in list(watched):
            now = read_status(status_folder(run) / status.unit.file_name)
            if now is None:
                continue  # a shared filesystem may fail for a moment; the next look tells
            if now.state is not UnitState.RUNNING:
                watched.remove(status)
            elif (now.start, now.beat) != (status.start, status.beat):
                return now
    return None


@functools.cache
def boot_id() -> str:
    """Of this start of the machine and this space of process ids; "" where it is not known.

    A container may have the machine's name and not see its processes: there only beats tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def start_of(pid: int) -> str | None:
    """When a process began, in clock ticks since the boot; None where there is none (Linux)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]  # a zombie works no more
