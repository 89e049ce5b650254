"""Two real vLLM servers kept by `distill serve`, one of them killed while both are asked."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest

from tests.project import Project, write_seeds
from tests.test_serve import Typed, gone, ready, server_pid, stored, wait_until
from tests.test_serve import typed as typed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed; ./run.sh test --all installs it",
    ),
]


def group_of(pid: int) -> list[int]:
    """The processes of a server and of all that it has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == pid and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def test_one_of_two_is_killed_and_every_row_is_there_once(project: Project, typed: Typed) -> None:
    write_seeds(project.folder / "seeds.jsonl", 40)
    project.edit(
        teacher={
            "backend": "vllm",
            "model": str(project.model),
            "sampling": {"max_tokens": 200},
            "serving": {
                "engine": {"max_model_len": 512, "enforce_eager": True},
                "concurrency": 4,
                "serve": {},
            },
        }
    )
    keepers = [typed.serve("--until", "generate"), typed.serve()]
    wait_until(lambda: len(ready(project)) == 2, "two vLLM servers are ready", 900)
    asking = typed.start("generate", "config.yaml")
    wait_until(lambda: len(stored(project)) > 20, "rows arrive", 120)
    killed = server_pid(ready(project)[0])
    started = group_of(killed)
    assert len(started) > 1, "the server has an engine of its own"
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: all(map(gone, started)), "its engine is gone with it")
    assert asking.wait(300) == 0, asking.communicate()[0]
    assert len(stored(project)) == 120 and set(stored(project).values()) == {1}
    again = project.distill("generate", "config.yaml", "--redo", "generate")
    assert again.returncode == 0 and "0 new" in again.stdout, again.stderr
    assert keepers[0].wait(60) == 0  # generate has all its answers
    keepers[1].terminate()
    assert keepers[1].wait(20) == 75
    assert not [pid for pid in map(int, started) if not gone(pid)]
