"""A real Slurm on this machine, for tests: its daemons as ordinary processes, nodes on loopback.

No systemd, no cgroups, no accounting. Everything lies in one folder, and `stop` ends every process
that was started. Needs root (slurmd does) and the Debian packages PACKAGES.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PACKAGES = "slurmctld slurmd slurm-client munge"
SBIN = "/usr/sbin"


def missing() -> str | None:
    """Why it cannot be started here."""
    absent = [n for n in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if not _which(n)]
    if absent:
        return f"no {', '.join(absent)}: apt-get install --no-install-recommends {PACKAGES}"
    return None if os.geteuid() == 0 else "slurmd must be started by root"


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:{SBIN}")


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(0.2)


def environment_of(pid: int) -> dict[str, str]:
    """None of a process that has just ended."""
    try:
        found = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in found if "=" in line)


class LocalSlurm:
    """Nodes n1 ... of so many CPUs each; partitions `main` and, with a higher priority, `high`."""

    def __init__(self, nodes: int = 2, cpus: int = 2) -> None:
        # munge wants a folder that everybody may enter, which a test's own is not.
        folder = self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        folder.chmod(0o755)
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self._port = _free_ports(nodes + 1)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("etc", "munge", "log", "state", "spool"):
            (folder / name).mkdir(parents=True, mode=0o755)
        self._write_config(cpus)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SLURM_CONF": str(self.folder / "etc" / "slurm.conf"),
            "PATH": f"{os.environ['PATH']}:{SBIN}",
        }

    def start(self) -> None:
        folder = self.folder
        self._start(
            "munged", "--foreground", f"--key-file={folder}/etc/munge.key",
            f"--socket={folder}/munge/socket", f"--pid-file={folder}/munge/pid",
            f"--log-file={folder}/log/munged.log", f"--seed-file={folder}/munge/seed",
        )  # fmt: skip
        wait_until(lambda: (folder / "munge" / "socket").exists(), 10, "munge answers")
        self._start("slurmctld", "-D")
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: self.said("sinfo -h -p main -t idle -o %D") == str(len(self.nodes)), 60,
                   "all nodes are idle")  # fmt: skip

    def start_node(self, node: str) -> None:
        self._start("slurmd", "-D", "-N", node, key=node)

    def kill(self, key: str) -> None:
        """A daemon, as a crash would end it: a node's name, or slurmctld."""
        self._daemons[key].kill()
        self._daemons.pop(key).wait()

    def start_controller(self) -> None:
        self._start("slurmctld", "-D")

    def said(self, command: str) -> str:
        done = subprocess.run(
            command.split(), capture_output=True, text=True, env=os.environ | self.environment
        )
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """A line "name index state" for each task that is not over."""
        return self.said("squeue -h -r -o %j|%K|%T").replace("|", " ").splitlines()

    def cancel_all(self) -> None:
        self.said(f"scancel --full -u {os.environ.get('USER', 'root')}")
        with suppress(TimeoutError):
            wait_until(lambda: not self.jobs(), 20, "all jobs are gone")

    def stop(self) -> None:
        if "slurmctld" in self._daemons:
            self.cancel_all()
        for key in [*self.nodes, "slurmctld", "munged"]:
            process = self._daemons.pop(key, None)
            if process is not None:
                process.terminate()
                try:
                    process.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for pid in self.left_over():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(TimeoutError):
            wait_until(lambda: not self.left_over(), 5, "nothing is left")
        if not self.left_over():
            shutil.rmtree(self.folder, ignore_errors=True)

    def left_over(self) -> list[int]:
        """Processes of this Slurm, its jobs included: each has the config's path from its birth."""
        marker = str(self.folder).encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                mine = marker in (path / "environ").read_bytes()
                mine = mine and int(path.name) != os.getpid()
            except OSError:
                continue
            if mine:
                found.append(int(path.name))
        return found

    def _start(self, name: str, *words: str, key: str | None = None) -> None:
        program = _which(name)
        assert program is not None
        with (self.folder / "log" / f"{key or name}.out").open("ab") as log:
            self._daemons[key or name] = subprocess.Popen(
                [program, *words],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | self.environment,
                start_new_session=True,
            )

    def _write_config(self, cpus: int) -> None:
        folder, (controller, *ports) = self.folder, self._port
        key = folder / "etc" / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        (folder / "state").chmod(0o700)
        nodes = "\n".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} "
            "RealMemory=2000 State=UNKNOWN"
            for node, port in zip(self.nodes, ports, strict=True)
        )
        (folder / "etc" / "slurm.conf").write_text(
            f"""ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job may start again after cred_expire seconds.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/log/slurmctld.pid
SlurmdPidFile={folder}/log/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
ReturnToService=2
SlurmdTimeout=10
KillWait=5
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime=5
PartitionName=high Nodes=ALL MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""
        )
        # Slurm 22.05 loads a cgroup plugin whatever is chosen; version 1's touches nothing.
        (folder / "etc" / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
