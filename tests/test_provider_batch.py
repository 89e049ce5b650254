"""Batches at a provider, against a real HTTP server: nothing is lost, nothing is bought twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline import stopping
from pipeline.config import Batch, ModelConfig
from pipeline.errors import RunFatal, Stopped, UserError
from pipeline.ledger import Ledger, decode_line, ledger_folder, scan
from pipeline.models import batch_client, model_identity, open_model, provider_batch
from pipeline.models.batch_parts import cancel_open
from pipeline.models.batch_records import all_parts, open_parts
from pipeline.models.chat_wire import ChatEncoder
from pipeline.models.openai_api import OpenAIModel, Serving
from pipeline.models.provider_batch import BatchModel
from pipeline.records import (
    ErrorKind,
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    request_id,
)
from tests.fake_batches import FakeBatches
from tests.fake_server import FakeServer, Reply, answer_to
from tests.project import Project, make_project

KEY = "sk-very-secret-0123456789"


def row(number: int) -> Request:
    messages = (Message("system", "be brief"), Message("user", f"question {number}"))
    sampling = Sampling(temperature=0.5, max_tokens=9)
    return Request(
        id=request_id("m", messages, sampling, 0),
        seed_id=str(number),
        recipe="response",
        prompt=PromptRef("p", "0"),
        messages=messages,
        sampling=sampling,
        sample_index=0,
        model="m",
    )


def rows(n: int) -> list[Request]:
    return [row(i) for i in range(n)]


def number_in(text: str) -> int:
    return int(text.split()[-1])


def expected(request: Request) -> str:
    return answer_to([{"role": m.role, "content": m.content} for m in request.messages])


class Job:
    """A working folder, and `distill generate` in small: what the ledger lacks is asked."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.folder = ledger_folder(root, "m")
        self.serving = Serving(
            base_url=(url,), api_key=KEY, api_key_env="TEACHER_KEY", timeout=5.0, concurrency=4
        )

    def model(self, settings: Batch | None) -> BatchModel:
        online = OpenAIModel("m", revision=None, serving=self.serving)
        return BatchModel(online, "m", self.serving, settings, self.root)

    def run(self, wanted: Iterable[Request], *, online: bool = False, **batch: Any) -> None:
        settings = None if online else Batch(poll_seconds=0.01, **batch)
        asked: dict[str, Request] = {}

        def missing() -> Iterator[Request]:
            for request in wanted:
                if not ledger.answered(request.id):
                    asked[request.id] = request
                    yield request

        with Ledger(self.root, "m") as ledger:
            model = self.model(settings)
            try:
                for generation in model.generate(missing()):
                    ledger.append(asked.pop(generation.request_id), generation)
            finally:
                model.close()

    def stored(self) -> list[Generation]:
        lines = [
            item
            for path in self.folder.glob("*.jsonl")
            for item in scan(path)
            if isinstance(item, tuple)
        ]
        return [decode_line(line).generation for _, line in lines]

    def answers(self) -> dict[str, str]:
        """Request id -> text; each is there once."""
        good = [g for g in self.stored() if g.finish is not Finish.ERROR]
        assert len({g.request_id for g in good}) == len(good)
        return {g.request_id: g.text for g in good}

    def phases(self) -> list[str]:
        return sorted(part.phase.value for part in all_parts(self.folder))

    def files(self) -> list[str]:
        return sorted({path.suffix for path in (self.folder / "batches").iterdir()} - {""})


@pytest.fixture
def server() -> Iterator[FakeBatches]:
    with FakeBatches() as running:
        yield running


@pytest.fixture
def job(tmp_path: Path, server: FakeBatches) -> Job:
    return Job(tmp_path / "runs", server.url)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_client, "backoff", lambda tries, asked: 0.01)
    monkeypatch.setattr(batch_client, "APPEAR_SECONDS", 0.05)
    monkeypatch.setattr(provider_batch, "QUEUE_SECONDS", 0.02)


@pytest.fixture
def stop() -> Iterator[Callable[[], None]]:
    """Let the process believe that it was sent a signal."""
    yield lambda: stopping._received.append(signal.SIGTERM)
    stopping._received.clear()


