"""The `openai` backend against a real HTTP server that misbehaves on order."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from pipeline.errors import RunFatal, UserError
from pipeline.models import endpoints, workers
from pipeline.models.openai_api import OpenAIModel, Serving
from pipeline.records import (
    ErrorKind,
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    Usage,
)
from tests.fake_server import Ask, FakeServer, Reply, answer_to

KEY = "sk-very-secret-0123456789"


def row(
    text: str,
    sampling: Sampling | None = None,
    index: int = 0,
    schema: dict[str, Any] | None = None,
) -> Request:
    return Request(
        id=f"id {text} {index}",
        seed_id=text,
        recipe="response",
        prompt=PromptRef("p", "0"),
        messages=(Message("system", "be brief"), Message("user", text)),
        sampling=sampling or Sampling(temperature=0.5, max_tokens=9),
        sample_index=index,
        model="m",
        schema=schema,
    )


def rows(n: int) -> list[Request]:
    return [row(f"question {i}") for i in range(n)]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that the server did not ask for are short; tests/test_limits.py has the real ones."""
    real = workers.backoff
    monkeypatch.setattr(
        workers, "backoff", lambda tries, asked: 0.01 if asked is None else real(tries, asked)
    )


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def connect(server: FakeServer) -> Iterator[Callable[..., OpenAIModel]]:
    opened: list[OpenAIModel] = []

    def make(**options: Any) -> OpenAIModel:
        options.setdefault("base_url", (server.url,))
        options.setdefault("concurrency", 8)
        options.setdefault("timeout", 5.0)
        options.setdefault("api_key", KEY)
        opened.append(OpenAIModel("m", revision=None, serving=Serving(**options)))
        return opened[-1]

    yield make
    for model in opened:
        model.close()


def one(model: OpenAIModel, request: Request | None = None) -> Generation:
    (generation,) = model.generate([request or row("q")])
    return generation


def expected(request: Request) -> str:
    return answer_to([{"role": m.role, "content": m.content} for m in request.messages])


# -- the ordinary way ------------------------------------------------------------------------


def test_every_row_is_asked_once_and_gets_its_own_answer(server, connect) -> None:
    asked = rows(300)
    got = {g.request_id: g for g in connect().generate(iter(asked))}
    assert {r.id: expected(r) for r in asked} == {key: g.text for key, g in got.items()}
    assert set(server.bodies.values()) == {1} and len(server.bodies) == 300
    assert all(g.finish is Finish.STOP and g.usage == Usage(7, 3) for g in got.values())


def test_what_is_in_flight_or_not_dealt_with_yet_is_never_more_than_the_window(
    server, connect
) -> None:
    server.behave = lambda ask: ask.answer(delay=0.005)
    pulled = taken = most = 0

    def feed() -> Iterator[Request]:
        nonlocal pulled, most
        for request in rows(200):
            pulled += 1
            most = max(most, pulled - taken)
            yield request

    for _ in connect(concurrency=4).generate(feed()):
        time.sleep(0.001 * (taken % 7))  # longer than an answer takes: they pile up
        taken += 1
    assert server.most_in_flight == 4
    assert most == 4


def test_answers_come_in_order_of_arrival(server, connect) -> None:
    server.behave = lambda ask: ask.answer(delay=0.3 if ask.text == "question 0" else 0.0)
    got = [g.request_id for g in connect().generate(rows(30))]
    assert got[-1] == "id question 0 0"


def test_when_the_feed_ends_early_what_is_in_flight_is_finished(server, connect) -> None:
    server.behave = lambda ask: ask.answer(delay=0.05)
    stopped = False

    def feed() -> Iterator[Request]:
        for request in rows(1000):
            if stopped:
                return
            yield request

    got = []
    for generation in connect().generate(feed()):
        got.append(generation)
        stopped = True
    assert len(got) == server.requests < 100


def test_an_error_of_the_feed_is_raised_after_the_answers_in_flight(server, connect) -> None:
    def feed() -> Iterator[Request]:
        yield from rows(5)
        raise LookupError("seed file ended badly")

    got = []
    with pytest.raises(LookupError, match="seed file"):
        for generation in connect().generate(feed()):
            got.append(generation)
    assert len(got) == 5


