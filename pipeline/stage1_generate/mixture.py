"""What of the kept rows is trained on, in which order, and which rows are shown after others.

budget   tokens by task or recipe (`curate.mixture.tokens`, `weights`): rows are drawn at random,
         the same ones every time
order    easy to hard, short to long: curricula; the trainer then keeps it
k_shot   a share of rows stands after k others of its task, because training on bare questions
         alone costs a student its use of demonstrations (Fu et al., 2301.12726)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import msgspec
import numpy as np

from pipeline.config import Config
from pipeline.config_dataset import KShot, Mixture
from pipeline.errors import UserError
from pipeline.records import Example, Message
from pipeline.stage1_generate.example_file import EASE, ExampleFile
from pipeline.stage1_generate.tokens import longest_row, student_tokenizer, token_lengths

CHUNK = 4096  # rows that are counted at a time while a budget fills
TRIES = 20  # draws for a shot that is of another seed


class Part(msgspec.Struct):
    """A task's or a recipe's place in the mixture. Rows and tokens are those of the train split."""

    wanted_share: float | None
    share: float | None = None  # of the tokens that were taken
    tokens: int | None = None  # None: not counted, because nothing asked for it
    rows: int = 0
    left_out: int = 0
    short: bool = False  # all its rows were taken, and it still has less than its share


class Mixed(msgspec.Struct, frozen=True):
    """Row numbers of an ExampleFile, in the order of training; shots by the row they precede."""

    train: np.ndarray
    validation: np.ndarray
    parts: dict[str, Part]
    shots: dict[int, tuple[int, ...]]


def mix(config: Config, rows: ExampleFile) -> Mixed:
    """The mixture that `curate.mixture` asks for; without one, every kept row as it comes."""
    settings = config.curate.mixture or Mixture()
    names = _part_names(settings, rows)
    chosen, parts = _within_budget(config, settings, rows, names)
    numbers = np.flatnonzero(chosen)
    train = _ordered(settings, rows, numbers[~rows.validates[numbers]])
    if not len(train):
        raise UserError(
            "curate.mixture leaves no row to train on; raise curate.mixture.tokens, or the weights "
            f"of tasks that have rows ({', '.join(rows.tasks)})"
        )
    shots = _shots(config, settings.k_shot, rows, train) if settings.k_shot else {}
    return Mixed(train, numbers[rows.validates[numbers]], parts, shots)


def with_shots(row: Example, shots: Iterable[Example]) -> Example:
    """The row with other rows as earlier turns of its chat, after its own system message."""
    shots = list(shots)
    system = tuple(m for m in row.prompt if m.role == "system")
    asked = tuple(m for m in row.prompt if m.role != "system")
    turns: tuple[Message, ...] = ()
    for shot in shots:
        turns += (*(m for m in shot.prompt if m.role != "system"), *shot.completion)
    meta = row.meta | {
        "shots": len(shots),
        "shot_sources": [source for shot in shots for source in shot.source],
    }
    return msgspec.structs.replace(row, prompt=(*system, *turns, *asked), meta=meta)


def rendered(rows: ExampleFile, mixed: Mixed, numbers: np.ndarray) -> Iterator[Example]:
    """The rows as they are trained on."""
    return (row for row in changed(rows, mixed, numbers, lambda row: row) if row is not None)


def changed(
    rows: ExampleFile,
    mixed: Mixed,
    numbers: np.ndarray,
    change: Callable[[Example], Example | None],
) -> Iterator[Example | None]:
    """The same with every row, and every shot, changed; None for a row that is changed to that."""
    for number, row in zip(numbers, rows.read(numbers), strict=True):
        new = change(row)
        if new is not None and mixed.shots:
            shots = map(change, rows.read(mixed.shots.get(int(number), ())))
            new = with_shots(new, (shot for shot in shots if shot is not None))
        yield new


def _part_names(settings: Mixture, rows: ExampleFile) -> list[str]:
    """For each task of the rows: the key of `weights` that speaks for it."""
    if not settings.weights:
        return list(rows.tasks)
    names = [t if t in settings.weights else rows.recipes[t] for t in rows.tasks]
    if missing := [t for t, n in zip(rows.tasks, names, strict=True) if n not in settings.weights]:
        raise UserError(
            f"curate.mixture.weights has no share for {', '.join(missing)}; name every task (or "
            "its recipe), with 0 for one to leave out"
        )
    return names


def _within_budget(
    config: Config, settings: Mixture, rows: ExampleFile, names: list[str]
) -> tuple[np.ndarray, dict[str, Part]]:
    """Which rows are in, and what each part came to."""
    members = {
        name: np.isin(rows.task, [i for i, n in enumerate(names) if n == name])
        for name in dict.fromkeys(names)
    }
    if not settings.weights and settings.tokens is None:
        parts = {n: Part(None, rows=int((m & ~rows.validates).sum())) for n, m in members.items()}
        return np.ones(len(rows), dtype=bool), parts
    counter = RowTokens(rows, partial(token_lengths, tokenizer=student_tokenizer(config)))
    # Without weights: as much of each as it has text.
    weights = settings.weights or {
        n: float(rows.characters[m & ~rows.validates].sum() + 1) for n, m in members.items()
    }
    weights = {n: weights[n] / sum(weights[n] for n in members) for n in members}
    budget = settings.tokens
    if budget is None:  # as much as the shares allow without a row twice
        wanted = {n: np.flatnonzero(m & ~rows.validates) for n, m in members.items() if weights[n]}
        budget = int(min(counter.lengths(p).sum() / weights[n] for n, p in wanted.items()))
    chosen = np.zeros(len(rows), dtype=bool)
    parts = {}
    for name, member in members.items():
        pool = np.flatnonzero(member & ~rows.validates)
        taken, tokens, last = counter.draw(pool, weights[name] * budget)
        chosen[taken] = True
        # Held-back rows are thinned by the same draw, so that they are the same mixture.
        chosen |= member & rows.validates & (rows.key <= last)
        short = len(taken) == len(pool) and tokens < 0.99 * weights[name] * budget
        parts[name] = Part(weights[name], None, tokens, len(taken), len(pool) - len(taken), short)
    whole = sum(part.tokens or 0 for part in parts.values())
    for part in parts.values():
        part.share = (part.tokens or 0) / whole if whole else 0.0
    return chosen, parts


class RowTokens:
    """Tokens of rows, counted when they are first wanted. Memory: 4 bytes a row."""

    def __init__(
        self, rows: ExampleFile, count: Callable[[Iterable[Example]], Iterable[int]]
    ) -> None:
        self._rows = rows
        self._count = count
        self._known = np.full(len(rows), -1, dtype=np.int32)

    def lengths(self, numbers: np.ndarray) -> np.ndarray:
        new = np.unique(numbers[self._known[numbers] < 0])
        for i, length in zip(new, self._count(self._rows.read(new)), strict=True):
            self._known[i] = length
        found: np.ndarray = self._known[numbers]
        return found

    def draw(self, pool: np.ndarray, budget: float) -> tuple[np.ndarray, int, int]:
        """Rows of a pool up to a budget, at random: (numbers, tokens, the key of the last one)."""
        numbers = pool[np.argsort(self._rows.key[pool], kind="stable")]
        taken = tokens = 0
        while taken < len(numbers):
            chunk = self.lengths(numbers[taken : taken + CHUNK])
            fitting = int(np.searchsorted(np.cumsum(chunk), budget - tokens, side="right"))
            tokens += int(chunk[:fitting].sum())
            taken += fitting
            if fitting < len(chunk):
                break
        if taken == len(numbers) and budget > 0:
            return numbers, tokens, 2**64 - 1
        last = int(self._rows.key[numbers[taken - 1]]) if taken else -1
        return numbers[:taken], tokens, last


def _ordered(settings: Mixture, rows: ExampleFile, numbers: np.ndarray) -> np.ndarray:
    if settings.order == "as_is":
        return numbers
    if settings.order == "shuffled":
        return numbers[np.argsort(rows.key[numbers], kind="stable")]
    if settings.order == "short_to_long":
        return numbers[np.argsort(rows.characters[numbers], kind="stable")]
    unknown = numbers[np.isnan(rows.ease[numbers])]
    if len(unknown):
        tasks = sorted({rows.tasks[i] for i in np.unique(rows.task[unknown])})
        raise UserError(
            f"curate.mixture.order easy_to_hard: rows of {', '.join(tasks)} have no "
            f"{' or '.join(EASE)}; add a filter that measures it (pass_rate, vote), or take "
            "short_to_long"
        )
    return numbers[np.argsort(-rows.ease[numbers], kind="stable")]


def _shots(
    config: Config, settings: KShot, rows: ExampleFile, train: np.ndarray
) -> dict[int, tuple[int, ...]]:
    """Shots for a share of the train rows: train rows of the same task and of other seeds.

    Fewer than were drawn where the row would grow past what the student is trained on.
    """
    pools = {task: train[rows.task[train] == task] for task in np.unique(rows.task[train])}
    found: dict[int, tuple[int, ...]] = {}
    for number in train.tolist():
        task = rows.task[number]
        # Episodes have their demonstrations within them.
        if rows.recipes[rows.tasks[task]] == "in_context":
            continue
        rng = random.Random(f"{config.seed} {rows.key[number]} shots")
        if rng.random() < settings.share:
            drawn = _draw(rng, rng.randint(*settings.k), number, pools[task], rows.group)
            if drawn:
                found[number] = drawn
    limit = longest_row(config)
    if limit is None or not found:
        return found
    counter = RowTokens(rows, partial(token_lengths, tokenizer=student_tokenizer(config)))
    counter.lengths(np.array(sorted({*found, *(i for s in found.values() for i in s)})))
    for number in list(found):
        lengths = counter.lengths(np.array([*found[number], number]))
        while len(lengths) > 1 and lengths.sum() > limit:
            lengths = lengths[1:]
        kept = found[number][len(found[number]) + 1 - len(lengths) :]
        if kept:
            found[number] = kept
        else:
            del found[number]
    return found


def _draw(
    rng: random.Random, k: int, number: int, pool: np.ndarray, groups: np.ndarray
) -> tuple[int, ...]:
    drawn: list[int] = []
    seen = {int(groups[number])}
    for _ in range(TRIES * k):
        other = int(pool[rng.randrange(len(pool))])
        if int(groups[other]) not in seen:
            seen.add(int(groups[other]))
            drawn.append(other)
        if len(drawn) == k:
            break
    return tuple(drawn)


def shots_by_k(mixed: Mixed) -> dict[str, int]:
    """How many rows have how many shots, for mixture.json."""
    return {str(k): n for k, n in sorted(Counter(map(len, mixed.shots.values())).items())}
