"""`generate --shard i/n`, `evaluate --arm NAME`: any order, at once, twice, killed: same rows."""

from __future__ import annotations

import errno
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from pipeline.commands import status as status_command
from pipeline.config_file import dump_yaml, load_yaml
from pipeline.errors import UserError
from pipeline.launch import units
from pipeline.launch.units import Unit, UnitState, UnitStatus
from pipeline.ledger import Ledger
from tests.project import Project, make_project, write_seeds
from tests.slurm_local import wait_until


def shard_status(project: Project, number: int, of: int) -> UnitStatus:
    path = units.status_folder(project.run) / Unit("generate", number, of).file_name
    found = units.read_status(path)
    assert found is not None
    return found


def want(project: Project, accept: dict[str, int]) -> None:
    raw, _ = load_yaml(project.config)
    del raw["tasks"][0]["samples"]
    raw["tasks"][0]["accept"] = accept
    dump_yaml(raw, project.config)


def calm(project: Project) -> Project:
    """The same project, where one process does everything."""
    other = make_project(_empty(project.folder / "calm"), project.model)
    for path in project.folder.glob("*.*"):
        if path.is_file() and path.name != "asked.log":
            (other.folder / path.name).write_bytes(path.read_bytes())
    return other


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_shards_in_any_order_make_the_same_files_and_ask_nothing_twice(project: Project) -> None:
    write_seeds(project.folder / "seeds.jsonl", 40)
    for number in (3, 1, 4, 2):
        done = project.call("generate", "config.yaml", "--shard", f"{number}/4")
        assert done.returncode == 0, done.stderr
    parts = [shard_status(project, n, 4) for n in (1, 2, 3, 4)]
    assert sum(part.done for part in parts) == 120
    assert all(0 < part.done == part.all < 120 for part in parts)
    assert not (project.run / "1_generations.jsonl").exists()
    assert project.call("generate", "config.yaml", "--gather").returncode == 0
    assert Counter(project.asked()).most_common(1)[0][1] == 1
    assert len(project.asked()) == 120
    other = calm(project)
    assert other.call("generate", "config.yaml").returncode == 0
    for name in ("0_seeds.jsonl", "1_generations.jsonl"):
        assert (other.run / name).read_bytes() == (project.run / name).read_bytes()


def test_a_shard_run_twice_asks_nothing_more(project: Project) -> None:
    for _ in range(2):
        assert project.call("generate", "config.yaml", "--shard", "1/2").returncode == 0
    assert Counter(project.asked()).most_common(1)[0][1] == 1
    assert shard_status(project, 1, 2).new == 0


def test_gather_refuses_and_names_the_shards_that_have_not_ended(project: Project) -> None:
    assert project.call("generate", "config.yaml", "--shard", "2/2").returncode == 0
    before = len(project.asked())
    refused = project.call("generate", "config.yaml", "--gather")
    assert refused.returncode == 2
    assert "have no answer yet" in refused.stderr and "--gather" in refused.stderr
    assert len(project.asked()) == before
    assert not (project.run / "1_generations.jsonl").exists()
    # Without it the rest is asked, and nothing of what is there.
    assert project.call("generate", "config.yaml").returncode == 0
    assert Counter(project.asked()).most_common(1)[0][1] == 1


def test_two_seeds_with_the_same_words_are_asked_once(project: Project) -> None:
    seeds = project.folder / "seeds.jsonl"
    lines = seeds.read_text().splitlines()
    twins = [line.replace('"id": "q', '"id": "twin') for line in lines]
    seeds.write_text("\n".join(lines + twins) + "\n")
    for number in (1, 2, 3):
        assert project.call("generate", "config.yaml", "--shard", f"{number}/3").returncode == 0
    assert len(project.asked()) == 36 == len(set(project.asked()))
    assert project.call("generate", "config.yaml", "--gather").returncode == 0
    assert len(project.rows("1_generations.jsonl")) == 72


def test_rows_wanted_for_each_seed_are_counted_within_a_shard(project: Project) -> None:
    want(project, {"per_seed": 1, "at_most": 3})
    for number in (2, 1):
        assert project.call("generate", "config.yaml", "--shard", f"{number}/2").returncode == 0
    assert project.call("generate", "config.yaml", "--gather").returncode == 0
    other = calm(project)
    assert other.call("generate", "config.yaml").returncode == 0
    mine, theirs = (p.run / "1_generations.jsonl" for p in (project, other))
    assert mine.read_bytes() == theirs.read_bytes()


