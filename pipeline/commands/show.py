"""`distill show RUN [ID]`: samples at any point of the flow, or one row from end to end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from pipeline.commands import printable, run_config, run_folder
from pipeline.commands.trace import trace
from pipeline.errors import DONE, UserError
from pipeline.records import Answer, Example, Message, read_jsonl
from pipeline.stage1_generate.curate.funnel import Dropped
from pipeline.stage3_evaluate.evaluate import saved_answers


def show(name: str, wanted: str | None, n: int, *, tokens: bool = False) -> int:
    run = run_folder(name)
    if tokens:
        from pipeline.commands.show_tokens import show_tokens  # it imports torch

        return show_tokens(run, wanted, n)
    if wanted:
        return _trace(run, wanted, n)
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


def _trace(run: Path, wanted: str, most: int) -> int:
    """Everything that is known of a request, a seed, a row of the dataset or an evaluation item."""
    found = trace(run_config(run), wanted, most)
    for arm, answers in saved_answers(run).items():
        for answer in answers:
            if answer.request_id.startswith(wanted) or answer.item_id.startswith(wanted):
                print(f"--- evaluation: {arm}, {answer.ability} {answer.variant}")
                _answer(answer)
                found += 1
    if not found:
        raise UserError(
            f"{run}: no request, seed or item begins with {wanted!r}; a row of the dataset is "
            "train:0 or validation:0, and so on"
        )
    return DONE
