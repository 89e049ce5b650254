"""The part of a config that says where a model runs and how hard it is driven: `serving:`."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

CONCURRENCY = 64  # requests in flight at an endpoint, where the config names no number
SERVED_CONCURRENCY = 256  # at a server of our own, which has nothing else to do


_KEYS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def holds_key(variable: str) -> bool:
    """By the name of an environment variable: is its value one that nobody else may see?"""
    return variable.endswith(_KEYS)


class Batch(Strict):
    """How a job goes through a provider's batch API (docs/teachers.md)."""

    rows: int = Field(50_000, ge=1)  # a batch at most; OpenAI takes 50,000
    megabytes: float = Field(100.0, gt=0)  # of its input file, at most; OpenAI takes 200
    at_once: int = Field(10, ge=1)  # batches that are open at a time
    poll_seconds: float = Field(30.0, gt=0)
    window: str = "24h"  # in which the provider promises to be done
    online_below: int = Field(0, ge=0)  # a batch of fewer rows is asked online instead


# What `distill serve` sets itself; a key in a command would be seen by everybody on the machine.
_OUR_WORDS = ("--host", "--port", "--api-key", "--served-model-name", "--uds")


class Serve(Strict):
    """Servers that answer for a teacher; `distill serve` keeps one of them (docs/serving.md)."""

    servers: int = Field(0, ge=0, le=999)  # that `distill run` starts; 0: a person starts them
    # Another server than vLLM's; {model}, {host}, {port} and {key_file} are filled in.
    command: list[str] | None = Field(None, min_length=1)
    args: list[str] = []  # further words of `vllm serve`, handed on untouched
    host: str | None = None  # the address to listen on; None: 127.0.0.1, this machine alone
    start_minutes: float = Field(30.0, gt=0)  # that loading the model may take
    wait_minutes: float = Field(30.0, gt=0)  # that a command waits for a server
    idle_minutes: float = Field(30.0, gt=0)  # with --until: while no command is at work
    restarts: int = Field(8, ge=0)  # of a server that was ready and died; more than max_retries

    @model_validator(mode="after")
    def _words_are_free(self) -> Serve:
        for word in self.args:
            if word.partition("=")[0] in _OUR_WORDS:
                raise ValueError(
                    f"args: {word.partition('=')[0]} is set by `distill serve` itself; the address "
                    "is `host`, the key comes from api_key_env or is made for the run"
                )
        return self


class Serving(Strict):
    """Where a model runs and how hard it is driven; never part of an identity."""

    base_url: str | list[str] | None = None
    api_key_env: str | None = None
    # None: 64 at an endpoint, 256 at each server of our own, and the engine's own size with vllm
    # (also in a saved config).
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
    serve: Serve | None = None  # teachers: through servers that `distill serve` starts

    @property
    def endpoint_concurrency(self) -> int:
        """Requests in flight: at all endpoints together, or at each server of our own."""
        if self.concurrency is not None:
            return self.concurrency
        return CONCURRENCY if self.serve is None else SERVED_CONCURRENCY

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
        if self.serve is not None and (self.base_url is not None or self.batch is not None):
            raise ValueError(
                "serve: its servers are found through files of the run, and have no batch API; "
                "take base_url and batch out"
            )
        return self


def check_where(backend: str, serving: Serving) -> None:
    """What goes with which backend."""
    _check_serve(backend, serving.serve)
    if serving.batch is not None and backend != "openai":
        raise ValueError(
            f"serving.batch is for the backend openai; {backend} has no batch API, and fills its "
            "own batches"
        )


def _check_serve(backend: str, serve: Serve | None) -> None:
    if serve is None:
        return
    if backend not in ("vllm", "openai"):
        raise ValueError(
            "serving.serve is for the backends vllm (`vllm serve`) and openai (with `command`, any "
            f"other server); {backend} has no server"
        )
    if backend == "vllm" and serve.command is not None:
        raise ValueError(
            "serving.serve.command starts another server, which names the model itself: write "
            "`backend: openai`; with vllm, further words go into serving.serve.args"
        )
    if backend == "openai" and (serve.command is None or serve.args):
        raise ValueError(
            "serving.serve with `backend: openai` needs `command`, the words that start the "
            "server, and no `args`; write `backend: vllm` for vLLM's own"
        )


def refuse_serve(serving: Serving) -> None:
    if serving.serve is not None:
        raise ValueError("serving.serve is for teachers; take it out here")
