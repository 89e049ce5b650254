"""The parts of a job that are out at a provider, and whose rows they hold."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.errors import UserError
from pipeline.ledger import Ledger, ledger_folder
from pipeline.models.batch_client import BatchClient, BatchState
from pipeline.models.batch_lines import is_answer, output_lines
from pipeline.models.batch_records import Part, Phase, Records, open_parts
from pipeline.models.openai_api import Serving
from pipeline.records import Request


class OpenPart(msgspec.Struct, eq=False):
    """A part that somebody waits for, or might."""

    part: Part
    waiting: dict[str, Request] = {}  # rows that were asked for in this call and not answered
    status: str = ""  # the last one seen in this call
    reported: float = 0.0  # when that was said
    was_cancelled: bool = False  # before this call began


class OpenParts:
    """Every open part of one model, in memory as on the disk."""

    def __init__(self, root: Path, identity: str, client: BatchClient) -> None:
        self.records = Records(ledger_folder(root, identity))
        self._root = root
        self._identity = identity
        self._client = client
        self._open: list[OpenPart] = []
        self._unclaimed: dict[str, OpenPart] = {}  # rows that nobody has asked for in this call

    def load(self) -> None:
        """Take up what earlier starts left."""
        self._open, self._unclaimed = [], {}
        self.records.acquire()
        self.records.tidy()
        unstored = self.settle()
        for found in self.records.open_parts():
            if found.phase is Phase.ENDED:
                rows, part = unstored[found.id], found
            else:
                self._check_place(found)
                existing = self._find(found) if found.phase is Phase.UPLOADED else found
                if existing is None:
                    continue
                rows, part = self.records.ids(existing), existing
            opened = OpenPart(part)
            self._open.append(opened)
            self._unclaimed.update(dict.fromkeys(rows, opened))

    def settle(self) -> dict[str, list[str]]:
        """Close ended parts whose answers are all in the ledger; of the others, what it lacks."""
        ended = [part for part in self.records.open_parts() if part.phase is Phase.ENDED]
        if not ended:
            return {}
        ledger = Ledger(self._root, self._identity)
        unstored: dict[str, list[str]] = {}
        for part in ended:
            known = set(self.records.ids(part))
            lines = output_lines(*self.files(part))
            answers = {line.custom_id for line in lines if is_answer(line)} & known
            missing = [key for key in answers if not ledger.answered(key)]
            if missing:
                unstored[part.id] = missing
            else:
                self.records.close(part, Phase.COLLECTED)
        return unstored

    def claim(self, request: Request) -> bool:
        """Is this row out already? Then it is waited for."""
        opened = self._unclaimed.pop(request.id, None)
        if opened is None:
            return False
        opened.waiting[request.id] = request
        return True

    def waited_for(self) -> list[OpenPart]:
        return [opened for opened in self._open if opened.waiting]

    @property
    def any_ended(self) -> bool:
        return any(part.phase is Phase.ENDED for part in self.records.open_parts())

    def running(self) -> int:
        """How many are waited for and have not ended."""
        return sum(opened.part.phase is Phase.CREATED for opened in self.waited_for())

    def files(self, part: Part) -> list[Path]:
        return [self.records.file(part.id, kind) for kind in ("output", "errors")]

    def create(self, part_id: str, rows: dict[str, Request], window: str) -> None:
        """Upload the part's input file and make its batch."""
        self.records.write_ids(part_id, rows)
        name = f"{part_id}.jsonl"
        part = Part(
            id=part_id,
            phase=Phase.UPLOADED,
            rows=len(rows),
            endpoint=self._client.name,
            file_id=self._client.upload(self.records.file(part_id, "input"), name),
            uploaded_at=time.time(),
        )
        self.records.write(part)
        state = self._client.create(part.file_id, part_id, window)
        self._open.append(OpenPart(self._created(part, state), rows, status=state.status))

    def fetch(self, opened: OpenPart, state: BatchState) -> None:
        """The files of a batch that is over; from here on it is never asked about again."""
        part = opened.part
        for path, file_id in zip(
            self.files(part), (state.output_file, state.error_file), strict=True
        ):
            if file_id is not None:
                self._client.download(file_id, path)
        ended = msgspec.structs.replace(part, phase=Phase.ENDED, status=state.status)
        opened.part = self.records.write(ended)

    def keep_only(self, opened: OpenPart, rows: set[str]) -> None:
        """An ended part: only answers that nobody has asked for yet are worth coming back for."""
        gone = [k for k, o in self._unclaimed.items() if o is opened and k not in rows]
        for key in gone:
            del self._unclaimed[key]
        if not rows:
            self._open.remove(opened)

    def refused(self, opened: OpenPart, status: str) -> None:
        """The provider took none of its rows."""
        self.records.close(opened.part, Phase.FAILED, status)
        self.keep_only(opened, set())

    def is_unclaimed(self, opened: OpenPart, request_id: str) -> bool:
        return self._unclaimed.get(request_id) is opened

    def _find(self, part: Part) -> Part | None:
        """A killed process may have created this part's batch, or not."""
        state = self._client.find(part.id, part.file_id, part.uploaded_at)
        if state is not None:
            return self._created(part, state)
        self._client.discard(part.file_id)
        self.records.forget(part.id)
        return None

    def _created(self, part: Part, state: BatchState) -> Part:
        created = msgspec.structs.replace(
            part, phase=Phase.CREATED, batch_id=state.id, status=state.status
        )
        self.records.write(created)
        self.records.shed(part.id, "input")
        return created

    def _check_place(self, part: Part) -> None:
        if part.endpoint != self._client.name:
            raise UserError(
                f"batch {part.batch_id or part.id} of {part.rows:,} rows was made at "
                f"{part.endpoint}, and serving.base_url is {self._client.name}. Set it back to "
                f"collect the batch, or delete {self.records.file(part.id, 'json')} to ask its "
                "rows again"
            )


def cancel_open(serving: Serving, root: Path, identity: str) -> Iterator[tuple[Part, BatchState]]:
    """Cancel what runs; yield each open batch and what its provider says of it now.

    Nothing on the disk is changed: a run that waits for them, or the next one, collects what they
    have finished.
    """
    parts = [p for p in open_parts(ledger_folder(root, identity)) if p.phase is not Phase.ENDED]
    if not parts:
        return
    client = BatchClient(serving)
    try:
        for part in parts:
            batch_id = part.batch_id
            if batch_id is None:
                found = client.find(part.id, part.file_id, part.uploaded_at)
                if found is None:
                    continue
                batch_id = found.id
            yield part, client.cancel(batch_id)
    finally:
        client.close()