def right(wanted: list[Request]) -> dict[str, str]:
    return {request.id: expected(request) for request in wanted}


# -- the ordinary way ------------------------------------------------------------------------


def test_every_row_gets_its_own_answer_and_is_bought_once(server, job) -> None:
    wanted = rows(25)
    job.run(wanted, rows=10)
    assert job.answers() == right(wanted)  # the output files are in another order
    assert [len(batch.rows) for batch in server.batches] == [10, 10, 5]
    assert set(server.bought.values()) == {1} and len(server.bought) == 25
    assert not server.chats


def test_a_row_is_sent_as_the_online_endpoint_would_get_it(server, job) -> None:
    wanted = rows(3)
    job.run(wanted)
    (batch,) = server.batches
    encoder = ChatEncoder("m")
    for line, request in zip(server.lines_in(batch), wanted, strict=True):
        assert json.loads(line) == {
            "custom_id": request.id,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": json.loads(encoder.encode(request)),
        }
        assert encoder.encode(request) in line


def test_a_part_is_no_larger_than_asked_for(server, job) -> None:
    wanted = rows(30)
    job.run(wanted, megabytes=0.002)
    sizes = [len(server.files[batch.file_id]) for batch in server.batches]
    assert len(sizes) > 3 and max(sizes) <= 2000
    assert job.answers() == right(wanted)


def test_a_row_larger_than_a_part_goes_alone(server, job) -> None:
    wanted = rows(3)
    job.run(wanted, megabytes=0.0001)
    assert [len(batch.rows) for batch in server.batches] == [1, 1, 1]
    assert job.answers() == right(wanted)


def test_no_more_batches_are_open_than_asked_for_and_rows_are_pulled_lazily(server, job) -> None:
    most = pulled = 0

    def watched() -> Iterator[Request]:
        nonlocal pulled, most
        for request in rows(40):
            pulled += 1
            most = max(most, pulled - sum(len(b.rows) for b in server.batches if b.looks > 1))
            yield request

    job.run(watched(), rows=5, at_once=2)
    assert len(server.batches) == 8 and most <= 10 + 5


def test_what_the_ledger_holds_needs_no_files_any_more(job) -> None:
    job.run(rows(12), rows=5)
    assert job.phases() == ["collected"] * 3
    assert job.files() == [".json"]
    assert open_parts(job.folder) == []
    assert {part.batch_id for part in all_parts(job.folder)} == {"batch_0", "batch_1", "batch_2"}


def test_one_id_is_asked_once_however_often_it_comes(server, job) -> None:
    settings = Batch(rows=3, poll_seconds=0.01)
    model = job.model(settings)
    got = list(model.generate([row(0), row(1), row(0), row(1), row(2), row(0)]))
    model.close()
    assert len(got) == 3 and sum(len(batch.rows) for batch in server.batches) == 3


def test_a_feed_may_wait_for_answers_before_it_says_more(server, job) -> None:
    seen: list[str] = []

    def feed() -> Iterator[Request | None]:
        yield from rows(3)
        while len(seen) < 3:
            yield None
        yield row(3)
        while True:
            yield None

    model = job.model(Batch(rows=10, poll_seconds=0.01))
    for generation in model.generate(feed()):
        seen.append(generation.request_id)
    model.close()
    assert len(seen) == 4 and [len(batch.rows) for batch in server.batches] == [3, 1]


def test_a_row_without_a_json_form_is_an_error_row_and_its_neighbours_go_on(server, job) -> None:
    bad = msgspec.structs.replace(row(0), messages=(Message("user", "lone \ud800 surrogate"),))
    model = job.model(Batch(poll_seconds=0.01))
    got = {g.request_id: g for g in model.generate([bad, row(1)])}
    model.close()
    assert got[bad.id].error_kind is ErrorKind.FINAL
    assert got[row(1).id].finish is Finish.STOP


