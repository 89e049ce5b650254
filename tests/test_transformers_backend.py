"""The embedded backend, on a real (tiny) model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ModelConfig, Serving
from pipeline.errors import UserError
from pipeline.models import Model, open_model
from pipeline.models.transformers_local import TransformersModel, refuse_unsupported
from pipeline.records import (
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    request_id,
)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Iterator[Model]:
    opened = open_model(
        ModelConfig(backend="transformers", model=str(tiny_model), serving=Serving(batch_size=4))
    )
    yield opened
    opened.close()


def ask(text: str, sampling: Sampling, index: int = 0, system: str | None = None) -> Request:
    messages = (*([Message("system", system)] if system else []), Message("user", text))
    key = request_id("tiny", messages, sampling, index)
    return Request(key, "s", "r", PromptRef("p", "h"), tuple(messages), sampling, index, "tiny")


def texts(model: Model, requests: list[Request]) -> dict[str, str]:
    return {g.request_id: g.text for g in model.generate(requests)}


def reference(tiny_model: Path, request: Request) -> str:
    """Greedy decoding by transformers' own generate, one row at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    messages = [{"role": m.role, "content": m.content} for m in request.messages]
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = plain.generate(**ids, max_new_tokens=request.sampling.max_tokens, do_sample=False)
    return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


def test_batched_greedy_answers_equal_transformers_own_generate(
    model: Model, tiny_model: Path
) -> None:
    greedy = Sampling(temperature=0.0, max_tokens=12)
    # Different lengths (padding), a shared system text (prefix reuse), more rows than a batch.
    asked = [
        ask("word " * n, greedy, system="Be brief and kind to everyone.") for n in range(1, 10)
    ]
    got = texts(model, asked)
    assert [got[r.id] for r in asked] == [reference(tiny_model, r) for r in asked]


def test_a_sampled_answer_does_not_depend_on_its_neighbours(model: Model) -> None:
    warm = Sampling(temperature=1.0, top_p=0.9, max_tokens=10)
    asked = [ask(f"question {i}", warm) for i in range(8)]
    together = texts(model, asked)
    alone = {k: v for r in asked for k, v in texts(model, [r]).items()}
    assert together == alone
    assert len(set(together.values())) > 1


def test_samples_differ_by_index_and_by_seed(model: Model) -> None:
    warm = Sampling(temperature=1.0, max_tokens=10)
    seeded = Sampling(temperature=1.0, max_tokens=10, seed=5)
    found = texts(model, [ask("hello", warm, 0), ask("hello", warm, 1), ask("hello", seeded, 0)])
    assert len(set(found.values())) == 3


def test_a_tiny_nucleus_is_greedy(model: Model) -> None:
    nucleus = ask("hello", Sampling(temperature=1.0, top_p=1e-6, max_tokens=8))
    first = ask("hello", Sampling(temperature=1.0, top_k=1, max_tokens=8))
    greedy = ask("hello", Sampling(temperature=0.0, max_tokens=8))
    assert len(set(texts(model, [nucleus, first, greedy]).values())) == 1


def test_sampling_follows_the_models_own_distribution(model: Model) -> None:
    from collections import Counter

    one = Sampling(temperature=0.7, max_tokens=1, logprobs=5)
    drawn = list(model.generate([ask("hi", one, i) for i in range(400)]))
    counts = Counter(g.logprobs[0].token for g in drawn if g.logprobs)
    top = drawn[0].logprobs[0].top  # type: ignore[index]
    # Temperature 0.7 sharpens p to p^(1/0.7); ratios of two tokens need no normalisation.
    import math

    (first, a), (fifth, b) = top[0], top[4]
    expected = math.exp((a - b) / 0.7)
    assert counts[first] + counts[fifth] > 0
    ratio = (counts[first] + 0.5) / (counts[fifth] + 0.5)
    assert expected / 4 < ratio < expected * 4


@pytest.mark.parametrize("temperature", [None, 3.0])
def test_logprobs_are_those_of_the_model(
    model: Model, tiny_model: Path, temperature: float | None
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    sampling = Sampling(0.0, max_tokens=3, logprobs=4, logprobs_temperature=temperature)
    (got,) = model.generate([ask("hello", sampling)])
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )["input_ids"]
    with torch.no_grad():
        right = (plain(ids).logits[0, -1] / (temperature or 1.0)).log_softmax(-1)
    assert got.logprobs is not None
    first = got.logprobs[0]
    assert first.logprob == pytest.approx(float(right.max()), abs=1e-4)
    assert [p for _, p in first.top] == pytest.approx(right.topk(4).values.tolist(), abs=1e-4)


