"""`distill show RUN ID`: one row from its seed to where it ended, or back from the dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipeline.commands import printable
from pipeline.commands.whereabouts import PLACE, Place, kept_rows, place_of, row_at, verdict_of
from pipeline.config import Config, Task
from pipeline.records import Decision, Message, Seed, read_jsonl
from pipeline.stage1_generate.curate import Candidate, Filter, filter_kinds
from pipeline.stage1_generate.curate.against import contamination_filter
from pipeline.stage1_generate.curate.judge import (
    common_filters,
    filters_of,
    judge,
    needs_others,
)
from pipeline.stage1_generate.recipes import teaches
from pipeline.stage1_generate.used import UsedRow, candidates

WIDTH = 24  # of the column with filters' names


def trace(config: Config, wanted: str, most: int) -> int:
    """Print every row that `wanted` means, at most `most` of them; return how many there are.

    A request's or a seed's id, or the beginning of one; or `train:12`, a row of the dataset.
    """
    run = config.run_dir
    if found := PLACE.fullmatch(wanted):
        wanted = row_at(run, found[1], int(found[2])).source[0]
    if not (run / "1_generations.jsonl").is_file():
        return 0
    used = list(_meant(run, wanted))
    for task, row in candidates(config, used[:most]):
        _print_row(config, task, row)
    if len(used) > most:
        print(
            f"\n{len(used) - most} more rows have an id like {wanted!r}: {_names(used[most:])}; "
            "give a whole id for one, or --n for more"
        )
    return len(used)


def _meant(run: Path, wanted: str) -> Iterator[UsedRow]:
    """The rows with this very id; where there are none, those whose ids begin with it."""
    exact = False
    begins: list[UsedRow] = []
    for row in read_jsonl(run / "1_generations.jsonl", UsedRow):
        if wanted in (row.request_id, row.seed_id):
            exact = True
            yield row
        elif not exact and (row.request_id.startswith(wanted) or row.seed_id.startswith(wanted)):
            begins.append(row)
    if not exact:
        yield from begins


def _names(rows: Iterable[UsedRow]) -> str:
    ids = [f"{row.request_id[:12]} (seed {row.seed_id})" for row in rows]
    return ", ".join(ids[:8]) + (", ..." if len(ids) > 8 else "")


def _print_row(config: Config, task: Task, row: Candidate) -> None:
    checks = filters_of(config, task, common_filters(config), contamination_filter(config))
    hide = _Masks(checks)
    print(f"\n=== request {row.request.id}")
    _seed(config, row.seed, hide)
    _asked(row, hide)
    _answered(row, hide)
    kept = list(kept_rows(config.run_dir, task.name, row.request.id))
    _filters(config, row, checks, bool(kept))
    if not (config.run_dir / "2_dropped.jsonl").is_file():
        print("5. not curated yet")
    elif dropped := verdict_of(config.run_dir, task.name, row.request.id):
        score = "" if dropped.score is None else f" (score {dropped.score:g})"
        print(f"5. dropped by {dropped.filter}: {dropped.reason}{score}")
    elif not teaches(task):
        print("5. passed; answers of this task are for other tasks only, and not trained on")
    else:
        for number, example in enumerate(kept):
            _ended(config, number, example.meta, place_of(config.run_dir, example), hide)


class _Masks:
    """Foreign text for a terminal, without what the run's filters for secrets would hide."""

    def __init__(self, checks: Iterable[Any]) -> None:
        self._masks = [check.mask for check in checks if hasattr(check, "mask")]

    def __call__(self, text: str, limit: int = 4000) -> str:
        for mask in self._masks:
            text = mask(text)
        return printable(text, limit)

    def messages(self, messages: Iterable[Message]) -> None:
        for message in messages:
            print(f"   [{message.role}] {self(message.content)}")