def test_odd_lines_in_an_output_file_do_no_harm(server, job) -> None:
    foreign = {"custom_id": "../../x", "response": {"status_code": 200, "body": {}}}
    server.junk = [b"", b"{half a line", b'{"no": "id"}', b"\xff\xfe", json.dumps(foreign).encode()]
    wanted = rows(4)
    job.run(wanted)
    assert job.answers() == right(wanted) and set(server.bought.values()) == {1}


# -- small jobs and the mix with online --------------------------------------------------------


def test_a_rest_that_is_too_small_for_a_batch_is_asked_online(server, job) -> None:
    wanted = rows(23)
    job.run(wanted, rows=10, online_below=5)
    assert [len(batch.rows) for batch in server.batches] == [10, 10]
    assert sum(server.chats.values()) == 3
    assert job.answers() == right(wanted)


def test_stragglers_of_a_batch_are_asked_online(server, job) -> None:
    server.ending = "expired"
    server.leaves_out = lambda batch, text: number_in(text) >= 8
    wanted = rows(10)
    job.run(wanted, online_below=3)
    assert len(server.batches) == 1 and sum(server.chats.values()) == 2
    assert job.answers() == right(wanted) and set(server.bought.values()) == {1}


def test_a_run_that_goes_on_online_waits_for_the_batch_it_has_paid_for(server, job, stop) -> None:
    interrupted(server, job, stop, rows(6))
    wanted = rows(10)
    job.run(wanted, online=True)
    assert len(server.batches) == 1 and sum(server.chats.values()) == 4
    assert job.answers() == right(wanted) and set(server.bought.values()) == {1}


# -- stops and restarts ------------------------------------------------------------------------


def interrupted(
    server: FakeBatches, job: Job, stop: Callable[[], None], wanted: list[Request], **batch: Any
) -> str:
    """Run until a signal comes while the batches are in progress; return what was said."""
    looks, server.looks = server.looks, 10**9
    server.hook = lambda event, when: stop() if (event, when) == ("look", "after") else None
    with pytest.raises(Stopped) as caught:
        job.run(wanted, **batch)
    stopping._received.clear()
    server.looks, server.hook = looks, lambda event, when: None
    return str(caught.value)


def test_a_signal_leaves_the_batches_running_and_the_next_start_collects_them(
    server, job, stop
) -> None:
    wanted = rows(20)
    said = interrupted(server, job, stop, wanted, rows=10)
    assert "2, of 20 rows" in said and "distill cancel" in said and "cancel" not in server.events
    assert job.answers() == {} and job.phases() == ["created", "created"]
    job.run(wanted, rows=10)
    assert job.answers() == right(wanted)
    assert len(server.batches) == 2 and server.events.count("upload") == 2


def test_a_signal_before_a_batch_is_made_makes_none(server, job, stop) -> None:
    def feed() -> Iterator[Request]:
        yield from rows(5)
        stop()
        yield row(5)

    with pytest.raises(Stopped):
        job.run(feed(), rows=10)
    assert server.events == [] and job.files() == []


def test_rows_that_a_later_run_does_not_ask_for_are_kept_for_the_one_that_does(
    server, job, stop
) -> None:
    interrupted(server, job, stop, rows(10))
    job.run(rows(4))
    assert len(job.answers()) == 4 and job.phases() == ["ended"]
    server.files.clear()  # the provider keeps them for 30 days only
    job.run(rows(12)[2:])
    assert job.answers() == right(rows(12))
    assert set(server.bought.values()) == {1} and job.phases() == ["collected"] * 2


DRIVER = """
import os, signal, sys
from pathlib import Path
from pipeline.ledger import Ledger
from tests.test_provider_batch import Job, rows

job = Job(Path(sys.argv[2]), sys.argv[1])
stored = Ledger.append
count = 0

def append(*arguments):
    global count
    stored(*arguments)
    count += 1
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

Ledger.append = append
job.run(rows(20), rows=10)
"""