def test_a_stop_string_ends_the_answer_before_itself(model: Model) -> None:
    free = ask("hello", Sampling(temperature=0.0, max_tokens=20))
    (whole,) = model.generate([free])
    stop = whole.text[4:6]
    cut = ask("hello", Sampling(temperature=0.0, max_tokens=20, stop=(stop,)))
    (got,) = model.generate([cut])
    assert got.text == whole.text[: whole.text.index(stop)]
    assert got.finish is Finish.STOP


def test_a_cut_off_answer_says_so(model: Model) -> None:
    (got,) = model.generate([ask("hello", Sampling(temperature=0.0, max_tokens=3))])
    assert (got.finish, got.usage.output) == (Finish.LENGTH, 3)


def test_a_prompt_beyond_the_context_is_an_error_row_and_its_neighbours_go_on(
    model: Model,
) -> None:
    sampling = Sampling(temperature=0.0, max_tokens=3)
    got = {
        g.request_id: g for g in model.generate([ask("x" * 5000, sampling), ask("hello", sampling)])
    }
    assert sorted(g.finish for g in got.values()) == [Finish.ERROR, Finish.LENGTH]


@pytest.mark.parametrize(
    "rows, expected",
    [
        ({8: 5, 3: 6, 20: 1}, [[3] * 6, [8] * 5, [20]]),  # answers of one length together
        ({8: 17}, [[8] * 16, [8]]),
        ({3: 2, 8: 1, 20: 3}, [[3, 3, 8, 20, 20, 20]]),  # not one by one
    ],
)
def test_batches_are_of_one_kind_unless_they_were_very_small(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: dict[int, int],
    expected: list[list[int]],
) -> None:
    opened = open_model(
        ModelConfig(backend="transformers", model=str(tiny_model), serving=Serving(batch_size=16))
    )
    assert isinstance(opened, TransformersModel)
    seen: list[list[int]] = []
    decode = opened._decode

    def noted(batch: list[Any]) -> Iterator[Generation]:
        seen.append([row.request.sampling.max_tokens for row in batch])
        return decode(batch)

    monkeypatch.setattr(opened, "_decode", noted)
    asked = [
        ask(f"hello {number}", Sampling(temperature=0.0, max_tokens=most))
        for most, times in rows.items()
        for number in range(times)
    ]
    assert len(list(opened.generate(asked))) == len(asked)
    assert seen == expected
    opened.close()


def test_a_setting_that_would_do_nothing_is_refused(model: Model) -> None:
    with pytest.raises(UserError, match="frequency_penalty"):
        list(model.generate([ask("hello", Sampling(frequency_penalty=0.5))]))


def test_requests_are_pulled_lazily(model: Model) -> None:
    pulled = 0

    def endless() -> Iterator[Request]:
        nonlocal pulled
        while True:
            pulled += 1
            yield ask(f"question {pulled}", Sampling(temperature=0.0, max_tokens=1))

    answers = model.generate(endless())
    for _ in range(10):
        next(answers)
    assert pulled <= 100


def test_a_model_that_wants_to_run_its_own_code_is_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    import json
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "strange")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="trust_remote_code"):
        open_model(ModelConfig(backend="transformers", model=str(folder)))


def test_arguments_of_the_chat_template_reach_it_and_nothing_else_of_extra_body_does(
    tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "thinks"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template += "{% if enable_thinking is false %}no thoughts{% endif %}"
    tokenizer.save_pretrained(folder)
    thinks = open_model(ModelConfig(backend="transformers", model=str(folder), serving=Serving()))
    plain = ask("hello", Sampling(temperature=0.0, max_tokens=2))
    quiet = {"chat_template_kwargs": {"enable_thinking": False}}
    short = ask("hello", Sampling(temperature=0.0, max_tokens=2, extra_body=quiet))
    tokens = {g.request_id: g.usage.input for g in thinks.generate([plain, short])}
    thinks.close()
    assert tokens[short.id] == tokens[plain.id] + len(tokenizer("no thoughts")["input_ids"])
    with pytest.raises(UserError, match=r"cannot honour extra_body\.min_tokens"):
        refuse_unsupported(Sampling(extra_body={"min_tokens": 2, **quiet}), None, "task")
