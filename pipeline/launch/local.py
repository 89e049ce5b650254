"""`distill run`: each command in a process of its own, one after the other, on this machine.

A step's process ends before the next begins, so its GPU memory is free. Signals are passed on.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from pipeline import stopping
from pipeline.config import Config, load_config
from pipeline.errors import DONE, FAILED, UserError
from pipeline.flow import COMMANDS, all_steps, checked_config, redo_from, steps_of
from pipeline.launch.beating import alone
from pipeline.launch.children import with_parent
from pipeline.launch.local_servers import all_failed, check_reachable, servers_for
from pipeline.launch.plan import jobs_of
from pipeline.models.deaths import left_behind
from pipeline.steps import State, Step, state

RUNS = Path("runs")


def run(
    path: Path,
    overrides: Sequence[str],
    *,
    until: str | None = None,
    redo: str | None = None,
    on: str | None = None,
    dry_run: bool = False,
) -> int:
    """Do what is missing, up to `until`. Returns the exit code of the command that ended it."""
    execution = load_config(path, overrides).execution
    where = on or execution.on
    # A Ray that is started here hands this environment on to its workers.
    here = where == "local" or (where == "ray" and execution.ray.starts_here)
    config = checked_config(path, overrides, keys=here)
    if where == "print":
        return _print(config, path, overrides, until, redo)
    if dry_run and (where != "slurm" or redo is not None):
        raise UserError(
            "--dry-run goes with --on slurm, and not with --redo, which takes files away; "
            "`distill plan` says what would be asked"
        )
    if where == "local" and config.execution.shards > 1:
        print(
            f"execution.shards: {config.execution.shards} is for --on slurm, ray and print; here "
            "one process asks everything"
        )
    steps = all_steps(config)
    _check_place(config, where, dry_run=dry_run)
    checked = [*overrides, f"execution.on={where}"]
    if redo is not None:
        # Everything that can be wrong is looked for before anything is taken away.
        if redo in ("generate", "curate", "pairs", "train"):
            code = _start("train", path, checked, "--check")
            if code != DONE:
                return code
        with alone(config.run_dir):
            redo_from(config, steps, redo)
    if where == "slurm":
        from pipeline.launch import slurm

        return slurm.run(config, path, overrides, steps, until=until, dry_run=dry_run)
    if where == "ray":
        from pipeline.launch import ray_cluster

        def check() -> int:
            # In a process of its own: this one will not hold a GPU while it waits for the others.
            return _start("train", path, checked, "--check")

        wanted = check if redo is None and both_to_do(steps) else None
        return ray_cluster.run(config, path, overrides, steps, wanted, until=until)
    to_do = rows_failed = False
    for command in _commands(until):
        stop = _stop_at(command, until)
        mine = steps_of(steps, command, until="pairs" if stop else None)
        # Lazily: what a later step reads is only there when the earlier ones are done.
        if all(state(step) is State.DONE for step in mine):
            continue
        training = state_or_to_do(steps, "train") is State.TO_DO
        if not to_do and redo is None and training and command == "generate":
            code = _start("train", path, checked, "--check")
            if code != DONE:
                return code
        to_do = True
        code = _with_servers(config, steps, command, path, overrides, *stop)
        if code == FAILED and all(state(step) is State.DONE for step in mine):
            rows_failed = True  # and were named; the others go on
        elif code != DONE:
            return code
    if not to_do:
        print(f"nothing to do: every step of {config.run_dir} is done")
    report = config.run_dir / "7_report.html"
    if report.is_file():
        print(f"report: {report}")
    return FAILED if rows_failed else DONE


def _check_place(config: Config, where: str, *, dry_run: bool) -> None:
    """What `where` needs: a refusal comes before `--redo` has taken anything away."""
    if where in ("slurm", "ray"):
        check_reachable(config, where)
    if where == "slurm":
        from pipeline.launch import slurm

        slurm.check(config, dry_run=dry_run)
    elif where == "ray":
        from pipeline.launch import ray_cluster

        ray_cluster.check(config)


def _with_servers(
    config: Config,
    steps: Sequence[Step],
    command: str,
    path: Path,
    overrides: Sequence[str],
    *extra: str,
) -> int:
    """The command, with the servers that it asks beside it."""
    with servers_for(config, path, overrides, steps, command) as started:
        # The students of the evaluation may want the GPUs that the teacher's servers have.
        alone = bool(started) and command == "evaluate"
        arm = ["--arm", "teacher", "--no-weights"] if alone else []
        code = _start(command, path, overrides, *(arm or extra), beside=started)
        if code != DONE and all_failed(started):
            print(
                "failed: every server has ended, for the reasons above; `distill status "
                f"{config.run_dir.name}` names their logs",
                file=sys.stderr,
            )
            return FAILED
    return _start(command, path, overrides, *extra) if alone and code == DONE else code


def _print(
    config: Config, path: Path, overrides: Sequence[str], until: str | None, redo: str | None
) -> int:
    """The commands with their edges, for any other scheduler."""
    for job in jobs_of(config, until):
        after = f", after {' '.join(job.after)}" if job.after else ""
        how = "; in any order, at once:" if job.units else ""
        if job.copies:
            how = f"; {job.copies} times, where the GPUs are, while {job.beside} runs:"
        print(f"# {job.name}{after}{how}")
        for words in [unit.words for unit in job.units] or job.commands:
            command, *rest = shlex.split(words)
            extra = ["--redo", redo] if redo in COMMANDS.get(command, ()) and not rest else []
            extra += _stop_at(command, until)
            print(shlex.join(["distill", *_arguments(command, path, overrides, *rest, *extra)]))
    return DONE


def both_to_do(steps: Sequence[Step]) -> bool:
    """Generating and training: is a mistake in the second to be found before the first is paid?"""
    names = ("generate", "train")
    return all(state_or_to_do(steps, name) is State.TO_DO for name in names)


def state_or_to_do(steps: Sequence[Step], name: str) -> State:
    """State of a later step while an earlier one is still to do (its inputs may be missing)."""
    step = next(step for step in steps if step.name == name)
    return State.DONE if all(path.exists() for path in step.outputs) else State.TO_DO


def _commands(until: str | None) -> list[str]:
    names = list(COMMANDS)
    if until is None:
        return names
    last = next(i for i, command in enumerate(names) if until in COMMANDS[command])
    return names[: last + 1]


def _stop_at(command: str, until: str | None) -> list[str]:
    """`train` alone may have to stop on its way: pairs are worth a look before the training."""
    return ["--until", "pairs"] if command == "train" and until == "pairs" else []


def _arguments(command: str, path: Path, overrides: Sequence[str], *extra: str) -> list[str]:
    return [command, str(path), *(part for o in overrides for part in ("--set", o)), *extra]


def _start(
    command: str,
    path: Path,
    overrides: Sequence[str],
    *extra: str,
    beside: Sequence[subprocess.Popen[bytes]] = (),
) -> int:
    """Run one command in a child; hand every signal on and wait for its own clean end.

    `beside`: servers that it asks; when all have failed, it is told to stop.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *_arguments(command, path, overrides, *extra)],
        preexec_fn=with_parent(signal.SIGKILL),  # it would hold the run, unseen by anyone
    )

    asked_to_stop: list[int] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        asked_to_stop.append(number)
        # A terminal's Ctrl-C reaches the whole group by itself; others come to the parent only.
        if number != signal.SIGINT:
            child.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in stopping.SIGNALS}
    try:
        code = _wait(child, beside)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code < 0 and not asked_to_stop and left_behind(RUNS, child.pid):
        # Rows were being worked on. The next start asks them in smaller company, and one that
        # kills its worker again and again is set aside; so this ends.
        print(
            f"distill {command} was killed by {signal.Signals(-code).name} while it worked on "
            "rows of a model in its own process; starting it again",
            file=sys.stderr,
        )
        return _start(command, path, overrides, *extra, beside=beside)
    if code < 0:
        print(
            f"distill {command} was killed by {signal.Signals(-code).name}; nothing stored is "
            "lost. Run the same command again to go on",
            file=sys.stderr,
        )
        return 128 - code
    return code


def _wait(child: subprocess.Popen[bytes], beside: Sequence[subprocess.Popen[bytes]]) -> int:
    told = False
    while True:
        try:
            return child.wait(1.0 if beside and not told else None)
        except subprocess.TimeoutExpired:
            if all_failed(beside):
                child.terminate()
                told = True
