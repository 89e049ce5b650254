"""The servers of a run that `distill serve` keeps: a file for each says how it is doing.

    runs/NAME/launch/endpoints/HOST-3f9a1c20.json      rewritten every few seconds, then removed
    runs/NAME/launch/endpoints/key                     what they are asked with; mode 0600

Whoever asks finds them there, on any machine that sees the run's folder; nothing hangs on a
scheduler's job or on a name service.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from pipeline.errors import UserError
from pipeline.launch.children import kill_marked
from pipeline.launch.units import BEAT_SECONDS, LOST_BEATS, boot_id, here, process_lives, start_of

LOST_SECONDS = LOST_BEATS * BEAT_SECONDS  # without a beat: nobody keeps that server any more
MARK = "DISTILL_SERVER"
KEY_SECONDS = 5.0  # a key that another process is just writing is whole by then
FAILED_SECONDS = 120.0  # that a failed one is shown, whatever starts meanwhile
FORGOTTEN_SECONDS = 24 * 3600.0  # a file without a beat for so long says nothing to anybody


class ServerState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


class ServerStatus(msgspec.Struct):
    """What a server's file says. Times are seconds since 1970 by its machine's clock."""

    model: str  # its identity, as the ledger knows it
    teacher: str  # its name in the config
    host: str
    pid: int  # of `distill serve`, not of the server
    boot: str
    pid_start: str
    start: str  # of this `distill serve`: random, to tell two apart
    began: float
    url: str = ""  # base_url of the API
    state: ServerState = ServerState.STARTING
    beat: int = 0
    time: float = 0.0
    running: int | None = None  # requests it works on, where it says so (vLLM)
    answered: int | None = None  # since the server began
    rate: float | None = None  # answers a second since the last beat
    deaths: int = 0  # how often the server has died under this `distill serve`
    last_error: str = ""
    log: str = ""

    @property
    def file_name(self) -> str:
        host = re.sub(r"[^A-Za-z0-9._]+", "-", self.host)
        return f"{host}-{self.start}.json"

    @property
    def mark(self) -> str:
        """VARIABLE=value in the environment of its servers and of all that these start."""
        return f"{MARK}={self.start}"


def servers_folder(run: Path) -> Path:
    return run / "launch" / "endpoints"


def new_server(model: str, teacher: str, log: str) -> ServerStatus:
    """Of this process, as it begins."""
    now = time.time()
    return ServerStatus(
        model=model,
        teacher=teacher,
        host=socket.gethostname(),
        pid=os.getpid(),
        boot=boot_id(),
        pid_start=start_of(os.getpid()) or "",
        start=secrets.token_hex(4),
        began=now,
        time=now,
        log=log,
    )


def write_server(run: Path, status: ServerStatus) -> None:
    """Whole or not at all, by a rename inside the folder."""
    folder = servers_folder(run)
    partial = folder / f".{status.file_name}"
    partial.write_bytes(msgspec.json.encode(status) + b"\n")
    os.replace(partial, folder / status.file_name)


def remove_server(run: Path, status: ServerStatus) -> None:
    with suppress(FileNotFoundError):
        (servers_folder(run) / status.file_name).unlink()


def servers(run: Path, model: str | None = None) -> list[ServerStatus]:
    """Every server of a run, or those of one model, by file name."""
    found = []
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(servers_folder(run))):
            if not name.endswith(".json") or name.startswith("."):
                continue
            try:
                data = (servers_folder(run) / name).read_bytes()
                found.append(msgspec.json.decode(data, type=ServerStatus))
            except (OSError, msgspec.DecodeError):
                continue  # just removed, or of another version
    return [one for one in found if model is None or one.model == model]


def forget_the_dead(run: Path) -> None:
    """Remove files that nobody will ever rewrite: of this machine's dead, and very old ones.

    What a dead one's server has left behind here is killed.
    """
    for status in servers(run):
        gone = here(status) and not process_lives(status)
        if gone:
            kill_marked(status.mark)
        if status.state is ServerState.FAILED and time.time() - status.time < FAILED_SECONDS:
            continue  # a person has not read it yet
        if gone or time.time() - status.time > FORGOTTEN_SECONDS:
            remove_server(run, status)


def seems_lost(status: ServerStatus) -> bool:
    """Has nobody heard of it for too long? By the clock, where it is on another machine."""
    if here(status):
        return not process_lives(status)
    return time.time() - status.time > LOST_SECONDS


def here_alone(host: str | None) -> bool:
    """Do only processes of the same machine reach a server that listens there?"""
    return host is None or host in ("localhost", "::1") or host.startswith("127.")


def reachable(status: ServerStatus) -> bool:
    """False for 127.0.0.1 of another machine: whatever listens there on this one is not it."""
    return here(status) or not here_alone(urlsplit(status.url).hostname)


class Sightings:
    """Which servers are kept by a living process. Clocks of other machines may be wrong.

    A beat that moved while we watched counts; a clock only the first time that a file is seen.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}  # the beat, and when it was new to us

    def alive(self, status: ServerStatus, now: float) -> bool:
        """`now`: seconds of any monotonic clock."""
        if here(status):
            return process_lives(status)
        seen = self._seen.get(status.start)
        if seen is None:
            fresh = abs(time.time() - status.time) < LOST_SECONDS
            seen = self._seen[status.start] = (status.beat, now if fresh else -math.inf)
        elif seen[0] != status.beat:
            seen = self._seen[status.start] = (status.beat, now)
        return now - seen[1] < LOST_SECONDS


def run_key(run: Path) -> str:
    """The key of this run's servers, made by whoever wants it first; good for nothing else."""
    path = servers_folder(run) / "key"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    key = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
    return key


def _read_key(path: Path) -> str:
    """Whole once its line has ended: another process may just be writing it."""
    end = time.monotonic() + KEY_SECONDS
    while True:
        text = path.read_text(encoding="ascii")
        if text.endswith("\n"):
            return text.strip()
        if time.monotonic() > end:
            raise UserError(
                f"{path}: is cut off (its writer was killed); delete it, and start the servers of "
                "this run again"
            )
        time.sleep(0.1)


def say_none(all_known: list[ServerStatus]) -> str:
    """In words, what becomes of the servers that are there but not ready."""
    starting = [s for s in all_known if s.state is ServerState.STARTING and not seems_lost(s)]
    failed = [s for s in all_known if s.state is ServerState.FAILED]
    lost = [s for s in all_known if s.state is not ServerState.FAILED and seems_lost(s)]
    words = [f"{len(starting)} starting"] if starting else []
    words += [f"{len(lost)} lost"] if lost else []
    words += [f"{len(failed)} failed"] if failed else []
    apart = [s for s in all_known if s.state is ServerState.READY and not reachable(s)]
    if apart:
        words += [
            f"{len(apart)} on {apart[0].host} for that machine alone, until serving.serve.host "
            "says 0.0.0.0"
        ]
    said = ", ".join(words) or "none was started"
    if failed:
        last = max(failed, key=lambda s: s.time)
        said += f"; the last one: {last.last_error} (tail {last.log})"
    return said