def test_a_total_over_all_seeds_is_left_to_the_last_command(project: Project) -> None:
    want(project, {"total": 6, "at_most": 2})
    done = project.call("generate", "config.yaml", "--shard", "1/2")
    assert done.returncode == 0 and "after the shards" in done.stdout
    assert not project.asked()
    assert project.call("generate", "config.yaml").returncode == 0
    assert project.asked()


def test_two_of_the_same_shard_at_once_one_works_and_one_refuses(project: Project) -> None:
    write_seeds(project.folder / "seeds.jsonl", 60)
    words = ("generate", "config.yaml", "--shard", "1/2")
    first = project.start(*words, TEACHER_SECONDS="0.05")
    second = project.start(*words, TEACHER_SECONDS="0.05")
    codes = sorted([first.wait(timeout=60), second.wait(timeout=60)])
    assert codes == [0, 75]
    assert Counter(project.asked()).most_common(1)[0][1] == 1
    assert shard_status(project, 1, 2).state is UnitState.DONE


def test_other_parts_of_the_same_requests_are_refused_while_one_is_at_work(
    project: Project,
) -> None:
    write_seeds(project.folder / "seeds.jsonl", 200)
    first = project.start("generate", "config.yaml", "--shard", "1/2", TEACHER_SECONDS="0.05")
    while not project.asked():
        time.sleep(0.05)
        assert first.poll() is None
    for words in (("--shard", "2/3"), ()):
        refused = project.call("generate", "config.yaml", *words)
        assert refused.returncode == 75 and "--shard 1/2" in refused.stderr, refused.stderr
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=10) == 75


def test_killed_shards_lose_only_what_was_in_flight(project: Project) -> None:
    write_seeds(project.folder / "seeds.jsonl", 60)
    for _ in range(3):
        process = project.start("generate", "config.yaml", "--shard", "1/2", TEACHER_SECONDS="0.03")
        before = len(project.asked())
        while len(project.asked()) < before + 8:
            time.sleep(0.02)
            assert process.poll() is None
        process.kill()
        process.wait()
        assert units.lost(shard_status(project, 1, 2))
    for number in (1, 2):
        assert project.call("generate", "config.yaml", "--shard", f"{number}/2").returncode == 0
    assert project.call("generate", "config.yaml", "--gather").returncode == 0
    assert len(project.rows("1_generations.jsonl")) == 180
    assert len(project.asked()) - len(set(project.asked())) <= 3


@pytest.mark.slow
def test_another_number_of_shards_asks_nothing_again_whatever_was_killed_between(
    project: Project,
) -> None:
    write_seeds(project.folder / "seeds.jsonl", 60)
    kills = 0

    def run(part: str, *, kill: bool = False) -> None:
        nonlocal kills
        if not kill:
            assert project.call("generate", "config.yaml", *shard(part)).returncode == 0
            return
        before = len(project.asked())
        process = project.start("generate", "config.yaml", *shard(part), TEACHER_SECONDS="0.02")
        while len(project.asked()) < before + 6:
            time.sleep(0.02)
            assert process.poll() is None
        process.kill()
        process.wait()
        kills += 1

    def shard(part: str) -> list[str]:
        return ["--shard", part] if part else []

    run("2/4")
    for part in ("1/4", "3/4"):
        run(part, kill=True)
    run("5/6")
    for part in ("1/6", "4/6"):
        run(part, kill=True)
    run("3/6")
    run("", kill=True)
    run("7/9")
    run("")
    asked = project.asked()
    assert len(set(asked)) == 180
    assert len(asked) - 180 <= kills  # one in flight at each
    other = calm(project)
    assert other.call("generate", "config.yaml").returncode == 0
    mine, theirs = (p.run / "1_generations.jsonl" for p in (project, other))
    assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("name", ["TERM", "USR1"])
def test_a_signal_ends_a_shard_within_two_seconds_whatever_is_in_flight(
    project: Project, name: str
) -> None:
    write_seeds(project.folder / "seeds.jsonl", 40)
    process = project.start("generate", "config.yaml", "--shard", "1/2", TEACHER_SECONDS="30")
    while not project.asked():
        time.sleep(0.05)
        assert process.poll() is None
    begin = time.monotonic()
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.wait(timeout=10) == 75
    assert time.monotonic() - begin < 2
    assert shard_status(project, 1, 2).state is UnitState.STOPPED


