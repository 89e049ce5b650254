"""The lines of a provider's batch files: a `Request` out, a `Generation` or a `Failure` in.

In: {"custom_id", "method", "url", "body"}. Out, in any order, from the output and the error file:
{"custom_id", "response": {"status_code", "body"} | null, "error": {"code", "message"} | null}; rows
that were not asked have the codes batch_expired, batch_cancelled or request_timeout.
Source: https://platform.openai.com/docs/guides/batch and /docs/api-reference/batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipeline.models.chat_wire import BadAnswer, ChatEncoder, decode, to_generation
from pipeline.models.http_errors import Failure, Fate, judge_inner_error, judge_status, printable
from pipeline.records import Generation, PromptRef, Request, Sampling

ENDPOINT = "/v1/chat/completions"


class _Response(msgspec.Struct):
    status_code: int | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")


class OutputLine(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(OutputLine)


def input_line(request: Request, encoder: ChatEncoder) -> bytes:
    """One line of the input file; the body is to the byte what the online endpoint is sent."""
    head = msgspec.json.encode(
        {"custom_id": request.id, "method": "POST", "url": ENDPOINT}, order="deterministic"
    )
    return head[:-1] + b',"body":' + encoder.encode(request) + b"}\n"


def output_lines(*paths: Path) -> Iterator[OutputLine]:
    """Every line that says whose it is. A row without one counts as not asked."""
    for path in paths:
        if not path.exists():
            continue
        with path.open("rb", buffering=1 << 20) as file:
            for raw in file:
                if raw.strip() and (line := _decode(raw)) is not None:
                    yield line


def _decode(raw: bytes) -> OutputLine | None:
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:  # invalid UTF-8 and raw control characters, as in `chat_wire.decode`
        loose = json.loads(raw.decode("utf-8", "replace"), strict=False)
        return _decoder.decode(json.dumps(loose).encode())
    except (ValueError, RecursionError, msgspec.DecodeError):
        return None


def judge_line(
    line: OutputLine, request: Request, attempts: int, secret: str | None = None
) -> Generation | Failure:
    """The answer in a line, or what its failure means for the row and the run."""
    failure = _judge(line, request, attempts)
    if isinstance(failure, Failure):
        failure.message = printable(failure.message, secret)
    return failure


def _judge(line: OutputLine, request: Request, attempts: int) -> Generation | Failure:
    response = line.response
    if response is None:
        return judge_inner_error(line.error or "no response and no error")
    body = bytes(response.body)
    if response.status_code not in (None, 0, 200):
        return judge_status(response.status_code, {}, body, proven=True)
    try:
        completion = decode(body)
        if completion.error is not None:
            return judge_inner_error(completion.error)
        return to_generation(request, completion, attempts, seconds=0.0)
    except BadAnswer as error:
        return Failure(Fate.RETRY, "bad answer", str(error))


_ANYBODY = Request("", "", "", PromptRef("", ""), (), Sampling(), 0, "")


def is_answer(line: OutputLine) -> bool:
    """Does the line hold an answer (which is paid for), whoever asked?"""
    return isinstance(_judge(line, _ANYBODY, 1), Generation)
