"""Who goes on when a process was silent, and what one that died leaves to the next."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import stopping
from pipeline.errors import RunFatal
from pipeline.launch import beating, units
from pipeline.launch.units import Unit, UnitState
from pipeline.ledger import Ledger
from pipeline.models.deaths import left_behind
from pipeline.records import Finish
from tests.project import Project
from tests.test_ledger import make

FIRST, SECOND = Unit("generate", 1, 2), Unit("generate", 2, 2)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One for each time that the process was told to stop."""
    found: list[bool] = []
    monkeypatch.setattr(stopping, "request", lambda: found.append(True))
    return found


@pytest.mark.parametrize(
    ("other", "state", "silent", "expected"),
    [
        (FIRST, UnitState.RUNNING, True, 1),
        (FIRST, UnitState.DONE, True, 1),  # it has taken this over and is through
        (Unit("generate", 3, 4), UnitState.DONE, True, 1),  # of a division that shares requests
        (SECOND, UnitState.DONE, True, 0),
        (FIRST, UnitState.STOPPED, True, 0),
        (FIRST, UnitState.RUNNING, False, 0),  # of two that began at once the first goes on
    ],
)
def test_a_process_that_hung_ends_where_another_one_has_taken_its_part_over(
    tmp_path: Path, told: list[bool], other: Unit, state: UnitState, silent: bool, expected: int
) -> None:
    mine = beating.Beating(tmp_path, FIRST, "", None)
    mine._write()
    successor = units.new_status(other, "")
    successor.began, successor.state = mine.status.began + 20, state
    units.write_status(tmp_path, successor)
    if silent:
        mine._written -= 60
    mine._beat()
    assert len(told) == expected
    written = units.read_status(units.status_folder(tmp_path) / other.file_name)
    if expected:
        assert written == successor


def test_all_silent_parts_are_waited_for_at_once_and_only_one_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "BEAT_SECONDS", 0.4)
    for number in range(1, 17):
        there = units.new_status(Unit("generate", number, 16), "")
        there.host, there.began = f"n{number}", there.began - 100
        units.write_status(tmp_path, there)
    for expected in (1.2, 0.0):
        begin = time.monotonic()
        with beating.beating(tmp_path, Unit("generate", 3, 8), ""):
            took = time.monotonic() - begin
        assert expected <= took < expected + 1.1, (took, expected)
    states = [status.state for status in units.statuses(tmp_path)]
    # 3 and 11 of 16, and whatever else may hold a request of 3 of 8 by another division.
    assert states.count(UnitState.RUNNING) == 0 and states.count(UnitState.STOPPED) == 16


def test_of_two_writers_rows_the_later_one_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path, "m", shard=3, of=4) as ledger:
        ledger.append(*make(1, Finish.ERROR, ""))
    request, answer = make(1)
    with Ledger(tmp_path, "m") as ledger:  # by its name its segment is the first
        ledger.append(request, answer)
    names = sorted(path.name for path in ledger.folder.glob("*.jsonl"))
    assert names[0].startswith("0000-") and len(names) == 2
    row = Ledger(tmp_path, "m").get(request.id)
    assert row is not None and row.generation == answer


def test_rows_that_would_go_into_a_removed_file_are_an_error(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "m")
    ledger.append(*make(1))
    ledger.flush()
    for path in ledger.folder.glob("*.jsonl"):
        path.unlink()
    with pytest.raises(RunFatal, match="removed"):
        ledger.append(*make(2))
        ledger.flush()


def test_a_repair_beside_somebody_at_work_is_refused(project: Project) -> None:
    assert project.call("generate", "config.yaml").returncode == 0
    other = project.folder / "runs" / "other"  # runs share the ledger of a model
    units.write_status(other, units.new_status(SECOND, ""))
    refused = project.call("verify", "small", "--repair")
    assert refused.returncode == 2 and "`distill generate --shard 2/2` of runs/other" in (
        refused.stderr
    )
    assert project.call("verify", "small").returncode == 0


DIES = """
import os, sys
from pathlib import Path
from pipeline.models.deaths import Begun
Begun(Path(sys.argv[1]), 0, lambda _: False).begin("a" * 32)
os.kill(os.getpid(), 9)
"""


def test_only_what_a_child_itself_left_behind_starts_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ledger" / "m"
    folder.mkdir(parents=True)
    child = subprocess.Popen([sys.executable, "-c", DIES, str(folder)])
    assert child.wait() == -9

    def of_nfs(file: int, how: int) -> None:
        """NFS locks only what is open for writing (flock(2))."""
        number = file if isinstance(file, int) else file.fileno()
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", of_nfs)
    assert left_behind(tmp_path, child.pid)
    assert not left_behind(tmp_path, child.pid + 1)


def test_generation_that_is_done_again_is_done_again_by_every_shard(project: Project) -> None:
    for number in (1, 2):
        assert project.call("generate", "config.yaml", "--shard", f"{number}/2").returncode == 0
    files = list(units.status_folder(project.run).glob("generate-*"))
    assert len(files) == 2
    assert project.call("generate", "config.yaml", "--redo", "generate").returncode == 0
    assert not any(path.exists() for path in files)


def test_a_place_that_is_no_folder_is_one_message(project: Project) -> None:
    (project.folder / "runs").write_text("")
    for words in (("generate", "config.yaml"), ("generate", "config.yaml", "--shard", "1/2")):
        refused = project.distill(*words)
        assert refused.returncode == 2, refused.stderr
        assert refused.stderr.startswith("error: runs") and "Traceback" not in refused.stderr
