"""Symbolic problems that need one step after another: coins, last letters, swapped things.

Small students can learn them where arithmetic is out of reach (Fine-tune-CoT, 2212.10071, table 1),
and their number of steps can grow beyond what was trained. The problems go back to
chain-of-thought prompting (2201.11903, section 5) and BIG-bench; the texts are this project's. Rows
{id, question, answer, answer_kind, steps, language}. The splits train and eval have no name and no
thing in common.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.errors import UserError
from pipeline.records import digest
from pipeline.stage1_generate.generators.options import choice, wholes
from pipeline.stage1_generate.generators.symbolic_words import NAMES, THINGS

GROUPS = ("train", "eval", "all")
MISSES = 300  # questions in a row that were there already, before a call gives up
_FLIPS = ("flips it over", "turns it over", "turns the coin upside down")
_LEAVES = ("leaves it as it is", "does not touch it", "only looks at it")

Row = dict[str, Any]
Make = Callable[[random.Random, int, int], Row]  # steps, number of the row with so many steps


def coin_flips(
    n: int, seed: int, language: str = "en", steps: int | list[int] = 2, split: str = "all"
) -> Iterator[Row]:
    """Does the coin still show heads? `steps` people flip it or do not; half the answers are yes.

    Chance is 1/2. `answer_kind` is yes_no, and the question says so: "the coin is tails up" would
    be read as no answer.
    """
    names = _names(split)

    def make(rng: random.Random, count: int, number: int) -> Row:
        # Of each two rows one is yes, in a drawn order that the pair's number fixes.
        first = random.Random(f"coin {seed} {count} {number // 2}").random() < 0.5
        still = first == (number % 2 == 0)
        flips = [rng.random() < 0.5 for _ in range(count)]
        if (sum(flips) % 2 == 0) != still:
            at = rng.randrange(count)
            flips[at] = not flips[at]
        acts = [
            f"{name} {rng.choice(_FLIPS if flipped else _LEAVES)}."
            for name, flipped in zip(rng.sample(names, count), flips, strict=True)
        ]
        return {
            "question": f"A coin lies heads up. {' '.join(acts)} Is it heads up, yes or no?",
            "answer": "yes" if still else "no",
            "answer_kind": "yes_no",
        }

    return _rows("coin_flips", n, seed, language, wholes("steps", steps, 1, 20), make)


def last_letters(
    n: int, seed: int, language: str = "en", steps: int | list[int] = 2, split: str = "all"
) -> Iterator[Row]:
    """The last letters of `steps` names, joined. Chance is near 0; `answer_kind` is letters."""
    names = _names(split)

    def make(rng: random.Random, count: int, _number: int) -> Row:
        words = rng.sample(names, count)
        return {
            "question": f'Join the last letters of the words in "{" ".join(words)}".',
            "answer": "".join(word[-1] for word in words),
            "answer_kind": "letters",
        }

    return _rows("last_letters", n, seed, language, wholes("steps", steps, 1, 20), make)


def object_tracking(
    n: int,
    seed: int,
    language: str = "en",
    steps: int | list[int] = 2,
    objects: int | list[int] = 3,
    letters: bool = False,
    split: str = "all",
) -> Iterator[Row]:
    """Who holds what after `steps` swaps among `objects` people, in turn where it is a list.

    Each place in the list of things is right equally often, so chance is 1/`objects`. `letters`:
    the things are shown as options (A), (B), ... and the answer is one's letter (`answer_kind`
    choice); else the answer is the thing itself (option).
    """
    names, things = _names(split), _things(split)
    people = wholes("objects", objects, 2, 8)
    if not isinstance(letters, bool):
        raise UserError(f"option letters is {letters!r}; write true or false")

    def make(rng: random.Random, count: int, number: int) -> Row:
        held = people[number % len(people)]
        thing, kinds = rng.choice(things)
        who, what = rng.sample(names, held), rng.sample(kinds, held)
        target = what[number // len(people) % held]
        holds = dict(zip(who, what, strict=True))
        begins = ", ".join(f"{name} has the {kind} one" for name, kind in holds.items())
        swaps = []
        for turn in range(count):
            one, two = rng.sample(who, 2)
            holds[one], holds[two] = holds[two], holds[one]
            swaps.append(f"{'First' if turn == 0 else 'Then'} {one} and {two} swap.")
        asked = next(name for name, kind in holds.items() if kind == target)
        names_of_all = f"{', '.join(who[:-1])} and {who[-1]}"
        question = (
            f"{names_of_all} each hold a {thing}: {begins}. {' '.join(swaps)} "
            f"Which {thing} does {asked} hold in the end?"
        )
        marks = dict(zip("ABCDEFGH", what, strict=False))
        shown = "\n".join(f"({mark}) {kind}" for mark, kind in marks.items())
        right = next(mark for mark, kind in marks.items() if kind == target)
        return {
            "question": f"{question}\nOptions:\n{shown}" if letters else question,
            "answer": f"({right})" if letters else target,
            "answer_kind": "choice" if letters else "option",
            "choices": what,
        }

    return _rows("object_tracking", n, seed, language, wholes("steps", steps, 1, 20), make)


def symbolic(
    n: int,
    seed: int,
    language: str = "en",
    steps: int | list[int] = 2,
    split: str = "all",
    problems: list[str] | None = None,
) -> Iterator[Row]:
    """The three kinds of problem in turn, or those named in `problems`."""
    known: dict[str, Callable[..., Iterator[Row]]] = {
        "coin_flips": coin_flips,
        "last_letters": last_letters,
        "object_tracking": object_tracking,
    }
    names = list(known) if problems is None else problems
    if not isinstance(names, list) or not names:
        raise UserError(f"option problems is {problems!r}; write a list of {', '.join(known)}")
    chosen = [choice("problems", name, list(known)) for name in dict.fromkeys(names)]
    sources = {
        name: known[name](
            n=-(-n // len(chosen)), seed=seed, language=language, steps=steps, split=split
        )
        for name in chosen
    }

    def rows() -> Iterator[Row]:
        for number in range(n):
            name = chosen[number % len(chosen)]
            yield next(sources[name])

    return rows()


def _names(split: str) -> tuple[str, ...]:
    side = choice("split", split, GROUPS)
    return NAMES["train"] + NAMES["eval"] if side == "all" else NAMES[side]


def _things(split: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return THINGS["train"] + THINGS["eval"] if split == "all" else THINGS[split]


def _rows(
    name: str, n: int, seed: int, language: str, steps: list[int], make: Make
) -> Iterator[Row]:
    """`n` different rows, the numbers of steps in turn."""
    if language != "en":
        raise UserError(
            f"generator {name}: there is no {language!r} form of it; write language: en"
        )
    return _different(name, n, seed, steps, make)


def _different(name: str, n: int, seed: int, steps: list[int], make: Make) -> Iterator[Row]:
    rng = random.Random(f"{name} {seed}")
    seen: set[str] = set()
    made = [0] * len(steps)
    misses = 0
    while len(seen) < n:
        turn = len(seen) % len(steps)
        row = make(rng, steps[turn], made[turn])
        question = row["question"]
        if question in seen:
            misses += 1
            if misses > MISSES:
                raise UserError(
                    f"generator {name}: only {len(seen)} different problems found with steps "
                    f"{steps}, {n} asked for; lower n or allow more `steps`"
                )
            continue
        misses = 0
        made[turn] += 1
        seen.add(question)
        extra = {"steps": steps[turn], "language": "en"}
        yield {"id": f"{name}-{digest(question, 10)}"} | row | extra
