"""The parts of a config that say which model answers, and how: teachers, student, serving."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.records import Sampling

Backend = Literal["openai", "vllm", "transformers", "fake"]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def unknown_key(seen: str, allowed: Sequence[str]) -> str:
    """The message about a key that is none of `allowed`."""
    close = difflib.get_close_matches(seen, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key {seen!r}; {hint}allowed: {', '.join(sorted(allowed))}"


CONCURRENCY = 64  # requests in flight at an endpoint, where the config names no number


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _check_sampling(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if key not in Sampling.__struct_fields__:
            raise ValueError(unknown_key(key, Sampling.__struct_fields__))
    try:
        msgspec.convert(value, Sampling)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    for key, (fine, allowed) in _RANGES.items():
        seen = value.get(key)
        if seen is not None and not fine(seen):
            raise ValueError(f"{key} is {allowed}; seen: {seen!r}")
    return value


# Comparisons that a NaN fails.
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (lambda x: 0 <= x < math.inf, "a number from 0 (always the likeliest token)"),
    "top_p": (lambda x: 0 < x <= 1, "a number above 0 and up to 1 (1: all tokens)"),
    "max_tokens": (lambda x: x >= 1, "a whole number from 1"),
    "logprobs": (lambda x: x >= 0, "a whole number from 0 (0: of the sampled token only)"),
    "logprobs_temperature": (lambda x: 0 < x < math.inf, "a number above 0"),
    "top_k": (lambda x: x >= 1 or x == -1, "a whole number from 1, or -1 for all tokens"),
}

SamplingDict = Annotated[dict[str, Any], AfterValidator(_check_sampling)]


class Price(Strict):
    """USD per million tokens."""

    input: float = 0.0
    output: float = 0.0


class Batch(Strict):
    """How a job goes through a provider's batch API (docs/teachers.md)."""

    rows: int = Field(50_000, ge=1)  # a batch at most; OpenAI takes 50,000
    megabytes: float = Field(100.0, gt=0)  # of its input file, at most; OpenAI takes 200
    at_once: int = Field(10, ge=1)  # batches that are open at a time
    poll_seconds: float = Field(30.0, gt=0)
    window: str = "24h"  # in which the provider promises to be done
    online_below: int = Field(0, ge=0)  # a batch of fewer rows is asked online instead


class Serving(Strict):
    """Where a model runs and how hard it is driven; never part of an identity."""

    base_url: str | list[str] | None = None
    api_key_env: str | None = None
    # None: 64 at an endpoint, and the engine's own size with vllm (also in a saved config).
    concurrency: int | None = Field(None, ge=1)
    timeout: float = Field(120.0, gt=0)
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    max_retries: int = Field(6, ge=0)
    batch_size: int = Field(64, ge=1)  # transformers backend
    device: str | None = None  # transformers backend; default: cuda when there is one
    trust_remote_code: bool = False
    engine: dict[str, Any] = {}  # vllm: any field of AsyncEngineArgs
    script: str | None = None  # fake backend: a Python file with `answer(request) -> str`
    batch: Batch | None = None  # openai backend: through the provider's batch API

    @property
    def endpoint_concurrency(self) -> int:
        """Requests in flight at an endpoint."""
        return CONCURRENCY if self.concurrency is None else self.concurrency

    # Messages about these two never show what was seen: it may be a password or a key. (At a
    # field's own validator the value would be shown; the whole table is not.)
    @model_validator(mode="after")
    def _no_secrets(self) -> Serving:
        urls = [self.base_url] if isinstance(self.base_url, str) else self.base_url or []
        if any("@" in url.rpartition("://")[2].partition("/")[0] for url in urls):
            raise ValueError(
                "base_url: holds a user name or a password, which the saved config would hold "
                "too; take it out, and name the environment variable of a key in api_key_env"
            )
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            raise ValueError(
                "api_key_env: is not the name of an environment variable (letters, digits and _, "
                "as in OPENAI_API_KEY); if it is the key itself, type `export OPENAI_API_KEY=...` "
                "with it, and write api_key_env: OPENAI_API_KEY here"
            )
        return self

    @model_validator(mode="after")
    def _one_provider(self) -> Serving:
        if self.batch is not None and isinstance(self.base_url, list) and len(self.base_url) != 1:
            raise ValueError("batch: a batch lives at one provider; give one base_url")
        return self