def test_a_caller_that_stops_reading_leaves_the_model_usable(server, connect) -> None:
    model = connect()
    server.behave = lambda ask: ask.answer(delay=0.01)
    for _ in model.generate(rows(100)):
        break
    assert len(list(model.generate(rows(20)))) == 20


def test_a_feed_may_wait_for_answers_before_it_says_more(server, connect) -> None:
    """Two samples for each seed; a third only where both came back 'bad'."""
    server.behave = lambda ask: ask.answer("bad" if "3" in ask.text else "good")
    texts: dict[str, list[str]] = {str(i): [] for i in range(10)}

    def feed() -> Iterator[Request | None]:
        for name in texts:
            yield from (row(name, index=0), row(name, Sampling(seed=1), index=1))
        while any(len(found) < 2 for found in texts.values()):
            yield None
        for name, found in texts.items():
            if found == ["bad", "bad"]:
                yield row(name, Sampling(seed=2), index=2)

    for generation in connect().generate(feed()):
        texts[generation.request_id.split()[1]].append(generation.text)
    assert {name: len(found) for name, found in texts.items() if len(found) != 2} == {"3": 3}


def test_a_feed_that_waits_for_nothing_ends_the_call(server, connect) -> None:
    def feed() -> Iterator[Request | None]:
        yield row("a")
        while True:
            yield None

    assert len(list(connect().generate(feed()))) == 1


# -- what goes over the wire -----------------------------------------------------------------


def test_sampling_goes_out_under_the_openai_names(server, connect) -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=0.9,
        max_tokens=11,
        stop=("\n\n", "END"),
        seed=5,
        logprobs=3,
        min_p=0.1,
        extra_body={"guided": {"x": [1, None]}, "min_tokens": 2},
    )
    one(connect(), row("q", sampling, index=2))
    body = server.asks[0].body
    messages = body.pop("messages")
    assert messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q"},
    ]
    assert body == {
        "model": "m",
        "temperature": 0.0,
        "top_p": 0.9,
        "max_tokens": 11,
        "stop": ["\n\n", "END"],
        "seed": 7,  # samples of one prompt must differ
        "logprobs": True,
        "top_logprobs": 3,
        "min_p": 0.1,
        "guided": {"x": [1, None]},
        "min_tokens": 2,
    }
    assert server.asks[0].headers["Authorization"] == f"Bearer {KEY}"


def test_rows_of_one_call_may_differ_in_their_sampling(server, connect) -> None:
    mixed = [row(f"{i}", Sampling(max_tokens=i % 3 + 1)) for i in range(30)]
    list(connect().generate(mixed))
    assert {a.text: a.body["max_tokens"] for a in server.asks} == {
        f"{i}": i % 3 + 1 for i in range(30)
    }


def test_a_schema_is_asked_for(server, connect) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    one(connect(), row("q", schema=schema))
    wanted = server.asks[0].body["response_format"]
    assert wanted["type"] == "json_schema" and wanted["json_schema"]["schema"] == schema


def test_a_body_that_cannot_be_sent_is_an_error_row_and_its_neighbours_go_on(
    server, connect
) -> None:
    bad = [row("lone \ud800 surrogate"), row("q", Sampling(extra_body={"stream": True}))]
    got = {g.request_id: g for g in connect().generate([*bad, *rows(5)])}
    assert [got[r.id].error_kind for r in bad] == [ErrorKind.FINAL] * 2
    assert len(got) == 7 and server.requests == 5


# -- what comes back -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message", "text", "reasoning"),
    [
        ("four", {"reasoning_content": "2+2"}, "four", "2+2"),
        ("four", {"reasoning": "2+2"}, "four", "2+2"),
        ("<think>2+2</think>\n\nfour", {}, "four", "2+2"),
        ("<think>2+2 is", {}, "", "2+2 is"),
        ("four", {"reasoning_content": None}, "four", None),
    ],
)
def test_reasoning_is_kept_apart(
    server, connect, content: str, message: dict[str, Any], text: str, reasoning: str | None
) -> None:
    server.behave = lambda ask: ask.answer(content, message=message)
    got = one(connect())
    assert (got.text, got.reasoning) == (text, reasoning)