def start_and_be_killed(server: FakeBatches, job: Job, at: tuple[str, str] | int) -> None:
    process: subprocess.Popen[bytes] | None = None

    def kill(event: str, when: str) -> Reply | None:
        if (event, when) != at or process is None:
            return None
        process.kill()
        process.wait()
        return Reply(status=500)  # nobody reads it; "before" has no effect at the provider

    server.hook = kill
    after_rows = str(at) if isinstance(at, int) else "0"
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, server.url, str(job.root), after_rows],
        cwd=Path(__file__).parent.parent,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert process.wait(timeout=60) == -signal.SIGKILL
    server.hook = lambda event, when: None


@pytest.mark.parametrize(
    "at",
    [
        ("upload", "before"),
        ("upload", "after"),
        ("create", "before"),
        ("create", "after"),
        ("look", "before"),
        ("content", "before"),
        ("content", "after"),
        3,
        17,
    ],
    ids=lambda at: "-".join(at) if isinstance(at, tuple) else f"row-{at}",
)
def test_killed_at_any_point_nothing_is_lost_and_nothing_bought_twice(
    server, job, at: tuple[str, str] | int
) -> None:
    start_and_be_killed(server, job, at)
    wanted = rows(20)
    job.run(wanted, rows=10)
    assert job.answers() == right(wanted)
    assert server.bought == Counter({f"question {i}": 1 for i in range(20)})
    assert job.phases() == ["collected"] * 2 and job.files() == [".json"]


@pytest.mark.parametrize(
    ("status", "when"),
    [(429, "before"), *((s, w) for s in (500, 502, 504) for w in ("before", "after"))],
)
def test_a_creation_that_went_unanswered_is_not_repeated_blindly(
    server, job, status: int, when: str
) -> None:
    lost = iter([Reply(status=status)])
    server.hook = lambda event, at: next(lost, None) if (event, at) == ("create", when) else None
    wanted = rows(5)
    job.run(wanted)
    assert job.answers() == right(wanted) and len(server.batches) == 1


def test_outages_while_a_batch_runs_are_waited_out(server, job) -> None:
    troubles = iter([Reply(status=500), Reply(status=503), Reply(body=b"<html>", cut=True)])
    server.hook = lambda event, when: (
        next(troubles, None) if event in ("look", "content") and when == "after" else None
    )
    wanted = rows(5)
    job.run(wanted)
    assert job.answers() == right(wanted) and set(server.bought.values()) == {1}


def test_a_download_that_breaks_off_is_begun_again(server, job) -> None:
    cut = iter([True])

    def hook(event: str, when: str) -> Reply | None:
        if (event, when) == ("content", "before") and next(cut, None):
            return Reply(body=server.files["output-0"], cut=True)
        return None

    server.hook = hook
    wanted = rows(50)
    job.run(wanted)
    assert job.answers() == right(wanted) and server.events.count("content") == 2


def test_a_batch_that_names_no_output_file_yet_is_not_taken_for_an_empty_one(server, job) -> None:
    def hook(event: str, when: str) -> Reply | None:
        if (event, when) == ("look", "after") and server.batches[0].looks == server.looks:
            return Reply(body=server.batches[0].shown() | {"output_file_id": None})
        return None

    server.hook = hook
    wanted = rows(5)
    job.run(wanted)
    assert job.answers() == right(wanted) and len(server.batches) == 1


def test_two_processes_do_not_work_with_batches_of_one_model(job) -> None:
    first, second = (job.model(Batch(poll_seconds=0.01)) for _ in range(2))
    assert next(first.generate(rows(2)))
    with pytest.raises(UserError, match="another"):
        next(second.generate(rows(2)))
    for model in (first, second):
        model.close()


def test_a_batch_at_another_provider_is_not_bought_again_here(server, job, stop) -> None:
    interrupted(server, job, stop, rows(5))
    with FakeBatches() as other:
        moved = Job(job.root, other.url)
        with pytest.raises(UserError, match=server.url):
            moved.run(rows(5))
        assert other.events == []


# -- what ends otherwise than well ---------------------------------------------------------------


