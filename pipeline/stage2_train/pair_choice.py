"""Which answers of the student stand as rejected, beside which of the teacher's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from pipeline import stopping
from pipeline.config import Config, Task
from pipeline.errors import Stopped
from pipeline.ledger import Ledger
from pipeline.records import (
    Decision,
    ErrorKind,
    Example,
    Finish,
    Generation,
    Message,
    Request,
    Usage,
    digest,
)
from pipeline.stage1_generate.curate import Candidate, Filter, make_filter
from pipeline.stage1_generate.curate.judge import task_filters
from pipeline.stage1_generate.used import StoredSeeds
from pipeline.stage2_train.pair_files import LeftOut, Pair, Row

SIDES = ("train", "validation")
VERIFIERS = ("answer", "constraints", "code")

# A split's name -> its rows with what the student is asked for each.
Asking = Callable[[str], Iterator[tuple[Row, Request]]]


class Pairs:
    """The dataset's rows as pairs, and what was left out of them."""

    def __init__(self, config: Config, ledger: Ledger, asking: Asking) -> None:
        self.cut_off = 0
        self.usage = Usage()
        self.failed: list[str] = []
        self._left_out: Counter[LeftOut] = Counter()
        self._ledger = ledger
        self._asking = asking
        self._checks: dict[str, list[Filter]] = {}
        assert config.train.preference is not None
        if config.train.preference.rejected == "wrong":
            self._checks = {
                task.name: [
                    make_filter(name, settings, f"tasks.{task.name}.filters", config)
                    for name, settings in verifiers_of(config, task)
                ]
                for task in config.tasks
            }
        self._seeds = StoredSeeds(config.run_dir / "0_seeds.jsonl")
        # An answer must not be chosen in one row and rejected in another: all of the teacher's.
        self._taught = {
            _mark(request, row.chosen[-1].content)
            for side in SIDES
            for row, request in asking(side)
        }
        self._seen: set[str] = set()  # requests, over both splits

    def of(self, side: str) -> Iterator[Pair]:
        paired: set[str] = set()
        for row, request in self._asking(side):
            stopping.raise_if_requested()
            if request.id in paired:
                self._left_out[LeftOut.FURTHER] += 1
                continue
            paired.add(request.id)
            answer = self._answer(request)
            why = self._why_not(row, request, answer)
            if why is not None:
                self._left_out[why] += 1
                continue
            self.cut_off += answer.finish is Finish.LENGTH
            yield Pair(row, answer.text, request.id, ended=answer.finish is not Finish.LENGTH)

    def close(self) -> None:
        self._seeds.close()

    def reasons(self) -> dict[str, int]:
        return {
            reason.value: self._left_out[reason] for reason in LeftOut if self._left_out[reason]
        }

    def _answer(self, request: Request) -> Generation:
        stored = self._ledger.get(request.id)
        assert stored is not None, request.id
        answer = stored.generation
        if answer.error_kind is ErrorKind.TRANSIENT:
            raise Stopped(
                f"student: a request failed for now ({answer.error}); all other answers are "
                "stored. Run the same command again to ask what is missing"
            )
        if request.id not in self._seen:
            self._seen.add(request.id)
            spent = answer.usage
            self.usage = Usage(self.usage.input + spent.input, self.usage.output + spent.output)
            if answer.finish is Finish.ERROR:
                self.failed.append(f"{request.id} (seed {request.seed_id}): {answer.error}")
        return answer

    def _why_not(self, row: Row, request: Request, answer: Generation) -> LeftOut | None:
        if answer.finish is Finish.ERROR:
            return LeftOut.ERROR
        if not answer.text.strip():
            return LeftOut.EMPTY
        if _mark(request, answer.text) in self._taught:
            return LeftOut.SAME
        if self._right(row, request, answer):
            return LeftOut.RIGHT
        return None

    def _right(self, row: Row, request: Request, answer: Generation) -> bool:
        """By all the verifiers of its task; false where it has none."""
        checks = self._checks.get(row.task)
        if not checks:
            return False
        seed = self._seeds.get(row.task, row.seed_id)
        example = Example(row.prompt, (Message("assistant", answer.text),), 1.0, (request.id,))
        candidate = Candidate(seed, request, answer, example)
        return all(check(candidate).decision is Decision.KEEP for check in checks)


def verifiers_of(config: Config, task: Task) -> list[tuple[str, dict[str, Any]]]:
    """A task's filters that can tell a right answer from a wrong one, with their settings."""
    common = [item for entry in config.curate.filters for item in entry.items()]
    return [item for item in [*common, *task_filters(task)] if item[0] in VERIFIERS]


def _mark(request: Request, text: str) -> int:
    """64 bits for a prompt and an answer to it; white space does not count."""
    return int(digest([request.id, " ".join(text.split())], 16), 16)
