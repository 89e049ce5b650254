"""Parts and commands that a launcher began and that wrote no status: what their logs tell.

A line of `setup` that fails, a key that is not set, a Python that is not there: all end before the
command can write a word about itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.config import Config
from pipeline.launch.units import Unit

TAIL_BYTES = 4096
_SCRIPT = re.compile(r"\d+-(?P<job>.+)\.sbatch")
# What srun adds at the end says less than the line before it.
_EPILOGUE = re.compile(r"srun: (error: .*(Exited with exit code|Terminated)|.*Job step aborted)")


def logs_of_parts(config: Config, run: Path, told: Mapping[Unit, float]) -> dict[Unit, Path]:
    """Of parts that have told nothing since they were last submitted: their logs of that time.

    `told`: when each last wrote a status, in seconds since 1970; 0 where it has none.
    """
    logs = _Logs(run)
    if not told or not logs.names:
        return {}
    from pipeline.launch.plan import jobs_of

    of_slurm = {
        unit: (job.name, f"{job.name}-{index}.log")
        for job in jobs_of(config)
        for index, unit in enumerate(job.units, 1)
    }
    found = {}
    for unit, time in told.items():
        job, name = of_slurm.get(unit, ("", ""))
        candidates = [(name, logs.submitted(job)), (_of_ray(unit), logs.begun)]
        if path := logs.newest(candidates, time):
            found[unit] = path
    return found


def logs_of_commands(
    config: Config, run: Path, begun: Collection[Unit], done: Collection[str]
) -> Iterator[tuple[Unit, Path]]:
    """The same of jobs that are whole commands: (what the job is for, its log)."""
    logs = _Logs(run)
    if not logs.names:
        return
    from pipeline.launch.plan import jobs_of

    for job in jobs_of(config):
        last = job.all_units[-1]
        if job.units or job.copies or last.command in done or set(job.all_units) & set(begun):
            continue
        candidates = [(_of_ray(unit), logs.begun) for unit in job.all_units]
        if path := logs.newest([(f"{job.name}.log", logs.submitted(job.name)), *candidates]):
            yield last, path


def last_words(path: Path) -> str:
    """The last line of a log that says something; "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines()]
    said = [line for line in lines if line and not _EPILOGUE.match(line)]
    return said[-1] if said else ""


class _Logs:
    """The logs of a run, and when its parts were submitted (seconds since 1970)."""

    def __init__(self, run: Path) -> None:
        self._folder = run / "launch" / "logs"
        self.names = set(_listed(self._folder))
        copies = [path for path in (run / "launch").glob("config-*.yaml") if self.names]
        self.begun = max((path.stat().st_mtime for path in copies), default=0.0)
        # A job's script is written again with each submission of some of its parts.
        self._scripts = {
            match["job"]: (run / "launch" / "slurm" / name).stat().st_mtime
            for name in (_listed(run / "launch" / "slurm") if self.names else ())
            if (match := _SCRIPT.fullmatch(name))
        }

    def submitted(self, job: str) -> float | None:
        """None: never to Slurm."""
        return self._scripts.get(job)

    def newest(
        self, candidates: Iterable[tuple[str, float | None]], told: float = 0.0
    ) -> Path | None:
        """Of these logs, each with the time of a submission, the one written last.

        An empty one is none, nor is one from before the submission, or of one before `told`.
        """
        found = []
        for name, since in candidates:
            if since is not None and since >= told and name in self.names:
                with suppress(FileNotFoundError):
                    stat = (self._folder / name).stat()
                    if stat.st_size and stat.st_mtime >= since:
                        found.append((stat.st_mtime, self._folder / name))
        return max(found)[1] if found else None


def _of_ray(unit: Unit) -> str:
    return f"{unit.file_name.removesuffix('.json')}.log"


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