def test_a_used_up_budget_pauses_each_shard_at_its_part(project: Project) -> None:
    write_seeds(project.folder / "seeds.jsonl", 40)
    project.edit(budget={"max_tokens": 400})
    for number in (1, 2):
        done = project.call("generate", "config.yaml", "--shard", f"{number}/2")
        assert done.returncode == 75 and "max_tokens of 200" in done.stderr
        status = shard_status(project, number, 2)
        assert status.state is UnitState.PAUSED and "max_tokens" in status.last_error
        assert 200 <= status.input_tokens + status.output_tokens < 250


def test_a_process_on_another_machine_is_alive_while_its_beats_go_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "BEAT_SECONDS", 0.2)
    there = units.new_status(Unit("generate", 1, 2), "")
    there.host, there.beat = "node7", 4
    units.write_status(project.run, there)
    assert not units.alive(project.run, there)  # no beat came while it was watched
    assert project.call("generate", "config.yaml", "--shard", "1/2").returncode == 0
    asked = len(project.asked())

    units.write_status(project.run, there)
    read = units.read_status

    def beating(path: Path) -> UnitStatus | None:
        found = read(path)
        if found is not None and found.host == "node7":
            found = msgspec.structs.replace(found, beat=int(time.monotonic() * 1000))
        return found

    monkeypatch.setattr(units, "read_status", beating)
    refused = project.call("generate", "config.yaml", "--shard", "1/2")
    assert refused.returncode == 75 and "node7" in refused.stderr
    assert len(project.asked()) == asked


@pytest.mark.parametrize("words", [("--shard", "1/2"), ()])
def test_a_signal_ends_the_wait_for_another_machines_beats_within_two_seconds(
    project: Project, words: tuple[str, ...]
) -> None:
    there = units.new_status(Unit("generate", 1, 2), "")
    there.host = "node7"
    units.write_status(project.run, there)
    process = project.start("generate", "config.yaml", *words)
    wait_until(lambda: _catches_term(process.pid), 30, "it knows what a TERM means")
    time.sleep(1.0)
    assert process.poll() is None and not project.asked()
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 75
    assert time.monotonic() - begin < 2
    assert units.read_status(units.status_folder(project.run) / there.unit.file_name) == there


def _catches_term(pid: int) -> bool:
    found = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return found is not None and bool(int(found[1], 16) >> (signal.SIGTERM - 1) & 1)


IN_A_CONTAINER = """
import sys
from pathlib import Path
from pipeline.launch import units
(there,) = units.statuses(Path(sys.argv[1]))
print(units.here(there), units.lost(there))
"""


