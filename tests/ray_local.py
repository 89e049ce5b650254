"""A Ray cluster of several nodes on this machine, for tests: `ray start`, as on a real one."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.slurm_local import wait_until


def read_of(pid: int, name: str) -> bytes:
    """A file of /proc; empty where the process has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def processes_of(marker: str) -> list[int]:
    """Those with these letters in the environment that they were born with; not this one."""
    found = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [
        pid for pid in found if pid != os.getpid() and marker.encode() in read_of(pid, "environ")
    ]


class LocalRay:
    """Nodes with so many logical CPUs each. The first is the head; `environment` is a driver's."""

    def __init__(self, cpus: int = 1) -> None:
        self._cpus = cpus
        self._name = secrets.token_hex(8)
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="ray")  # its sockets want a short path
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_worker_niceness": "0",  # as docs/ray.md advises
        }

    def add_node(self) -> None:
        port = self.address.rpartition(":")[2]
        head = ["--head", f"--port={port}", f"--temp-dir={self._folder.name}"]
        head += ["--include-dashboard=false"]
        words = [f"--address={self.address}"] if self._nodes else head
        words += ["--block", f"--num-cpus={self._cpus}", "--node-ip-address=127.0.0.1"]
        number = len(self._nodes) + 1
        self._nodes.append(
            subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *words],
                env=os.environ | self.environment | {"LOCAL_RAY": f"{self._name}-{number}"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        wait_until(lambda: self.raylet(number) is not None, 60, f"node {number} of Ray has begun")
        wait_until(self._answers, 60, "Ray answers")

    def raylet(self, number: int) -> int | None:
        """The process that is a node to Ray."""
        for pid in self.left_over(f"-{number}"):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet":
                    return pid
        return None

    def stop(self) -> None:
        for node in reversed(self._nodes):
            node.terminate()
            try:
                node.wait(timeout=15)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        for pid in self.left_over():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(TimeoutError):
            wait_until(lambda: not self.left_over(), 5, "nothing is left")
        self._folder.cleanup()

    def left_over(self, ending: str = "") -> list[int]:
        """Its processes, those of tasks included: each has the cluster's name from its birth."""
        return processes_of(f"LOCAL_RAY={self._name}{ending}")

    def commands(self) -> list[int]:
        """Those of them that are `distill ...`, however Ray started them."""
        return [pid for pid in self.left_over() if b"\0pipeline\0" in read_of(pid, "cmdline")]

    def _answers(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        return False
