"""The `vllm` backend: the engine in this process's care, every answer handed over as it arrives.

`LLM.generate` returns when the last row is done; `AsyncLLM` behind a bounded window does the same
work and lets each answer be stored at once, so a kill costs the window and not the job. The
window is the `Flow` that the HTTP backend uses, with the engine as its one endpoint.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import math
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from typing import Any

import msgspec

from pipeline.errors import RunFatal, UserError
from pipeline.models.endpoints import Endpoint
from pipeline.models.http_errors import Failure, Fate, printable
from pipeline.models.limits import Ceilings, Window
from pipeline.models.open_turn import Rendered, render_chat
from pipeline.models.reasoning import opens_reasoning, split_reasoning
from pipeline.models.workers import Flow
from pipeline.records import Finish, Generation, Grade, Request, Sampling, TokenLogprob, Usage

MOST_LOGPROBS = 1024  # the engine's own cap is 20; soft targets want more

CLOSE_SECONDS = 30.0  # for the engine's processes to end by themselves; then they are killed

# What Sampling has a field for, and what would change the number or the form of the answers.
_RESERVED = frozenset(
    {"n", "logprobs", "prompt_logprobs", "output_kind", "detokenize", "flat_logprobs", "seed"}
)


class VLLMServing(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model runs; never part of an identity."""

    engine: dict[str, Any] = {}  # any field of AsyncEngineArgs, untouched
    concurrency: int | None = 256  # requests in flight; None: twice the engine's max_num_seqs
    seed: int = 0  # of the engine; rows have seeds of their own
    max_error_share: float = 0.5


class VLLMModel:
    """A model in a local vLLM engine; see `pipeline.models` for the door's contract.

    The engine starts with the first `generate` and lives until `close`. Raises `UserError` for
    an engine option that does not exist and `RunFatal` when the engine cannot start or dies.
    """

    grade = Grade.TOP_LOGPROBS

    def __init__(
        self,
        model: str,
        *,
        revision: str | None,
        serving: VLLMServing,
        identity: str | None = None,
    ) -> None:
        self.in_process = True  # a row may take the engine down: see deaths.py
        self.identity = identity or (f"{model}@{revision}" if revision else model)
        self.counters: Counter[str] = Counter()
        self._model = model
        self._revision = revision
        self._serving = serving
        self._engine: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dead = False

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Generation]:
        """Yield one Generation a request, in order of arrival; a bounded number in flight.

        When the engine dies, the answers that had arrived are yielded, then `RunFatal` is raised.
        """
        loop = self._open()
        window = self._serving.concurrency
        if window is None:
            window = 2 * int(self._engine.vllm_config.scheduler_config.max_num_seqs)
        flow = Flow(
            requests,
            self._ask,
            [Endpoint("", f"vLLM with {self._model}", Window(window, start=window))],
            concurrency=window,
            max_retries=2,
            max_error_share=self._serving.max_error_share,
            ceilings=Ceilings(None, None, 0.0),
            counters=self.counters,
        )
        yield from flow.run(loop)

    def close(self) -> None:
        """Shut the engine down; its processes have ended when this returns."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown(timeout=CLOSE_SECONDS)
            multiprocessing.active_children()  # reaps it
        if self._loop is not None:
            _drain(self._loop)
            self._loop.close()
            self._loop = None

    def _open(self) -> asyncio.AbstractEventLoop:
        if self._dead:
            raise RunFatal(f"the vLLM engine of {self._model} has died; run the command again")
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        if self._engine is None:
            self._engine = self._loop.run_until_complete(self._start())
            self._tokenizer = self._engine.get_tokenizer()
        return self._loop

    async def _start(self) -> Any:
        quiet_environment()
        from vllm import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        options: dict[str, Any] = {
            "model": self._model,
            "revision": self._revision,
            "tokenizer_revision": self._revision,
            "seed": self._serving.seed,
            "enable_prefix_caching": True,
            "max_logprobs": MOST_LOGPROBS,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        } | self._serving.engine
        known = AsyncEngineArgs.__dataclass_fields__
        for name in options:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise UserError(f"serving.engine: {name!r} is no field of AsyncEngineArgs{hint}")
        # Ctrl-C and a scheduler's USR signals go to every process of the group; the engine must
        # outlive them so that what is in flight can be finished and stored. A child inherits the
        # mask; multiprocessing's tracker is started first, for its start unblocks SIGINT again.
        mask = {signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, mask)
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, mask)
        try:
            # as LLM does: the offline sizes of batch and token budget, not the server's
            return AsyncLLM.from_engine_args(
                AsyncEngineArgs(**options), usage_context=UsageContext.LLM_CLASS
            )
        except Exception as error:
            said = printable(f"{type(error).__name__}: {error}")
            raise RunFatal(f"vLLM could not start {self._model}: {said}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    async def _ask(
        self, request: Request, endpoint: Endpoint, attempts: int
    ) -> Generation | Failure:
        """One row through the engine; every way it can fail becomes a `Failure`."""
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        started = time.monotonic()
        try:
            tokens, rendered = self._render(request)
            opened = opens_reasoning(rendered.text)
            params = sampling_params(request, rendered)
            # an attempt needs a name of its own: the engine may still be ending the last one
            name = f"{request.id}-{attempts}"
            final = None
            prompt = {"type": "token", "prompt_token_ids": tokens}
            async for output in self._engine.generate(prompt, params, name):
                final = output
            if final is None or not final.finished or final.outputs[0].finish_reason == "abort":
                return Failure(Fate.RETRY, "abort", "the engine ended the row without an answer")
            seconds = time.monotonic() - started
            return to_generation(request, final, attempts, seconds, opened)
        except EngineDeadError as error:
            self._dead = True
            return Failure(
                Fate.RUN,
                "engine dead",
                f"the vLLM engine of {self._model} died ({printable(str(error))}); every answer "
                "that had arrived is kept, and the same command goes on from there. Out of memory "
                "is the usual cause: lower serving.engine.gpu_memory_utilization or max_num_seqs",
            )
        except (VLLMClientError, BadRow, ValueError, TypeError) as error:
            said = f"{type(error).__name__}: {error}"
            return Failure(Fate.ROW, "bad request", printable(said))
        except Exception as error:  # EngineGenerateError and what hides behind it
            said = f"{type(error).__name__}: {error.__cause__ or error}"
            return Failure(Fate.RETRY, "engine error", printable(said))

    def _render(self, request: Request) -> tuple[list[int], Rendered]:
        """Prompt tokens by the model's chat template."""
        if self._tokenizer.chat_template is None:
            raise BadRow(f"{self._model} has no chat template; use an instruction-tuned model")
        arguments = request.sampling.extra_body.get("chat_template_kwargs", {})
        prompt = render_chat(self._tokenizer, request.messages, **arguments)
        tokens = self._tokenizer.encode(prompt.text, add_special_tokens=False)
        return list(tokens), prompt