def _check_batch(backend: str, serving: Serving) -> None:
    if serving.batch is not None and backend != "openai":
        raise ValueError(
            f"serving.batch is for the backend openai; {backend} has no batch API, and fills its "
            "own batches"
        )


class ModelConfig(Strict):
    backend: Backend
    model: str
    revision: str | None = None
    serving: Serving = Serving()

    @model_validator(mode="after")
    def _batch_has_a_provider(self) -> ModelConfig:
        _check_batch(self.backend, self.serving)
        return self


class Teacher(ModelConfig):
    sampling: SamplingDict = {}
    price: Price = Price()


def logprobs_problem(teacher: Teacher, sampling: Sampling) -> str | None:
    """Why a teacher cannot give log-probabilities at the temperature that is asked, or None.

    vLLM has one mode for the whole engine: before its sampling settings, or after them.
    """
    wanted = sampling.logprobs_temperature
    mode = str(teacher.serving.engine.get("logprobs_mode", "raw_logprobs"))
    processed = teacher.backend == "vllm" and mode == "processed_logprobs"
    cut = sampling.top_p != 1 or sampling.top_k not in (None, -1) or bool(sampling.min_p)
    bent = sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty
    if wanted is None or wanted == 1:
        if processed and sampling.logprobs is not None:
            if sampling.temperature != 1:
                return (
                    f"the engine's logprobs_mode {mode} gives them at the sampling temperature; "
                    f"write logprobs_temperature: {sampling.temperature:g}, or take raw_logprobs"
                )
            if cut or bent:
                return (
                    f"the engine's logprobs_mode {mode} gives them after top_p, top_k, min_p and "
                    "penalties; leave these out, or take raw_logprobs"
                )
        return None
    if teacher.backend == "transformers":
        return None
    if teacher.backend != "vllm":
        return (
            f"the backend {teacher.backend} gives them at 1 only; vllm and transformers can give "
            "them at another"
        )
    if not processed:
        return (
            "vllm gives them at another temperature than 1 with `serving: {engine: {logprobs_mode: "
            "processed_logprobs}}`, which belongs to the engine"
        )
    if sampling.temperature != wanted or cut or bent:
        return (
            f"vllm gives them as it samples: set temperature: {wanted:g} as well, and no top_p, "
            "top_k, min_p or penalty, which would change them too"
        )
    return None


class Compared(ModelConfig):
    """A model that the evaluation puts beside the student."""

    price: Price = Price()


class Changes(Strict):
    """What is made of a model before it is a student; pipeline/models/changes.py does it."""

    chat_template: str | None = None  # the text of the template, not its path
    add_tokens: list[str] = []
    shrink: dict[str, Any] = {}
    seed: int | None = None  # of new random weights, where `shrink` asks for such


class StudentModel(ModelConfig):
    """The student before training, as a model that can be asked."""

    changes: Changes = Changes()


class Student(Strict):
    model: str
    revision: str | None = None
    backend: Literal["transformers", "vllm"] = "transformers"  # evaluates it
    serving: Serving = Serving()
    chat_template: str | None = None  # a .jinja file, instead of the model's own
    add_tokens: list[str] = []  # special tokens that its vocabulary lacks
    shrink: dict[str, Any] = {}  # fields of the model's config.json: a smaller one, to try things

    @model_validator(mode="after")
    def _batch_has_a_provider(self) -> Student:
        _check_batch(self.backend, self.serving)
        return self

    @model_validator(mode="after")
    def _tokens_are_tokens(self) -> Student:
        for token in self.add_tokens:
            if not token.strip() or token != token.strip():
                raise ValueError(
                    f"add_tokens: {token!r} is empty or has a space at an end; write a token as it "
                    "stands in the chat template, as <|im_start|>"
                )
        if len(set(self.add_tokens)) < len(self.add_tokens):
            raise ValueError(f"add_tokens: one of {self.add_tokens} is there twice")
        return self
