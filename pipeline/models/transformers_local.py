"""The embedded backend: a local checkpoint through transformers, on a CPU or one GPU.

Requests are sorted by prompt and length, cut into batches of one prompt, and decoded together; the
prefix that a whole batch shares (a system text, worked examples) is computed once, and rows that
have ended leave the batch at once. Every row draws from its own random stream, seeded by its
request id, so an answer does not depend on its neighbours (up to floating-point rounding).
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice, takewhile
from typing import Any

from pipeline import stopping
from pipeline.config import Serving
from pipeline.errors import RunFatal, UserError
from pipeline.models.cpu import tune_cpu
from pipeline.models.locate import Checkpoint
from pipeline.models.open_turn import TEMPLATE_ARGUMENTS, Rendered, render_chat
from pipeline.models.reasoning import opens_reasoning, split_reasoning
from pipeline.models.sampling_torch import pick_tokens, token_logprobs
from pipeline.models.weights import device_of, open_weights
from pipeline.records import ErrorKind, Finish, Generation, Request, Sampling, TokenLogprob, Usage

WINDOW_BATCHES = 8  # requests pulled ahead, to have something to sort
MIN_SHARED_PREFIX = 16  # tokens
SMALL = 4  # a batch of fewer than this part of the most rows is not worth its own steps
COMPACT_BELOW = 0.8  # rebuild the batch when fewer of its rows are still running


STOP: Any = object()


class _Row:
    """One request while it is being decoded."""

    def __init__(self, request: Request, tokens: list[int], prompt: Rendered) -> None:
        self.request = request
        # the chat template ends inside a thinking block
        self.opened = opens_reasoning(prompt.text)
        self.tokens = tokens
        self.stop_token = prompt.stop_token
        self.stops = request.sampling.stop + ((prompt.stop_text,) if prompt.stop_text else ())
        self.output: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.random = random.Random(int(request.id, 16))
        self.finish: Finish | None = None
        self.text: str | None = None  # set where a stop string cut it


class TransformersModel:
    in_process = True  # a row may take this process down: see deaths.py

    def __init__(self, checkpoint: Checkpoint, identity: str, serving: Serving) -> None:
        import torch
        from transformers import AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # a log file is no place for one
        self.identity = identity
        self._torch = torch
        self._batch = serving.batch_size
        self._device = "cpu" if checkpoint.onnx else device_of(serving)
        self._onednn = self._device == "cpu" and tune_cpu()
        options: dict[str, Any] = {
            "revision": checkpoint.revision,
            "trust_remote_code": serving.trust_remote_code,
        }
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.source, **options)
            self._model: Any = open_weights(checkpoint, self._device, options)
        except (OSError, ValueError) as error:
            raise UserError(f"model {checkpoint.source!r} cannot be opened: {error}") from None
        self._ends = self._end_tokens()
        self._context = getattr(self._model.config, "max_position_embeddings", None) or 1 << 30

    def _end_tokens(self) -> frozenset[int]:
        ends = self._model.generation_config.eos_token_id
        listed = ends if isinstance(ends, list) else [ends]
        return frozenset(t for t in [*listed, self._tokenizer.eos_token_id] if t is not None)

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Generation]:
        # None: nothing more to ask until the answers so far are read, which they are by the time
        # the source is asked again.
        source = iter(requests)
        while (first := next(source, STOP)) is not STOP:
            ahead = islice(source, self._batch * WINDOW_BATCHES - 1)
            window = [r for r in takewhile(lambda r: r is not None, chain([first], ahead)) if r]
            rows = []
            for request in window:
                row = self._tokenize(request)
                if isinstance(row, Generation):
                    yield row
                else:
                    rows.append(row)
            rows.sort(key=lambda r: (*_kind(r), len(r.tokens)))
            for batch in _batches(rows, self._batch):
                if stopping.requested():  # pulled ahead to be sorted, but not begun
                    return
                yield from self._decode(batch)

    def _tokenize(self, request: Request) -> _Row | Generation:
        refuse_unsupported(request.sampling, request.schema, f"request {request.id}")
        try:
            arguments = request.sampling.extra_body.get(TEMPLATE_ARGUMENTS, {})
            prompt = render_chat(self._tokenizer, request.messages, **arguments)
        except Exception as error:  # templates are foreign code: one may refuse a system message
            return _failed(request, f"the chat template refused the messages: {error}")
        tokens = self._tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
        if len(tokens) + request.sampling.max_tokens > self._context:
            return _failed(
                request,
                f"prompt of {len(tokens)} tokens + max_tokens {request.sampling.max_tokens} "
                f"is more than the model's context of {self._context}",
            )
        return _Row(request, tokens, prompt)

    def _decode(self, rows: list[_Row]) -> Iterator[Generation]:
        torch = self._torch
        begin = time.monotonic()
        running = rows
        with torch.inference_mode():
            try:
                logits, cache, mask = self._prefill(rows)
                while True:
                    streams = [(r.request.sampling, r.random) for r in running]
                    tokens = pick_tokens(torch, logits, streams)
                    self._note(running, tokens, logits)
                    done = [r for r in running if r.finish is not None]
                    seconds = time.monotonic() - begin
                    yield from (self._generation(r, seconds / len(rows)) for r in done)
                    if len(done) == len(running):
                        return
                    if done:
                        keep = [i for i, r in enumerate(running) if r.finish is None]
                        running = [running[i] for i in keep]
                        index = torch.tensor(keep, device=self._device)
                        tokens = [tokens[i] for i in keep]
                        mask = mask[index]
                        cache.batch_select_indices(index)
                    mask = torch.cat([mask, mask.new_ones(len(running), 1)], dim=1)
                    logits = self._forward(
                        torch.tensor(tokens, device=self._device)[:, None],
                        mask,
                        mask.sum(1, keepdim=True) - 1,
                        cache,
                    )
            except torch.OutOfMemoryError as error:
                raise RunFatal(
                    f"out of memory with {len(running)} rows at once; "
                    f"set `serving.batch_size` below {self._batch}: {error}"
                ) from error

    def _prefill(self, rows: list[_Row]) -> tuple[Any, Any, Any]:
        """(logits of the next token [rows, vocabulary], key-value cache, attention mask)."""
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        torch, device = self._torch, self._device
        self._many_tokens(True)
        shared = _shared_prefix([r.tokens for r in rows])
        cache: Any = DynamicCache(config=self._model.config)
        if shared >= MIN_SHARED_PREFIX and len(rows) > 1:
            prefix = torch.tensor([rows[0].tokens[:shared]], device=device)
            ones = torch.ones_like(prefix)
            self._forward(prefix, ones, torch.arange(shared, device=device)[None], cache)
            if all(type(layer) is DynamicLayer for layer in cache.layers):
                cache.batch_repeat_interleave(len(rows))
            else:  # sliding or recurrent layers cannot simply be repeated
                cache, shared = DynamicCache(config=self._model.config), 0
        else:
            shared = 0
        width = max(len(r.tokens) for r in rows) - shared
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), shared + width, dtype=torch.long)
        mask[:, :shared] = 1
        for i, row in enumerate(rows):
            rest = torch.tensor(row.tokens[shared:])
            ids[i, width - len(rest) :] = rest
            mask[i, shared + width - len(rest) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        logits = self._forward(ids, mask, positions, cache)
        self._many_tokens(False)
        return logits, cache, mask

    def _many_tokens(self, many: bool) -> None:
        # With few rows oneDNN re-orders the weights at every call and loses: measured 333 against
        # 184 ms a step at 64 rows, but 1,290 against 800 tokens/s in the prefill.
        if self._onednn:
            precision = "bf16" if many else "ieee"
            self._torch.backends.mkldnn.matmul.fp32_precision = precision

    def _forward(self, ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
        """Logits of the last position, float32 [rows, vocabulary]; `cache` grows in place."""
        out = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()

    def _note(self, rows: list[_Row], tokens: list[int], logits: Any) -> None:
        """Append one token to every row and see whether it has ended."""
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            sampling = row.request.sampling
            if token in self._ends or token == row.stop_token:
                row.finish = Finish.STOP
            else:
                row.output.append(token)
                if sampling.logprobs is not None:
                    scores = logits[i] / (sampling.logprobs_temperature or 1.0)
                    row.logprobs.append(
                        token_logprobs(scores, token, sampling.logprobs, self._tokenizer)
                    )
                if len(row.output) >= sampling.max_tokens:
                    row.finish = Finish.LENGTH
                if row.stops:
                    self._cut_at_stop(row)

    def _cut_at_stop(self, row: _Row) -> None:
        # Only the last tokens can hold a new stop string; all are decoded once one is found.
        longest = max(len(s) for s in row.stops)
        tail = self._tokenizer.decode(row.output[-longest - 4 :])
        if any(s in tail for s in row.stops):
            text = self._tokenizer.decode(row.output, skip_special_tokens=True)
            found = [at for s in row.stops if (at := text.find(s)) >= 0]
            if found:
                row.text, row.finish = text[: min(found)], Finish.STOP

    def _generation(self, row: _Row, seconds: float) -> Generation:
        text = row.text
        if text is None:
            text = self._tokenizer.decode(row.output, skip_special_tokens=True)
        text, reasoning = split_reasoning(text, row.opened)
        assert row.finish is not None
        return Generation(
            request_id=row.request.id,
            text=text,
            reasoning=reasoning,
            finish=row.finish,
            usage=Usage(len(row.tokens), len(row.output) + (row.finish is Finish.STOP)),
            logprobs=tuple(row.logprobs) if row.request.sampling.logprobs is not None else None,
            seconds=round(seconds, 4),
        )

    def close(self) -> None:
        del self._model
        if self._device != "cpu":
            self._torch.cuda.empty_cache()


def refuse_unsupported(sampling: Sampling, schema: dict[str, Any] | None, place: str) -> None:
    """A setting that would silently do nothing here is a mistake to be told about."""
    ignored = [
        name
        for name in ("frequency_penalty", "presence_penalty", "repetition_penalty")
        if getattr(sampling, name)
    ]
    ignored += [f"extra_body.{name}" for name in sampling.extra_body if name != TEMPLATE_ARGUMENTS]
    ignored += ["a response schema"] if schema else []
    if ignored:
        raise UserError(
            f"{place}: the transformers backend cannot honour {', '.join(ignored)}; "
            "leave it out, or use the vllm or openai backend"
        )


def _failed(request: Request, why: str) -> Generation:
    return Generation(request.id, "", Finish.ERROR, error=why[:500], error_kind=ErrorKind.FINAL)


def _kind(row: _Row) -> tuple[str, int]:
    """Rows of a kind begin alike, and go on about as long."""
    return row.request.prompt.name, row.request.sampling.max_tokens


def _batches(rows: list[_Row], most: int) -> Iterator[list[_Row]]:
    """Sorted rows in batches of one kind each, unless that would make very small ones.

    Rows of two kinds have no beginning in common that the prefill could share, and the shorter
    answers leave the longer ones to be decoded in small company.
    """
    batch: list[_Row] = []
    for row in rows:
        other = batch and _kind(batch[-1]) != _kind(row)
        if len(batch) == most or (other and len(batch) >= most // SMALL):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _shared_prefix(prompts: list[list[int]]) -> int:
    """Length of the common prefix, leaving every prompt at least one token of its own."""
    low, high = min(prompts), max(prompts)
    limit = min(len(p) for p in prompts) - 1
    for i in range(limit):
        if low[i] != high[i]:
            return i
    return limit
