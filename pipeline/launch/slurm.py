"""`distill run CONFIG --on slurm`: sbatch scripts in the run folder, submitted in order.

Slurm may forget a job, run one twice, give its id out again, or say "failed" after it queued one
(a controller that dies, or is busy). So nothing hangs on a job's id: a job is found again by its
name, made of the run's folder; what is done is what the run folder says; and typing the command
again submits only what is neither done nor queued. `sacct` is not needed, and nothing stays alive
on the login node.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline.config import Config
from pipeline.config_serving import holds_key
from pipeline.errors import DONE, RunFatal, UserError
from pipeline.launch.plan import (
    Job,
    frozen_config,
    jobs_of,
    missing_units,
    save_config_if_none,
)
from pipeline.launch.sbatch import job_name, keys_of, nodes_of_training, run_name, script
from pipeline.launch.units import Unit
from pipeline.stage2_train.check import check_training
from pipeline.steps import Step

LOOKS = 5  # for a job that sbatch says it could not submit
LOOK_SECONDS = 2.0


class Queued(msgspec.Struct, frozen=True):
    """A line of squeue."""

    name: str
    id: str  # "17", or "17_3" for a task of an array
    index: str  # of the task; "N/A" without an array
    state: str
    reason: str
    comment: str  # the name of its config, unless execution.slurm.options has a comment


def run(
    config: Config,
    path: Path,
    overrides: Sequence[str],
    steps: Sequence[Step],
    *,
    until: str | None = None,
    dry_run: bool = False,
) -> int:
    """Write every script, then submit what is missing; `dry_run` prints both instead."""
    folder = config.run_dir / "launch" / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    (config.run_dir / "launch" / "logs").mkdir(exist_ok=True)
    copy = frozen_config(config, path, overrides)
    queue = [] if dry_run else squeue()
    if not dry_run:
        save_config_if_none(config)
    waits: dict[str, list[str]] = {}  # what a later job has to wait for, by job
    fresh: set[str] = set()  # jobs of which something was submitted now
    submitted: list[str] = []
    checked = False
    for number, job in enumerate(jobs_of(config, until), 1):
        missing = missing_units(config, steps, job)
        if not missing:
            waits[job.name] = []
            print(f"{job.name}: done already")
            continue
        queued = [q for q in queue if q.name == job_name(config, job)]
        queued = _still_good(job, queued, fresh)
        wanted = _not_queued(job, missing, queued)
        waits[job.name] = [q.id for q in queued]
        if queued:
            print(f"{job.name}: {len(queued)} queued already{_other_settings(queued, copy)}")
        if not wanted:
            continue
        file = folder / f"{number:02d}-{job.name}.sbatch"
        text = script(config, job, copy, wanted)
        _write(file, text, submission=not dry_run)
        if "generate" in (job.resources, job.beside) and not (dry_run or checked):
            check_training(path, [*overrides, "execution.on=slurm"])  # before anything is paid
            checked = True
        after = [one for name in job.after for one in waits[name]]
        command = ["sbatch", "--parsable", *_dependency(after), str(file)]
        print(shlex.join(command), flush=True)
        if dry_run:
            print(textwrap.indent(text, "    "))
        submitted.append(f"<{job.name}>" if dry_run else _submit(config, job, command))
        waits[job.name].append(submitted[-1])
        fresh.add(job.name)
    if dry_run:
        print(f"nothing was submitted (--dry-run); the scripts are in {folder}")
    elif submitted:
        print(
            f"{len(submitted)} jobs submitted; `distill status {config.run_dir.name}` watches "
            f"them, `scancel {' '.join(submitted)}` stops them"
        )
    else:
        print("nothing to submit")
    return DONE


def _write(file: Path, text: str, *, submission: bool) -> None:
    """A script's time is that of its submission: `distill status` tells old logs from new by it."""
    before = None if submission or not file.is_file() else file.stat().st_mtime_ns
    file.write_text(text, encoding="utf-8")
    if before is not None:
        os.utime(file, ns=(before, before))


def check(config: Config, *, dry_run: bool = False) -> None:
    """Raises `UserError` for what can be seen before anything is submitted."""
    _refuse_keys(config)
    nodes_of_training(config)
    if not dry_run:
        _refuse_other_division(config, squeue())


