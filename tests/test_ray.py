"""`--on ray`: the same commands on a real Ray that is started on this machine."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.project import Project, write_seeds


def on_ray(project: Project, shards: int) -> None:
    project.edit(
        execution={
            "on": "ray",
            "shards": shards,
            "progress_seconds": 1.0,
            "ray": {"local": {"num_cpus": 2}, "options": {"num_cpus": 1}},
        }
    )


@pytest.mark.slow
def test_a_whole_pipeline_on_ray_gives_the_same_rows_as_on_one_process(project: Project) -> None:
    assert project.distill("run", "config.yaml", "--until", "curate").returncode == 0
    alone = {
        name: (project.run / name).read_bytes() for name in ("1_generations.jsonl", "2_kept.jsonl")
    }
    project.run.rename(project.folder / "alone")
    (project.folder / "runs" / "ledger").rename(project.folder / "ledger-alone")
    project.asked_log.unlink()
    on_ray(project, 4)
    done = project.distill("run", "config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "generate: 4 parts on Ray" in done.stdout and "7_report.html" in done.stdout
    for name, bytes_ in alone.items():
        assert (project.run / name).read_bytes() == bytes_
    assert len(project.asked()) == len(set(project.asked()))
    said = project.call("status", "small").stdout
    assert "generate: done" in said and "report: done" in said
    again = project.distill("run", "config.yaml")
    assert again.returncode == 0 and "generate: done already" in again.stdout


@pytest.mark.slow
def test_killed_parts_and_a_stopped_driver_lose_only_what_was_in_flight(project: Project) -> None:
    write_seeds(project.folder / "seeds.jsonl", 60)
    on_ray(project, 3)
    folder = project.run / "launch" / "status"

    def pids() -> list[int]:
        from pipeline.launch.units import UnitState, statuses

        found = statuses(project.run) if folder.is_dir() else []
        return [s.pid for s in found if s.state is UnitState.RUNNING and s.unit.of and s.new]

    def wait_for_parts() -> list[int]:
        deadline = time.monotonic() + 120
        while not (found := pids()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        return found

    process = project.start("run", "config.yaml", "--until", "generate", TEACHER_SECONDS="0.3")
    os.kill(wait_for_parts()[0], signal.SIGKILL)
    time.sleep(2)
    wait_for_parts()
    process.terminate()
    assert process.wait(60) == 75
    before = len(project.asked())
    done = project.distill("run", "config.yaml", "--until", "generate")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = project.asked()
    assert 0 < before < len(asked) and len(set(asked)) == 180
    assert len(asked) - 180 <= 4  # one in flight for the killed part, and for each stopped one


@pytest.mark.slow
def test_a_part_that_fails_for_good_stops_what_follows_and_names_its_log(project: Project) -> None:
    on_ray(project, 2)
    (project.folder / "teacher.py").write_text("def answer(request):\n    raise SystemExit(3)\n")
    done = project.distill("run", "config.yaml")
    assert done.returncode not in (0, 75), done.stdout + done.stderr
    assert "launch/logs/generate-1-of-2.log" in done.stderr
    assert not (project.run / "2_kept.jsonl").exists() and "curate:" not in done.stdout


@pytest.mark.slow
def test_a_mistake_in_the_training_is_found_before_ray_is_started(project: Project) -> None:
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
