"""The calls of a provider's batch API that are used, through the openai SDK.

Sources: https://platform.openai.com/docs/api-reference/batch and /files. The SDK's own retries
are off: they would create a batch twice when only the answer of the first call was lost, and
sleep through a signal. Every call here is repeated through an outage, for at most an hour.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pipeline.errors import RunFatal
from pipeline.models.batch_lines import ENDPOINT
from pipeline.models.batch_records import enough_disk, settle
from pipeline.models.chat_wire import BadAnswer
from pipeline.models.endpoint_urls import checked_key, checked_url
from pipeline.models.http_errors import Failure, Fate, judge_status, printable, public_url
from pipeline.models.limits import backoff
from pipeline.models.openai_api import Serving

TAG = "blackbox_distill_part"  # the metadata key that finds a batch again
NEVER_REACHED_SECONDS = 60.0  # a wrong address is told soon
LOST_SECONDS = 3600.0  # of a provider that has answered: batches go on without us
UPLOAD_SECONDS = 600.0
APPEAR_SECONDS = 20.0  # a batch whose creation went unanswered is listed by then

T = TypeVar("T")


class BatchState(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says about a batch."""

    id: str
    status: str
    output_file: str | None
    error_file: str | None
    completed: int
    failed: int
    total: int
    problems: tuple[str, ...]  # why it failed as a whole

    @property
    def over(self) -> bool:
        if self.status == "completed" and self.completed and self.output_file is None:
            return False  # its files are still being written
        return self.status in ("completed", "failed", "expired", "cancelled")

    @property
    def queue_full(self) -> bool:
        """Refused for now: the account's limit of enqueued tokens, which ended batches free."""
        said = " ".join(self.problems).lower()
        return self.status == "failed" and ("token_limit_exceeded" in said or "enqueued" in said)

    @property
    def words(self) -> str:
        done = f" {self.completed + self.failed:,}/{self.total:,} rows" if self.total else ""
        return self.status + done