def _seed(config: Config, seed: Seed, hide: _Masks) -> None:
    print(f"1. seed {seed.id} (task {seed.task}, from {seed.origin or 'an unknown place'})")
    for name, value in seed.fields.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        print(f"   {name}: {hide(text, 1000)}")
    if seed.reference is not None:
        print(f"   reference: {hide(seed.reference)}")
    if seed.constraints:
        print(f"   constraints: {hide(msgspec.json.encode(seed.constraints).decode())}")
    for parent in _ancestors(config.run_dir, seed):
        question = parent.fields.get("question", "")
        print(f"   derived from seed {parent.id} (task {parent.task}, {parent.origin}):")
        print(f"      {hide(str(question), 300)}")
    if source := seed.fields.get("source_request"):
        print(f"   derived from the answer to request {source}: `distill show {config.name} "
              f"--id {source}`")  # fmt: skip


def _ancestors(run: Path, seed: Seed) -> Iterator[Seed]:
    """The seeds that this one was derived from, nearest first."""
    parts = seed.id.split("/")
    names = {"/".join(parts[:i]) for i in range(1, len(parts))}
    names |= {str(seed.fields["source_seed"])} if "source_seed" in seed.fields else set()
    names.discard(seed.id)
    if not names:
        return
    found = {s.id: s for s in read_jsonl(run / "0_seeds.jsonl", Seed) if s.id in names}
    yield from sorted(found.values(), key=lambda s: -len(s.id))


def _asked(row: Candidate, hide: _Masks) -> None:
    request = row.request
    sampling = msgspec.to_builtins(request.sampling) or "defaults"
    print(
        f"2. asked teacher {row.teacher} ({request.model}), sample {request.sample_index}, "
        f"sampling {sampling}, prompt {request.prompt.name} ({request.prompt.hash}):"
    )
    hide.messages(request.messages)
    if request.schema is not None:
        print(f"   schema: {hide(msgspec.json.encode(request.schema).decode(), 1000)}")


def _answered(row: Candidate, hide: _Masks) -> None:
    got = row.generation
    print(
        f"3. answered: finish {got.finish}, {got.usage.input} tokens in, {got.usage.output} out, "
        f"{got.seconds:.2f} s, {got.attempts} attempts"
    )
    if got.error:
        print(f"   error: {hide(got.error)}")
    if got.reasoning:
        print(f"   reasoning: {hide(got.reasoning, 2000)}")
    print(f"   {hide(got.text)}")


def _filters(config: Config, row: Candidate, checks: list[Filter], kept: bool) -> None:
    print("4. filters, in their order; each looks at the row as if it were the only one")
    for check in checks:
        if needs_others(check):
            name = _name_of(check)
            print(f"   {name:<{WIDTH}} judges a row beside others" + (": keep" if kept else ""))
            continue
        verdict = judge(row, [check])
        score = "" if verdict.score is None else f" (score {verdict.score:g})"
        reason = f": {printable(verdict.reason)}" if verdict.decision is Decision.DROP else ""
        print(f"   {verdict.filter:<{WIDTH}} {verdict.decision}{reason}{score}")


def _name_of(check: Filter) -> str:
    for name, kind in filter_kinds().items():
        if isinstance(kind, type) and isinstance(check, kind):
            return name
    return type(check).__name__


def _ended(
    config: Config, number: int, meta: dict[str, Any], place: Place | None, hide: _Masks
) -> None:
    view = f", view {meta['view']}" if meta.get("view") else ""
    known = {k: v for k, v in meta.items() if isinstance(v, float) and k != "temperature"}
    scores = "".join(f", {name} {value:g}" for name, value in known.items())
    print(f"{5 + number}. kept{view}{scores}; ", end="")
    if place is None:
        print("left out of 3_dataset by curate.mixture (see 3_dataset/mixture.json)")
        return
    shots = f", after {place.shots} others of its task" if place.shots else ""
    print(f"in 3_dataset as {place.split}:{place.row} ({place.file}), weight {place.weight:g}"
          f"{shots}. The student sees:")  # fmt: skip
    hide.messages((*place.prompt, *place.completion))