def test_content_in_parts_is_read(server, connect) -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]},
        {"type": "text", "text": "four"},
    ]
    server.behave = lambda ask: ask.answer("", message={"content": parts})
    got = one(connect())
    assert (got.text, got.reasoning) == ("four", "2+2")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", Finish.STOP),
        ("length", Finish.LENGTH),
        ("content_filter", Finish.REFUSED),
        (None, Finish.STOP),
    ],
)
def test_finish_reasons(server, connect, reason: str | None, finish: Finish) -> None:
    server.behave = lambda ask: ask.answer("x", finish=reason)
    assert one(connect()).finish is finish


def test_a_refusal_field_is_a_refusal(server, connect) -> None:
    server.behave = lambda ask: ask.answer(message={"content": None, "refusal": "I will not."})
    got = one(connect())
    assert (got.finish, got.text) == (Finish.REFUSED, "I will not.")


def test_logprobs_are_kept(server, connect) -> None:
    logprobs = {
        "content": [
            {
                "token": "a",
                "logprob": -0.5,
                "bytes": [97],
                "top_logprobs": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}],
            }
        ]
    }
    server.behave = lambda ask: ask.answer("a", choice={"logprobs": logprobs})
    got = one(connect(), row("q", Sampling(logprobs=2)))
    assert got.logprobs is not None
    assert got.logprobs[0].logprob == -0.5
    assert got.logprobs[0].top == (("a", -0.5), ("b", -1.5))


def test_a_missing_usage_is_no_error(server, connect) -> None:
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    server.behave = lambda ask: Reply(body=body)
    got = one(connect())
    assert (got.text, got.usage) == ("x", Usage())


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb"a\ud83d b", "a\ufffd b"),
        (rb"a\ud83d\ude00b", "a\U0001f600b"),
        (rb"a\u0000b", "a\ufffdb"),
        (b"a\xff\xfeb", "a\ufffd\ufffdb"),
        (b"a\x01b", "a\x01b"),
    ],
)
def test_broken_text_does_no_harm(server, connect, raw: bytes, text: str) -> None:
    body = b'{"choices":[{"message":{"content":"' + raw + b'"},"finish_reason":"stop"}]}'
    server.behave = lambda ask: Reply(body=body)
    got = one(connect())
    assert got.text == text
    got.text.encode()


# -- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        *[Reply(status=s) for s in (408, 409, 425, 429, 500, 502, 503, 529)],
        Reply(hang=True),
        Reply(body=b'{"choices": [' + b" " * 99, cut=True),
        Reply(body=b"<html>busy</html>"),
        Reply(body={"choices": []}),
        Reply(body={"error": {"code": 502, "message": "upstream"}}),
    ],
    ids=lambda fault: (
        "hang"
        if fault.hang
        else f"{fault.status} {fault.body[:14]!s}"
        if isinstance(fault.body, bytes)
        else str(fault.body)
    ),
)
def test_a_passing_fault_is_asked_again(server, connect, fault: Reply) -> None:
    server.behave = lambda ask: fault if ask.seen == 1 else ask.answer()
    got = one(connect(timeout=0.3))
    assert (got.finish, got.attempts, got.text) == (Finish.STOP, 2, expected(row("q")))


@pytest.mark.parametrize(
    "header",
    [
        lambda: {"Retry-After": "1"},
        lambda: {"retry-after-ms": "1000", "Retry-After": "30"},
        lambda: {"Retry-After": formatdate(time.time() + 2, usegmt=True)},
    ],
    ids=["seconds", "ms", "date"],
)
def test_retry_after_is_honoured(server, connect, header: Callable[[], dict[str, str]]) -> None:
    times: list[float] = []

    def behave(ask: Ask) -> Reply:
        times.append(time.monotonic())
        return Reply(status=429, headers=header()) if ask.seen == 1 else ask.answer()

    server.behave = behave
    one(connect())
    assert 0.95 <= times[1] - times[0] <= 2.5


