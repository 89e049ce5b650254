"""An arm as a model of lm-evaluation-harness: what it generates comes through the one door.

Only to be imported where the extra `lm-eval` is installed (`harness.require`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.records import (
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    request_id,
)
from pipeline.stage3_evaluate.harness_tasks import SAMPLING

MAX_TOKENS = 256  # where a task does not say; the default of lm-eval's own models
MOST_STOPS = 4  # that the API of OpenAI takes

Asked = Callable[[Sequence[Request]], Mapping[str, Generation]]


class Reply(str):
    """A text that remembers how it ended: lm-eval hands on nothing but text.

    lm-eval casts a target that is no text, a number say, to the type of the answer: `Reply(7)`.
    """

    finish: Finish

    def __new__(cls, text: object, finish: Finish = Finish.STOP) -> Reply:
        made = super().__new__(cls, text)
        made.finish = finish
        return made


class Arm(LM):  # type: ignore[misc]
    """One arm. A prompt travels through lm-eval as the JSON of its messages.

    `asked` puts requests to the arm's model by way of the ledger. `again`: for the arm that is
    asked everything a second time, so that its requests are others.
    """

    def __init__(self, chosen: ModelConfig, model: str, asked: Asked, *, again: bool) -> None:
        super().__init__()
        self._chosen = chosen
        self._model = model
        self._asked = asked
        self._again = again

    @property
    def tokenizer_name(self) -> str:
        return self._model

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        if not add_generation_prompt:
            raise UserError(
                "lm-eval: a task begins the answer for the model (gen_prefix), which a chat model "
                "cannot be asked for; leave that task out"
            )
        return msgspec.json.encode(chat_history).decode()

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """One text for each request, in their order; requests that are the same are samples."""
        times: Counter[str] = Counter()
        made = []
        for instance in requests:
            context, settings = instance.args
            same = msgspec.json.encode([context, settings]).decode()
            made.append(self._request(instance, times[same]))
            times[same] += 1
        answers = self._asked(made)
        return [_cut(answers[one.id], one.sampling.stop) for one in made]

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        from pipeline.stage3_evaluate.given_texts import open_scorer

        with open_scorer(self._chosen) as (scorer, tokenizer):
            found: list[tuple[float, bool]] = scorer.loglikelihood(
                [_rendered(one, tokenizer) for one in requests]
            )
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        from pipeline.stage3_evaluate.given_texts import open_scorer

        with open_scorer(self._chosen) as (scorer, _):
            found: list[float] = scorer.loglikelihood_rolling(requests)
        return found

    def _request(self, instance: Any, number: int) -> Request:
        context, settings = instance.args
        messages = msgspec.json.decode(context, type=tuple[Message, ...])
        sampling = sampling_of(settings, str(instance.task_name), self._chosen.backend)
        # The second asking of a task that takes several samples begins behind the first one's.
        sample = number + (int(instance.repeats) if self._again else 0)
        return Request(
            id=request_id(self._model, messages, sampling, sample),
            seed_id=f"{instance.task_name}/{instance.doc_id}",
            recipe="evaluate/lm-eval",
            prompt=PromptRef(f"lm-eval:{instance.task_name}", ""),
            messages=messages,
            sampling=sampling,
            sample_index=sample,
            model=self._model,
        )


def _rendered(instance: Any, tokenizer: Any) -> Any:
    """A request whose context is messages, as text in the model's chat template."""
    from pipeline.models.open_turn import render_chat

    context, continuation = instance.args
    messages = msgspec.json.decode(context, type=tuple[Message, ...])
    text = render_chat(tokenizer, messages).text
    return dataclasses.replace(instance, arguments=(text, continuation))


def sampling_of(settings: Mapping[str, Any], task: str, backend: str) -> Sampling:
    """A task's generation_kwargs as our decoding; a setting without its like is a `UserError`."""
    known: dict[str, Any] = dict(normalize_gen_kwargs(dict(settings), MAX_TOKENS))
    sampled, temperature = known.pop("do_sample"), known.pop("temperature", None)
    stops = tuple(str(stop) for stop in known.pop("until") if stop)
    found: dict[str, Any] = {"max_tokens": known.pop("max_gen_toks")}
    found["temperature"] = temperature if sampled and temperature is not None else 0.0
    found |= {name: known.pop(name) for name in SAMPLING if name in known}
    if known:
        raise UserError(
            f"lm-eval task {task}: its generation_kwargs have {', '.join(sorted(known))}, which is "
            "not known here; known: until, max_gen_toks, do_sample, temperature, "
            f"{', '.join(SAMPLING)}"
        )
    found["stop"] = stops[:MOST_STOPS] if backend == "openai" else stops
    return msgspec.convert(found, Sampling)


def _cut(answer: Generation, stops: Sequence[str]) -> Reply:
    """The text up to the first stop. A row that failed for good is an empty answer."""
    text = answer.text
    for stop in stops:
        text = text.split(stop)[0]
    return Reply(text, answer.finish)
