"""The servers that `distill run` starts on this machine, while a command asks them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import DONE, RUN_AGAIN, UserError
from pipeline.launch.children import wait_or_kill, with_parent
from pipeline.launch.plan import asks_missing, served_for
from pipeline.launch.serve import LAUNCHED
from pipeline.models.served import here_alone
from pipeline.steps import Step

END_SECONDS = 15.0


@contextmanager
def servers_for(
    config: Config, path: Path, overrides: Sequence[str], steps: Sequence[Step], command: str
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Those that the config wants for a command that will ask them; ended afterwards."""
    if command not in ("generate", "evaluate"):
        yield []
        return
    wanted = [name for name, n in served_for(config, command).items() for _ in range(n)]
    if not wanted or not asks_missing(config, steps, command):
        yield []
        return
    shares = gpu_shares(len(wanted))
    started = [
        _start(path, overrides, name, share) for name, share in zip(wanted, shares, strict=True)
    ]
    try:
        yield started
    finally:
        _end(started)


def gpu_shares(n: int) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each of n servers; None where this machine has no GPU to share."""
    gpus = _gpus()
    if not gpus:
        return [None] * n
    each = max(1, len(gpus) // n)
    starts = [number * each % len(gpus) for number in range(n)]
    return [",".join(gpus[at : at + each]) for at in starts]


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [one.strip() for one in visible.split(",") if one.strip()]
    try:
        said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line for line in said.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


def _start(
    path: Path, overrides: Sequence[str], teacher: str, gpus: str | None
) -> subprocess.Popen[bytes]:
    typed = [part for override in overrides for part in ("--set", override)]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "serve", str(path), *typed, "--teacher", teacher],
        env=os.environ | {LAUNCHED: "1"} | ({"CUDA_VISIBLE_DEVICES": gpus} if gpus else {}),
        # A Ctrl-C is for the command first, which finishes what is in flight.
        start_new_session=True,
        preexec_fn=with_parent(signal.SIGTERM),
    )


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in started:
        with suppress(ProcessLookupError):
            process.terminate()
    for process in started:
        wait_or_kill(process, END_SECONDS)


def all_failed(started: Sequence[subprocess.Popen[Any]]) -> bool:
    """Have all of them failed, so that nobody will ever answer? One told to stop has not."""
    well = (None, DONE, RUN_AGAIN)
    return bool(started) and all(one.poll() not in well for one in started)


def check_reachable(config: Config, where: str) -> None:
    """Raises `UserError` for servers that only their own machine would reach.

    A Ray that is started here has no other. Where 127.0.0.1 is said on purpose, a line says what
    it means.
    """
    if where == "ray" and config.execution.ray.starts_here:
        return
    for name, teacher in config.all_teachers.items():
        serve = teacher.serving.serve
        if serve is None or not serve.servers or not here_alone(serve.host):
            continue
        if serve.host is None:
            raise UserError(
                f"{name}: its servers would listen on 127.0.0.1 and --on {where} asks from other "
                "machines; write `serving: {serve: {host: 0.0.0.0}}` where only people you trust "
                "reach the machines' ports (a key is needed, but nothing is encrypted), or "
                "`host: 127.0.0.1` if there is one machine"
            )
        print(
            f"{name}: serving.serve.host is {serve.host}: what --on {where} starts on another "
            "machine than a server's cannot ask it, and ends with 75 after "
            f"{serve.wait_minutes:g} minutes. With more than one machine write `host: 0.0.0.0`",
            file=sys.stderr,
        )
