"""The items of an in-context task: episodes with shots of their own, or any labelled texts.

Labelled texts are rows with `text` and `answer` (or `label`) of a file or a dataset; `columns` and
`answers` of the source say what is where. `n` of them, as many of each label as can be, are asked;
the shots come from `pool`, else from the rows that are not asked, else, where these are too few,
from all rows but the item's own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config, SeedSource
from pipeline.config_evaluate import InContextItems
from pipeline.errors import UserError
from pipeline.records import Seed
from pipeline.stage1_generate.curate.episodes import same_form
from pipeline.stage1_generate.seeds import QUESTION_FIELDS, load_seeds, seed_of_row, source_rows
from pipeline.stage3_evaluate.shot_draws import most_shots

Pool = dict[str, list[str]]  # label -> texts, no two of the same form


class TaskItems(msgspec.Struct, frozen=True):
    """What a task asks; `pool` is None where the items bring their own shots."""

    items: list[Seed]
    pool: Pool | None = None


def task_items(config: Config, task: InContextItems) -> TaskItems:
    """The items of a task and the pool of their shots; the same for every arm.

    Raises `UserError` where rows lack a text or a label, for fewer than two labels, more items
    than rows, and more shots than the pool can give.
    """
    assert config.evaluate.in_context is not None
    place = f"evaluate.in_context.tasks.{task.name}"
    if _are_episodes(task.items, config.seed):
        if task.pool is not None:
            raise UserError(f"{place}: its items have shots of their own; take `pool` out")
        return TaskItems(load_seeds(task.items, f"in_context/{task.name}", config.seed))
    rows = _read(task.items, task.name, config.seed)
    chosen = _even(rows, task.items.n, random.Random(f"{config.seed} {task.name} items"), place)
    most = max(config.evaluate.in_context.shots, default=0)
    if task.pool is not None:
        others = _read(task.pool, task.name, config.seed)
        pool = _pool(others[: task.pool.n])
        if strange := sorted({_label(row) for row in chosen} - set(pool)):
            raise UserError(
                f"{place}: {', '.join(strange[:5])} is the label of an item and of no text in the "
                f"pool, which has {', '.join(sorted(pool)[:20])}; map them with `answers`"
            )
    else:
        asked = {row.id for row in chosen}
        pool = _pool([row for row in rows if row.id not in asked])
        every = _pool(rows)
        if len(pool) < len(every) or most_shots(pool, beside_items=True) < most:
            pool = every
    _check_pool(pool, most, place)
    labels = sorted(pool)
    items = [msgspec.structs.replace(row, fields=row.fields | {"labels": labels}) for row in chosen]
    return TaskItems(items, pool)


def _are_episodes(source: SeedSource, seed: int) -> bool:
    """Whether rows have shots; generators make episodes, files and datasets may be either."""
    if source.generator is not None:
        return True
    _, first = next(source_rows(source, seed), ("", {}))
    return isinstance(first.get("shots"), list)


def _read(source: SeedSource, task: str, seed: int) -> list[Seed]:
    """Every row once: the same text with the same label is one item, however often it is there."""
    path = Path(source.path) if source.path else None
    stamp = path.stat().st_mtime_ns if path and path.is_file() else 0
    whole = source.model_copy(update={"n": None})  # what is not asked is the pool
    return list(_read_once(whole.model_dump_json(by_alias=True), task, seed, stamp))


@lru_cache(maxsize=8)
def _read_once(described: str, task: str, seed: int, stamp: int) -> tuple[Seed, ...]:
    """Kept, because the items are asked for by every arm and check; `stamp` tells of an edit."""
    source = SeedSource.model_validate_json(described)
    found: dict[str, Seed] = {}
    for place, row in source_rows(source, seed):
        item = _labelled(row, f"in_context/{task}", place)
        if item.id in found and found[item.id].fields != item.fields:
            raise UserError(
                f"{place}: the id {item.id!r} is there already ({found[item.id].origin}); give "
                "every row its own `id`, or leave `id` out"
            )
        found.setdefault(item.id, item)
    if not found:
        raise UserError(
            f"evaluate.in_context.tasks.{task}: {source.path or source.described()} holds no rows; "
            "it needs some with a text and a label"
        )
    return tuple(found.values())


def _labelled(row: dict[str, Any], task: str, place: str) -> Seed:
    asked = next((key for key in QUESTION_FIELDS if row.get(key) not in (None, "")), None)
    label = row.get("answer", row.get("label"))
    if asked is None or label in (None, "") or isinstance(label, dict | list):
        lacks = "text" if asked is None else "label"
        raise UserError(
            f"{place}: a labelled text has no {lacks}; seen: {', '.join(sorted(row)) or 'none'}. "
            "Say which columns hold them: `columns: {text: COLUMN, answer: COLUMN}` (numbers from "
            "0 for a file without a header)"
        )
    text = str(row[asked]).strip()
    # A label such as 1 is a string here, as models write it.
    return seed_of_row(row | {"text": text, "answer": str(label).strip()}, task, place)


def _label(row: Seed) -> str:
    assert row.reference is not None
    return row.reference


def _even(rows: Sequence[Seed], n: int | None, rng: random.Random, place: str) -> list[Seed]:
    """`n` rows with as many of each label as can be, drawn; all in their order without `n`."""
    if n is None:
        return list(rows)
    if n > len(rows):
        raise UserError(
            f"{place}: n is {n}, and there are {len(rows)} different rows; write n: {len(rows)}"
        )
    groups: dict[str, list[Seed]] = {}
    for row in rows:
        groups.setdefault(_label(row), []).append(row)
    shuffled = [rng.sample(group, len(group)) for _, group in sorted(groups.items())]
    dealt: list[Seed] = []
    while len(dealt) < n:
        dealt += [group.pop() for group in shuffled if group]
    return dealt[:n]


def _pool(rows: Sequence[Seed]) -> Pool:
    """The texts of each label; of those of one form the first stays, whatever its label."""
    seen: set[str] = set()
    found: Pool = {}
    for row in rows:
        text = str(row.fields["text"])
        if (form := same_form(text)) not in seen:
            seen.add(form)
            found.setdefault(_label(row), []).append(text)
    return found


def _check_pool(pool: Pool, most: int, place: str) -> None:
    have = ", ".join(f"{name}: {len(texts)}" for name, texts in sorted(pool.items())[:20])
    if len(pool) > 20:
        have += f" and {len(pool) - 20} more; is this the column of the labels?"
    if len(pool) < 2:
        raise UserError(
            f"{place}: there must be two labels or more to tell apart; the texts of each: "
            f"{have or 'none'}"
        )
    folded = [name.casefold() for name in pool]
    if same := sorted(name for name in pool if folded.count(name.casefold()) > 1):
        raise UserError(
            f"{place}: the labels {', '.join(same)} differ in case alone, and answers are read "
            "without it; give them one name with `answers`"
        )
    allowed = most_shots(pool, beside_items=True)
    if most > allowed:
        raise UserError(
            f"{place}: evaluate.in_context.shots asks for {most}, and balanced shots beside the "
            f"item can be {allowed} at most, for the rarest label has few texts ({have}). Add "
            "texts, name a larger `pool`, or ask for fewer shots"
        )
