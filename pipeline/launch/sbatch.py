"""A job as an sbatch script that a person can read, change and submit by hand."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.launch.plan import TRAIN_END_SECONDS, Job
from pipeline.launch.units import Unit, status_folder
from pipeline.records import digest

# Of the submitting shell, for sbatch would write all of it to the controller's disk, keys included.
EXPORTED = ("PATH", "HOME", "USER", "LANG")

ENDED = """\
# The id of the array itself would mean all of its tasks, and one of them has it as its own.
me=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}

# What the file that a command keeps says: its state, or its start, which is another one for each
# process.
said() { sed -n 's/.*"'"$1"'":"\\([a-z0-9]*\\)".*/\\1/p' "$status" 2>/dev/null; }

# What became of a command: 75 is "told to stop, start me again", 128 and more "killed". torchrun
# says 1 for both, so its file is asked as well.
ended() {
    code=$1
    state=$(said state)
    # How an earlier process ended says nothing of one that was killed before it wrote its own.
    [ "$(said start)" != "$before" ] || case $state in paused | failed | done) state= ;; esac
    case $code/$state in
        0/* | 1/done) return 0 ;; # done, though rows failed for good: the next steps go on
        2/* | */paused | */failed | */done) ;; # a person has to look: distill status
        75/* | 1/running | 1/stopped | 12[89]/* | 1[3-9]?/*) again ;;
    esac
    exit "$code"
}

again() {
    [ "${SLURM_RESTART_COUNT:-0}" -lt REQUEUES ] || return
    # A job that is cancelled is not running any more; requeued, it would come back.
    case $(squeue -h -j "$me" -o "%T %r") in
        RUNNING* | *TimeLimit)
            echo "ended with $code ($state): requeued"
            scontrol requeue "$me"
            sleep 5 ;;
    esac
}
"""


def run_name(config: Config) -> str:
    """What the names of its jobs begin with, and of no other run's."""
    return f"distill-{config.name}-{digest(str(config.run_dir.resolve()), 8)}"


def job_name(config: Config, job: Job) -> str:
    """The same for every submission of a run's job.

    A task of an array is known by its number alone, so an array is named by its units as well.
    """
    name = f"{run_name(config)}-{job.name}"
    if not job.units:
        return name
    first, last = job.units[0], job.units[-1]
    if first.of:
        return f"{name}-{first.part}-{last.part}-of-{first.of}"
    return f"{name}-{digest([unit.arm for unit in job.units], 6)}"


def script(config: Config, job: Job, path: Path, wanted: Sequence[Unit]) -> str:
    """The whole text; `wanted`: what of an array is missing. `path`: the config."""
    logs = (config.run_dir / "launch" / "logs").resolve()
    many = bool(job.units or job.copies)
    log = f"{logs}/{job.name}-%a.log" if many else f"{logs}/{job.name}.log"
    lines = [*_head(config, job, wanted, log, path.name), ""]
    lines += ["trap : TERM USR1  # the command gets them itself, and this shell must outlive it"]
    lines += config.execution.slurm.setup
    for name in keys_of(config):
        lines.append(f': "${{{name}:?must be set by a line of execution.slurm.setup}}"')
    part = "-$SLURM_ARRAY_TASK_ID" if many else ""
    lines.append(f"export DISTILL_LOG={shlex.quote(f'{logs}/{job.name}')}{part}.log")
    # srun does not take it over from sbatch since Slurm 22.05.
    lines.append(
        '[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK'
    )
    lines += ["", ENDED.replace("REQUEUES", str(config.execution.slurm.requeues))]
    folder = status_folder(config.run_dir)
    if job.units:
        lines += _units(config, job, path)
    for command in job.commands:
        lines.append(f"status={shlex.quote(str(folder / Unit(command.split()[0]).file_name))}")
        lines += _command(config, command, path)
    return "\n".join(lines) + "\n"


def _head(config: Config, job: Job, wanted: Sequence[Unit], log: str, comment: str) -> list[str]:
    slurm = config.execution.slurm
    found: dict[str, str | int | bool] = {
        "job-name": job_name(config, job),
        "comment": comment,
        "chdir": str(Path.cwd()),
        "output": log,
        "open-mode": "append",
        "export": ",".join([*EXPORTED, *slurm.environment]),
        "signal": f"USR1@{slurm.notice}",
        "requeue": True,
    }
    if job.units:
        numbers = _ranges([job.units.index(unit) + 1 for unit in wanted])
        found["array"] = numbers + (f"%{slurm.at_once}" if slurm.at_once else "")
    elif job.copies:
        found["array"] = _ranges(range(1, len(wanted) + 1))
    found |= slurm.options | getattr(slurm, job.resources)
    lines = ["#!/bin/bash"]
    for name, value in found.items():
        if value is True:
            lines.append(f"#SBATCH --{name}")
        elif value is not False:
            text = str(value)
            lines.append(f"#SBATCH --{name}={shlex.quote(text) if ' ' in text else text}")
    return lines


def _units(config: Config, job: Job, path: Path) -> list[str]:
    """The task's number chooses its unit."""
    folder = status_folder(config.run_dir)
    first, lines = job.units[0], []
    if first.arm:
        arms = " ".join(shlex.quote(unit.arm) for unit in job.units)
        files = " ".join(shlex.quote(unit.file_name) for unit in job.units)
        lines = [
            f"arms=({arms})",
            f"files=({files})",
            "arm=${arms[$((SLURM_ARRAY_TASK_ID - 1))]}",
            f"status={shlex.quote(str(folder))}/${{files[$((SLURM_ARRAY_TASK_ID - 1))]}}",
        ]
        return [*lines, *_command(config, 'evaluate --arm "$arm"', path)]
    width = len(str(first.of))
    lines = [
        f"part=$((SLURM_ARRAY_TASK_ID + {first.part - 1}))",
        f"status={shlex.quote(str(folder))}/generate-$(printf %0{width}d $part)-of-{first.of}.json",
    ]
    return [*lines, *_command(config, f'generate --shard "$part/{first.of}"', path)]


def _command(config: Config, command: str, path: Path) -> list[str]:
    """Through srun, so that signals reach the command itself and its exit code comes back."""
    name, *rest = command.split(" ", 1)
    words = " ".join(["-m pipeline", name, shlex.quote(str(path)), *rest])
    slurm = config.execution.slurm
    python = slurm.python or shlex.quote(sys.executable)
    nodes = nodes_of_training(config)
    if name == "train" and nodes * slurm.processes > 1:
        lines = _together(config, python, words, nodes)
    else:
        lines = [f"srun --export=ALL --nodes=1 --ntasks=1 {python} {words}"]
    return ["before=$(said start)", *lines, "ended $?"]


def nodes_of_training(config: Config) -> int:
    """How many; a `UserError` for what is no number, as sbatch's "2-4", which others may have."""
    slurm = config.execution.slurm
    place = "train" if "nodes" in slurm.train else "options"
    seen = getattr(slurm, place).get("nodes", 1)
    if seen is False:  # the option is left out
        return 1
    if not re.fullmatch("[1-9][0-9]*", str(seen)):
        raise UserError(
            f"execution.slurm.{place}.nodes: {seen}: a training takes one whole number of "
            "nodes, for its processes must know how many they are; write it as in "
            "`train: {nodes: 2}`"
            + (" (the other jobs may keep theirs)" if place == "options" else "")
        )
    return int(seen)


def _together(config: Config, python: str, words: str, nodes: int) -> list[str]:
    """Training by several processes: a launcher on each node, which starts them."""
    slurm = config.execution.slurm
    rank = "--machine_rank" if slurm.accelerate else "--node-rank"
    if slurm.accelerate:
        launcher = (
            f"-m accelerate.commands.launch --config_file {shlex.quote(slurm.accelerate)} "
            f"--num_machines {nodes} --num_processes {nodes * slurm.processes} "
            "--main_process_ip $MASTER_ADDR --main_process_port $MASTER_PORT"
        )
    else:
        launcher = (
            f"-m torch.distributed.run --nnodes {nodes} --nproc-per-node {slurm.processes} "
            "--master-addr $MASTER_ADDR --master-port $MASTER_PORT"
        )
    first = '$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)' if nodes > 1 else ""
    # The launcher does not know USR1 and would die of it; its children catch it themselves.
    inner = f"trap '' USR1; exec {python} {launcher} {rank} $SLURM_NODEID {words}"
    return [
        f"export MASTER_ADDR=${{MASTER_ADDR:-{first or '127.0.0.1'}}}",
        "export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))",
        # torchrun would kill its children 30 s after TERM; how long there is, Slurm decides.
        f"export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={TRAIN_END_SECONDS:.0f}",
        f"srun --export=ALL --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 "
        f"bash -c {shlex.quote(inner)}",
    ]


def keys_of(config: Config) -> list[str]:
    """The variables with keys. By name: their values are in no script and in no `--export`."""
    models = [*config.all_teachers.values(), *config.evaluate.models.values()]
    names = {model.serving.api_key_env for model in models if model.over_http}
    return sorted(name for name in names if name is not None)


def _ranges(numbers: Sequence[int]) -> str:
    """1,2,3,7 -> "1-3,7"."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in found)
