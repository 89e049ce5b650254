"""`--on ray`: the same commands on a real Ray that is started on this machine."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.launch.ray_options import end_seconds, task_options
from pipeline.launch.ray_task import run_command
from pipeline.launch.units import UnitState, process_lives, statuses
from tests.project import Project, write_seeds
from tests.ray_local import LocalRay, processes_of
from tests.slurm_local import wait_until

# Says which GPUs its process may see, as a real engine would ask.
SEES = """
import os
with open("seen.log", "a") as file:
    file.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\\n")
"""


def on_ray(project: Project, shards: int) -> None:
    project.edit(
        execution={
            "on": "ray",
            "shards": shards,
            "progress_seconds": 1.0,
            "ray": {"local": {"num_cpus": 2}, "options": {"num_cpus": 1}},
        }
    )


# Stores what it has, and is slow at it.
SLOW_END = """
import signal, sys, time
def end(*_):
    time.sleep(1.0)
    print("stored", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, end)
print("at work", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("seconds", "last"), [(10.0, "stored"), (0.2, "at work")])
def test_a_cancelled_command_gets_its_time_to_store_what_it_has(
    tmp_path: Path, seconds: float, last: str
) -> None:
    log = tmp_path / "log"

    class Cancelled(BaseException):
        """As Ray interrupts a worker."""

    def cancel(_number: int, _frame: object) -> None:
        if log.exists() and "at work" in log.read_text():
            raise Cancelled
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    before = signal.signal(signal.SIGALRM, cancel)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Cancelled):
            run_command(["-c", SLOW_END], str(tmp_path), str(log), seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert log.read_text().split("\n")[-2] == last


def test_the_grace_of_the_config_is_kept_on_ray_and_a_training_has_minutes(
    project: Project,
) -> None:
    assert end_seconds(load_config(project.config), "generate") == 20
    project.edit(execution={"grace_seconds": 90})
    assert end_seconds(load_config(project.config), "generate") >= 100
    assert end_seconds(load_config(project.config), "train") >= 300


def test_servers_and_who_asks_them_do_not_wait_for_each_others_cores_and_gpus(
    project: Project,
) -> None:
    ray = {"options": {"num_cpus": 4}, "serve": {"num_gpus": 2}, "evaluate": {"num_gpus": 1}}
    project.edit(execution={"ray": ray})
    config = load_config(project.config)
    assert task_options(config, "serve") == {"num_cpus": 0, "num_gpus": 2}
    assert task_options(config, "evaluate", "teacher") == {"num_cpus": 4, "num_gpus": 1}
    serve = {"command": ["server"], "servers": 2}
    project.edit(
        teacher={"backend": "openai", "model": "m", "serving": {"serve": serve}},
        execution__ray__serve={"num_gpus": 2, "num_cpus": 3},
    )
    config = load_config(project.config)
    assert task_options(config, "serve") == {"num_cpus": 3, "num_gpus": 2}
    assert task_options(config, "evaluate", "teacher") == {"num_cpus": 4}
    assert task_options(config, "evaluate", "before") == {"num_cpus": 4, "num_gpus": 1}
    # Its own weights read the texts: servers give no probabilities of these.
    engine = {"backend": "vllm", "model": "m", "serving": {"serve": {"servers": 2}}}
    project.edit(teacher=engine, evaluate__held_out_text="texts.jsonl")
    config = load_config(project.config)
    assert task_options(config, "evaluate", "teacher") == {"num_cpus": 4, "num_gpus": 1}


@pytest.mark.parametrize(
    ("ray", "message"),
    [
        ({"options": {"num_gpu": 1}}, r"ray\.options\.num_gpu: 1: Ray says: .*'num_gpus'"),
        ({"train": {"memory": "4GB"}}, r"ray\.train\.memory: '4GB': Ray says: .*int"),
        ({"serve": {"num_gpus": 1.5}}, r"ray\.serve\.num_gpus: 1\.5: .*whole number"),
    ],
)
def test_an_option_that_ray_does_not_take_is_refused_before_ray_starts(
    project: Project, ray: dict[str, object], message: str
) -> None:
    module = pytest.importorskip("ray")
    project.edit(execution={"on": "ray", "ray": ray})
    refused = project.call("run", "config.yaml")
    assert refused.returncode == 2 and re.search(message, refused.stderr), refused.stderr
    assert not module.is_initialized() and project.asked() == []


@pytest.mark.slow
def test_a_whole_pipeline_on_ray_gives_the_same_rows_and_each_part_its_gpu(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.distill("run", "config.yaml", "--until", "curate").returncode == 0
    alone = {
        name: (project.run / name).read_bytes() for name in ("1_generations.jsonl", "2_kept.jsonl")
    }
    project.run.rename(project.folder / "alone")
    (project.folder / "runs" / "ledger").rename(project.folder / "ledger-alone")
    project.asked_log.unlink()
    on_ray(project, 4)
    # As docs/eight_gpus.md has it; Ray believes what it is told of the machine.
    project.edit(
        execution__ray={
            "local": {"num_cpus": 2, "num_gpus": 8},
            "options": {"num_cpus": 0.5},
            "generate": {"num_gpus": 1},
            "train": {"num_gpus": 8},
            "processes": 2,
            "evaluate": {"num_gpus": 1},
        }
    )
    script = project.folder / "teacher.py"
    script.write_text(script.read_text() + SEES)
    marker = secrets.token_hex(8)
    monkeypatch.setenv("OF_THIS_RAY", marker)
    done = project.distill("run", "config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = dict(line.split() for line in Path("seen.log").read_text().splitlines())
    assert len(seen) >= 5 and set(seen.values()) <= set("01234567"), seen
    assert len(set(seen.values())) > 1  # of those at work at once each has its own
    wait_until(lambda: not processes_of(marker), 20, "nothing of the Ray that it started is left")
    assert "generate: 4 parts on Ray" in done.stdout and "7_report.html" in done.stdout
    assert re.search(r"generate: \d of 4 parts done, \d running", done.stdout), done.stdout
    for name, bytes_ in alone.items():
        assert (project.run / name).read_bytes() == bytes_
    assert len(project.asked()) == len(set(project.asked()))
    said = project.call("status", "small").stdout
    assert "generate: done" in said and "report: done" in said
    again = project.distill("run", "config.yaml")
    assert again.returncode == 0 and "generate: done already" in again.stdout


PROGRESS = (
    r"generate: \d of 3 parts done, \d running, [\d,]+ of about [\d,]+ rows so far, [\d.]+ rows/s"
)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def drive(log: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "pipeline", "run", "config.yaml", "--until", "generate"]
    with log.open("a") as out:
        return subprocess.Popen(words, stdout=out, stderr=out)


def parts_at_work(project: Project) -> dict[int, str]:
    """Process -> its shard, of those that have stored something."""
    found = statuses(project.run) if (project.run / "launch" / "status").is_dir() else []
    return {
        s.pid: s.unit.words
        for s in found
        if s.state is UnitState.RUNNING and s.new and process_lives(s)
    }


@pytest.mark.slow
def test_killed_parts_workers_nodes_and_drivers_lose_only_what_was_in_flight(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    nodes, drivers = LocalRay(), list[subprocess.Popen[bytes]]()
    for name, value in project.environment(TEACHER_SECONDS="0.5", **nodes.environment).items():
        monkeypatch.setenv(name, value)
    write_seeds(project.folder / "seeds.jsonl", 120)
    try:
        nodes.add_node()
        nodes.add_node()
        on_ray(project, 3)
        project.edit(execution__ray={"address": nodes.address, "options": {"num_cpus": 1}})
        log = project.folder / "driver.log"
        drivers.append(drive(log))
        said = log.read_text

        def part(on: int | None = None) -> int:
            """A process that has stored something; `on`: of the node of this raylet."""
            end = time.monotonic() + 120
            while True:
                assert drivers[-1].poll() is None and time.monotonic() < end, said()
                for pid in parts_at_work(project):
                    with suppress(OSError):
                        if on is None or parent_of(parent_of(pid)) == on:
                            return pid
                time.sleep(0.1)

        os.kill(part(), signal.SIGKILL)
        wait_until(lambda: "ended with -9; started again" in said(), 60, "the part is back")
        os.kill(parent_of(part()), signal.SIGKILL)
        wait_until(lambda: "its worker is gone" in said(), 60, "a worker is missed")
        raylet = nodes.raylet(2)
        assert raylet is not None
        part(on=raylet)
        os.kill(raylet, signal.SIGKILL)
        wait_until(lambda: said().count("its worker is gone") > 1, 90, "a node is missed")
        part()
        wait_until(lambda: re.search(PROGRESS, said()) is not None, 30, "its progress is said")
        drivers[0].terminate()
        assert drivers[0].wait(60) == 75
        wait_until(lambda: not nodes.commands(), 30, "the commands of a stopped driver have ended")
        drivers.append(drive(log))
        assert part() in nodes.commands()
        drivers[1].kill()
        drivers[1].wait()
        wait_until(lambda: not nodes.commands(), 30, "the commands of a killed driver have ended")
        before = len(project.asked())
    finally:
        for driver in drivers:
            driver.kill()
        nodes.stop()
    assert not nodes.left_over()
    monkeypatch.setenv("TEACHER_SECONDS", "0")
    done = project.call("generate", "config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = project.asked()
    assert 0 < before < len(asked) and len(set(asked)) == 360
    assert len(asked) - 360 <= 6  # what was in flight: of the killed part, and of each stopped one


@pytest.mark.slow
def test_a_part_that_fails_for_good_stops_what_follows_and_names_its_log(project: Project) -> None:
    on_ray(project, 2)
    (project.folder / "teacher.py").write_text("def answer(request):\n    raise SystemExit(3)\n")
    done = project.distill("run", "config.yaml")
    assert done.returncode not in (0, 75), done.stdout + done.stderr
    assert "launch/logs/generate-1-of-2.log" in done.stderr
    assert not (project.run / "2_kept.jsonl").exists() and "curate:" not in done.stdout


@pytest.mark.slow
def test_a_mistake_in_the_training_is_found_before_rows_are_asked_on_ray(project: Project) -> None:
    on_ray(project, 2)
    project.edit(train={"sft": {"max_stepz": 2}})
    refused = project.distill("run", "config.yaml")
    assert refused.returncode == 2 and "did you mean max_steps" in refused.stderr
    assert project.asked() == [] and "on Ray" not in refused.stdout


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_message(project: Project) -> None:
    pytest.importorskip("ray")
    project.edit(execution={"on": "ray", "ray": {"address": "127.0.0.1:1"}})
    done = project.distill("run", "config.yaml", "--until", "generate")
    assert done.returncode == 2 and "execution.ray" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
