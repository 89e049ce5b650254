"""What a launcher does with a command that has ended: the text of a job under bash, and Ray's."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import Stopped
from pipeline.launch import beating, ray_ends, units
from pipeline.launch.units import Unit, UnitState, UnitStatus
from pipeline.stage2_train import pairs
from tests.project import Project

UNIT = Unit("train")
NONE, RUNNING, DONE = None, UnitState.RUNNING, UnitState.DONE
STOPPED, PAUSED, FAILED = UnitState.STOPPED, UnitState.PAUSED, UnitState.FAILED

# (exit code, what its file said before, what the command made of it, is it started again)
ENDINGS = [
    (0, FAILED, DONE, False),
    (75, NONE, NONE, True),
    (137, NONE, NONE, True),
    # Killed or preempted before it could write its file, which an earlier process wrote.
    (75, DONE, NONE, True),
    (137, FAILED, NONE, True),
    (143, PAUSED, NONE, True),
    (75, RUNNING, NONE, True),  # that one is alive, and holds the run
    (1, RUNNING, NONE, True),  # as torchrun says it
    (1, FAILED, NONE, False),
    (1, DONE, NONE, False),
    (2, RUNNING, NONE, False),
    # It has written its own.
    (137, DONE, RUNNING, True),
    (143, FAILED, STOPPED, True),
    (1, PAUSED, STOPPED, True),
    (75, DONE, PAUSED, False),
    (75, STOPPED, PAUSED, False),
    (1, DONE, FAILED, False),
    (1, PAUSED, DONE, False),  # with rows that failed for good
]

SRUN = """#!/bin/bash
[ -z "$WRITES" ] || cp "$WRITES" "$STATUS_FILE"
exit "$CODE"
"""
SQUEUE = "#!/bin/sh\necho RUNNING None\n"
SCONTROL = '#!/bin/sh\necho "$@" >> calls\n'


def status(state: UnitState | None) -> UnitStatus | None:
    """Of one more process, which dies without a word where the state is "running"."""
    if state is None:
        return None
    found = units.new_status(UNIT, "")
    found.state = state
    found.last_error = 'the row {"state":"done","start":"1"} failed'
    return found


def leave(project: Project, state: UnitState | None) -> UnitStatus | None:
    """Its file is what such a process left; none for None."""
    path = units.status_folder(project.run) / UNIT.file_name
    path.unlink(missing_ok=True)
    if (left := status(state)) is not None:
        units.write_status(project.run, left)
    return left


@pytest.fixture
def job(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script of the training, and programs of Slurm that do as little as can be."""
    project.edit(execution={"on": "slurm", "shards": 4})
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    programs = project.folder / "programs"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("squeue", SQUEUE), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
    (programs / "sleep").write_text("#!/bin/sh\n")
    for path in programs.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("STATUS_FILE", str(units.status_folder(project.run) / UNIT.file_name))
    return project.run / "launch" / "slurm" / "03-train.sbatch"


def requeued(
    project: Project, job: Path, code: int, ends: int | None = None, **environment: str
) -> bool:
    """`ends`: the exit code of the job, where it is not that of its command."""
    calls = project.folder / "calls"
    calls.unlink(missing_ok=True)
    more = {"CODE": str(code), "WRITES": ""} | environment
    done = subprocess.run(
        ["bash", job], cwd=project.folder, env=os.environ | more, capture_output=True, text=True
    )
    assert done.returncode == (code if ends is None else ends), done.stderr
    assert not calls.is_file() or calls.read_text() == "requeue 7\n"
    return calls.is_file()


def test_a_job_is_requeued_by_what_became_of_its_own_command(project: Project, job: Path) -> None:
    for ending in ENDINGS:
        code, before, after, expected = ending
        leave(project, before)
        written = ""
        if (made := status(after)) is not None:
            units.write_status(project.folder / "made", made)
            written = str(units.status_folder(project.folder / "made") / UNIT.file_name)
        ends = 0 if (code, after) == (1, DONE) else code  # what follows is to begin
        assert requeued(project, job, code, ends, WRITES=written) is expected, ending


def test_requeues_have_an_end(project: Project, job: Path) -> None:
    assert requeued(project, job, 75, SLURM_RESTART_COUNT="99")
    assert not requeued(project, job, 75, SLURM_RESTART_COUNT="100")


def test_ray_starts_again_by_what_became_of_its_own_command(project: Project) -> None:
    config = load_config(project.config)
    for ending in ENDINGS:
        code, before, after, expected = ending
        earlier = leave(project, before)
        if after is not None:
            leave(project, after)
        # A process that a signal ended is told by a number below 0 here.
        seen = 128 - code if code > 128 else code
        assert ray_ends.again(config, UNIT, seen, earlier) is expected, ending
        done = ray_ends.written_since(config, UNIT, earlier)
        assert (done is not None) == (after is not None), ending


def test_a_command_that_finds_its_run_taken_says_by_whom_and_may_be_started_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beating, "LOCK_SECONDS", 0.0)
    project.run.mkdir(parents=True)
    (project.run / "7_report.html").write_text("the report")
    curating = units.new_status(Unit("curate"), "")
    with (project.run / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refused = project.call("generate", "config.yaml")
        assert refused.returncode == 75
        assert "another distill process is at work on this run; run this again" in refused.stderr
        units.write_status(project.run, curating)
        for words in (("generate",), ("run", "--redo", "report")):
            refused = project.call(words[0], "config.yaml", *words[1:])
            assert refused.returncode == 75, refused.stderr
            assert refused.stderr.startswith("stopped: `distill curate` of this run is at work on")
            assert refused.stderr.count("\n") == 1, refused.stderr
    assert (project.run / "7_report.html").is_file() and not project.asked()
    assert not (units.status_folder(project.run) / "generate.json").exists()


def test_a_process_of_another_node_does_not_wait_for_pairs_that_nobody_makes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(project.config)
    monkeypatch.setattr(pairs, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(pairs, "LOOK_SECONDS", 0.05)
    launcher = socket.create_server(("127.0.0.1", 0))
    for name, value in {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(launcher.getsockname()[1]),
    }.items():
        monkeypatch.setenv(name, value)
    made = threading.Timer(0.5, (project.run / "3_preference").mkdir, kwargs={"parents": True})
    made.start()
    pairs.wait_for_pairs(config, None)  # while the launcher of the first process is there
    made.join()
    (project.run / "3_preference").rmdir()
    launcher.close()
    with pytest.raises(Stopped, match="the first process, which makes the pairs, has ended"):
        pairs.wait_for_pairs(config, None)
