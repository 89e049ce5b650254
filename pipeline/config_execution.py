"""`execution:` of a config: where the work is done, in how many parts. No part of an identity."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pipeline.config_models import Strict

# What a launcher must set itself for its promises to hold.
OURS = (
    "array", "chdir", "dependency", "error", "export", "job-name", "kill-on-invalid-dep",
    "open-mode", "output", "parsable", "requeue", "no-requeue", "signal", "test-only", "wrap",
)  # fmt: skip


def _sbatch_options(given: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    for name, value in given.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
            raise ValueError(f"{name!r} is no long option of sbatch; write it as in `mem: 32G`")
        if name.replace("_", "-") in OURS:
            raise ValueError(f"{name} is set by the launcher itself (docs/slurm.md)")
        if "\n" in str(value):
            raise ValueError(f"{name}: a value is one line")
    return {name.replace("_", "-"): value for name, value in given.items()}


# Long options of sbatch by name; true for one without a value. Handed on untouched.
SbatchOptions = Annotated[dict[str, str | int | bool], AfterValidator(_sbatch_options)]


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("the name of an environment variable, never its value")
    return name


def _file(path: str | None) -> str | None:
    if path is not None and not Path(path).is_file():
        raise ValueError(f"no such file (looked from {Path.cwd()})")
    return path


class Slurm(Strict):
    options: SbatchOptions = {}  # of every job
    # Over those, of the jobs of one stage.
    generate: SbatchOptions = {}
    curate: SbatchOptions = {}
    train: SbatchOptions = {}
    evaluate: SbatchOptions = {}
    report: SbatchOptions = {}
    serve: SbatchOptions = {}  # servers of teachers (docs/serving.md)
    setup: list[str] = []  # lines of each script before its command: modules, keys
    environment: list[Annotated[str, AfterValidator(_variable)]] = []  # handed on by name
    python: str | None = None  # how it is started on a node, as `apptainer exec x.sif python`
    at_once: int | None = Field(None, ge=1)  # tasks of an array that may run at a time
    array_size: int = Field(1000, ge=1)  # the site's MaxArraySize, less 1
    notice: int = Field(120, ge=10)  # seconds between the warning and the time limit
    requeues: int = Field(100, ge=0)  # of one part, preemptions included
    processes: int = Field(1, ge=1)  # of the training, on each node
    accelerate: Annotated[str | None, AfterValidator(_file)] = None  # its config file


class Ray(Strict):
    address: str | None = None  # of a cluster, as "auto"; None: one is started on this machine
    local: dict[str, Any] = {}  # for ray.init, where it is started: num_cpus, num_gpus, ...
    # Options of Ray's tasks (num_cpus, num_gpus, memory, resources, ...), handed on untouched.
    options: dict[str, Any] = {}  # of every task
    generate: dict[str, Any] = {}  # over those, of the tasks of one stage
    curate: dict[str, Any] = {}
    train: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}
    report: dict[str, Any] = {}
    serve: dict[str, Any] = {}  # servers of teachers (docs/serving.md)
    retries: int = Field(5, ge=0)  # of one command whose worker died, or that was told to stop
    processes: int = Field(1, ge=1)  # of the training, all on one node

    @property
    def starts_here(self) -> bool:
        """Is it a Ray of our own, on this machine and with its environment?"""
        return self.address is None and self.local.get("address", "local") == "local"


class Execution(Strict):
    on: Literal["local", "slurm", "ray", "print"] = "local"
    shards: int = Field(1, ge=1, le=99_999)
    # After a stop signal a shard waits so long for answers in flight, then ends where it stands.
    grace_seconds: float = Field(1.5, ge=0)
    progress_seconds: float = Field(10.0, gt=0)  # between plain progress lines in a log
    probe_every: int | None = Field(1000, ge=1)  # rows between probes of a hosted teacher
    slurm: Slurm = Slurm()
    ray: Ray = Ray()