def test_a_waiting_row_does_not_hold_up_the_others(server, connect) -> None:
    late = Reply(status=429, headers={"Retry-After": "1"})
    server.behave = lambda ask: late if ask.text == "question 0" and ask.seen == 1 else ask.answer()
    begin, arrived = time.monotonic(), {}
    for generation in connect(concurrency=1).generate(rows(20)):
        arrived[generation.request_id] = time.monotonic() - begin
    assert max(arrived, key=lambda key: arrived[key]) == "id question 0 0"
    assert sorted(arrived.values())[-2] < 0.9


def test_retries_that_run_out_give_an_error_row_to_be_asked_again_later(server, connect) -> None:
    server.behave = lambda ask: Reply(status=500) if ask.text == "question 3" else ask.answer()
    got = {g.request_id: g for g in connect(max_retries=2).generate(rows(10))}
    bad = got.pop("id question 3 0")
    assert (bad.finish, bad.error_kind, bad.attempts) == (Finish.ERROR, ErrorKind.TRANSIENT, 3)
    assert {g.finish for g in got.values()} == {Finish.STOP}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_row_the_server_will_never_take_is_set_aside(server, connect, status: int) -> None:
    poison = Reply(status=status, body={"error": {"message": "too\x1b[31m long\x07 " + "x" * 999}})
    server.behave = lambda ask: poison if ask.text == "question 3" else ask.answer()
    got = {g.request_id: g for g in connect().generate(rows(20))}
    bad = got.pop("id question 3 0")
    assert (bad.finish, bad.error_kind, bad.attempts) == (Finish.ERROR, ErrorKind.FINAL, 1)
    assert bad.error is not None and str(status) in bad.error and "long" in bad.error
    assert bad.error.isprintable() and len(bad.error) <= 500
    assert {g.finish for g in got.values()} == {Finish.STOP} and len(got) == 19


def test_a_text_refused_by_moderation_is_one_row_not_the_run(server, connect) -> None:
    flagged = Reply(status=403, body={"error": {"message": "input was flagged by moderation"}})
    server.behave = lambda ask: flagged if ask.text == "question 3" else ask.answer()
    finishes = [g.finish for g in connect().generate(rows(10))]
    assert sorted(finishes) == [Finish.ERROR] + [Finish.STOP] * 9


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Reply(status=401, body={"error": {"message": f"bad key {KEY}"}}), "401"),
        (Reply(status=403, body={"error": "forbidden"}), "403"),
        (Reply(status=404, body={"error": {"message": "The model `m` does not exist"}}), "404"),
        (Reply(status=402, body={"error": {"message": "no credit"}}), "402"),
        (Reply(status=429, body={"error": {"code": "insufficient_quota"}}), "insufficient_quota"),
        (Reply(status=308, headers={"Location": "http://127.0.0.1:1/v1"}), "308"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value.status),
)
def test_what_no_row_survives_ends_the_run(server, connect, fault: Reply, says: str) -> None:
    server.behave = lambda ask: fault
    model = connect(api_key_env="TEACHER_KEY")
    with pytest.raises(RunFatal) as caught:
        list(model.generate(rows(1000)))
    message = str(caught.value)
    assert says in message and server.url in message
    assert KEY not in message
    assert says not in ("401", "403") or "TEACHER_KEY" in message
    assert server.requests <= 16


def test_answers_in_flight_survive_the_end_of_the_run(server, connect) -> None:
    def behave(ask: Ask) -> Reply:
        fatal = ask.text == "question 5"
        return Reply(status=401, delay=0.02) if fatal else ask.answer(delay=0.2)

    server.behave = behave
    got = []
    with pytest.raises(RunFatal):
        for generation in connect(concurrency=8).generate(rows(100)):
            got.append(generation.finish)
    assert got == [Finish.STOP] * 7


def test_a_wrong_path_ends_the_run(server, connect) -> None:
    model = connect(base_url=(server.url.removesuffix("/v1"),))
    with pytest.raises(RunFatal, match="base_url"):
        list(model.generate(rows(3)))


def test_a_run_in_which_most_rows_fail_is_ended(server, connect) -> None:
    server.behave = lambda ask: Reply(status=400, body={"error": {"message": "bad parameter"}})
    with pytest.raises(RunFatal, match="bad parameter"):
        list(connect().generate(rows(2000)))
    assert server.requests < 200