def test_of_an_expired_batch_the_finished_rows_stay_and_the_rest_is_asked_again(
    server, job
) -> None:
    server.ending = "expired"
    server.leaves_out = lambda batch, text: batch.number == 0 and number_in(text) % 2 == 1
    wanted = rows(10)
    job.run(wanted)
    assert job.answers() == right(wanted) and set(server.bought.values()) == {1}
    assert [len(batch.rows) for batch in server.batches] == [10, 5]
    assert Counter(g.attempts for g in job.stored()) == {1: 5, 2: 5}


def test_rows_that_always_expire_become_error_rows_that_the_next_run_asks(server, job) -> None:
    server.ending = "expired"
    server.leaves_out = lambda batch, text: number_in(text) == 3
    wanted = rows(6)
    job.run(wanted)
    (bad,) = [g for g in job.stored() if g.finish is Finish.ERROR]
    assert (bad.request_id, bad.error_kind, bad.attempts) == (row(3).id, ErrorKind.TRANSIENT, 3)
    server.leaves_out = lambda batch, text: False
    job.run(wanted)
    assert job.answers() == right(wanted) and set(server.bought.values()) == {1}


def test_a_row_the_provider_will_never_take_is_set_aside(server, job) -> None:
    poison = Reply(status=400, body={"error": {"message": "too\x1b[31m long"}})
    server.row = lambda batch, text: poison if number_in(text) == 3 else None
    job.run(rows(10))
    (bad,) = [g for g in job.stored() if g.finish is Finish.ERROR]
    assert (bad.request_id, bad.error_kind, bad.attempts) == (row(3).id, ErrorKind.FINAL, 1)
    assert bad.error is not None and "400" in bad.error and bad.error.isprintable()
    assert len(job.answers()) == 9 and len(server.batches) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_row_that_met_a_passing_fault_is_asked_again(server, job, status: int) -> None:
    server.row = lambda batch, text: (
        Reply(status=status, body={}) if batch.number == 0 and number_in(text) < 4 else None
    )
    wanted = rows(10)
    job.run(wanted)
    assert job.answers() == right(wanted)
    assert [len(batch.rows) for batch in server.batches] == [10, 4]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Reply(status=401, body={"error": {"message": f"bad key {KEY}"}}), "401"),
        (Reply(status=404, body={"error": {"message": "The model `m` does not exist"}}), "404"),
        (Reply(status=429, body={"error": {"code": "insufficient_quota"}}), "insufficient_quota"),
    ],
    ids=["key", "model", "quota"],
)
def test_a_row_fault_that_no_row_survives_ends_the_run_with_the_answers_stored(
    server, job, fault: Reply, says: str
) -> None:
    server.row = lambda batch, text: fault if number_in(text) == 3 else None
    with pytest.raises(RunFatal, match=says) as caught:
        job.run(rows(10))
    assert KEY not in str(caught.value)
    assert len(job.answers()) == 9


def test_a_run_in_which_most_rows_fail_is_ended(server, job) -> None:
    server.row = lambda batch, text: Reply(status=400, body={"error": {"message": "bad parameter"}})
    with pytest.raises(RunFatal, match="bad parameter"):
        job.run(rows(300), rows=60, at_once=1)
    assert len(server.batches) == 1


def test_a_batch_that_is_refused_as_a_whole_ends_the_run_and_says_why(server, job) -> None:
    server.refuses = lambda batch: [
        {"code": "invalid_json_line", "message": "This line is no JSON.", "line": 17}
    ]
    with pytest.raises(RunFatal) as caught:
        job.run(rows(5))
    assert all(w in str(caught.value) for w in ("batch_0", "line 17", "invalid_json_line", "JSON."))
    assert job.phases() == ["failed"]
    server.refuses = lambda batch: []
    job.run(rows(5))  # after a mend the rows are free again
    assert job.answers() == right(rows(5))


def test_a_full_queue_is_waited_for_with_fewer_batches_at_once(server, job) -> None:
    full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    server.refuses = lambda batch: (
        [full] if sum(b.status in ("validating", "in_progress") for b in server.batches) else []
    )
    wanted = rows(20)
    job.run(wanted, rows=5, at_once=3)
    assert job.answers() == right(wanted) and set(server.bought.values()) == {1}


