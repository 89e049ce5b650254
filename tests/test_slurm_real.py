"""A whole pipeline on a real Slurm of two nodes on this machine, undisturbed and disturbed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.launch import units
from pipeline.launch.units import Unit, UnitState
from pipeline.ledger import Damage, line_key, scan
from tests.project import Project, make_project, write_seeds
from tests.slurm_local import LocalSlurm, environment_of, missing, wait_until
from tests.test_serve import ready, seen, server_pid, use_servers
from tests.test_serve import stored as answers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=f"no Slurm here: {missing()}"),
]

HANDED_ON = [
    "PYTHONPATH", "ASKED_LOG", "TEACHER_SECONDS", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE",
    "OMP_NUM_THREADS",
]  # fmt: skip


KEY = "sk-that-stays-where-it-is"  # of the shell that submits
READ = "sk-that-a-node-has-read"  # by a line of setup


@pytest.fixture(scope="module")
def started() -> Iterator[LocalSlurm]:
    local = LocalSlurm()
    try:
        local.start()
        yield local
    finally:
        local.stop()
    assert not local.left_over()


@pytest.fixture
def slurm(started: LocalSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSlurm]:
    for name, value in started.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TEACHER_SECONDS", "0")
    yield started
    started.cancel_all()


def prepare(project: Project, seeds: int, processes: int = 1, nodes: int = 1) -> None:
    """On each node commands have the key READ, from a file as docs/slurm.md wants it."""
    write_seeds(project.folder / "seeds.jsonl", seeds)
    keys = project.folder / "keys.sh"
    keys.touch(mode=0o600)
    keys.write_text(f"export READ_KEY={READ}\n")
    # Both nodes are here, and have names that nothing resolves.
    addresses = ["export MASTER_ADDR=127.0.0.1"] if nodes > 1 else []
    project.edit(
        execution={
            "on": "slurm",
            "shards": 4,
            "slurm": {
                "environment": HANDED_ON,
                "options": {"time": 20, "partition": "main"},
                "train": {"cpus-per-task": 2, "nodes": nodes},
                "processes": processes,
                "setup": [f". {keys}", *addresses],
            },
        }
    )


def calm(project: Project) -> Project:
    """The same run by one process after the other, without Slurm."""
    folder = project.folder / "calm"
    folder.mkdir()
    other = make_project(folder, project.model)
    for path in project.folder.glob("*.*"):
        if path.is_file() and path.name != "asked.log":
            (folder / path.name).write_bytes(path.read_bytes())
    done = other.make("config.yaml")
    assert done.returncode == 0, done.stderr
    return other


def logs(project: Project) -> str:
    found = sorted((project.run / "launch" / "logs").glob("*.log"))
    return "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in found)


def wait_for_the_end(slurm: LocalSlurm, project: Project, made: str, seconds: float) -> None:
    try:
        wait_until(lambda: not slurm.jobs(), seconds, "no job is left in the queue")
    except TimeoutError as error:
        raise AssertionError(f"{error}; {slurm.jobs()}\n{logs(project)}") from None
    assert (project.run / made).exists(), logs(project)


def stored(project: Project) -> Counter[str]:
    """How often the ledger of the teacher holds each request."""
    found: Counter[str] = Counter()
    for path in (project.folder / "runs" / "ledger").glob("fake-teacher-*/*.jsonl"):
        for item in scan(path):
            if not isinstance(item, Damage):
                found[line_key(item[1])[0]] += 1
    return found


def assert_no_key_on_disk(slurm: LocalSlurm, project: Project) -> None:
    """In nothing that the daemons of Slurm, or the run, have written."""
    for place in (slurm.folder, project.run):
        for folder, _, names in os.walk(place):
            for path in (Path(folder, name) for name in names):
                with suppress(FileNotFoundError):  # they go on writing and deleting
                    text = path.read_bytes() if path.is_file() else b""
                    assert KEY.encode() not in text and READ.encode() not in text, path


def assert_same_rows(project: Project, other: Project) -> None:
    for name in ("0_seeds.jsonl", "1_generations.jsonl", "2_kept.jsonl", "2_dropped.jsonl"):
        assert (project.run / name).read_bytes() == (other.run / name).read_bytes(), name


def test_a_shard_that_fails_for_good_cancels_what_follows_and_is_repaired_by_the_same_command(
    project: Project, slurm: LocalSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(project, 12)
    good = (project.folder / "teacher.py").read_text()
    (project.folder / "teacher.py").write_text("answer = 1\n")
    assert project.distill("run", "config.yaml", "--until", "curate").returncode == 0
    wait_until(lambda: not slurm.jobs(), 120, "the shards have failed and curate is cancelled")
    status = project.distill("status", "small").stdout
    assert "4 failed" in status and "was cancelled" in status and "generate-1.log" in status
    (project.folder / "teacher.py").write_text(good)
    monkeypatch.setenv("TEACHER_SECONDS", "5")
    assert project.distill("run", "config.yaml", "--until", "curate").returncode == 0
    wait_until(lambda: begun(project, 1) is not None, 60, "a shard is at work")
    # What a person cancels stays away, and what waited for it goes, too.
    slurm.said("scancel -u root")
    wait_until(lambda: not slurm.jobs(), 20, "what was cancelled is gone")
    assert "stopped by SIGTERM" in logs(project) and "requeued" not in logs(project)
    monkeypatch.setenv("TEACHER_SECONDS", "0")
    assert project.distill("run", "config.yaml", "--until", "curate").returncode == 0
    wait_until(lambda: not slurm.jobs(), 120, "the third submission has ended")
    assert (project.run / "3_dataset").is_dir(), logs(project)


def begun(project: Project, number: int) -> units.UnitStatus | None:
    """The status of a shard that is at work and has stored something."""
    path = units.status_folder(project.run) / Unit("generate", number, 4).file_name
    found = units.read_status(path)
    return found if found and found.state is UnitState.RUNNING and found.new else None


def tasks(slurm: LocalSlurm) -> dict[int, tuple[str, str]]:
    """(job, node) of each shard that has one, by its number."""
    lines = slurm.said("squeue -h -r -t R -o %i|%j|%K|%N").splitlines()
    rows = [line.split("|") for line in lines if "-of-4|" in line]
    return {int(number): (job, node) for job, _, number, node in rows}


def disturb(slurm: LocalSlurm, project: Project) -> dict[int, str]:
    """One shard killed, one requeued, one preempted, one on a node that dies: what their logs say.

    Two shards run on each node of two CPUs. The controller dies first, and comes back.
    """
    wait_until(lambda: all(begun(project, n) for n in (1, 2, 3, 4)), 120, "all shards are at work")
    slurm.kill("slurmctld")
    slurm.start_controller()
    wait_until(lambda: len(tasks(slurm)) == 4, 60, "the controller knows what runs")
    places = tasks(slurm)
    taken = sorted(n for n, (_, node) in places.items() if node == "n1")
    lost = sorted(n for n, (_, node) in places.items() if node == "n2")
    assert (len(taken), lost) == (2, [3, 4]), places
    # The last task of an array has the array's own id.
    last = begun(project, lost[1])
    assert last is not None
    os.kill(last.pid, signal.SIGKILL)
    assert subprocess.run(["scontrol", "requeue", places[taken[0]][0]]).returncode == 0
    high = [
        "sbatch",
        "--export=PATH",
        "-p",
        "high",
        "-w",
        "n1",
        "--exclusive",
        "-o",
        "/dev/null",
        "--wrap",
    ]
    assert subprocess.run([*high, "sleep 3"], capture_output=True).returncode == 0
    wait_until(lambda: taken[1] not in tasks(slurm), 30, "the more important job has its node")
    slurm.kill("n2")
    wait_until(lambda: "down" in slurm.said("sinfo -h -N -n n2 -o %T"), 90, "n2 is seen as down")
    slurm.start_node("n2")
    return {
        lost[1]: "ended with 137 .running.: requeued",
        taken[0]: "CANCELLED AT .* DUE TO JOB REQUEUE",
        taken[1]: "stopped by SIGTERM(.|\\n)*ended with 75 .stopped.: requeued",
        lost[0]: "Node failure on n2",
    }


def test_a_pipeline_whose_shards_are_killed_requeued_preempted_and_lost_ends_by_itself(
    project: Project, slurm: LocalSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(project, 60)
    monkeypatch.setenv("TEACHER_SECONDS", "1")
    monkeypatch.setenv("SOME_KEY", KEY)
    submitted = project.distill("run", "config.yaml")
    assert submitted.returncode == 0, submitted.stderr
    assert "5 jobs submitted" in submitted.stdout
    again = project.distill("run", "config.yaml")
    assert "nothing to submit" in again.stdout, again.stdout + again.stderr
    wait_until(lambda: begun(project, 1) is not None, 120, "a shard is at work")
    first = begun(project, 1)
    assert first is not None and environment_of(first.pid)["READ_KEY"] == READ
    assert_no_key_on_disk(slurm, project)
    for number, said in disturb(slurm, project).items():
        log = project.run / "launch" / "logs" / f"generate-{number}.log"
        assert re.search(said, log.read_text()), (number, logs(project))
    wait_for_the_end(slurm, project, "7_report.html", 600)
    assert set(stored(project).values()) == {1}
    assert_no_key_on_disk(slurm, project)
    monkeypatch.setenv("TEACHER_SECONDS", "0")
    other = calm(project)
    assert_same_rows(project, other)
    for path in (other.run / "3_dataset").rglob("*"):
        mine = project.run / path.relative_to(other.run)
        assert path.is_dir() or mine.read_bytes() == path.read_bytes(), path
    status = project.distill("status", "small").stdout
    assert "parts of generate: 4 done" in status and "parts of evaluate: 3 done" in status
    done = project.distill("run", "config.yaml")
    assert "nothing to submit" in done.stdout and done.stdout.count("done already") == 5


def ranks(slurm: LocalSlurm) -> dict[str, str]:
    """Of which node of its job each process of a training is, by its rank."""
    found = [environment_of(pid) for pid in slurm.left_over()]
    return {one["RANK"]: one["SLURM_NODEID"] for one in found if "RANK" in one}


@pytest.mark.parametrize(("nodes", "second"), [(1, "0"), (2, "1")])
def test_training_by_two_processes_is_warned_and_goes_on_from_its_checkpoint(
    project: Project, slurm: LocalSlurm, nodes: int, second: str
) -> None:
    prepare(project, 24, processes=2 // nodes, nodes=nodes)
    project.edit(
        train={"sft": {"max_steps": 200, "logging_steps": 5, "per_device_train_batch_size": 2}}
    )
    made = project.make("config.yaml")
    assert made.returncode == 0, made.stderr
    assert project.distill("run", "config.yaml", "--until", "train").returncode == 0
    log = project.run / "launch" / "logs" / "train.log"
    wait_until(lambda: log.is_file() and "loss" in log.read_text(), 200, "it trains")
    assert ranks(slurm) == {"0": "0", "1": second}
    (job,) = slurm.said("squeue -h -o %i").split()
    # What Slurm sends before the time limit, to every process of the step.
    assert subprocess.run(["scancel", "--signal=USR1", job]).returncode == 0
    wait_until(lambda: "requeued" in log.read_text(), 60, "it has stopped and is queued again")
    assert "stopped at a saved checkpoint" in log.read_text()
    wait_until(lambda: not slurm.jobs(), 300, "it has trained to its end")
    assert "training goes on from checkpoint-" in log.read_text()
    assert (project.run / "4_student" / "config.json").is_file(), logs(project)


def test_shards_find_their_servers_and_nothing_is_left_in_the_queue(
    project: Project, slurm: LocalSlurm
) -> None:
    prepare(project, 40)
    use_servers(project, 40, servers=2, host="127.0.0.1")
    (project.folder / "slow").write_text("0.5")
    submitted = project.distill("run", "config.yaml", "--until", "generate")
    assert submitted.returncode == 0 and "3 jobs submitted" in submitted.stdout, submitted.stderr
    again = project.distill("run", "config.yaml", "--until", "generate")
    assert "nothing to submit" in again.stdout
    wait_until(lambda: len(ready(project)) == 2 and len(seen(project)) == 2, 120, "both are asked")
    os.kill(server_pid(ready(project)[0]), signal.SIGKILL)
    wait_for_the_end(slurm, project, "1_generations.jsonl", 300)
    assert len(answers(project)) == 120 and set(answers(project).values()) == {1}, logs(project)
    assert "generate has all its answers" in logs(project)
