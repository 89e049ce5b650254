"""`distill run CONFIG --on ray`: the same commands as tasks of a Ray cluster.

Ray decides where a command runs and nothing else: a task starts it as a process in the working
folder, which every node must see under the same path, and gives back its exit code. What is done is
what the run folder says. A worker or a node that dies loses only what was in flight; the command is
started again elsewhere. With more shards than workers, slow ones do not hold the job.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline import stopping
from pipeline.config import Config
from pipeline.errors import DONE, FAILED, RunFatal, Stopped, UserError
from pipeline.launch.plan import (
    Job,
    frozen_config,
    jobs_of,
    missing_units,
    save_config_if_none,
)
from pipeline.launch.ray_ends import again, code_of, status_of, written_since
from pipeline.launch.ray_options import (
    END_SECONDS,
    MORE_SECONDS,
    check_address,
    check_options,
    end_seconds,
    task_options,
)
from pipeline.launch.ray_task import keep_worker, run_command
from pipeline.launch.units import Unit, UnitState, UnitStatus, read_status, status_folder
from pipeline.steps import Step

POLL_SECONDS = 0.5
WORKERS_AT_ONCE = 64  # that are begun before there is work for them


def run(
    config: Config,
    path: Path,
    overrides: Sequence[str],
    steps: Sequence[Step],
    check_first: Callable[[], int] | None,
    *,
    until: str | None = None,
) -> int:
    """Work the jobs off, one after the other, the parts of each at once.

    `check_first`: what has to end with `DONE` before anything is asked; its exit code else.
    """
    (config.run_dir / "launch" / "logs").mkdir(parents=True, exist_ok=True)
    copy = frozen_config(config, path, overrides)
    code = DONE
    with _cluster(config) as ray, _servers(ray) as beside:
        stopping.install()  # after ray.init, which installs a handler of its own
        if check_first is not None:
            begun = _begin_workers(ray, config)
            if (code := check_first()) != DONE:
                return code
            for reference in begun:
                ray.cancel(reference, force=False)  # what no worker was found for
        save_config_if_none(config)
        # Arrays of one job are one here: Ray has no limit of their size.
        for _, group in groupby(jobs_of(config, until), _array_of):
            for job in _one(list(group)):
                missing = missing_units(config, steps, job)
                if not missing:
                    print(f"{job.name}: done already")
                    continue
                if job.copies:
                    beside += _serve(ray, config, job, copy)
                    continue
                ended = _work_off(ray, config, job, missing, copy)
                if ended != DONE and ended != FAILED:
                    return ended
                if missing_units(config, steps, job):
                    return ended or FAILED
                code = code or ended
    report = config.run_dir / "7_report.html"
    if report.is_file():
        print(f"report: {report}")
    return code


def _begin_workers(ray: Any, config: Config) -> list[Any]:
    """The cluster starts its worker processes, and nodes where it can, beside what is done here.

    A worker is most of a second of a core; later every part would wait for its own.
    """
    task = ray.remote(max_retries=0)(keep_worker).options(**task_options(config, "generate"))
    return [task.remote() for _ in range(min(config.execution.shards, WORKERS_AT_ONCE))]


@contextmanager
def _servers(ray: Any) -> Iterator[list[Any]]:
    """Tasks that keep servers: they end by themselves, or here when the jobs have ended."""
    beside: list[Any] = []
    try:
        yield beside
    finally:
        for reference in beside:
            ray.cancel(reference, force=False)
        if beside:
            ray.wait(beside, num_returns=len(beside), timeout=END_SECONDS + MORE_SECONDS)


def _serve(ray: Any, config: Config, job: Job, copy: Path) -> list[Any]:
    task = ray.remote(max_retries=0)(run_command).options(**task_options(config, "serve"))
    words = _words(config, job.commands[0], copy)
    logs = (config.run_dir / "launch" / "logs").absolute()
    print(f"{job.name}: {job.copies} servers on Ray", flush=True)
    return [
        task.remote(words, str(Path.cwd()), f"{logs}/{job.name}-{number}.log", END_SECONDS)
        for number in range(1, job.copies + 1)
    ]


def _array_of(job: Job) -> tuple[str, ...]:
    """Equal for the arrays that one was cut into."""
    return (job.resources, "after", *job.after) if job.units else (job.name,)


def _one(jobs: list[Job]) -> list[Job]:
    """Arrays that may run at once as a single job."""
    if len(jobs) < 2 or not jobs[0].units:
        return jobs
    units = tuple(unit for job in jobs for unit in job.units)
    return [Job(jobs[0].name.rpartition("-")[0], jobs[0].resources, jobs[0].after, (), units)]


def check(config: Config) -> None:
    """Raises `UserError`: no Ray here, nothing at its address, or options that it does not take."""
    check_options(_ray(), config)
    if (address := config.execution.ray.address) is not None:
        check_address(address)


def _ray() -> Any:
    # Else all commands run at niceness 15, behind whatever else the machine does.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ImportError:
        raise UserError(
            "--on ray needs Ray: pip install -c constraints.txt -e '.[ray]' in the environment of "
            "every node"
        ) from None
    return ray


@contextmanager
def _cluster(config: Config) -> Iterator[Any]:
    """Ray, connected to the address of the config, or started on this machine and stopped."""
    ray = _ray()
    wanted = config.execution.ray
    said = {"log_to_driver": False, "logging_level": "warning"}
    try:
        if wanted.address is not None:
            ray.init(address=wanted.address, **said)
        else:
            ray.init(**({"address": "local", "include_dashboard": False} | said | wanted.local))
    except (ConnectionError, ValueError, TypeError) as error:
        token = " (if it has a token: `export RAY_AUTH_MODE=token`)" if wanted.address else ""
        raise UserError(
            f"execution.ray: Ray did not take {wanted.address or wanted.local!r}{token}: {error}"
        ) from None
    except Exception as error:  # Ray's own kind where the machine is too busy to start it in time
        raise RunFatal(f"Ray did not start: {error}; run the same command again") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _work_off(ray: Any, config: Config, job: Job, missing: list[Unit], copy: Path) -> int:
    """Run the units, in order where they are commands of one job. The worst exit code."""
    if job.units:
        return _all_at_once(ray, config, job, missing, copy)
    worst = DONE
    for words in job.commands:
        unit = Unit(words.split()[0])
        before = status_of(config, unit)
        ended = _all_at_once(ray, config, job, [unit], copy, words=words)
        found = written_since(config, unit, before)
        if ended not in (DONE, FAILED) or found is None or found.state is not UnitState.DONE:
            return ended or FAILED
        worst = max(worst, ended)
    return worst


def _all_at_once(
    ray: Any, config: Config, job: Job, units: Sequence[Unit], copy: Path, words: str = ""
) -> int:
    wanted = config.execution.ray
    # Retries are ours: Ray would start a command again that had said no for good.
    task = ray.remote(max_retries=0)(run_command)
    tries: Counter[Unit] = Counter()
    waiting: dict[Any, Unit] = {}
    codes: dict[Unit, int] = {}
    before: dict[Unit, UnitStatus | None] = {}  # what its file was when its last try began

    def start(unit: Unit) -> None:
        log = config.run_dir / "launch" / "logs" / f"{unit.file_name.removesuffix('.json')}.log"
        command = _words(config, words or unit.words, copy)
        place = (str(Path.cwd()), str(log.absolute()))
        before[unit] = status_of(config, unit)
        chosen = task.options(**task_options(config, job.resources, unit.arm))
        waiting[chosen.remote(command, *place, end_seconds(config, unit.command))] = unit
        tries[unit] += 1

    for unit in units:
        start(unit)
    many = f"{len(units)} parts" if job.units else shlex.join(["distill", *words.split()])
    print(f"{job.name}: {many} on Ray", flush=True)
    said = time.monotonic()
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_SECONDS)
        if stopping.requested():
            longest = max(end_seconds(config, unit.command) for unit in waiting.values())
            _stop(ray, waiting, longest + MORE_SECONDS)
        for reference in ready:
            unit = waiting.pop(reference)
            code, why = code_of(ray, reference)
            if again(config, unit, code, before[unit]) and tries[unit] <= wanted.retries:
                print(f"{unit.words}: {why}; started again", flush=True)
                start(unit)
                continue
            codes[unit] = FAILED if code is None else code
            if code != DONE:
                print(f"{unit.words}: {why}; {_look(config, unit)}", file=sys.stderr, flush=True)
        if time.monotonic() - said > config.execution.progress_seconds:
            said = time.monotonic()
            print(_progress(config, job, units, len(waiting)), flush=True)
    return max(codes.values(), key=lambda code: (code not in (DONE, FAILED), code))


def _words(config: Config, typed: str, copy: Path) -> list[str]:
    """What the node's Python is given."""
    command, *rest = shlex.split(typed)
    words = ["-m", "pipeline", command, str(copy), *rest]
    if command == "train" and config.execution.ray.processes > 1:
        count = str(config.execution.ray.processes)
        return ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count, *words]
    return words


def _stop(ray: Any, waiting: dict[Any, Unit], seconds: float) -> None:
    """Every command is told to stop and stores what it has; raises `Stopped`."""
    for reference in waiting:
        ray.cancel(reference, force=False)
    ray.wait(list(waiting), num_returns=len(waiting), timeout=seconds)
    raise Stopped("stopped; what has arrived is stored. Run the same command again to go on")


def _look(config: Config, unit: Unit) -> str:
    log = config.run_dir / "launch" / "logs" / f"{unit.file_name.removesuffix('.json')}.log"
    return f"see `tail {log}`; the same command again does what is missing"


def _progress(config: Config, job: Job, units: Sequence[Unit], waiting: int) -> str:
    folder = status_folder(config.run_dir)
    found = [status for unit in units if (status := read_status(folder / unit.file_name))]
    running = [status for status in found if status.state is UnitState.RUNNING]
    done, every = sum(s.done for s in found), sum(s.all for s in found)
    rate = sum(status.rate for status in running)
    parts = [f"{len(units) - waiting} of {len(units)} parts done, {len(running)} running"]
    parts += [f"{done:,} of about {every:,} rows so far, {rate:.1f} rows/s"] if every else []
    return f"{job.name}: {', '.join(parts)}"
