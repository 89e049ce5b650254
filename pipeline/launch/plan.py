"""A config as jobs: which commands, in how many parts, after which others. Pure data.

Every job is a few `distill` commands that anyone can type; a launcher decides only where they run.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline.config import Config, save_config
from pipeline.config_file import apply_override, dump_yaml, load_yaml
from pipeline.flow import COMMANDS, steps_of
from pipeline.launch.part import identity_of_parts, parts_of
from pipeline.launch.units import Unit, UnitState, read_status, status_folder
from pipeline.records import digest
from pipeline.stage1_generate.asking import left_to_the_last
from pipeline.steps import State, Step, records, state

TRAIN_END_SECONDS = 600.0  # that a training gets to write its checkpoint, when it is told to stop


class Job(msgspec.Struct, frozen=True):
    """Commands one after the other; with `units`, one command for each unit, in any order."""

    name: str
    resources: str  # which table of the config says what it needs
    after: tuple[str, ...]
    commands: tuple[str, ...] = ()  # words after `distill`, the config left out
    units: tuple[Unit, ...] = ()
    # So many processes do the one command, all the same, beside this job, and nothing waits for
    # them: servers, which end by themselves.
    copies: int = 0
    beside: str = ""

    @property
    def all_units(self) -> tuple[Unit, ...]:
        """Each with the command that it is typed as."""
        return self.units or tuple(Unit(command.split()[0]) for command in self.commands)


def jobs_of(config: Config, until: str | None = None) -> list[Job]:
    """The jobs of a config in order; `until` as in `distill run`."""
    shards, slurm = config.execution.shards, config.execution.slurm
    found: list[Job] = []

    def add(name: str, resources: str, *commands: str, units: Sequence[Unit] = ()) -> None:
        """After the job before it, which may be several arrays."""
        last = found[-1].resources if found else None
        after = tuple(job.name for job in found if job.units and job.resources == last)
        after = after or tuple(job.name for job in found[-1:])
        size = slurm.array_size
        groups = [tuple(units[at : at + size]) for at in range(0, len(units), size)] or [()]
        for number, group in enumerate(groups, 1):
            suffix = f"-{number}" if len(groups) > 1 else ""
            found.append(Job(f"{name}{suffix}", resources, after, commands, group))

    curating = ["curate"]
    if shards == 1:
        add("generate", "generate", "generate")
    else:
        add("generate", "generate", units=[Unit("generate", n, shards) for n in _to(shards)])
        if left_to_the_last(config):
            add("rest", "generate", "generate")
        else:
            curating.insert(0, "generate --gather")
    add("curate", "curate", *curating)
    add("train", "train", "train")
    arms = [Unit("evaluate", arm=arm) for arm in config.evaluate.all_arms]
    add("evaluate", "evaluate", units=arms)
    # The cost of use is measured of one model after the other: it needs what an arm needs.
    opens = config.evaluate.cost_of_use is not None
    add("report", "evaluate" if opens else "report", "evaluate --gather", "report")
    return [one for job in _up_to(found, until) for one in (*_servers_beside(config, job), job)]


def served_for(config: Config, command: str) -> dict[str, int]:
    """The teachers that `generate` or `evaluate` asks of servers we start, and of how many each."""
    if command == "generate":
        asked = {name for task in config.tasks for name in config.teachers_of(task)}
    else:
        first = next(iter(config.all_teachers))
        arms = config.evaluate.all_arms
        asked = {config.evaluate.teacher or first} if "teacher" in arms else set()
    return {
        name: teacher.serving.serve.servers
        for name, teacher in config.all_teachers.items()
        if name in asked and teacher.serving.serve is not None and teacher.serving.serve.servers
    }


def _servers_beside(config: Config, job: Job) -> list[Job]:
    command = job.all_units[-1].command
    first = job.name in (command, f"{command}-1")  # of several arrays
    if command not in ("generate", "evaluate") or not first:
        return []
    served = served_for(config, command)
    many = len(config.all_teachers) > 1
    return [
        Job(
            f"serve-{command}" + (f"-{re.sub(r'[^A-Za-z0-9._]+', '-', name)}" if many else ""),
            "serve",
            job.after,
            (f"serve --until {command}" + (f" --teacher {shlex.quote(name)}" if many else ""),),
            copies=copies,
            beside=command,
        )
        for name, copies in served.items()
    ]


def frozen_config(config: Config, path: Path, overrides: Sequence[str]) -> Path:
    """The config with what was typed, in the run folder: the user's may be edited meanwhile.

    Named by its content: what is queued goes on reading its own when another one is submitted.
    """
    raw, _ = load_yaml(path)
    for override in overrides:
        apply_override(raw, override)
    copy = config.run_dir / "launch" / f"config-{digest(raw, 8)}.yaml"
    copy.parent.mkdir(parents=True, exist_ok=True)
    dump_yaml(raw, copy)
    return copy


def save_config_if_none(config: Config) -> None:
    """So that `distill status` knows a run before its first command has begun."""
    path = config.run_dir / "config.yaml"
    if not path.is_file():
        # Servers on many machines may begin at once.
        partial = path.with_name(f".config-{secrets.token_hex(8)}.yaml")
        save_config(config, partial)
        os.replace(partial, path)


def missing_units(config: Config, steps: Sequence[Step], job: Job) -> list[Unit]:
    """What of a job the run folder lacks; none of them: the job is done."""
    if job.copies:
        return list(job.all_units) if asks_missing(config, steps, job.beside) else []
    # The last command of a job is what it is for.
    last = job.all_units[-1]
    if all(_is_done(step) for step in steps_of(steps, last.command)):
        return []
    if not job.units:
        return list(job.all_units)
    mine = parts_of(steps, last.command)
    if all(_is_done(step) for step in mine):
        return []
    folder = status_folder(config.run_dir)
    found = [read_status(folder / unit.file_name) for unit in job.units]
    done = {s.unit: s.identity for s in found if s and s.state is UnitState.DONE}
    if not done.keys() & set(job.units) or not all(_has_inputs(step) for step in mine):
        return list(job.units)
    identity = identity_of_parts(mine)
    return [unit for unit in job.units if done.get(unit) != identity]


def asks_missing(config: Config, steps: Sequence[Step], command: str) -> bool:
    """Will `generate` or `evaluate` still ask the teacher something?"""
    for job in jobs_of(config):
        if not job.copies and job.resources == command and job.all_units[-1].command == command:
            missing = missing_units(config, steps, job)
            if any(unit.arm in ("", "teacher") for unit in missing):
                return True
    return False


def _to(n: int) -> range:
    return range(1, n + 1)


def _up_to(jobs: list[Job], until: str | None) -> list[Job]:
    if until is None:
        return jobs
    wanted = next(c for c, steps in COMMANDS.items() if until in steps)
    last = max(n for n, job in enumerate(jobs) if any(u.command == wanted for u in job.all_units))
    kept = tuple(c for c in jobs[last].commands if _place(c.split()[0]) <= _place(wanted))
    return [*jobs[:last], msgspec.structs.replace(jobs[last], commands=kept)]


def _place(command: str) -> int:
    return list(COMMANDS).index(command)


def _is_done(step: Step) -> bool:
    """Raises `DriftError` where it was done with other settings."""
    # What it reads may be gone or not be there yet; then it has no record either.
    return step.name in records(step.run) and _has_inputs(step) and state(step) is State.DONE


def _has_inputs(step: Step) -> bool:
    return all(Path(path).exists() for path in step.inputs)