class BadRow(Exception):
    """The row cannot be asked at all."""


def sampling_params(request: Request, prompt: Rendered | None = None) -> Any:
    """vLLM's `SamplingParams` for a request; `prompt` says what ends an open turn.

    `extra_body` may set any further field of it (and `chat_template_kwargs`); an unknown name is
    an error. Without a seed, a sampled row gets one from its id: the same row draws the same
    numbers in any run and any batch.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    sampling, prompt = request.sampling, prompt or Rendered("")
    options: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "stop": [*sampling.stop, *([prompt.stop_text] if prompt.stop_text else [])] or None,
        "stop_token_ids": None if prompt.stop_token is None else [prompt.stop_token],
        "seed": row_seed(request),
        "logprobs": sampling.logprobs,
        "output_kind": RequestOutputKind.FINAL_ONLY,
    }
    for name in ("top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"):
        if (value := getattr(sampling, name)) is not None:
            options[name] = value
    for name, value in sampling.extra_body.items():
        if name == "chat_template_kwargs":
            continue
        if (
            name.startswith("_")
            or name in _RESERVED
            or name not in SamplingParams.__struct_fields__
        ):
            raise BadRow(f"sampling.extra_body: vLLM's SamplingParams takes no {name!r} here")
        options[name] = value
    if request.schema is not None:
        options["structured_outputs"] = StructuredOutputsParams(json=request.schema)
    return SamplingParams(**options)


def row_seed(request: Request) -> int | None:
    """The seed of one row; samples of one prompt never share theirs. None for greedy decoding."""
    sampling: Sampling = request.sampling
    if sampling.temperature == 0:
        return None
    if sampling.seed is not None:
        return sampling.seed + request.sample_index
    return int.from_bytes(hashlib.sha256(request.id.encode()).digest()[:6], "big")


def to_generation(
    request: Request, output: Any, attempts: int, seconds: float, opened: bool
) -> Generation:
    """The record of one finished `RequestOutput`."""
    answer = output.outputs[0]
    text, reasoning = split_reasoning(answer.text.replace("\x00", "\ufffd"), opened)
    return Generation(
        request_id=request.id,
        text=text,
        finish=Finish.LENGTH if answer.finish_reason == "length" else Finish.STOP,
        usage=Usage(len(output.prompt_token_ids or ()), len(answer.token_ids)),
        reasoning=reasoning,
        logprobs=_logprobs(answer, request.sampling.logprobs),
        attempts=attempts,
        seconds=round(seconds, 4),
    )


def _logprobs(answer: Any, k: int | None) -> tuple[TokenLogprob, ...] | None:
    if k is None or answer.logprobs is None:
        return None
    rows = []
    for token, position in zip(answer.token_ids, answer.logprobs, strict=False):
        ranked = sorted(position.values(), key=lambda entry: entry.rank or 0)[:k]
        chosen = position[token]
        # What a sampling setting has ruled out is -inf, which JSON does not know.
        top = tuple(
            (entry.decoded_token or "", float(entry.logprob))
            for entry in ranked
            if math.isfinite(entry.logprob)
        )
        own = float(chosen.logprob) if math.isfinite(chosen.logprob) else -1e9
        rows.append(TokenLogprob(chosen.decoded_token or "", own, top))
    return tuple(rows)


def quiet_environment() -> None:
    """Set what vLLM reads at import, where the person has not: no telemetry, errors only."""
    for name, value in {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the CPU build would take half of the memory
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)


def _drain(loop: asyncio.AbstractEventLoop) -> None:
    """Let the engine's background tasks see their cancellation."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
