"""A deterministic model for tests and dry runs: no weights, no network, the real door.

Its answer depends only on the request. `serving.script` may name a Python file of the user's own
with a function `answer(request: Request) -> str | Generation`, and `in_process = True` where a row
may take the process down with it.
"""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.records import ErrorKind, Finish, Generation, Request, Usage

WORDS = ("amber", "birch", "cloud", "delta", "ember", "fjord", "grove", "harbor")


class FakeModel:
    def __init__(self, identity: str, script: str | None = None) -> None:
        self.identity = identity
        self.in_process = False
        self._answer: Callable[[Request], str | Generation] = _words
        if script is not None:
            if not Path(script).is_file():
                raise UserError(f"serving.script: no such file: {script}")
            module = _run(script)
            answer = module.get("answer")
            self.in_process = bool(module.get("in_process"))
            if not callable(answer):
                raise UserError(f"serving.script: {script} defines no function answer(request)")
            self._answer = answer

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Generation]:
        for request in requests:
            if request is None:
                continue  # every answer so far has been read by now
            asked = sum(len(m.content.split()) for m in request.messages)
            try:
                answer = self._answer(request)
            except Exception as error:  # a row's failure is a row
                yield Generation(
                    request.id, "", Finish.ERROR, error=repr(error), error_kind=ErrorKind.TRANSIENT
                )
                continue
            if isinstance(answer, Generation):
                yield answer
            else:
                usage = Usage(asked, len(answer.split()))
                yield Generation(request.id, answer, Finish.STOP, usage)

    def close(self) -> None:
        pass


def _run(script: str) -> dict[str, Any]:
    try:
        return runpy.run_path(script)
    except Exception as error:  # the user's own code: whatever it raises is in that file
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == script]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        place = f"{script}:{line}" if line else script
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(
            f"serving.script: {place}: {type(error).__name__}: {why}; correct the file and type "
            "the command again"
        ) from None


def _words(request: Request) -> str:
    number = int(request.id[:8], 16)
    return " ".join(WORDS[(number >> shift) % len(WORDS)] for shift in range(0, 24, 3)) + "."
