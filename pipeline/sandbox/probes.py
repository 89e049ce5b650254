"""Does the sandbox hold on this machine? Programs that try to break out, and who looks whether
they did.

A wall that a kernel, a container or a library quietly leaves out is worse than none: code is run
only where every one of these was seen to fail.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import msgspec

from pipeline.errors import UserError
from pipeline.sandbox import Ended, Limits, SandboxRun, run_python

OUT = "GOT OUT"  # what a probe prints that did what it must not
_MEMORY_MB = 128
_SECONDS = 1


class Outside(msgspec.Struct, frozen=True):
    """What probes aim at: a folder with a secret file, and ports that wait for somebody."""

    folder: str
    secret: str
    tcp: int
    udp: int


_ATTEMPT = """
def attempt(action, *words):
    try:
        got = action(*words)
    except BaseException:
        return
    print("GOT OUT", action, got if isinstance(got, str | int | list) else type(got), flush=True)
"""

# Each: what gets through, and a program. {folder}, {tcp}, {udp}, {megabytes} are filled in.
PROBES: dict[str, str] = {
    "network": """
import socket
attempt(socket.create_connection, ("127.0.0.1", {tcp}), 1)
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", {udp})))
attempt(lambda: socket.socket(socket.AF_UNIX))
attempt(lambda: socket.socketpair()[0].sendto(b"x", "{folder}/none"))
""",
    "writing outside its folder": """
import os, shutil
attempt(open, "{folder}/new", "w")
attempt(open, "{folder}/secret", "a")
attempt(open, "{folder}/secret", "r+")
attempt(os.truncate, "{folder}/secret", 0)
attempt(os.chmod, "{folder}/secret", 0o777)
attempt(os.utime, "{folder}/secret", (0, 0))
attempt(os.remove, "{folder}/secret")
attempt(os.rename, "{folder}/secret", "{folder}/other")
attempt(os.symlink, "/", "{folder}/link")
attempt(os.link, "{folder}/secret", "linked")
attempt(os.mkdir, "{folder}/sub")
""",
    "reading files of others": """
import os
attempt(lambda: open("{folder}/secret").read())
attempt(os.listdir, "{folder}")
attempt(os.listdir, "/")
attempt(os.listdir, "/proc")
attempt(os.symlink, "{folder}/secret", "link")
""",
    "the environment": """
import os
found = dict(os.environ)
found.pop("LC_CTYPE", None)  # Python's own
if found:
    print("GOT OUT", list(found))
for process in ("self", os.getpid(), os.getppid(), 1):
    for file in ("environ", "cmdline", "mem"):
        attempt(lambda: open(f"/proc/{{process}}/{{file}}", "rb").read(100))
""",
    "starting processes": """
import os, subprocess, sys
attempt(os.fork)
attempt(subprocess.run, [sys.executable, "-c", ""])
attempt(os.posix_spawn, "/bin/sh", ["sh", "-c", ":"], {{}})
attempt(os.execv, "/bin/sh", ["sh", "-c", "echo GOT OUT"])
""",
    "signals and limits of other processes": """
import ctypes, fcntl, os, resource
attempt(os.kill, os.getppid(), 0)
attempt(os.kill, -1, 0)
attempt(os.pidfd_open, os.getppid())
attempt(resource.prlimit, os.getppid(), resource.RLIMIT_CORE)
parent = os.PRIO_PROCESS, os.getppid()
attempt(lambda: os.setpriority(*parent, os.getpriority(*parent)))
reads, writes = os.pipe()
attempt(fcntl.fcntl, writes, fcntl.F_SETOWN, os.getppid())
def ptrace():
    if ctypes.CDLL(None).ptrace(0x4206, os.getppid(), 0, 0):
        raise OSError
attempt(ptrace)
""",
    "more memory than allowed": """
import mmap, resource
attempt(bytearray, {megabytes} << 20)
attempt(mmap.mmap, -1, {megabytes} << 20)
attempt(resource.setrlimit, resource.RLIMIT_AS, (-1, -1))
attempt(resource.setrlimit, resource.RLIMIT_CPU, (-1, -1))
""",
    "more CPU time than allowed": """
import signal
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
while True:
    pass
""",
    "larger files than allowed": """
attempt(lambda: open("large", "wb").write(bytes(64 << 20)) // (64 << 20) or 1 / 0)
attempt(lambda: open("sparse", "wb").truncate(64 << 20))
""",
}


@lru_cache(maxsize=1)
def require_sandbox() -> None:
    """Run every probe, once in this process; a `UserError` names the first that got through."""
    refusal = "code from answers is not run: "
    advice = (
        ". The sandbox needs Linux 5.13 or later with Landlock and seccomp, on x86_64 or aarch64; "
        "take the filter `code` out, or curate on such a machine (docs/curation.md)"
    )
    try:
        plain = run_python("print(6 * 7)", Limits(_SECONDS, _MEMORY_MB))
    except OSError as error:  # NoWalls, or no list of system calls for this machine
        raise UserError(f"{refusal}the sandbox cannot be put up: {error}{advice}") from None
    if plain.output != "42\n":
        raise UserError(
            f"{refusal}Python does not run in the sandbox: {plain.ended} "
            f"{plain.errors[-200:]}{advice}"
        )
    for name, why in broken_out(PROBES):
        raise UserError(f"{refusal}{name} got through the sandbox: {why}{advice}")


def broken_out(
    probes: dict[str, str], run: Callable[[str, Limits], SandboxRun] = run_python
) -> list[tuple[str, str]]:
    """(probe, what it did) for each of `probes` that did what it must not."""
    with _outside() as outside, ThreadPoolExecutor(max_workers=2) as pool:
        verdicts = pool.map(lambda text: _verdict(text, outside, run), probes.values())
        return [(name, why) for name, why in zip(probes, verdicts, strict=True) if why]


def _verdict(text: str, outside: Outside, run: Callable[[str, Limits], SandboxRun]) -> str | None:
    """What a probe did that it must not, as seen from outside where that can be; or None."""
    program = _ATTEMPT + text.format(
        folder=outside.folder, tcp=outside.tcp, udp=outside.udp, megabytes=2 * _MEMORY_MB
    )
    endless = "while True" in text
    found = run(program, Limits(_SECONDS, _MEMORY_MB))
    if outside.secret in found.output or OUT in found.output:
        return found.output.strip()[:300]
    if endless:
        stopped = found.ended is Ended.TIMED_OUT and found.status < 0
        return None if stopped else f"it {found.ended} with status {found.status}"
    if found.ended is not Ended.FINISHED or found.status != 0:
        return f"the probe itself failed: {found.ended} {found.status} {found.errors[-200:]}"
    return None


@contextmanager
def _outside() -> Iterator[Outside]:
    """A folder and two ports, as anybody's process could have them; checked when all is done."""
    with (
        tempfile.TemporaryDirectory(prefix="outside-") as folder,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", 0))
        secret = secrets.token_hex(16)
        file = Path(folder, "secret")
        file.write_text(secret)
        file.chmod(0o666)
        os.chmod(folder, 0o777)
        yield Outside(folder, secret, tcp.getsockname()[1], udp.getsockname()[1])
