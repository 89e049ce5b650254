"""The bytes of an OpenAI-compatible chat completion: a `Request` out, a `Generation` in.

Only what is used is decoded, into typed structs; unknown fields are skipped, not built.
Servers disagree about nearly everything beside `choices[0].message.content`, so every field is
optional and the odd forms that are in use are listed where they are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from pipeline.models.open_turn import is_open
from pipeline.models.reasoning import split_reasoning
from pipeline.records import Finish, Generation, Request, Sampling, TokenLogprob, Usage

# Setting these would change the shape of the answer, or what was asked, behind the ledger's back.
RESERVED = ("messages", "stream", "n", "model")

_FINISH = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "max_tokens": Finish.LENGTH,
    "content_filter": Finish.REFUSED,
}


class BadRequest(Exception):
    """The row cannot be asked at all."""


class BadAnswer(Exception):
    """A 200 that holds no answer; worth asking again."""


class Part(msgspec.Struct):
    """Content as a list of parts (Mistral's reasoning models)."""

    type: str = "text"
    text: str | None = None
    thinking: str | list[dict[str, Any]] | None = None


class ChatMessage(msgspec.Struct):
    content: str | list[Part] | None = None
    reasoning_content: str | None = None  # DeepSeek, SGLang, older vLLM
    reasoning: str | None = None  # vLLM, OpenRouter
    refusal: str | None = None


class WireTop(msgspec.Struct):
    token: str
    logprob: float


class WireLogprob(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[WireTop] | None = None


class WireLogprobs(msgspec.Struct):
    content: list[WireLogprob] | None = None


class Choice(msgspec.Struct):
    message: ChatMessage | None = None
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None


class WireUsage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(msgspec.Struct):
    choices: list[Choice] | None = None
    usage: WireUsage | None = None
    error: Any = None  # some gateways answer 200 with an error in it


_decoder = msgspec.json.Decoder(Completion)
_encoder = msgspec.json.Encoder()


class ChatEncoder:
    """Encodes request bodies; the part that rows share is encoded once, not once a row."""

    def __init__(self, model: str, seed_of: Callable[[Request], int | None] | None = None) -> None:
        """`seed_of`: the seed of a request whose sampling names none."""
        self.model = model
        self._seed_of = seed_of
        self._sampling: Sampling | None = None
        self._head = b""

    def encode(self, request: Request) -> bytes:
        """The JSON body; raises `BadRequest` for text that has no UTF-8 form."""
        if is_open(request.messages):
            raise BadRequest("a chat endpoint writes no user's turn; it adds the template itself")
        sampling = request.sampling
        if sampling is not self._sampling and sampling != self._sampling:
            self._head = _encoder.encode(sampling_fields(self.model, sampling))[:-1]
            self._sampling = sampling
        body = self._head
        if sampling.seed is not None:
            # one seed for all samples of a prompt would return the same answer n times
            body += b',"seed":%d' % (sampling.seed + request.sample_index)
        elif self._seed_of is not None and (seed := self._seed_of(request)) is not None:
            body += b',"seed":%d' % seed
        try:
            if request.schema is not None:
                body += b',"response_format":' + _encoder.encode(json_schema(request.schema))
            return body + b',"messages":' + _encoder.encode(request.messages) + b"}"
        except UnicodeEncodeError as error:
            raise BadRequest(f"the messages hold a lone surrogate: {error.reason}") from error


def sampling_fields(model: str, sampling: Sampling) -> dict[str, Any]:
    """The body without messages, seed and schema.

    temperature and top_p are always sent: a server's own defaults would otherwise decide.
    """
    for name in RESERVED:
        if name in sampling.extra_body:
            raise BadRequest(f"sampling.extra_body must not set {name!r}")
    fields: dict[str, Any] = {
        "model": model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.stop:
        fields["stop"] = sampling.stop
    if sampling.logprobs is not None:
        fields["logprobs"] = True
        if sampling.logprobs:
            fields["top_logprobs"] = sampling.logprobs
    for name in (
        "frequency_penalty",
        "presence_penalty",
        "top_k",
        "min_p",
        "repetition_penalty",
    ):  # the last three are extensions (vLLM, SGLang, others)
        value = getattr(sampling, name)
        if value is not None:
            fields[name] = value
    if "max_completion_tokens" in sampling.extra_body:
        del fields["max_tokens"]  # OpenAI's reasoning models refuse to see both
    return fields | sampling.extra_body


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


def decode(body: bytes) -> Completion:
    """Decode an answer; raises `BadAnswer` when it is no JSON of that shape."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:  # invalid UTF-8, lone surrogates and raw control characters: slower, but they pass
        loose = json.loads(body.decode("utf-8", "replace"), strict=False)
        return msgspec.convert(_without_surrogates(loose), Completion)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"the answer is not a chat completion: {error}") from error


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _without_surrogates(item) for key, item in value.items()}
    return value


def to_generation(
    request: Request, completion: Completion, attempts: int, seconds: float
) -> Generation:
    """The record of one answer; raises `BadAnswer` when there is none in it."""
    if not completion.choices or completion.choices[0].message is None:
        raise BadAnswer("the answer has no choices")
    choice = completion.choices[0]
    message = choice.message
    assert message is not None
    finish = _FINISH.get(choice.finish_reason or "stop", Finish.STOP)
    if choice.finish_reason in ("error", "abort"):
        raise BadAnswer(f"the server ended the answer with finish_reason {choice.finish_reason!r}")
    text, reasoning = _content(message)
    if message.refusal:
        finish, text = Finish.REFUSED, text or message.refusal
    usage = completion.usage or WireUsage()
    return Generation(
        request_id=request.id,
        text=_clean(text),
        finish=finish,
        usage=Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0),
        reasoning=None if reasoning is None else _clean(reasoning),
        logprobs=_logprobs(choice.logprobs) if request.sampling.logprobs is not None else None,
        attempts=attempts,
        seconds=round(seconds, 4),
    )


def _content(message: ChatMessage) -> tuple[str, str | None]:
    """Text and reasoning, from whichever of the four places the server put the reasoning in."""
    reasoning = message.reasoning_content or message.reasoning
    content = message.content
    if isinstance(content, list):
        thoughts = [_thinking(part) for part in content if part.thinking]
        reasoning = reasoning or "".join(thoughts) or None
        content = "".join(part.text or "" for part in content if not part.thinking)
    text, tagged = split_reasoning(content or "")
    if reasoning is None or not tagged:
        return text, tagged if reasoning is None else reasoning
    return text, f"{reasoning}\n{tagged}"


def _thinking(part: Part) -> str:
    if isinstance(part.thinking, str):
        return part.thinking
    return "".join(str(piece.get("text") or "") for piece in part.thinking or ())


def _logprobs(wire: WireLogprobs | None) -> tuple[TokenLogprob, ...] | None:
    if wire is None or wire.content is None:
        return None
    return tuple(
        TokenLogprob(
            _clean(item.token),
            item.logprob,
            tuple((_clean(top.token), top.logprob) for top in item.top_logprobs or ()),
        )
        for item in wire.content
    )


def _clean(text: str) -> str:
    """NUL is legal JSON, and breaks terminals and column stores further down."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text
