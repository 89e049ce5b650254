"""Which requests are still wanted: fixed samples, accepted-row targets, longer second tries.

A task asks `samples` times for each seed; or, with `accept`, until enough answers pass its filters:

    {per_seed: 2, at_most: 8}     two different rows that pass, of at most eight samples, each seed
    {total: 5000, at_most: 8}     5,000 rows in all, one sample of every seed after the other

Never more is in flight than is still wanted. Therefore what is asked does not depend on the order
in which answers come: for every seed (or over all) it is the shortest row of samples that holds
enough accepted ones. So a run that was killed buys the same rows.

One class serves twice. Online, `ask` pulls `requests()` and tells what was answered; afterwards
`replay()` takes the ledger through the same rules and finds the rows that count.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from pipeline.config import Config, Task
from pipeline.ledger import Ledger
from pipeline.prompts import load_prompt
from pipeline.records import (
    Decision,
    ErrorKind,
    Finish,
    Generation,
    Message,
    Request,
    Seed,
    Verdict,
    digest,
    request_id,
)
from pipeline.stage1_generate.curate import Filter
from pipeline.stage1_generate.curate.against import contamination_filter
from pipeline.stage1_generate.curate.judge import (
    candidate,
    common_filters,
    filters_of,
    judge,
    needs_others,
)
from pipeline.stage1_generate.recipes import hook, recipe_named
from pipeline.stage1_generate.request_ids import RequestIds


class Slot(msgspec.Struct):
    """One sample of one seed; `longer` is its second try with more tokens."""

    task: Task
    seed: Seed
    index: int
    longer: bool = False


class Settled(msgspec.Struct):
    """A sample whose answer is final."""

    slot: Slot
    request: Request
    generation: Generation
    verdict: Verdict | None  # None where nothing has to know it


class _Open(msgspec.Struct):
    """A seed (or, with a total, a task) that is not satisfied yet."""

    wanted: int
    accepted: set[str]
    in_flight: int = 0
    next_index: int = 0

    def short(self) -> bool:
        return len(self.accepted) + self.in_flight < self.wanted


# Reads a task's seeds, numbered from 0; an array of booleans says which may be left out.
SeedReader = Callable[[Task, Any], Iterator[tuple[int, Seed]]]


class Demand:
    """The requests that one teacher's tasks make to it; `teacher` is its name in the config.

    `request_ids` of a task, where given, let a pass leave out seeds that are all answered; how many
    requests that were is in `passed_over`.
    """

    def __init__(
        self,
        config: Config,
        tasks: list[Task],
        teacher: str,
        seeds: SeedReader,
        ledger: Ledger,
        *,
        judge_all: bool = False,
        request_ids: Callable[[Task], RequestIds] | None = None,
    ) -> None:
        self._tasks = tasks
        self._teacher = teacher
        self._model = ledger.model
        self._ledger = ledger
        self._seeds = seeds
        self._request_ids = request_ids
        self.passed_over = 0
        self.unanswered = 0
        self._sampling = {task.name: config.sampling_of(task, teacher) for task in tasks}
        judged = [task for task in tasks if judge_all or task.accept]
        self._filters = {task.name: _row_filters(config, task) for task in judged}
        self._waiting: dict[str, list[Slot]] = {}  # asked, by request id
        self._again: deque[Slot] = deque()  # wanted because of an answer
        self._open: dict[tuple[str, str], _Open] = {}
        self._rendered: tuple[Seed, tuple[Message, ...]] | None = None
        self._undecided = 0  # slots in flight whose answer may lead to another request

    def requests(self) -> Iterator[Request | None]:
        """What to ask, in a fixed order; None: nothing until the answers so far were told."""
        for task in self._tasks:
            if task.accept is not None and task.accept.total is not None:
                yield from self._until_total(task, task.accept.total, task.accept.at_most)
                continue
            if task.accept is None:
                yield from self._samples(task)
                continue
            for _, seed in self._seeds(task, None):
                opened = _Open(task.accept.per_seed or 0, set())
                self._open[task.name, seed.id] = opened
                self._top_up(opened, task, seed)
                yield from self._follow_ups()
        while self._undecided or self._again:
            yield from self._follow_ups()
            if self._undecided:
                yield None

    def known(self, request: Request) -> list[Settled]:
        """Tell that the ledger has the answer; it is read only where something hangs on it."""
        if any(self._decides(slot) for slot in self._waiting[request.id]):
            row = self._ledger.get(request.id)
            assert row is not None, request.id
            return self.answered(request, row.generation)
        del self._waiting[request.id]
        return []

    def answered(self, request: Request, generation: Generation) -> list[Settled]:
        """Tell an answer; what it settles. What follows from it is in the next `requests()`."""
        settled = []
        for slot in self._waiting.pop(request.id, ()):
            if self._decides(slot):
                self._undecided -= 1
            longer = slot.task.longer_max_tokens
            if longer is not None and not slot.longer and generation.finish is Finish.LENGTH:
                self._again.append(Slot(slot.task, slot.seed, slot.index, longer=True))
                continue
            verdict = self._judge(slot, request, generation)
            settled.append(Settled(slot, request, generation, verdict))
            unfinished = generation.error_kind is ErrorKind.TRANSIENT
            if slot.task.accept is not None and not unfinished:
                self._count(slot, generation, verdict)
        return settled

    def replay(self) -> Iterator[Settled]:
        """Go through the stored answers in the order of the requests: the rows that count.

        Requests without an answer are counted in `unanswered`.
        """
        for request in self.requests():
            if request is None:
                return  # what is wanted next depends on an answer that failed for now
            row = self._ledger.get(request.id)
            if row is None:
                self.unanswered += 1
                continue
            yield from self.answered(request, row.generation)

    def _samples(self, task: Task) -> Iterator[Request]:
        kept = self._request_ids(task) if self._request_ids else None
        done = None
        if kept is not None and task.longer_max_tokens is None:
            whole = kept.count // task.samples
            each = kept.answered(self._ledger)[: whole * task.samples]
            done = each.reshape(whole, task.samples).all(axis=1)
            self.passed_over += int(done.sum()) * task.samples
        for number, seed in self._seeds(task, done):
            for index in range(task.samples):
                request = self._ask(Slot(task, seed, index))
                if kept is not None:
                    kept.add(number * task.samples + index, request.id)
                yield request
            yield from self._follow_ups()
        if kept is not None:
            kept.flush()

    def _until_total(self, task: Task, total: int, at_most: int) -> Iterator[Request | None]:
        opened = self._open[task.name, ""] = _Open(total, set())
        for index in range(at_most):
            for _, seed in self._seeds(task, None):
                while not opened.short():
                    if len(opened.accepted) >= total:
                        return
                    yield from self._follow_ups()
                    if not opened.short():
                        yield None
                opened.in_flight += 1
                yield self._ask(Slot(task, seed, index))
        while opened.in_flight and self._undecided:
            yield from self._follow_ups()
            yield None

    def _follow_ups(self) -> Iterator[Request]:
        while self._again:
            yield self._ask(self._again.popleft())

    def _ask(self, slot: Slot) -> Request:
        request = self._request(slot)
        self._waiting.setdefault(request.id, []).append(slot)
        self._undecided += self._decides(slot)
        return request

    def _decides(self, slot: Slot) -> bool:
        """May the answer lead to another request?"""
        task = slot.task
        return task.accept is not None or (task.longer_max_tokens is not None and not slot.longer)

    def _request(self, slot: Slot) -> Request:
        task, seed = slot.task, slot.seed
        sampling = self._sampling[task.name]
        if slot.longer:
            assert task.longer_max_tokens is not None
            sampling = msgspec.structs.replace(sampling, max_tokens=task.longer_max_tokens)
        asking = load_prompt(task.teacher_prompt)
        # The samples of a seed come one after the other: their messages are rendered once.
        if self._rendered is None or self._rendered[0] is not seed:
            render = hook(recipe_named(task.recipe), "requests", task.options)
            assert render is not None, task.recipe
            self._rendered = seed, render(seed, asking)
        messages, schema = self._rendered[1], task.response_schema
        return Request(
            id=request_id(self._model, messages, sampling, slot.index, schema),
            seed_id=seed.id,
            recipe=task.recipe,
            prompt=asking.ref,
            messages=messages,
            sampling=sampling,
            sample_index=slot.index,
            model=self._model,
            schema=schema,
        )

    def _judge(self, slot: Slot, request: Request, generation: Generation) -> Verdict | None:
        filters = self._filters.get(slot.task.name)
        if filters is None:
            return None
        if generation.finish is Finish.ERROR:
            return Verdict(Decision.DROP, "finish", "ended by error")
        row = candidate(slot.task, slot.seed, request, generation, self._teacher)
        return judge(row, filters)

    def _count(self, slot: Slot, generation: Generation, verdict: Verdict | None) -> None:
        task = slot.task
        assert task.accept is not None and verdict is not None
        per_seed = task.accept.per_seed is not None
        key = (task.name, slot.seed.id if per_seed else "")
        opened = self._open[key]
        opened.in_flight -= 1
        if verdict.decision is Decision.KEEP:
            opened.accepted.add(_text_key(slot, generation))
        if per_seed:
            self._top_up(opened, task, slot.seed)
            if not opened.in_flight:
                del self._open[key]  # satisfied, or at its last sample

    def _top_up(self, opened: _Open, task: Task, seed: Seed) -> None:
        assert task.accept is not None
        while opened.short() and opened.next_index < task.accept.at_most:
            self._again.append(Slot(task, seed, opened.next_index))
            opened.next_index += 1
            opened.in_flight += 1


def _text_key(slot: Slot, generation: Generation) -> str:
    """Two equal answers to one seed are one row; curation would drop the second."""
    return digest([slot.seed.id, unicodedata.normalize("NFC", generation.text).strip()], 16)


def _row_filters(config: Config, task: Task) -> list[Filter]:
    """The task's filters that look at one row alone.

    Duplicates depend on which row came first, so within a seed equal texts are counted once
    instead; duplicates across seeds, votes and scores of other tasks are left to curation.
    """
    every = filters_of(config, task, common_filters(config), contamination_filter(config))
    return [check for check in every if not needs_others(check)]
