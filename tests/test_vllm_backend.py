"""The `vllm` backend with a real engine and a tiny model: one engine, started once (slow)."""

from __future__ import annotations

import json
import math
import multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from pipeline.errors import RunFatal, UserError
from pipeline.models.vllm_engine import VLLMModel, VLLMServing
from pipeline.records import (
    OPEN_USER,
    ErrorKind,
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    digest,
)
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.slow
pytest.importorskip("vllm")

GREEDY = Sampling(temperature=0.0, max_tokens=12)
LENGTH = 256  # the engine's longest row, in tokens


def row(
    text: str,
    sampling: Sampling = GREEDY,
    index: int = 0,
    schema: dict[str, Any] | None = None,
) -> Request:
    return Request(
        id=digest([text, sampling, index]),
        seed_id=text,
        recipe="response",
        prompt=PromptRef("p", "0"),
        messages=(Message("user", text),),
        sampling=sampling,
        sample_index=index,
        model="tiny",
        schema=schema,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), hidden=64)


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[VLLMModel]:
    engine = {
        "max_model_len": LENGTH,
        "dtype": "float32",
        "enforce_eager": True,
        "gpu_memory_utilization": 0.3,
    }
    opened = VLLMModel(
        str(folder), revision=None, serving=VLLMServing(engine=engine, concurrency=4)
    )
    yield opened
    opened.close()
    left = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    assert not [line for line in left if "resource_tracker" not in " ".join(line)]


def ask(model: VLLMModel, *requests: Request) -> list[Generation]:
    got = {g.request_id: g for g in model.generate(iter(requests))}
    return [got[request.id] for request in requests]


def test_greedy_answers_are_those_of_transformers(model: VLLMModel, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    requests = [row(f"question {i}") for i in range(6)]
    for request, got in zip(requests, ask(model, *requests), strict=True):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": request.messages[0].content}],
            tokenize=False,
            add_generation_prompt=True,
        )
        prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        out = reference.generate(**prompt, max_new_tokens=12, do_sample=False)
        new = out[0, prompt["input_ids"].shape[1] :]
        assert got.text == tokenizer.decode(new, skip_special_tokens=True)
        assert got.usage.input == prompt["input_ids"].shape[1]
        assert got.finish is (Finish.LENGTH if len(new) == 12 else Finish.STOP)


def test_the_engine_goes_on_with_the_users_turn(model: VLLMModel, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    opened = msgspec.structs.replace(row("Tell"), messages=(Message(OPEN_USER, "Tell"),))
    (got,) = ask(model, opened)
    prompt = tokenizer("<|im_start|>user\nTell", add_special_tokens=False, return_tensors="pt")
    out = reference.generate(**prompt, max_new_tokens=12, do_sample=False)
    new = out[0, prompt["input_ids"].shape[1] :]
    assert got.text == tokenizer.decode(new, skip_special_tokens=True)
    assert got.usage.input == prompt["input_ids"].shape[1]


def test_a_sampled_row_is_repeatable_and_samples_differ(model: VLLMModel) -> None:
    sampling = Sampling(temperature=1.0, max_tokens=12)
    rows = [row("q", sampling, index) for index in range(4)]
    first, second = ask(model, *rows), ask(model, *reversed(rows))
    assert [g.text for g in first] == [g.text for g in reversed(second)]
    assert len({g.text for g in first}) == 4
    seeded = [row("q", Sampling(temperature=1.0, max_tokens=12, seed=1), i) for i in range(4)]
    assert len({g.text for g in ask(model, *seeded)}) == 4


def test_logprobs(model: VLLMModel) -> None:
    sampling = Sampling(temperature=0.0, max_tokens=6, logprobs=3)
    (got,) = ask(model, row("q", sampling))
    assert got.logprobs is not None and len(got.logprobs) == got.usage.output
    for position in got.logprobs:
        assert len(position.top) == 3
        assert position.logprob == max(value for _, value in position.top)
        assert sum(math.exp(value) for _, value in position.top) <= 1
    (got,) = ask(model, row("q", Sampling(max_tokens=6, logprobs=0)))
    assert got.logprobs is not None and {p.top for p in got.logprobs} == {()}


def test_a_schema_is_enforced(model: VLLMModel) -> None:
    schema = {"type": "string", "enum": ["yes", "no"]}
    (got,) = ask(model, row("q", Sampling(max_tokens=64), schema=schema))
    assert json.loads(got.text) in ("yes", "no")


def test_a_row_that_cannot_be_asked_leaves_its_neighbours_alone(model: VLLMModel) -> None:
    long, odd = row("x" * 2 * LENGTH), row("q", Sampling(extra_body={"bogus": 1}))
    fine = [row(f"{i}") for i in range(6)]
    got = ask(model, fine[0], long, odd, *fine[1:])
    assert [g.error_kind for g in got[1:3]] == [ErrorKind.FINAL] * 2
    assert "bogus" in (got[2].error or "")
    assert all(g.finish is not Finish.ERROR for g in [got[0], *got[3:]])


def test_rows_are_pulled_lazily_and_answers_come_as_they_arrive(model: VLLMModel) -> None:
    pulled = taken = most = 0

    def feed() -> Iterator[Request]:
        nonlocal pulled, most
        for i in range(40):
            pulled += 1
            most = max(most, pulled - taken)
            limit = 200 if i == 0 else 4
            yield row(f"{i}", Sampling(temperature=1.0, max_tokens=limit, extra_body=_ENDLESS))

    order = []
    for generation in model.generate(feed()):
        taken += 1
        order.append(generation.usage.output)
    assert order[-1] == 200 and order[:-1] == [4] * 39
    assert most < 40


_ENDLESS = {"ignore_eos": True}


def test_an_unknown_engine_option_is_the_users_mistake(folder: Path) -> None:
    serving = VLLMServing(engine={"gpu_memory_utilisation": 0.5})
    with pytest.raises(UserError, match="gpu_memory_utilization"):
        list(VLLMModel(str(folder), revision=None, serving=serving).generate([row("q")]))


def test_signals_to_the_whole_group_leave_the_engine_alive(model: VLLMModel) -> None:
    for child in psutil.Process().children(recursive=True):
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            child.send_signal(number)
    assert ask(model, row("still there"))[0].finish is not Finish.ERROR


def test_a_dead_engine_ends_the_run_after_the_answers_that_had_arrived(model: VLLMModel) -> None:
    """Last, for it uses the engine up."""
    endless = Sampling(max_tokens=200, extra_body=_ENDLESS)
    requests = [row(f"{i}", Sampling(max_tokens=4)) for i in range(4)]
    requests += [row(f"{i}", endless) for i in range(200)]
    got = []
    with pytest.raises(RunFatal, match="engine"):
        for generation in model.generate(requests):
            got.append(generation)
            if len(got) == 4:
                for child in multiprocessing.active_children():
                    child.kill()
    assert len(got) >= 4 and all(g.finish is not Finish.ERROR for g in got)
    with pytest.raises(RunFatal):
        list(model.generate([row("again")]))