def test_a_queue_that_stays_full_stops_the_run_for_now(server, job) -> None:
    full = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
    server.refuses = lambda batch: [full]
    with pytest.raises(Stopped, match=r"serving\.batch\.rows"):
        job.run(rows(5))


@pytest.mark.parametrize("status", [401, 403, 404, 400])
def test_a_provider_that_takes_no_files_ends_the_run(server, job, status: int) -> None:
    answer = Reply(status=status, body={"error": {"message": f"no, {KEY}"}})
    server.hook = lambda event, when: answer if when == "before" else None
    with pytest.raises(RunFatal, match=str(status)) as caught:
        job.run(rows(5))
    assert server.url in str(caught.value) and KEY not in str(caught.value)
    assert status not in (401, 403) or "TEACHER_KEY" in str(caught.value)
    assert server.events == ["upload"]


def test_an_endpoint_without_a_batch_api_is_known_before_anything_is_asked(server, job) -> None:
    batch_client.BatchClient(job.serving).check()
    with FakeServer() as plain:  # chat only
        only_chat = msgspec.structs.replace(job.serving, base_url=(plain.url,))
        with pytest.raises(RunFatal, match="batch API"):
            batch_client.BatchClient(only_chat).check()


def test_a_provider_that_was_never_there_ends_the_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(batch_client, "NEVER_REACHED_SECONDS", 0.1)
    with FakeBatches() as gone:
        url = gone.url
    with pytest.raises(RunFatal, match=url):
        Job(tmp_path, url).run(rows(3))


# -- cancelling ----------------------------------------------------------------------------------


def test_a_cancelled_run_keeps_what_was_finished_and_the_next_asks_the_rest(server, job) -> None:
    server.looks = 10**9
    server.leaves_out = lambda batch, text: batch.number == 0 and number_in(text) >= 4

    def hook(event: str, when: str) -> None:
        if (event, when) == ("look", "after") and server.batches[0].looks == 2:
            server.batches[0].status = "cancelling"  # by somebody else

    server.hook = hook
    wanted = rows(10)
    with pytest.raises(Stopped, match="cancelled"):
        job.run(wanted)
    assert len(job.answers()) == 4 and len(server.batches) == 1
    server.looks = 2
    job.run(wanted)
    assert job.answers() == right(wanted) and set(server.bought.values()) == {1}


def test_cancelling_reaches_every_open_batch_and_says_what_it_was(server, job, stop) -> None:
    server.leaves_out = lambda batch, text: batch.number < 2 and number_in(text) % 10 >= 4
    wanted = rows(20)
    interrupted(server, job, stop, wanted, rows=10)
    server.looks = 10**9
    said = [
        (part.batch_id, state.status) for part, state in cancel_open(job.serving, job.root, "m")
    ]
    assert said == [("batch_0", "cancelling"), ("batch_1", "cancelling")]
    server.looks = 2
    job.run(wanted, rows=10)  # typed again: collect what was finished, and go on
    assert job.answers() == right(wanted) and set(server.bought.values()) == {1}
    assert [len(batch.rows) for batch in server.batches] == [10, 10, 10, 2]
    assert list(cancel_open(job.serving, job.root, "m")) == []


def test_a_batch_whose_creation_went_unrecorded_can_be_cancelled(server, job) -> None:
    start_and_be_killed(server, job, ("create", "after"))
    assert job.phases() == ["uploaded"]
    (found,) = cancel_open(job.serving, job.root, "m")
    assert found[1].id == "batch_0" and server.batches[0].status == "cancelling"


# -- secrets, config, commands ---------------------------------------------------------------------


def test_the_key_is_in_no_file_and_in_every_call(server, job, capfd) -> None:
    server.ending = "expired"
    server.row = lambda batch, text: (
        Reply(status=400, body={"error": {"message": f"refused for {KEY}"}})
        if number_in(text) == 0
        else None
    )
    server.hook = lambda event, when: (
        Reply(status=500, body={"error": {"message": f"upset by {KEY}"}})
        if (event, when) == ("look", "after") and server.batches[0].looks == 1
        else None
    )
    job.run(rows(5))
    files = [path for path in job.root.rglob("*") if path.is_file()]
    assert len(files) > 1 and not any(KEY.encode() in path.read_bytes() for path in files)
    captured = capfd.readouterr()
    assert "upset" in captured.err and KEY not in captured.out + captured.err
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}