def test_an_endpoint_that_was_never_there_ends_the_run(monkeypatch, connect) -> None:
    monkeypatch.setattr(endpoints, "NEVER_REACHED_SECONDS", 0.1)
    with FakeServer() as gone:
        url = gone.url
    with pytest.raises(RunFatal, match=url):
        list(connect(base_url=(url,)).generate(rows(30)))


# -- several endpoints -----------------------------------------------------------------------


def test_several_endpoints_share_the_work(server, connect) -> None:
    with FakeServer() as second:
        server.behave = second.behave = lambda ask: ask.answer(delay=0.005)
        got = list(connect(base_url=(server.url, second.url)).generate(rows(200)))
        assert len(got) == 200
        assert server.requests + second.requests == 200
        assert min(server.requests, second.requests) > 40


def test_a_dead_endpoint_is_taken_out_and_comes_back(server, connect) -> None:
    with FakeServer() as dead:
        port, url = dead.port, dead.url
    server.behave = lambda ask: ask.answer(delay=0.01)
    back: FakeServer | None = None
    got = []

    def until_it_is_used():  # how soon it is tried again is a matter of time, not of rows
        for row in rows(20_000):
            if back is not None and back.requests > 30:
                return
            yield row

    both = connect(base_url=(url, server.url), concurrency=4)
    for generation in both.generate(until_it_is_used()):
        got.append(generation)
        if len(got) == 200:
            back = FakeServer(port, latency=0.01).__enter__()
    assert back is not None
    back.__exit__()
    assert {g.finish for g in got} == {Finish.STOP} and len(got) < 20_000
    assert back.requests > 30
    assert sum(g.attempts - 1 for g in got) < 20


def test_an_endpoint_that_restarts_in_the_middle_loses_no_row(server, connect) -> None:
    got = []
    first = FakeServer(latency=0.01).__enter__()
    second: FakeServer | None = None
    for generation in connect(base_url=(first.url,)).generate(rows(300)):
        got.append(generation)
        if len(got) == 100:
            first.__exit__()
            second = FakeServer(first.port, latency=0.01).__enter__()
    assert second is not None
    second.__exit__()
    assert {g.finish for g in got} == {Finish.STOP}
    assert len({g.request_id for g in got}) == 300


# -- ceilings and secrets --------------------------------------------------------------------


def test_requests_per_minute_is_a_ceiling(server, connect) -> None:
    begin = time.monotonic()
    list(connect(requests_per_minute=1200).generate(rows(40)))
    assert time.monotonic() - begin >= 0.9  # 20 at once, 20 at 20 a second


def test_tokens_per_minute_counts_what_answers_took_not_what_they_might_have(
    server, connect
) -> None:
    begin = time.monotonic()
    many = [row(f"{i}", Sampling(max_tokens=500)) for i in range(20)]
    list(connect(tokens_per_minute=60_000, concurrency=1).generate(many))
    assert time.monotonic() - begin < 2.0  # 10 used each; 10,000 tokens by estimate: 10 s


def test_the_key_is_never_shown() -> None:
    serving = Serving(base_url=(f"http://user:{KEY}@host/v1",), api_key=KEY)
    model = OpenAIModel("m", revision=None, serving=serving)
    shown = f"{serving!r} {serving} {list(serving.__rich_repr__())} {model!r}"
    assert KEY not in shown
    with pytest.raises(UserError) as caught:
        OpenAIModel("m", revision=None, serving=Serving(base_url=("x",), api_key=KEY + "\nx"))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://h:port"])
def test_a_url_that_is_none_is_the_users_mistake(url: str) -> None:
    with pytest.raises(UserError, match="base_url"):
        OpenAIModel("m", revision=None, serving=Serving(base_url=(url,)))


def test_the_process_that_talks_to_an_endpoint_loads_no_heavy_package() -> None:
    code = (
        "import sys, json, pipeline.models.openai_api; "
        "print(json.dumps([m for m in ('torch', 'transformers', 'datasets', 'openai', 'vllm', "
        "'pandas', 'scipy') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []
