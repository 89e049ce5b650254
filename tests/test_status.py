"""`distill status`: rows, rates, tokens and cost of every part, and of those that never began."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.launch import units
from pipeline.launch.plan import frozen_config, save_config_if_none
from pipeline.launch.units import Unit, UnitState, UnitStatus
from tests.project import Project, write_seeds
from tests.test_slurm import FakeQueue, scripts, use_slurm


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    return FakeQueue(tmp_path / "fake", monkeypatch)


def begun(project: Project, shards: int) -> None:
    """The run's folder as a launcher leaves it."""
    project.edit(execution={"shards": shards})
    config = load_config(project.config, [])
    (config.run_dir / "launch" / "logs").mkdir(parents=True)
    frozen_config(config, project.config, [])
    save_config_if_none(config)


def write(project: Project, part: int, of: int, **fields: Any) -> UnitStatus:
    """A shard that runs here: 100 of 1,000 rows in 50 s, unless told otherwise."""
    status = units.new_status(Unit("generate", part, of), "settings")
    status.done, status.all, status.new = 100, 1000, 100
    status.input_tokens, status.output_tokens, status.usd = 2000, 3000, 0.25
    status.log = str(project.run / "launch" / "logs" / f"generate-{part}-of-{of}.log")
    status.began = status.time - 50.0
    for name, value in fields.items():
        setattr(status, name, value)
    units.write_status(project.run, status)
    return status