def test_the_keys_of_other_places_are_not_sent(server, job, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    job.serving = msgspec.structs.replace(job.serving, api_key=None)
    job.run(rows(2))
    assert len(job.answers()) == 2
    assert not any("sk-" in value for headers in server.headers for value in headers.values())


def config(url: str, **serving: Any) -> ModelConfig:
    return ModelConfig.model_validate(
        {"backend": "openai", "model": "m", "serving": {"base_url": url, **serving}}
    )


def test_the_config_decides_which_way_rows_go(server, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = rows(3)
    by_batch = open_model(config(server.url, batch={"rows": 2, "poll_seconds": 0.01}))
    assert len(list(by_batch.generate(wanted))) == 3
    by_batch.close()
    assert len(server.batches) == 2 and not server.chats
    # Nothing was stored, so the answers still lie there for whoever asks, and are not bought again.
    later = open_model(config(server.url))
    assert len(list(later.generate(rows(4)))) == 4
    later.close()
    assert len(server.batches) == 2 and sum(server.chats.values()) == 1


def test_who_wants_an_answer_now_gets_it_online(server, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = open_model(config(server.url, batch={}), online=True)
    assert len(list(model.generate(rows(2)))) == 2
    model.close()
    assert not server.batches


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backend": "vllm", "model": "m", "serving": {"batch": {}}}, "vllm"),
        (
            {"backend": "openai", "model": "m", "serving": {"batch": {}, "base_url": ["a", "b"]}},
            "one base_url",
        ),
    ],
)
def test_a_batch_that_cannot_be_is_a_mistake_in_the_config(settings, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ModelConfig.model_validate(settings)


def test_batch_settings_are_no_part_of_an_identity() -> None:
    assert model_identity(config("http://a/v1", batch={})) == model_identity(config("http://b/v1"))


def test_the_sdk_is_only_loaded_where_batches_are() -> None:
    code = (
        "import sys, pipeline.models, pipeline.models.openai_api, pipeline.models.provider_batch; "
        "sys.exit('openai' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_damaged_record_is_refused_by_name(job, stop, server) -> None:
    interrupted(server, job, stop, rows(3))
    (path,) = (job.folder / "batches").glob("*.json")
    path.write_text(path.read_text()[:20])
    with pytest.raises(UserError, match=path.name):
        job.run(rows(3))


# -- as a user types it ----------------------------------------------------------------------------


@pytest.fixture
def by_batch(tmp_path: Path, server: FakeBatches) -> Project:
    made = make_project(tmp_path, Path("nobody/no-student-is-needed"))
    made.edit(
        teacher={
            "backend": "openai",
            "model": "m",
            "serving": {
                "base_url": server.url,
                "api_key_env": "TEACHER_KEY",
                "batch": {"rows": 20, "poll_seconds": 0.01},
            },
        }
    )
    return made


def test_a_command_that_is_stopped_says_what_goes_on_and_the_next_collects_it(
    server, by_batch, monkeypatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    server.looks = 10**9
    process = by_batch.start("generate", "config.yaml")
    while server.events.count("look") < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 75
    listed = by_batch.call("cancel", "config.yaml")
    assert listed.returncode == 0 and "batch_0 of 20 rows: cancelling" in listed.stdout
    server.looks = 2
    ended = by_batch.call("generate", "config.yaml")
    assert ended.returncode == 0, ended.stderr
    assert len(by_batch.rows("1_generations.jsonl")) == 36
    # All that ran was finished before it could be cancelled, and the samples of a seed differ.
    assert set(server.bought.values()) == {3} and len(server.batches) == 2
    assert "no open batches" in by_batch.call("cancel", "config.yaml").stdout
    written = [path for path in by_batch.folder.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in path.read_bytes() for path in written)
