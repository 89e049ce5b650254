"""While a teacher answers: do its answers still pass, and is it still the same teacher?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from difflib import SequenceMatcher

from pipeline.ledger import Ledger
from pipeline.records import (
    Decision,
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    digest,
    request_id,
)
from pipeline.stage1_generate.curate.safety import masked, secrets_in
from pipeline.stage1_generate.demand import Settled

RECENT = 200  # answers; fewer cannot tell 2 % from 8 %
FIRST = 20  # answers with a schema, after which it is known whether the endpoint heeds it
FALL = 0.25  # of the share that passed before


class Acceptance:
    """The share of new answers that pass, task by task; `collapsed` says why to pause.

    A broken prompt, a teacher that was replaced or a server that drops the system message still
    answers with status 200 and is paid for; only the filters see it.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._recent: dict[str, deque[bool]] = {}
        self._earlier: dict[str, tuple[int, int]] = {}  # (passed, seen) before the recent ones
        self._reasons: dict[str, tuple[str, str]] = {}  # the last reason for dropping, the text
        self._with_schema = self._off_schema = 0
        self.passed = 0
        self.seen = 0
        self.collapsed: str | None = None

    def add(self, settled: Settled) -> None:
        verdict, task = settled.verdict, settled.slot.task.name
        if verdict is None or settled.generation.finish is Finish.ERROR:
            return
        kept = verdict.decision is Decision.KEEP
        self.seen += 1
        self.passed += kept
        if not kept:
            text = settled.generation.text
            self._reasons[task] = f"{verdict.filter}: {verdict.reason}", text
        if settled.request.schema is not None:
            self._with_schema += 1
            self._off_schema += verdict.filter == "schema"
            if self._with_schema == FIRST and self._off_schema > FIRST / 2:
                self.collapsed = (
                    f"task {task}: {self._off_schema} of the first {FIRST} answers do not follow "
                    f"the response schema; it looks as if the endpoint ignores it "
                    f"({verdict.reason}). `distill doctor CONFIG` tests it. Every answer is "
                    "stored; run the same command again to go on all the same"
                )
        recent = self._recent.setdefault(task, deque())
        recent.append(kept)
        if len(recent) > RECENT:
            oldest = recent.popleft()
            passed, seen = self._earlier.get(task, (0, 0))
            self._earlier[task] = passed + oldest, seen + 1
        if self._least and len(recent) == RECENT:
            self._check(task, sum(recent) / RECENT)

    def _check(self, task: str, share: float) -> None:
        passed, seen = self._earlier.get(task, (0, 0))
        before = passed / seen if seen >= RECENT else 0.0
        floor = max(self._least, FALL * before)
        if share < floor and self.collapsed is None:
            earlier = f" (it was {before:.0%} before)" if before else ""
            reason, text = self._reasons[task]
            shown = masked(text, secrets_in(text))[:300]
            self.collapsed = (
                f"task {task}: {share:.1%} of the last {RECENT} answers passed the filters"
                f"{earlier}; the last one dropped: {reason} ({shown!r}). Paused before more is "
                "spent; every answer is stored. Run the same command again to go on all the "
                "same, or set budget.min_acceptance to 0"
            )


PROBE = (Message("user", "Describe the sea in the morning in two sentences."),)
PROBE_SAMPLING = Sampling(temperature=0.0, max_tokens=64, seed=7)
BASELINE = 3  # answers, to know how much the same teacher differs from itself
SLACK = 0.15


class Probe:
    """One fixed question every so many rows: a hosted teacher that was changed answers otherwise.

    The answers lie in the ledger like any other and are compared over all runs. Even at
    temperature 0 a busy server does not repeat itself to the letter, so an answer is strange only
    when it is less like every earlier one than these were like each other.
    """

    def __init__(self, every: int, model: str, ledger: Ledger) -> None:
        self._every = every
        self._model = model
        self._texts: list[str] = []
        self._ids: set[str] = set()
        while ledger.answered(known := self._request(len(self._texts)).id):
            row = ledger.get(known)
            assert row is not None, known
            self._texts.append(row.generation.text)
        self._number = len(self._texts)

    def among(self, requests: Iterator[Request | None]) -> Iterator[Request | None]:
        for count, request in enumerate(requests, 1):
            yield request
            if count % self._every == 0:
                probe = self._request(self._number)
                self._number += 1
                self._ids.add(probe.id)
                yield probe

    def mine(self, request: Request) -> bool:
        return request.id in self._ids

    def answered(self, generation: Generation) -> str | None:
        """Take an answer; a warning where it is strange."""
        if generation.finish is Finish.ERROR:
            return None
        warning = None
        text = generation.text
        if len(self._texts) >= BASELINE:
            usual = min(
                _nearest(one, self._texts[:i] + self._texts[i + 1 :])
                for i, one in enumerate(self._texts[:BASELINE])
            )
            likeness = _nearest(text, self._texts)
            if likeness < usual - SLACK:
                warning = (
                    f"the teacher {self._model} answers the fixed probe otherwise than in its "
                    f"{len(self._texts)} earlier answers (likeness {likeness:.2f}, usual "
                    f"{usual:.2f}): it may have been changed. Now: {text[:160]!r}; first: "
                    f"{self._texts[0][:160]!r}"
                )
        self._texts.append(text)
        return warning

    def _request(self, number: int) -> Request:
        return Request(
            id=request_id(self._model, PROBE, PROBE_SAMPLING, number),
            seed_id="probe",
            recipe="probe",
            prompt=PromptRef("probe", digest(PROBE, 16)),
            messages=PROBE,
            sampling=PROBE_SAMPLING,
            sample_index=number,
            model=self._model,
        )


def _nearest(text: str, others: list[str]) -> float:
    """The greatest share of equal words with one of the others, in order; 1 is the same."""
    return max(SequenceMatcher(None, text.split(), other.split()).ratio() for other in others)
