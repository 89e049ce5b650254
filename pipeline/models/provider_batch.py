"""The `openai` backend through a provider's batch API: slower, and mostly at half the price.

Requests are gathered into parts; each part is a JSONL file and a batch of its own at the provider,
and its answers go into the same ledger as any other. A batch outlives this process: the next
start waits for it again instead of asking its rows. See `batch_records` for what is on disk.

No row is bought twice, wherever a kill falls. A batch's record is written before and after its
creation, and one that may have been created in between is looked for by a tag in its metadata.
What comes back lies on the disk until the ledger is seen to hold it. Only rows that a batch says
it has not answered are asked again.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from pipeline import stopping
from pipeline.config import Batch
from pipeline.errors import RunFatal, Stopped
from pipeline.ledger import GROUP_SECONDS
from pipeline.models.batch_client import BatchClient, BatchState
from pipeline.models.batch_feed import Feed
from pipeline.models.batch_lines import input_line, is_answer, judge_line, output_lines
from pipeline.models.batch_parts import OpenPart, OpenParts
from pipeline.models.batch_records import Part, Phase, enough_disk
from pipeline.models.chat_wire import BadRequest, ChatEncoder
from pipeline.models.http_errors import Failure, Fate
from pipeline.models.openai_api import OpenAIModel, Serving
from pipeline.models.workers import RECENT_ROWS
from pipeline.records import ErrorKind, Finish, Generation, Grade, Request

MOST_TRIES = 3  # batches that a row may go through without an answer; the next run tries again
QUEUE_SECONDS = 120.0  # until a part is tried again that the provider's full queue refused
REPORT_SECONDS = 600.0  # between lines about a batch whose status does not change


class _Draft(msgspec.Struct):
    """A part that nobody was asked for yet."""

    id: str
    rows: dict[str, Request] = {}
    refused: list[Generation] = []  # rows that have no JSON form


class BatchModel:
    """See `pipeline.models` for the door's contract.

    Without `settings` no new batch is made; those that are open are waited for, and all else is
    asked online.
    """

    grade = Grade.TOP_LOGPROBS

    def __init__(
        self, online: OpenAIModel, model: str, serving: Serving, settings: Batch | None, root: Path
    ) -> None:
        self.identity = online.identity
        self._online = online
        self._encoder = ChatEncoder(model)
        self._settings = settings
        self._max_error_share = serving.max_error_share
        self._poll_seconds = settings.poll_seconds if settings else 30.0
        self._most_open = settings.at_once if settings else 0
        self._client = BatchClient(serving, self._wait)
        self._parts = OpenParts(root, self.identity, self._client)
        self._unanswered: set[str] = set()
        self._tries: dict[str, int] = {}  # of rows that a batch left out
        self._queue_full = 0  # refusals in a row
        self._complete = False

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Generation]:
        """Yield one Generation for each request id, part by part as batches end.

        At most `at_once` batches are open. Raises `Stopped` at a signal, or when a batch was
        cancelled in the meantime; `RunFatal` when no row can succeed. Batches go on either way.
        """
        self._complete = False
        self._unanswered, self._tries = set(), {}
        self._parts.load()
        feed = Feed(self._new(requests))
        while True:
            yield from self._ask(feed)
            self._stop_if_requested()
            if self._parts.waited_for():
                yield from self._collect(feed)
            elif feed.over:
                break
            else:
                feed.retry()
        self._complete = True

    def close(self) -> None:
        """Delete the files of batches that the ledger holds by now; let others at the records."""
        if self._complete and self._parts.any_ended:
            time.sleep(2 * GROUP_SECONDS)  # the caller's last rows reach its ledger's file by then
            self._parts.settle()
        self._parts.records.release()
        self._client.close()
        self._online.close()

    # -- asking ----------------------------------------------------------------------------------

    def _new(self, requests: Iterable[Request | None]) -> Iterator[Request | None]:
        """Requests that are not out already; one answer is enough for one id."""
        for request in requests:
            if stopping.requested():
                return
            if request is None:
                yield None
            elif request.id not in self._unanswered:
                self._unanswered.add(request.id)
                if not self._parts.claim(request):
                    yield request

    def _ask(self, feed: Feed) -> Iterator[Generation]:
        """Make batches while there is room for one; a part that is too small is asked online."""
        settings = self._settings
        if settings is None:
            if not feed.dry:
                yield from self._ask_online(feed, feed)
            return
        while not feed.dry and self._parts.running() < self._most_open:
            draft = self._draft(feed, settings)
            for generation in draft.refused:
                yield self._answered(generation, feed)
            small = len(draft.rows) < settings.online_below
            if small or not draft.rows or stopping.requested():
                self._parts.records.forget(draft.id)
                yield from self._ask_online(draft.rows.values(), feed)
            else:
                self._parts.create(draft.id, draft.rows, settings.window)

    def _draft(self, feed: Feed, settings: Batch) -> _Draft:
        """Take rows for one part, straight into its input file."""
        draft = _Draft(uuid.uuid4().hex)
        records = self._parts.records
        most, size = settings.megabytes * 1e6, 0
        with enough_disk(records.folder), records.file(draft.id, "input").open("wb") as file:
            while len(draft.rows) < settings.rows and (request := feed.take()) is not None:
                try:
                    line = input_line(request, self._encoder)
                except (BadRequest, ValueError, TypeError, RecursionError) as error:
                    failure = Failure(Fate.ROW, "bad request", f"{type(error).__name__}: {error}")
                    draft.refused.append(self._error(request, failure, ErrorKind.FINAL))
                    continue
                if draft.rows and size + len(line) > most:
                    feed.again.appendleft(request)
                    break
                size += len(line)
                file.write(line)
                draft.rows[request.id] = request
        return draft

    def _ask_online(self, rows: Iterable[Request | None], feed: Feed) -> Iterator[Generation]:
        def until_stopped() -> Iterator[Request | None]:
            for request in rows:
                if stopping.requested():
                    return
                yield request

        for generation in self._online.generate(until_stopped()):
            yield self._answered(generation, feed)

    # -- collecting ------------------------------------------------------------------------------

    def _collect(self, feed: Feed) -> Iterator[Generation]:
        """Wait until a batch has ended that somebody waits for; yield what is in it."""
        while waited_for := self._parts.waited_for():
            ended = [opened for opened in waited_for if self._has_ended(opened, feed)]
            for opened in ended:
                if opened.waiting:
                    yield from self._read(opened, feed)
            if ended:
                return
            self._wait(self._poll_seconds)

    def _has_ended(self, opened: OpenPart, feed: Feed) -> bool:
        """Ask the provider; fetch the files of a batch that is over."""
        if opened.part.phase is Phase.ENDED:
            return True
        assert opened.part.batch_id is not None
        state = self._client.look(opened.part.batch_id)
        self._report(opened, state)
        if state.status == "failed":
            self._refused(opened, state, feed)
        elif state.over:
            self._parts.fetch(opened, state)
            self._queue_full = 0
            if self._settings:  # after a refusal: one more at a time, as the queue allows
                self._most_open = min(self._most_open + 1, self._settings.at_once)
        return state.over

    def _report(self, opened: OpenPart, state: BatchState) -> None:
        now = time.monotonic()
        if not opened.status:
            opened.was_cancelled = state.status in ("cancelled", "cancelling")
        if state.status != opened.status or now - opened.reported > REPORT_SECONDS:
            words = f"batch {state.id} ({opened.part.rows:,} rows): {state.words}"
            print(words, file=sys.stderr, flush=True)
            opened.status, opened.reported = state.status, now

    def _refused(self, opened: OpenPart, state: BatchState, feed: Feed) -> None:
        """Wrong as a whole: the run ends. No room in the queue: fewer at once, and later."""
        rows, opened.waiting = opened.waiting, {}
        self._parts.refused(opened, state.status)
        said = "; ".join(state.problems[:5]) or "it does not say why"
        if not state.queue_full:
            raise RunFatal(
                f"{self._client.name} refused batch {state.id} of {opened.part.rows:,} rows as a "
                f"whole: {said}. Nothing of it was asked or paid for"
            )
        feed.again.extend(rows.values())
        running = self._parts.running()
        self._most_open = max(1, running)
        if running:
            return
        self._queue_full += 1
        if self._queue_full > MOST_TRIES:
            raise Stopped(
                f"{self._client.name} has no room for a batch of {len(rows):,} rows: {said}. "
                "Run the same command again later, or set serving.batch.rows lower"
            )
        self._wait(QUEUE_SECONDS)

    def _read(self, opened: OpenPart, feed: Feed) -> Iterator[Generation]:
        """Yield the answers of an ended part; rows without one are asked again, or given up."""
        waiting, opened.waiting = opened.waiting, {}
        others: set[str] = set()  # answers that nobody has asked for yet
        failures: dict[str, Failure] = {}
        for line in output_lines(*self._parts.files(opened.part)):
            request = waiting.get(line.custom_id)
            if request is None:
                if self._parts.is_unclaimed(opened, line.custom_id) and is_answer(line):
                    others.add(line.custom_id)
                continue
            outcome = judge_line(line, request, self._attempts(request), self._client.key)
            if isinstance(outcome, Generation):
                del waiting[request.id]
                failures.pop(request.id, None)
                yield self._answered(outcome, feed)
            else:
                failures[request.id] = outcome
        self._parts.keep_only(opened, others)
        yield from self._read_final(opened.part, waiting, failures, feed)
        if opened.part.status == "cancelled" and not opened.was_cancelled:
            raise Stopped(
                f"batch {opened.part.batch_id} was cancelled; its finished rows are stored. "
                f"Run the same command again to ask the other {len(waiting):,}"
            )
        yield from self._ask_again(opened.part, waiting, failures, feed)

    def _read_final(
        self, part: Part, waiting: dict[str, Request], failures: dict[str, Failure], feed: Feed
    ) -> Iterator[Generation]:
        """Failures that asking again will not cure: of the run, of a row, of too many rows."""
        for failure in failures.values():
            if failure.fate is Fate.RUN:
                raise RunFatal(f"{self._client.name}: {failure.message}")
        final = [key for key, failure in failures.items() if failure.fate is Fate.ROW]
        for key in final:
            error = self._error(waiting.pop(key), failures[key], ErrorKind.FINAL)
            yield self._answered(error, feed)
        enough = part.rows >= RECENT_ROWS // 4
        if enough and len(final) > self._max_error_share * part.rows:
            raise RunFatal(
                f"{len(final)} of the {part.rows} rows of batch {part.batch_id} failed "
                f"(max_error_share is {self._max_error_share:g}); one of them: "
                f"{failures[final[-1]].message}"
            )

    def _ask_again(
        self, part: Part, waiting: dict[str, Request], failures: dict[str, Failure], feed: Feed
    ) -> Iterator[Generation]:
        """Rows that expired, were cancelled, met a 429 or a 5xx, or are in no file at all."""
        left_out = f"batch {part.batch_id} ({part.status}) left this row out"
        for request in waiting.values():
            if self._attempts(request) < MOST_TRIES:
                self._tries[request.id] = self._attempts(request)
                feed.again.append(request)
                continue
            failure = failures.get(request.id, Failure(Fate.RETRY, "left out", left_out))
            yield self._answered(self._error(request, failure, ErrorKind.TRANSIENT), feed)

    # -- small things ----------------------------------------------------------------------------

    def _attempts(self, request: Request) -> int:
        """The number of the try that is on."""
        return self._tries.get(request.id, 0) + 1

    def _answered(self, generation: Generation, feed: Feed) -> Generation:
        self._unanswered.discard(generation.request_id)
        feed.answered()
        return generation

    def _error(self, request: Request, failure: Failure, kind: ErrorKind) -> Generation:
        return Generation(
            request_id=request.id,
            text="",
            finish=Finish.ERROR,
            error=failure.message,
            error_kind=kind,
            attempts=self._attempts(request),
        )

    def _wait(self, seconds: float) -> None:
        """Sleep, but never through a signal."""
        end = time.monotonic() + seconds
        self._stop_if_requested()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self._stop_if_requested()

    def _stop_if_requested(self) -> None:
        """Batches are left running: what they finish is paid for, and the next start has it."""
        try:
            stopping.raise_if_requested()
        except Stopped as stop:
            left = [p for p in self._parts.records.open_parts() if p.phase is not Phase.ENDED]
            if not left:
                raise
            raise Stopped(
                f"{stop}. Batches go on at {self._client.name}: {len(left)}, of "
                f"{sum(p.rows for p in left):,} rows; the next start collects them "
                "(`distill cancel CONFIG` ends them)"
            ) from None
