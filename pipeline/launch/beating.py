"""The process at work on a unit: it says how it is doing, and ends in time when told to stop."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import stopping
from pipeline.errors import Paused, Stopped
from pipeline.file_locks import Lock, lock
from pipeline.launch import units
from pipeline.launch.units import Unit, UnitState, UnitStatus
from pipeline.progress import Progress

SETTLE_SECONDS = 0.2  # between two that claim a unit at once and see each other
POLL_SECONDS = 0.1
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while a machine sleeps
LOCK_SECONDS = 3.0  # a process that was just killed may take a moment to be gone


class Beating:
    """Writes the unit's file until it ends. `watch` a progress, and its rows are counted in.

    `grace`: seconds after a stop signal in which answers in flight may still come; then the process
    ends where it stands (exit 75). Everything that had arrived is stored by then. None: it ends
    when it is done with them.
    """

    def __init__(self, run: Path, unit: Unit, identity: str, grace: float | None) -> None:
        self.run = run
        self.status = units.new_status(unit, identity)
        self._grace = grace
        self._watched: list[Progress] = []
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._beat_until_ended, daemon=True)
        self._taken_by: UnitStatus | None = None
        self._used = (0, 0, 0.0)  # by earlier processes: tokens in, tokens out, USD
        self._silent: set[str] = set()  # starts of processes that no beat was heard of
        self._written = time.clock_gettime(CLOCK)

    def watch(self, progress: Progress) -> None:
        self._watched.append(progress)

    def begin(self) -> None:
        """Claim the unit; a `Stopped` where another process is at it."""
        self._refuse_company()
        self._carry_over()
        self._write()
        if self.status.unit.of or self.status.unit.arm:
            for _ in range(2):  # the first may have to write over the claim of the second
                time.sleep(SETTLE_SECONDS)
                self._refuse_company(claimed=True)
                if not self._stands():
                    self._write()
        self._thread.start()

    def end(self, state: UnitState, error: str = "") -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._count()
        with self._writing:
            self.status.state = state
            row = self.status.last_error
            self.status.last_error = f"{error}; the last row that failed: {row}" if row else error
            if state is UnitState.DONE:
                self.status.all = self.status.done  # before, it was an estimate
        if self._taken_by is None:
            with suppress(OSError):  # a full disk: what ended the work is said by its own message
                self._write()

    def _carry_over(self) -> None:
        """What earlier processes used for the same work stays used, however they ended.

        It is known up to the last beat of one that was killed.
        """
        found = units.read_status(units.status_folder(self.run) / self.status.unit.file_name)
        if found is not None and self.status.identity and found.identity == self.status.identity:
            self._used = (found.input_tokens, found.output_tokens, found.usd)
            self.status.starts = found.starts + 1

    def _refuse_company(self, claimed: bool = False) -> None:
        """`claimed`: of those that began at the same time the first goes on."""
        others = [other for other in self._company() if other.start not in self._silent]
        if claimed:
            mine = (self.status.began, self.status.start)
            others = [other for other in others if (other.began, other.start) < mine]
        if (found := units.one_alive(self.run, others)) is not None:
            raise Stopped(
                f"{_at_work(found)}, and both would ask the same; run this again when it has ended"
            )
        for other in others:
            self._silent.add(other.start)
            if other.unit != self.status.unit and other.state is UnitState.RUNNING:
                other.state = UnitState.STOPPED  # or each later start would wait for its beats
                with suppress(OSError):  # another one says it at the same time
                    units.write_status(self.run, other)

    def _company(self) -> Iterator[UnitStatus]:
        """Others that might ask the same."""
        for other in units.statuses(self.run, beside=self.status.unit):
            if other.start != self.status.start and self.status.unit.overlaps(other.unit):
                yield other

    def _stands(self) -> bool:
        path = units.status_folder(self.run) / self.status.unit.file_name
        found = units.read_status(path)
        return found is not None and found.start == self.status.start

    def _beat_until_ended(self) -> None:
        beaten, told = time.monotonic(), None
        while not self._ended.wait(POLL_SECONDS):
            now = time.monotonic()
            if now - beaten >= units.BEAT_SECONDS:
                beaten = now
                self._beat()
            if told is None and stopping.requested():
                told = now
            if self._grace is not None and told is not None and now - told >= self._grace:
                self._cut_off()

    def _beat(self) -> None:
        path = units.status_folder(self.run) / self.status.unit.file_name
        found = units.read_status(path)
        mine = (self.status.began, self.status.start)
        successor = None
        if time.clock_gettime(CLOCK) - self._written > units.WATCHED_BEATS * units.BEAT_SECONDS:
            # The machine slept or the disk hung: whoever took this for dead goes on.
            late = (UnitState.RUNNING, UnitState.DONE)
            company = [o for o in self._company() if o.state in late]
            later = (o for o in company if o.unit == self.status.unit or o.began > mine[0])
            successor = next(later, None)
        elif found is not None and found.start != self.status.start:
            first = (found.began, found.start) < mine
            successor = found if found.state is UnitState.RUNNING and first else None
        if successor is not None:
            self._taken_by = successor
            print(f"{_at_work(successor)}; this one ends", file=sys.stderr, flush=True)
            stopping.request()
            return
        with suppress(OSError):  # a full disk ends the work itself, with its own message
            self._write()

    def _cut_off(self) -> None:
        self._count()
        self.status.state = UnitState.STOPPED
        with suppress(OSError):
            if self._taken_by is None:
                self._write()
        print(
            f"stopped: `distill {self.status.unit.words}` was told to stop; what has arrived is "
            "stored. Run the same command again to go on",
            file=sys.stderr,
            flush=True,
        )
        stopping.end_now()

    def _write(self) -> None:
        with self._writing:
            if self.status.state is UnitState.RUNNING:
                self._count()
            self.status.beat += 1
            self.status.time = time.time()
            units.write_status(self.run, self.status)
            self._written = time.clock_gettime(CLOCK)

    def _count(self) -> None:
        status, watched = self.status, list(self._watched)
        status.done = sum(p.known + p.rows for p in watched)
        status.new = sum(p.rows for p in watched)
        status.all = max(status.all, sum(p.total for p in watched))
        status.errors = sum(p.outcomes["error"] for p in watched)
        before_in, before_out, before_usd = self._used
        status.input_tokens = before_in + sum(p.input_tokens for p in watched)
        status.output_tokens = before_out + sum(p.output_tokens for p in watched)
        status.usd = before_usd + sum(p.usd for p in watched)
        for progress in watched:
            status.last_error = progress.last_error or status.last_error


@contextmanager
def beating(run: Path, unit: Unit, identity: str, grace: float | None = None) -> Iterator[Beating]:
    """The unit's file says what becomes of the work inside."""
    at_work = Beating(run, unit, identity, grace)
    at_work.begin()
    try:
        yield at_work
    except Paused as error:
        at_work.end(UnitState.PAUSED, str(error))
        raise
    except Stopped as error:
        at_work.end(UnitState.STOPPED, str(error))
        raise
    except BaseException as error:
        at_work.end(UnitState.FAILED, str(error) or repr(error))
        raise
    at_work.end(UnitState.DONE)


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """One process works on a run. The kernel frees the lock when the process dies, however.

    Raises `Stopped` where another one has it, which is no mistake: Slurm may start a command on a
    second node while the first one, cut off, still has it at work.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as file:
        patience = time.monotonic() + LOCK_SECONDS
        while lock(file) is Lock.TAKEN:
            stopping.raise_if_requested()
            if time.monotonic() > patience:
                raise Stopped(f"{_whose_lock(run)}; run this again when it has ended")
            time.sleep(POLL_SECONDS)
        yield


def _whose_lock(run: Path) -> str:
    """Waits for a beat of it where it is elsewhere, so nothing is started again without a pause."""
    for other in units.statuses(run):
        whole = not (other.unit.of or other.unit.arm)
        if whole and units.alive(run, other):
            return _at_work(other)
    return f"{run}: another distill process is at work on this run"


def _at_work(other: UnitStatus) -> str:
    return (
        f"`distill {other.unit.words}` of this run is at work on {other.host} (process {other.pid})"
    )
