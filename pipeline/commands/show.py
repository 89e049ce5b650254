"""`distill show RUN [ID]`: samples at any point of the flow, or one row from end to end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from pipeline.commands import printable, run_config, run_folder
from pipeline.config import Config
from pipeline.errors import DONE, UserError
from pipeline.records import Answer, Example, Message, read_jsonl
from pipeline.stage1_generate.curate import Candidate
from pipeline.stage1_generate.curate.judge import (
    common_filters,
    contamination_filter,
    filters_of,
    judge,
    needs_others,
)
from pipeline.stage1_generate.curate.run import Dropped
from pipeline.stage1_generate.used import candidates
from pipeline.stage3_evaluate.evaluate import saved_answers


def show(name: str, wanted: str | None, n: int) -> int:
    run = run_folder(name)
    if wanted:
        return _trace(run, wanted)
    if not (run / "2_kept.jsonl").is_file():
        raise UserError(
            f"{run} has no curated rows yet; `distill status {name}` says where it is, "
            f"`distill curate {run / 'config.yaml'}` makes them"
        )
    kept = read_jsonl(run / "2_kept.jsonl", Example)
    dropped = read_jsonl(run / "2_dropped.jsonl", Dropped)
    for example in islice(kept, n):
        print(f"--- kept ({example.meta['task']}, request {example.source[0]})")
        _messages((*example.prompt, *example.completion))
    for row in _few_of_each(dropped, n):
        print(f"--- dropped by {row.filter}: {row.reason} ({row.task}, request {row.request_id})")
        print(printable(row.text))
    for arm, answers in saved_answers(run).items():
        for answer in answers[:n]:
            print(f"--- {arm}, {answer.ability} {answer.variant}, item {answer.item_id}")
            _answer(answer)
    return DONE


def _few_of_each(rows: Iterable[Dropped], n: int) -> Iterator[Dropped]:
    seen: dict[str, int] = {}
    for row in rows:
        seen[row.filter] = seen.get(row.filter, 0) + 1
        if seen[row.filter] <= n:
            yield row


def _messages(messages: Iterable[Message]) -> None:
    for message in messages:
        print(f"[{message.role}] {printable(message.content)}")


def _answer(answer: Answer) -> None:
    print(f"question: {printable(answer.question)}")
    print(f"answer: {printable(answer.text)}")
    print(
        f"finish {answer.finish}, read as {answer.extraction}: {answer.extracted!r}, "
        f"reference {answer.reference!r}, correct {answer.correct:g}"
    )


def _trace(run: Path, wanted: str) -> int:
    """Everything that is known of a request, a seed or an evaluation item."""
    config = run_config(run)
    found = 0
    if (run / "1_generations.jsonl").is_file():
        for _, row in candidates(config):
            if row.request.id.startswith(wanted) or row.seed.id.startswith(wanted):
                _trace_row(config, row)
                found += 1
    for arm, answers in saved_answers(run).items():
        for answer in answers:
            if answer.request_id.startswith(wanted) or answer.item_id.startswith(wanted):
                print(f"--- evaluation: {arm}, {answer.ability} {answer.variant}")
                _answer(answer)
                found += 1
    if not found:
        raise UserError(f"{run}: no request, seed or item begins with {wanted!r}")
    return DONE


def _trace_row(config: Config, row: Candidate) -> None:
    task = next(t for t in config.tasks if t.name == row.example.meta["task"])
    every = filters_of(config, task, common_filters(config))
    against = contamination_filter(config)
    print(f"--- seed {row.seed.id} ({row.seed.origin})")
    print(printable(msgspec.json.encode(row.seed.fields).decode(), 1000))
    print(f"--- request {row.request.id}: {row.request.prompt.name}, {row.request.model}, ", end="")
    print(f"sample {row.request.sample_index}, {msgspec.to_builtins(row.request.sampling)}")
    _messages(row.request.messages)
    got = row.generation
    print(f"--- answer: finish {got.finish}, {got.usage.output} tokens, {got.attempts} attempts")
    if got.error:
        print(f"error: {printable(got.error)}")
    if got.reasoning:
        print(f"reasoning: {printable(got.reasoning, 2000)}")
    print(printable(got.text, 4000))
    # Duplicates and votes depend on other rows; 2_dropped.jsonl has what was decided.
    dropped = (
        {d.request_id: d for d in read_jsonl(config.run_dir / "2_dropped.jsonl", Dropped)}
        if (config.run_dir / "2_dropped.jsonl").is_file()
        else {}
    )
    for check in [*every, *([against] if against else [])]:
        if needs_others(check):
            continue
        verdict = judge(row, [check])
        score = "" if verdict.score is None else f" (score {verdict.score:g})"
        print(f"filter {verdict.filter}: {verdict.decision} {verdict.reason}{score}")
    if row.request.id in dropped:
        print(f"=> dropped by {dropped[row.request.id].filter}: {dropped[row.request.id].reason}")
    else:
        print("=> kept; the student sees:")
        _messages((*row.example.prompt, *row.example.completion))