def _refuse_other_division(config: Config, queue: Sequence[Queued]) -> None:
    """Other parts of the same work, at once, would get in each other's way."""
    mine = {job_name(config, job) for job in jobs_of(config)}
    others = [q for q in queue if q.name.startswith(f"{run_name(config)}-") and q.name not in mine]
    if others:
        names = ", ".join(dict.fromkeys(q.name for q in others))
        ids = " ".join(dict.fromkeys(q.id.split("_")[0] for q in others))
        raise UserError(
            f"{names}: queued for this run with other shards, arms or settings of the arrays than "
            f"this config has. Let them end, or type `scancel {ids}`; then the same command again"
        )


def _refuse_keys(config: Config) -> None:
    teachers = keys_of(config)
    for name in config.execution.slurm.environment:
        if name in teachers or holds_key(name):
            raise UserError(
                f"execution.slurm.environment: {name} holds a key, and sbatch writes the values of "
                "what it hands on to the controller's disk. Keep it in a file that only you can "
                "read, and name that in execution.slurm.setup, as in `setup: ['. ~/.distill-keys']`"
            )


def squeue() -> list[Queued]:
    """This user's jobs, a line for each task of an array."""
    said = _call(["squeue", "--me", "-h", "-r", "-o", "%j|%i|%K|%T|%r|%k"])
    if said.returncode:
        raise RunFatal(f"squeue failed: {said.stderr.strip()}; run the same command again")
    return [Queued(*line.split("|", 5)) for line in said.stdout.splitlines() if line.count("|") > 4]


def _other_settings(queued: Sequence[Queued], copy: Path) -> str:
    """What to add where these go on with the config of an earlier submission."""
    earlier = [q for q in queued if q.comment.startswith("config-") and q.comment != copy.name]
    if not earlier:
        return ""
    names = ", ".join(
        str(copy.with_name(name)) for name in dict.fromkeys(q.comment for q in earlier)
    )
    ids = " ".join(dict.fromkeys(q.id.split("_")[0] for q in earlier))
    return (
        f"; {len(earlier)} of them go on with the settings of an earlier submission ({names}). "
        f"Where they should have the new ones, type `scancel {ids}` and the same command again"
    )


def _still_good(job: Job, queued: list[Queued], fresh: set[str]) -> list[Queued]:
    """The queued ones that will run; those that wait for what never comes are cancelled."""
    stale = [
        q
        for q in queued
        if q.state == "PENDING"
        and (q.reason == "DependencyNeverSatisfied" or fresh.intersection(job.after))
    ]
    if stale:
        _call(["scancel", *(q.id for q in stale)])
        print(f"{job.name}: {len(stale)} cancelled that waited for an earlier submission")
    return [q for q in queued if q not in stale]


def _not_queued(job: Job, missing: list[Unit], queued: list[Queued]) -> list[Unit]:
    if job.copies:
        return missing * (job.copies - len(queued))
    if not job.units:
        return [] if queued else missing
    at_work = {q.index for q in queued}
    return [unit for unit in missing if str(job.units.index(unit) + 1) not in at_work]


def _dependency(after: Sequence[str]) -> list[str]:
    if not after:
        return []
    # Without the second one a job whose dependency failed would wait for ever.
    return [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"]


def _submit(config: Config, job: Job, command: list[str]) -> str:
    """The id to wait for. An sbatch that fails may have queued the job all the same."""
    before = {q.id for q in squeue()}
    said = _call(command)
    if said.returncode == 0:
        return said.stdout.strip().split(";")[0]
    for _ in range(LOOKS):
        time.sleep(LOOK_SECONDS)
        new = [q for q in squeue() if q.name == job_name(config, job) and q.id not in before]
        if new:
            print(f"sbatch said {said.stderr.strip()!r}, but the job is queued")
            return new[0].id.split("_")[0]
    raise RunFatal(
        f"sbatch refused {job.name}: {said.stderr.strip()}\nWhat was submitted before it stays; "
        "correct execution.slurm and run the same command again, which submits what is missing"
    )


def _call(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            f"{command[0]} is not on this machine; type this on a login node of the cluster, add "
            "--dry-run to only write the scripts, or take --on print for another scheduler"
        ) from None
