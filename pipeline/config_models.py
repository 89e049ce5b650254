"""The parts of a config that say which model answers, and how: teachers, student."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, model_validator

from pipeline.config_serving import Batch as Batch
from pipeline.config_serving import Serving as Serving
from pipeline.config_serving import Strict as Strict
from pipeline.config_serving import check_where, refuse_serve
from pipeline.records import Sampling

Backend = Literal["openai", "vllm", "transformers", "fake"]


def unknown_key(seen: str, allowed: Sequence[str]) -> str:
    """The message about a key that is none of `allowed`."""
    close = difflib.get_close_matches(seen, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key {seen!r}; {hint}allowed: {', '.join(sorted(allowed))}"


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


class ModelConfig(Strict):
    backend: Backend
    model: str
    revision: str | None = None
    serving: Serving = Serving()

    @model_validator(mode="after")
    def _where_fits(self) -> ModelConfig:
        check_where(self.backend, self.serving)
        return self

    @property
    def over_http(self) -> bool:
        """Is it asked through an endpoint?"""
        return self.backend == "openai" or self.serving.serve is not None


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

    @model_validator(mode="after")
    def _has_no_servers(self) -> Compared:
        refuse_serve(self.serving)
        return self


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
    def _where_fits(self) -> Student:
        check_where(self.backend, self.serving)
        refuse_serve(self.serving)
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
