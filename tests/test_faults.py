"""Faults at every durable system call of a run: then the same command again gives the same bytes.

`strace` injects them: a kill just before the N-th call, or that call failing once or from then
on, N = 1, 2, 3 ... until a run ends untouched. Only calls on files under runs/ count. The calls
of each thread are counted on their own, so the ledger is driven in two ways: by its main thread
(a sync every few rows) and by its flusher (a sync every few milliseconds).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.ledger import Damage, decode_line, scan
from pipeline.records import Finish
from tests.project import Project, make_project, write_seeds

pytestmark = pytest.mark.slow
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)"
)

ROWS = 20
GROUP = 4  # rows a sync
MAIN = """
import sys
import pipeline.ledger as ledger
ledger.GROUP_ROWS, ledger.GROUP_SECONDS = int(sys.argv[1]), float(sys.argv[2])
from pipeline.__main__ import main
sys.exit(main(["generate", "config.yaml"]))
"""
BY_ROWS = (str(GROUP), "60")
BY_TIME = ("1000", "0.004")
# One request is in flight: the window. What had come is written, and a failed sync drops no
# written row while the machine stays up.
MOST_ASKED_AGAIN = 1


@dataclass(frozen=True)
class Outcome:
    """What must not depend on what happened on the way."""

    files: dict[str, bytes]
    answers: dict[str, str]


@dataclass
class Bench:
    """A project, the files its run touches, and the outcome of the undisturbed run."""

    project: Project
    traced: list[str]
    undisturbed: Outcome

    def clear(self) -> None:
        shutil.rmtree(self.project.folder / "runs", ignore_errors=True)
        self.project.asked_log.unlink(missing_ok=True)

    def inject(
        self, mode: tuple[str, str], *faults: str, only: str = ""
    ) -> tuple[subprocess.CompletedProcess[str], bool]:
        """One run with faults; and whether any of them was met."""
        log = self.project.folder / "strace.log"
        paths = [part for path in self.traced if only in path for part in ("-P", path)]
        inject = [part for fault in faults for part in ("-e", f"inject={fault}")]
        calls = ",".join(re.split(":(?:signal|error)=", fault)[0] for fault in faults)
        # much quicker, but with it signals are not delivered
        quick = [] if "signal=" in str(faults) else ["--seccomp-bpf"]
        command = ["strace", "-f", *quick, "-qq", "-o", str(log), "-e", f"trace={calls}"]
        command += [*paths, *inject]
        ended = subprocess.run(
            [*command, sys.executable, "-c", MAIN, *mode],
            cwd=self.project.folder,
            env=self.project.environment(TEACHER_SECONDS="0.01" if mode is BY_TIME else "0"),
            capture_output=True,
            text=True,
            timeout=120,
        )
        return ended, "(INJECTED)" in log.read_text() or ended.returncode == -signal.SIGKILL

    def check(self, what: str) -> None:
        """Start again until it ends well: all is as undisturbed, at most the window paid twice."""
        ended = self.project.call("generate", "config.yaml")
        assert ended.returncode == 0, (what, ended.stderr)
        assert outcome_of(self.project) == self.undisturbed, what
        asked = Counter(self.project.asked())
        assert asked.keys() == self.undisturbed.answers.keys(), what
        assert sum(asked.values()) - len(asked) <= MOST_ASKED_AGAIN, what


def outcome_of(project: Project) -> Outcome:
    """The files of the step, and the answers of all segments; none may be there twice."""
    answers: dict[str, str] = {}
    for segment in sorted((project.folder / "runs/ledger").glob("*/*.jsonl")):
        for item in scan(segment):
            if isinstance(item, Damage):
                assert item.reason == "torn"
                continue
            row = decode_line(item[1])
            if row.generation.finish is not Finish.ERROR:
                assert row.request.id not in answers, "an answer is stored twice"
                answers[row.request.id] = row.generation.text
    names = ("0_seeds.jsonl", "1_generations.jsonl")
    return Outcome({name: (project.run / name).read_bytes() for name in names}, answers)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("faults")
    project = make_project(folder, tiny_model)
    write_seeds(folder / "seeds.jsonl", ROWS)
    project.edit(tasks__0__samples=1)
    log = folder / "all.log"
    calls = "openat,mkdir,?mkdirat,rename,?renameat,?renameat2"
    command = ["strace", "-f", "-qq", "-e", f"trace={calls}", "-o", str(log)]
    subprocess.run(
        [*command, sys.executable, "-c", MAIN, *BY_ROWS],
        cwd=folder,
        env=project.environment(),
        check=True,
        capture_output=True,
    )
    named = {path for path in re.findall(r'"(runs[^"]*)"', log.read_text())}
    assert any("ledger" in path for path in named)
    # A call names a file as it was typed; a handle is known by its whole path.
    traced = sorted(named | {str(folder / path) for path in named})
    bench = Bench(project, traced, outcome_of(project))
    assert len(bench.undisturbed.answers) == ROWS
    yield bench
    shutil.rmtree(folder / "runs", ignore_errors=True)


CALLS = {
    "openat": "openat",
    "mkdir": "mkdir,?mkdirat",
    "write": "write",
    "fsync": "fsync",
    "fdatasync": "fdatasync",
    "rename": "rename,?renameat,?renameat2",
}
FAULTS: dict[str, Callable[[int], str]] = {
    "killed": lambda n: f"signal=KILL:when={n}",
    "EIO once": lambda n: f"error=EIO:when={n}",
    "EIO for good": lambda n: f"error=EIO:when={n}+",
    "full once": lambda n: f"error=ENOSPC:when={n}",
    "full for good": lambda n: f"error=ENOSPC:when={n}+",
}


@needs_strace
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_a_fault_at_every_call(bench: Bench, call: str, fault: str) -> None:
    n = 0
    while True:
        n += 1
        bench.clear()
        what = f"{fault} at {call} {n}"
        ended, met = bench.inject(BY_ROWS, f"{CALLS[call]}:{FAULTS[fault](n)}")
        check_ending(ended, fault, what)
        bench.check(what)
        if not met:
            break
        assert n < 60, "the run does not get to its end"
    assert n > 1, f"no call of {call} was met: is the filter of paths right?"


@needs_strace
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", ["fdatasync"])
def test_a_fault_in_the_thread_that_syncs_by_time(bench: Bench, call: str, fault: str) -> None:
    for n in (1, 2, 7, 15):
        bench.clear()
        what = f"{fault} at {call} {n} of the flusher"
        ended, met = bench.inject(BY_TIME, f"{call}:{FAULTS[fault](n)}", only="ledger")
        assert met, what
        check_ending(ended, fault, what)
        bench.check(what)


@needs_strace
@pytest.mark.parametrize("second", ["error=EIO", "signal=KILL"])
def test_a_fault_while_a_full_disk_is_dealt_with(bench: Bench, second: str) -> None:
    for n in (1, 3):
        bench.clear()
        what = f"full at write {n}, then ftruncate {second}"
        ended, met = bench.inject(
            BY_ROWS, f"write:error=ENOSPC:when={n}+", f"ftruncate:{second}", only="ledger"
        )
        assert met, what
        check_ending(ended, "killed" if "KILL" in second else "full for good", what)
        bench.check(what)


@needs_strace
def test_killed_again_in_each_restart(bench: Bench) -> None:
    """Eight rows a start are stored before the kill: the run gets to its end, at that pace."""
    bench.clear()
    segment = next(path for path in bench.traced if path.endswith("0000-000000.jsonl"))
    folder = bench.project.folder / Path(segment).parent
    later = [str(folder / f"0000-{n:06d}.jsonl") for n in range(1, 9)]
    again = Bench(
        bench.project, [segment, str(bench.project.folder / segment), *later], bench.undisturbed
    )
    starts = 0
    met = True
    while met:
        starts += 1
        assert starts < 9
        ended, met = again.inject(BY_ROWS, "write:signal=KILL:when=9")
    assert ended.returncode == 0, ended.stderr
    assert starts == 3  # 8 + 8 + 4 rows
    assert outcome_of(bench.project) == bench.undisturbed


def check_ending(ended: subprocess.CompletedProcess[str], fault: str, what: str) -> None:
    """Killed; or one message and the exit code that says whether to run it again."""
    if fault == "killed":
        assert ended.returncode in (0, -signal.SIGKILL), (what, ended.stderr)
        return
    full = fault.startswith("full")
    assert ended.returncode in (0, 75 if full else 1), (what, ended.returncode, ended.stderr)
    assert "Traceback" not in ended.stderr, (what, ended.stderr)
    if ended.returncode:
        messages = re.findall(r"^(?:stopped|failed): .*", ended.stderr, re.MULTILINE)
        assert len(messages) == 1 and ("full" in messages[0]) == full, (what, ended.stderr)


@pytest.fixture
def small_disk(project: Project) -> Iterator[Callable[[int], None]]:
    """Make runs/ a disk of so many bytes; called again, the disk gets that size."""
    runs = project.folder / "runs"
    runs.mkdir(exist_ok=True)
    mounted = False

    def resize(size: int) -> None:
        nonlocal mounted
        options = f"size={size}" + (",remount" if mounted else "")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(runs)],
            capture_output=True,
            text=True,
        )
        if done.returncode and not mounted:
            pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        mounted = True

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small disk needs root and mount")
    yield resize
    if mounted:
        subprocess.run(["umount", str(runs)], check=True)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.8, 0.95])
def test_a_small_disk_fills_and_with_more_room_the_run_ends_complete(
    project: Project, small_disk: Callable[[int], None], share: float, tmp_path: Path
) -> None:
    seeds = 1500  # enough for the ledger to want an index file on the full disk
    write_seeds(project.folder / "seeds.jsonl", seeds)
    project.edit(tasks__0__samples=1)
    calm = make_project_like(project, tmp_path / "calm")
    assert calm.call("generate", "config.yaml").returncode == 0
    undisturbed = outcome_of(calm)
    needed = sum(p.stat().st_size for p in calm.folder.glob("runs/**/*") if p.is_file())
    small_disk(int(needed * share) // 4096 * 4096)
    for _ in range(2):  # the second time it is full from the start
        ended = project.distill("generate", "config.yaml")
        check_ending(ended, "full for good", f"{share} of the room")
        assert ended.returncode == 75
    small_disk(needed * 3)
    ended = project.distill("generate", "config.yaml")
    assert ended.returncode == 0, ended.stderr
    assert outcome_of(project) == undisturbed
    asked = Counter(project.asked())
    assert len(asked) == seeds and sum(asked.values()) - seeds <= 2  # one in flight, two starts


def make_project_like(project: Project, folder: Path) -> Project:
    folder.mkdir()
    for path in project.folder.glob("*.*"):
        if path.is_file() and path != project.asked_log:
            shutil.copy(path, folder)
    return Project(folder, project.model)
