"""Servers as an array beside the shards that ask them, on a real Slurm: they end by themselves."""

from __future__ import annotations

import os
import signal

import pytest

from tests.project import Project
from tests.slurm_local import LocalSlurm, missing, wait_until
from tests.test_serve import ready, seen, server_pid, stored, use_servers
from tests.test_slurm_real import logs, prepare, wait_for_the_end
from tests.test_slurm_real import slurm as slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=f"no Slurm here: {missing()}"),
]


def test_shards_find_their_servers_and_nothing_is_left_in_the_queue(
    project: Project, slurm: LocalSlurm
) -> None:
    prepare(project, 40)
    use_servers(project, 40, servers=2, host="127.0.0.1")
    (project.folder / "slow").write_text("0.5")
    submitted = project.distill("run", "config.yaml", "--until", "generate")
    assert submitted.returncode == 0 and "2 jobs submitted" in submitted.stdout, submitted.stderr
    again = project.distill("run", "config.yaml", "--until", "generate")
    assert "nothing to submit" in again.stdout
    wait_until(lambda: len(ready(project)) == 2 and len(seen(project)) == 2, 120, "both are asked")
    os.kill(server_pid(ready(project)[0]), signal.SIGKILL)
    wait_for_the_end(slurm, project, "launch", 300)
    assert len(stored(project)) == 120 and set(stored(project).values()) == {1}, logs(project)
    assert "generate has all its answers" in logs(project)
    assert project.distill("generate", "config.yaml", "--gather").returncode == 0
