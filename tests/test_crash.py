"""kill -9 at any moment, then the same command again: the same rows, none lost, none twice."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from socket import gethostname

import pytest

from pipeline.ledger import Ledger
from tests.project import Project, write_seeds


def answers(project: Project) -> list[tuple[str, str]]:
    """(id, text) of every row the run uses, in order."""
    ledger = Ledger(project.folder / "runs", "fake-teacher")
    found = []
    for row in project.rows("1_generations.jsonl"):
        stored = ledger.get(row["request_id"])
        assert stored is not None
        found.append((row["request_id"], stored.generation.text))
    return found


def test_killed_at_20_random_moments_of_generation(project: Project) -> None:
    write_seeds(project.folder / "seeds.jsonl", 300)
    project.edit(tasks__0__samples=2)
    rng = random.Random(11)
    kills = 0
    while kills < 20:
        process = project.start("generate", "config.yaml", TEACHER_SECONDS="0.02")
        time.sleep(rng.uniform(0.3, 1.2))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        # Should it have got to its end, let the next start find it unfinished.
        (project.run / "1_generations.jsonl").unlink(missing_ok=True)
    assert project.distill("generate", "config.yaml").returncode == 0
    after = answers(project)
    asked = Counter(project.asked())
    assert len(after) == 600 == len({key for key, _ in after})
    # The fake teacher has one request in flight, and the ledger syncs at least every 50 ms.
    assert sum(asked.values()) - len(asked) <= kills * 5
    undisturbed = Project(project.folder / "calm", project.model)
    undisturbed.folder.mkdir()
    for path in project.folder.glob("*.*"):
        if path.is_file() and path.name != "asked.log":
            (undisturbed.folder / path.name).write_bytes(path.read_bytes())
    assert undisturbed.distill("generate", "config.yaml").returncode == 0
    assert answers(undisturbed) == after
    assert (undisturbed.run / "1_generations.jsonl").read_bytes() == (
        project.run / "1_generations.jsonl"
    ).read_bytes()


@pytest.mark.parametrize("name", ["TERM", "INT", "USR1", "USR2"])
def test_a_signal_stores_what_is_in_flight_and_exits_75(project: Project, name: str) -> None:
    write_seeds(project.folder / "seeds.jsonl", 100)
    process = project.start("generate", "config.yaml", TEACHER_SECONDS="0.05")
    while not project.asked():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.wait(timeout=10) == 75
    stored = len(Ledger(project.folder / "runs", "fake-teacher"))
    assert stored == len(project.asked()) < 300


def test_a_signal_to_run_reaches_the_step_and_its_exit_code_comes_back(project: Project) -> None:
    write_seeds(project.folder / "seeds.jsonl", 100)
    project.edit(evaluate={"abilities": []})
    process = project.start("run", "config.yaml", TEACHER_SECONDS="0.05")
    while not project.asked():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 75
    assert len(Ledger(project.folder / "runs", "fake-teacher")) == len(project.asked())


def test_two_processes_do_not_work_on_one_run(project: Project) -> None:
    process = project.start("generate", "config.yaml", TEACHER_SECONDS="2")
    while not project.asked():
        time.sleep(0.05)
    second = project.distill("generate", "config.yaml")
    process.terminate()
    process.wait()
    # No mistake: a scheduler has to try again when the first one has ended.
    assert second.returncode == 75, second.stderr
    assert f"`distill generate` of this run is at work on {gethostname()}" in second.stderr
    assert f"(process {process.pid}); run this again when it has ended" in second.stderr


@pytest.mark.slow
@pytest.mark.parametrize("step", ["curate", "train", "evaluate", "report"])
def test_killed_in_any_later_step_the_run_still_ends_the_same(project: Project, step: str) -> None:
    assert project.distill("run", "config.yaml").returncode == 0
    kept = (project.run / "2_kept.jsonl").read_bytes()
    scores = (project.run / "6_scores.json").read_bytes()
    rng = random.Random(step)
    for _ in range(3):
        project.distill("run", "config.yaml", "--redo", step, "--until", "generate")
        process = project.start("run", "config.yaml")
        time.sleep(rng.uniform(1, 12))
        process.kill()
        process.wait()
        time.sleep(0.5)
    ended = project.distill("run", "config.yaml")
    assert ended.returncode == 0, ended.stderr
    assert (project.run / "2_kept.jsonl").read_bytes() == kept
    assert (project.run / "6_scores.json").read_bytes() == scores
    assert len(project.asked()) == len(set(project.asked()))
    assert project.distill("verify", "small").returncode == 0


@pytest.mark.slow
def test_killed_at_any_moment_of_evaluation_asks_nothing_twice_and_scores_the_same(
    project: Project,
) -> None:
    write_seeds(project.folder / "eval.jsonl", 40, start=100)
    assert project.distill("run", "config.yaml", "--until", "train").returncode == 0
    begin, rng, kills = len(project.asked()), random.Random(3), 0
    while True:
        process = project.start("evaluate", "config.yaml", TEACHER_SECONDS="0.1")
        enough = len(project.asked()) + rng.randint(5, 30)
        while process.poll() is None and len(project.asked()) < enough:
            time.sleep(0.01)
        if process.poll() is not None:
            break
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.wait()
        kills += 1
    assert process.returncode == 0 and kills >= 2
    asked = Counter(project.asked()[begin:])
    assert len(asked) == 80  # 40 problems, directly and step by step
    # The fake teacher has one request in flight, and the ledger syncs at least every 50 ms.
    assert sum(asked.values()) - len(asked) <= 2 * kills
    scores = (project.run / "6_scores.json").read_bytes()
    for arm in ("teacher", "before", "after"):  # answered anew, from the beginning
        shutil.rmtree(project.run / "5_answers" / arm)
    shutil.rmtree(project.folder / "runs" / "ledger")
    done = project.distill("evaluate", "config.yaml", "--redo", "evaluate")
    assert done.returncode == 0, done.stderr
    assert (project.run / "6_scores.json").read_bytes() == scores