def shown(project: Project, *words: str) -> str:
    done = project.call("status", "small", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def line_of(said: str, part: str) -> str:
    (line,) = re.findall(rf"^    generate --shard {part}: .*$", said, re.M)
    return str(line)


def test_each_part_has_its_rows_rate_time_left_tokens_and_cost(project: Project) -> None:
    begun(project, 3)
    write(project, 1, 3)
    write(project, 2, 3, state=UnitState.DONE, done=900, all=900, new=900, usd=0.5)
    write(project, 3, 3, state=UnitState.FAILED, last_error="the server said no", errors=4)
    said = shown(project)
    running, done, failed = (line_of(said, f"{n}/3") for n in (1, 2, 3))
    facts = "running, 100/1,000 rows, 2.00 rows/s, 450 s left, 5,000 tokens, 0.2500 USD, "
    assert facts in running, said
    assert "done, 900/900 rows, 5,000 tokens, 0.5000 USD, " in done and "rows/s" not in done
    assert "failed, 100/1,000 rows, 5,000 tokens, 0.2500 USD, 4 errors, " in failed
    for part in (1, 3):
        assert f"tail runs/small/launch/logs/generate-{part}-of-3.log" in said
    assert "the server said no" in said and "generate-2-of-3.log" not in said
    # 2,900 rows expected, 1,100 there, 2 a second.
    assert "1 running, 1 done, 1 failed; 1,100 of about 2,900 rows, 2.00 rows/s, " in said
    assert "about 900 s left, 15,000 tokens, 1.0000 USD\n" in said


def test_a_part_without_a_price_has_no_cost(project: Project) -> None:
    begun(project, 2)
    write(project, 1, 2, usd=0.0)
    assert "5,000 tokens" in line_of(shown(project), "1/2") and "USD" not in shown(project)


def test_parts_that_wait_are_in_the_sum_and_in_the_time_left(project: Project) -> None:
    begun(project, 64)
    for part in range(1, 32):
        write(project, part, 64)
    said = shown(project)
    assert "31 running, 33 waiting; 3,100 of about 64,000 rows, 62.00 rows/s" in said
    assert "about 982 s left" in said  # (64,000 - 3,100) / 62
    # One that has begun and not counted its rows yet is like the others, too.
    write(project, 32, 64, done=0, all=0, new=0)
    assert "3,100 of about 64,000 rows" in shown(project)


def test_rows_are_not_about_when_every_part_is_done(project: Project) -> None:
    begun(project, 2)
    for part in (1, 2):
        write(project, part, 2, state=UnitState.DONE, done=70 + part, all=70 + part)
    assert "2 done; 143 of 143 rows, 10,000 tokens" in shown(project)


def test_another_division_does_not_count_the_rows_of_the_first_again(project: Project) -> None:
    begun(project, 4)
    write(project, 1, 4, state=UnitState.STOPPED, time=time.time() - 1000)
    for part in (1, 2):
        write(project, part, 2, done=200)
    said = shown(project)
    assert "parts of generate: 2 running, 1 stopped; 400 of about 2,000 rows" in said
    assert "15,000 tokens" in said  # these were used all the same


def test_of_many_parts_those_that_are_not_well_and_those_at_work_are_shown(
    project: Project,
) -> None:
    begun(project, 64)
    for part in range(1, 11):
        write(project, part, 64, state=UnitState.DONE, done=1000)
    for part in range(11, 54):
        write(project, part, 64, new=part)
    write(project, 54, 64, state=UnitState.PAUSED, last_error="the budget of 5 USD is used up")
    write(project, 55, 64, pid=2**22 - 1)  # no such process
    for part in range(56, 60):
        write(project, part, 64, state=UnitState.FAILED, last_error=f"no model in /tmp/{part}")
    said = shown(project)
    order = re.findall(r"^    generate --shard (\d+)/64", said, re.M)
    # The same words once; of those at work the slowest first.
    assert order == ["56", "55", "54", *(str(part) for part in range(11, 54))], said
    assert "and 3 more that say the same: 57/64, 58/64, 59/64" in said
    assert "0.22 rows/s, 4,091 s left" in line_of(said, "11/64")
    assert "tail runs/small/launch/logs/generate-11-of-64.log" in said
    assert "    and 10 done, 5 waiting; a line for each: `distill status small --all`" in said
    every = shown(project, "--all")
    found = re.findall(r"^    generate --shard (\d+)/64", every, re.M)
    assert [int(part) for part in found] == list(range(1, 65))


def test_hundreds_of_failures_are_not_hundreds_of_lines(project: Project) -> None:
    begun(project, 300)
    for part in range(1, 301):
        write(project, part, 300, state=UnitState.FAILED, last_error="no room" if part % 2 else "")
    said = shown(project)
    assert "parts of generate: 300 failed" in said and len(said.splitlines()) < 250
    assert "and 200 failed; a line for each" in said


def test_a_part_that_ended_before_it_began_is_shown_with_the_last_line_of_its_log(
    project: Project,
) -> None:
    """As on Ray: the log is named by the part."""
    begun(project, 4)
    logs = project.run / "launch" / "logs"
    (logs / "generate-1-of-4.log").write_text("loading\nKEY_OF_MINE is not set\n\n")
    (logs / "generate-2-of-4.log").write_text("")
    (logs / "generate-3-of-4.log").write_text("of an earlier submission\n")
    os.utime(logs / "generate-3-of-4.log", (1, 1))
    # It was stopped and is queued again: it has a status, and waits for nothing else.
    write(project, 4, 4, state=UnitState.STOPPED)
    (logs / "generate-4-of-4.log").write_text("stopped\n")
    said = shown(project)
    assert "1 stopped, 1 without a status, 2 waiting; " in said, said
    assert line_of(said, "1/4").startswith(
        "    generate --shard 1/4: no status was written: it never began, or failed at once"
    )
    assert "      KEY_OF_MINE is not set\n      tail runs/small/launch/logs/generate-1-of-4" in said
    for part in ("2/4", "3/4"):
        assert line_of(said, part).endswith(": waiting")
    assert "the same command that launched it" in said


def run_script(name: str, text: str, task: str) -> None:
    """As Slurm would: the script in bash, its output at the end of the log."""
    (log,) = re.findall("#SBATCH --output=(.*)", text)
    with Path(log.replace("%a", task)).open("a") as out:
        done = subprocess.run(
            ["bash", "-c", text],
            stdout=out,
            stderr=out,
            env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": task},
        )
    assert done.returncode != 0, name


@pytest.mark.parametrize("shards", [1, 3])
def test_a_key_that_no_line_of_setup_sets_is_shown_for_the_tasks_of_slurm(
    project: Project, queue: FakeQueue, shards: int
) -> None:
    use_slurm(project)
    project.edit(
        execution__shards=shards,
        teacher={
            "backend": "openai",
            "model": "m",
            "serving": {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "TEACHER_KEY"},
        },
    )
    done = project.call("run", "config.yaml")
    assert done.returncode == 0, done.stderr
    said = shown(project)
    assert "no status was written" not in said
    for task in ("1", "2")[: shards - 1] or ("1",):
        run_script("generate", scripts(project)["generate"], task)
    said = shown(project)
    unit = "generate --shard 2/3" if shards > 1 else "generate"
    assert f"    {unit}: no status was written" in said, said
    assert "TEACHER_KEY: must be set by a line of execution.slurm.setup" in said
    log = "generate-2.log" if shards > 1 else "generate.log"
    assert f"tail runs/small/launch/logs/{log}" in said
    assert "curate: no status" not in said
    if shards > 1:
        assert "2 without a status, 1 waiting" in said
    time.sleep(0.02)
    queue.keep(names="nothing")
    assert project.call("run", "config.yaml", "--dry-run").returncode == 0
    assert "no status was written" in shown(project)  # nothing was submitted
    # The same command again submits them; until they begin, they wait.
    assert project.call("run", "config.yaml").returncode == 0
    assert "no status was written" not in shown(project)


def test_a_part_that_was_submitted_again_and_failed_at_once_says_so(project: Project) -> None:
    begun(project, 3)
    for part in (1, 2, 3):
        write(project, part, 3, state=UnitState.FAILED, last_error=f"no disk {part}")
        (project.run / "launch" / "logs" / f"generate-{part}-of-3.log").write_text("it ended\n")
    assert "submitted again" not in shown(project)
    (copy,) = (project.run / "launch").glob("config-*.yaml")
    later = time.time() + 60
    os.utime(copy, (later, later))
    log = project.run / "launch" / "logs" / "generate-2-of-3.log"
    log.write_text("no such module\n")
    os.utime(log, (later + 1, later + 1))
    said = shown(project)
    assert said.count("submitted again") == 1
    assert "      no disk 2\n      submitted again since then; its log ends with: no such m" in said


def test_what_srun_says_at_the_end_is_not_the_last_word_of_a_log(project: Project) -> None:
    begun(project, 2)
    (project.run / "launch" / "logs" / "generate-1-of-2.log").write_text(
        "python: No such file\nsrun: error: n1: task 0: Exited with exit code 2\n"
    )
    assert "      python: No such file\n" in shown(project)


def test_a_part_that_is_started_again_shows_all_it_has_used(project: Project) -> None:
    write_seeds(project.folder / "seeds.jsonl", 40)
    path = units.status_folder(project.run) / Unit("generate", 1, 2).file_name

    def read() -> UnitStatus:
        found = units.read_status(path)
        assert found is not None
        return found

    words = ("generate", "config.yaml", "--shard", "1/2")
    first = project.start(*words, TEACHER_SECONDS="0.05")
    while len(project.asked()) < 5:
        time.sleep(0.05)
        assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=10) == 75
    stopped = read()
    assert stopped.input_tokens > 0 and stopped.starts == 1
    done = project.call(*words)
    assert done.returncode == 0 and "tokens in 2 starts" in done.stdout
    other = read()
    assert other.new + stopped.new == other.done  # what was in flight is not counted
    assert stopped.input_tokens < other.input_tokens and stopped.usd < other.usd
    # As much as one process would have used.
    alone = project.folder / "alone"
    project.edit(name="alone", teacher__model="fake-teacher-2")
    assert project.call(*words).returncode == 0
    whole = units.read_status(units.status_folder(alone.parent / "runs" / "alone") / path.name)
    assert whole is not None and whole.done == other.done
    used = (other.input_tokens, other.output_tokens, pytest.approx(other.usd))
    assert (whole.input_tokens, whole.output_tokens, whole.usd) == used
    project.edit(name="small", teacher__model="fake-teacher")
    line = line_of(shown(project), "1/2")
    assert f"{other.input_tokens + other.output_tokens:,} tokens" in line
    assert "started 2 times" in line
    # Started again when it is done it asks nothing, and has used what it has used.
    assert project.call(*words).returncode == 0
    again = read()
    assert (again.new, again.starts, again.input_tokens) == (0, 3, other.input_tokens)
    # With other settings it is other work.
    project.edit(tasks__0__samples=4)
    assert project.call(*words).returncode == 0
    fresh = read()
    assert fresh.starts == 1 and 0 < fresh.input_tokens < other.input_tokens


def test_a_key_that_is_missing_is_said_before_a_ray_is_started_here(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> int:
        raise AssertionError("began")

    monkeypatch.setattr("pipeline.launch.ray_cluster.run", started)
    monkeypatch.setattr("pipeline.launch.ray_cluster.check", lambda _: None)
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    serving = {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "TEACHER_KEY"}
    project.edit(
        teacher={"backend": "openai", "model": "m", "serving": serving},
        execution={"on": "ray", "shards": 4},
    )
    refused = project.call("run", "config.yaml")
    assert refused.returncode == 2 and "TEACHER_KEY" in refused.stderr, refused.stderr
    assert not project.run.exists()
    # The nodes of another one have environments of their own.
    project.edit(execution={"on": "ray", "shards": 4, "ray": {"address": "auto"}})
    with pytest.raises(AssertionError, match="began"):
        project.call("run", "config.yaml", "--set", "teacher.serving.base_url=http://10.0.0.9/v1")