def test_a_process_that_a_container_does_not_see_is_not_taken_for_dead(tmp_path: Path) -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no process space of its own can be made here")
    status = units.new_status(Unit("generate", 1, 4), "x")
    units.write_status(tmp_path, status)
    assert units.here(status) and units.process_lives(status)
    # It has this machine's name, and another process or none under that id.
    look = [*unshare, sys.executable, "-c", IN_A_CONTAINER, str(tmp_path)]
    done = subprocess.run(look, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stdout


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/100000"])
def test_a_part_that_is_none_is_refused(project: Project, text: str) -> None:
    refused = project.call("generate", "config.yaml", f"--shard={text}")
    assert refused.returncode == 2 and "1/16 to 16/16" in refused.stderr


def test_arms_asked_one_by_one_make_the_same_answers(project: Project) -> None:
    project.edit(evaluate__arms=["teacher", "before", "before_again"])
    assert project.call("generate", "config.yaml").returncode == 0
    assert project.call("curate", "config.yaml").returncode == 0
    refused = project.call("evaluate", "config.yaml", "--gather")
    assert refused.returncode == 2 and "--arm teacher" in refused.stderr
    for arm in ("before_again", "teacher", "before"):
        done = project.call("evaluate", "config.yaml", "--arm", arm)
        assert done.returncode == 0, done.stderr
    asked = len(project.asked())
    assert project.call("evaluate", "config.yaml", "--gather").returncode == 0
    assert len(project.asked()) == asked
    assert len(project.rows("5_answers/before/chain_of_thought.jsonl")) == 12
    wrong = project.call("evaluate", "config.yaml", "--arm", "techer")
    assert wrong.returncode == 2 and "teacher, before" in wrong.stderr


def test_status_shows_every_part_from_the_files_alone(project: Project) -> None:
    write_seeds(project.folder / "seeds.jsonl", 40)
    assert project.call("generate", "config.yaml", "--shard", "1/4").returncode == 0
    project.edit(teacher__serving__script="broken.py")
    (project.folder / "broken.py").write_text("def answer(request):\n    return 1 / 0\n")
    assert project.call("generate", "config.yaml", "--shard", "2/4").returncode == 75
    project.edit(teacher__serving__script="teacher.py")
    killed = project.start("generate", "config.yaml", "--shard", "3/4", TEACHER_SECONDS="0.2")
    while not (units.status_folder(project.run) / "generate-3-of-4.json").is_file():
        time.sleep(0.05)
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    shown = project.call("status", "small").stdout
    assert "1 done, 1 stopped, 1 lost, 1 waiting" in shown
    assert "generate --shard 2/4: stopped" in shown and "ZeroDivisionError" in shown
    assert "generate --shard 3/4: lost" in shown and "start it again" in shown
    assert "generate --shard 4/4: waiting" in shown


def test_a_hole_that_another_machine_is_just_filling_is_no_damage(project: Project) -> None:
    assert project.call("generate", "config.yaml", "--shard", "1/2").returncode == 0
    (segment,) = (project.folder / "runs" / "ledger").glob("*/*.jsonl")
    whole = segment.read_bytes()
    middle = len(whole) // 2
    hole = whole[:middle] + bytes(20) + whole[middle + 20 :]

    segment.write_bytes(hole)
    filled = threading.Timer(0.1, segment.write_bytes, [whole])
    filled.start()
    assert len(Ledger(project.folder / "runs", "fake-teacher")) == shard_status(project, 1, 2).done
    filled.join()
    segment.write_bytes(hole)
    with pytest.raises(UserError, match="damaged at byte"):
        Ledger(project.folder / "runs", "fake-teacher")


def test_status_shows_a_whole_command_that_has_not_ended_well(project: Project) -> None:
    project.edit(budget={"max_tokens": 100})
    assert project.call("generate", "config.yaml").returncode == 75
    shown = project.call("status", "small").stdout
    assert "    generate: paused" in shown and "max_tokens" in shown


def test_a_shard_reads_no_status_file_of_the_other_parts_of_its_division(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [Unit("generate", n, of) for of in (20, 3) for n in range(1, of + 1)]
    for unit in [*every, Unit("curate"), Unit("evaluate", arm="teacher")]:
        units.write_status(project.run, units.new_status(unit, ""))
    real, read = units.read_status, []
    monkeypatch.setattr(units, "read_status", lambda path: (read.append(path.name), real(path))[1])
    found = [status.unit for status in units.statuses(project.run, beside=Unit("generate", 7, 20))]
    assert len(found) == len(read) == 1 + 3 + 2
    assert all(unit == Unit("generate", 7, 20) or unit.of != 20 for unit in found)
    assert len(list(units.statuses(project.run))) == 25


def test_the_rows_of_a_large_run_are_looked_up_only_when_asked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.call("generate", "config.yaml").returncode == 0
    assert "36 stop" in project.call("status", "small").stdout
    monkeypatch.setattr(status_command, "MOST_BYTES", 100)
    shown = project.call("status", "small").stdout
    assert "36 stop" not in shown and "status small --rows" in shown
    assert "36 stop" in project.call("status", "small", "--rows").stdout


def test_no_part_waits_for_a_step_that_is_done(project: Project) -> None:
    assert project.call("generate", "config.yaml").returncode == 0
    assert "evaluate --arm after: waiting" in project.call("status", "small").stdout
    record = {"step": "evaluate"}
    done = project.rows("steps.jsonl")[0] | record
    with (project.run / "steps.jsonl").open("a") as file:
        file.write(json.dumps(done) + "\n")
    assert "parts of evaluate" not in project.call("status", "small").stdout


def test_a_filesystem_without_locks_keeps_no_command_from_its_work(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("pipeline.file_locks.fcntl.flock", no_locks)
    with (project.folder / "teacher.py").open("a") as file:
        file.write("\nin_process = True\n")  # its rows are written down as they begin
    for words in (("--shard", "1/2"), ("--shard", "2/2"), ("--gather",)):
        done = project.call("generate", "config.yaml", *words)
        assert done.returncode == 0, done.stderr
    assert len(project.asked()) == 36 == len(set(project.asked()))


def test_only_these_modules_lock_or_map_files() -> None:
    """Locks by file_locks alone; memory maps of a process's own temporary files."""
    allowed = {"file_locks.py", "probes.py", "syscalls.py"}
    mapped = {"near_duplicates.py", "similar_embeddings.py"}
    for path in Path(units.__file__).parents[1].rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.name in allowed or not re.search(r"\bfcntl\b|\blockf\b", text), path
        assert path.name in allowed | mapped or not re.search(r"\bmmap\.|memmap\(", text), path