class BatchClient:
    """One provider. `wait` sleeps, and may raise to end a call that is being repeated."""

    def __init__(self, serving: Serving, wait: Callable[[float], None] = time.sleep) -> None:
        import openai

        url = checked_url(serving.base_url[0])
        self.name = public_url(url)
        self.key = checked_key(serving.api_key, serving.api_key_env)
        self._key_variable = serving.api_key_env
        self._wait = wait
        self._proven = False
        self._client: Any = openai.OpenAI(
            api_key=self.key or "none",  # else the SDK takes another variable's, or refuses
            admin_api_key="",
            base_url=url,
            timeout=serving.timeout,
            max_retries=0,
        )

    def close(self) -> None:
        self._client.close()

    def check(self) -> None:
        """`RunFatal` when there is no batch API, or not for this key."""

        def once() -> None:
            if not isinstance(getattr(self._client.batches.list(limit=1), "data", None), list):
                raise BadAnswer("the answer is no list")

        self._insist("list of batches", once)

    def upload(self, path: Path, name: str) -> str:
        """The file's id at the provider. An upload that is done twice costs nothing."""

        def once() -> str:
            with path.open("rb") as file:
                found = self._client.files.create(
                    file=(name, file), purpose="batch", timeout=UPLOAD_SECONDS
                )
            return _text(found, "id")

        return self._insist(f"upload of {name}", once)

    def create(self, file_id: str, part_id: str, window: str) -> BatchState:
        """Create the batch, once.

        An answer that was lost on its way may belong to a batch that exists, so the provider's
        batches are looked through before it is asked for again.
        """
        unsure = False

        def once() -> BatchState:
            nonlocal unsure
            if unsure:
                self._wait(APPEAR_SECONDS)
                if found := self._find(part_id, file_id):
                    return found
            unsure = True
            try:
                made = self._client.batches.create(
                    input_file_id=file_id,
                    endpoint=ENDPOINT,
                    completion_window=window,
                    metadata={TAG: part_id},
                )
            except Exception as error:
                unsure = self._failure(error).kind != "429"  # that one is a clear no
                raise
            return _state(made)

        return self._insist(f"creation of a batch from {file_id}", once)

    def find(self, part_id: str, file_id: str, uploaded_at: float) -> BatchState | None:
        """The batch of a part whose creation may have gone unrecorded.

        One that was asked for just now may not be listed yet; `uploaded_at` is in Unix seconds.
        """
        while True:
            found = self._insist("list of batches", lambda: self._find(part_id, file_id))
            if found or not 0 <= time.time() - uploaded_at < APPEAR_SECONDS:
                return found
            self._wait(APPEAR_SECONDS / 10)

    def look(self, batch_id: str) -> BatchState:
        return self._insist(
            f"batch {batch_id}", lambda: _state(self._client.batches.retrieve(batch_id))
        )

    def cancel(self, batch_id: str) -> BatchState:
        """Ask for the end of a batch that runs; what it says of itself afterwards."""

        def once() -> BatchState:
            state = _state(self._client.batches.retrieve(batch_id))
            if state.over or state.status in ("finalizing", "cancelling"):
                return state
            return _state(self._client.batches.cancel(batch_id))

        return self._insist(f"cancelling batch {batch_id}", once)

    def download(self, file_id: str, path: Path) -> None:
        """Stream a file to the disk; it has its name once it is whole."""
        partial = path.with_name(path.name + ".partial")

        def once() -> None:
            with (
                self._client.files.with_streaming_response.content(file_id) as response,
                partial.open("wb") as file,
            ):
                for chunk in response.iter_bytes(1 << 20):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())

        with enough_disk(path.parent):
            self._insist(f"file {file_id}", once)
            settle(partial, path)

    def discard(self, file_id: str) -> None:
        """Delete an input file that no batch was made from: a late creation then fails."""
        try:
            self._client.files.delete(file_id)
        except Exception as error:
            self._failure(error)  # it stays until it expires; nothing depends on it

    def _find(self, part_id: str, file_id: str) -> BatchState | None:
        seen: set[str] = set()
        for batch in self._client.batches.list(limit=100):  # the SDK turns the pages
            if batch.id in seen:
                break  # a server that does not know `after`
            seen.add(batch.id)
            tags = getattr(batch, "metadata", None)
            if (isinstance(tags, dict) and tags.get(TAG) == part_id) or (
                getattr(batch, "input_file_id", None) == file_id
            ):
                return _state(batch)
        return None

    def _insist(self, what: str, do: Callable[[], T]) -> T:
        """Call until it answers; `RunFatal` for a clear no, or when nothing answers for long."""
        since: float | None = None
        tries = 0
        while True:
            try:
                answer = do()
            except Exception as error:
                failure = self._failure(error)
            else:
                self._proven = True
                return answer
            message = f"{self.name}: {what}: {failure.message}"
            if failure.fate in (Fate.RUN, Fate.ROW):
                raise RunFatal(f"{message}. {self._advice(failure)}")
            now = time.monotonic()
            since = now if since is None else since
            if now - since > (LOST_SECONDS if self._proven else NEVER_REACHED_SECONDS):
                raise RunFatal(
                    f"{message} (for {now - since:.0f} s). Batches that exist go on; run the same "
                    "command again to collect them"
                )
            if not tries:
                print(f"{message}; trying again", file=sys.stderr, flush=True)
            tries += 1
            self._wait(backoff(tries, failure.retry_after))

    def _failure(self, error: Exception) -> Failure:
        """What went wrong with a call; an exception that is no call's is raised again."""
        import httpx2
        import openai

        if isinstance(error, openai.APIStatusError):
            body = msgspec.json.encode({"error": error.body})
            # a 404 is no proxy in the middle of a restart: not proven
            failure = judge_status(error.status_code, error.response.headers, body, proven=False)
            if error.status_code == 501:  # not implemented, and never will be
                failure.fate = Fate.RUN
        elif isinstance(error, openai.APIError | httpx2.RequestError | ssl.SSLError):
            cause = error.__cause__ or error
            text = f"{type(cause).__name__}: {cause}"
            failure = Failure(Fate.UNREACHABLE, "unreachable", text)
        elif isinstance(error, BadAnswer | ValueError):
            failure = Failure(Fate.RETRY, "bad answer", str(error))
        else:
            raise error
        failure.message = printable(failure.message, self.key)
        return failure

    def _advice(self, failure: Failure) -> str:
        if failure.kind in ("401", "403"):
            if self._key_variable is None:
                return "Name the variable of the key in serving.api_key_env"
            state = "does not open it" if self.key else "is not set"
            return f"The key in the environment variable {self._key_variable} {state}"
        if failure.kind in ("404", "405", "501"):
            return (
                "Is there a batch API at serving.base_url, and is the key of the project that made "
                "the batch? If it is gone for good, delete the record that names it (it is under "
                "runs/ledger/*/batches): its rows are then asked again"
            )
        return "Nothing paid for is lost"


def _state(batch: Any) -> BatchState:
    """The SDK does not check what it decodes, and servers differ: every field is optional."""
    counts = getattr(batch, "request_counts", None)
    errors = getattr(batch, "errors", None)
    listed = getattr(errors, "data", None) or ([errors] if isinstance(errors, str) else [])
    return BatchState(
        id=_text(batch, "id"),
        status=_text(batch, "status"),
        output_file=getattr(batch, "output_file_id", None) or None,
        error_file=getattr(batch, "error_file_id", None) or None,
        completed=getattr(counts, "completed", None) or 0,
        failed=getattr(counts, "failed", None) or 0,
        total=getattr(counts, "total", None) or 0,
        problems=tuple(_problem(problem) for problem in listed),
    )


def _problem(problem: Any) -> str:
    if isinstance(problem, str):
        return printable(problem)
    line = getattr(problem, "line", None)
    words = [f"line {line}" if line is not None else None]
    words += [getattr(problem, name, None) for name in ("code", "message")]
    return printable(": ".join(str(word) for word in words if word))


def _text(answer: Any, name: str) -> str:
    value = getattr(answer, name, None)
    if not isinstance(value, str) or not value or not value.isprintable() or len(value) > 200:
        raise BadAnswer(f"the answer has no usable {name!r}")
    return value
