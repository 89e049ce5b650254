"""Stage 1 and the report against a real HTTP endpoint: keys, targets, probes, what is imported."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from tests.fake_server import Ask, FakeServer, Reply
from tests.project import Project
from tests.test_demand import set_task

KEY = "sk-live-7Qz9tVw3Xy5"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        running.behave = partial(every_second_time, running)
        yield running


@pytest.fixture
def hosted(project: Project, server: FakeServer) -> Iterator[Project]:
    project.edit(
        teacher={
            "backend": "openai",
            "model": "hosted",
            "sampling": {"temperature": 0.5, "max_tokens": 32},
            "serving": {"base_url": server.url, "api_key_env": "HOSTED_KEY", "concurrency": 8},
        },
        budget={"min_acceptance": 0},
    )
    with mock.patch.dict(os.environ, {"HOSTED_KEY": KEY}):
        yield project


def every_second_time(server: FakeServer, ask: Ask) -> Reply:
    """Right when the same text is asked for the first, third ... time."""
    numbers = [int(n) for n in re.findall(r"\d+", ask.text)[:2]]
    earlier = sum(other.text == ask.text for other in server.asks) - 1
    return ask.answer(f"Try {earlier}. The answer is {sum(numbers) + earlier % 2}.")


def test_the_key_reaches_no_file_no_message_and_no_process_title(
    hosted: Project, server: FakeServer
) -> None:
    titles: list[bytes] = []

    def refuse_some(ask: Ask) -> Reply:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError), process.open("rb") as file:
                titles.append(file.read())
        assert ask.headers.get("Authorization") == f"Bearer {KEY}"
        if ask.seen == 1 and "Basket B" in ask.text:
            return Reply(status=400, body={"error": {"message": f"bad request with key {KEY}"}})
        if ask.seen == 1 and "Basket C" in ask.text:
            return Reply(status=500, body=f"trace: Authorization: Bearer {KEY}".encode())
        return every_second_time(server, ask)

    server.behave = refuse_some
    done = hosted.distill("generate", "config.yaml")
    assert done.returncode in (0, 1), done.stderr
    assert hosted.call("curate", "config.yaml").returncode == 0
    assert hosted.call("report", "config.yaml").returncode in (0, 1, 2)
    wrong = hosted.distill("show", "small")
    files = [path for path in hosted.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".jsonl" and "ledger" in path.parts for path in files)
    holders = [str(path) for path in files if KEY.encode() in path.read_bytes()]
    assert holders == []
    for said in (done.stdout, done.stderr, wrong.stdout, wrong.stderr):
        assert KEY not in said
    assert titles and not any(KEY.encode() in title for title in titles)


def test_a_target_is_met_over_http_and_nothing_is_asked_beyond_it(
    hosted: Project, server: FakeServer
) -> None:
    set_task(hosted, accept={"per_seed": 2, "at_most": 6}, sampling={"temperature": 0.9})
    done = hosted.call("generate", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert "24 accepted" in done.stdout
    rows = hosted.rows("1_generations.jsonl")
    assert len(rows) == server.requests
    again = hosted.call("generate", "config.yaml", "--redo", "generate")
    assert "0 new" in again.stdout and len(rows) == server.requests


def test_a_changed_teacher_is_noticed_by_the_probe(hosted: Project, server: FakeServer) -> None:
    hosted.edit(execution={"probe_every": 6})
    probes = 0

    def behave(ask: Ask) -> Reply:
        nonlocal probes
        if "the sea in the morning" not in ask.text:
            return every_second_time(server, ask)
        probes += 1
        same = "The sea lies still and grey. Light comes slowly over the water."
        return ask.answer(same if probes < 6 else "As an assistant I can tell you about oceans!")

    server.behave = behave
    done = hosted.call("generate", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert probes == 6
    assert done.stderr.count("answers the fixed probe otherwise") == 1
    assert len(hosted.rows("1_generations.jsonl")) == 36  # probes are no training rows


def test_the_process_that_talks_to_an_endpoint_loads_no_torch(
    hosted: Project, tmp_path: Path
) -> None:
    code = (
        "import sys; from pipeline.__main__ import main; code = main(['generate', 'config.yaml']); "
        "heavy = {'torch', 'transformers', 'datasets', 'openai', 'pandas'} & set(sys.modules); "
        "print('heavy:', sorted(heavy)); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=hosted.folder,
        capture_output=True,
        text=True,
        env=hosted.environment(),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout
