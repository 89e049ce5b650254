"""Arithmetic stories with a known answer.

A template is a text and a chain of steps ("x=a*b; x-c"): one operation each, so the number of
steps is the difficulty. Numbers are drawn until every result on the way is a positive whole
number. All numbers in a text are at most `largest`; a factor is at most 12.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

from pipeline.errors import UserError
from pipeline.records import digest
from pipeline.stage1_generate.generators import word_stories_en, word_stories_zh
from pipeline.stage1_generate.generators.options import choice, whole, wholes

STORIES: dict[str, ModuleType] = {"en": word_stories_en, "zh": word_stories_zh}
GROUPS = ("train", "eval", "all")
LARGEST_FACTOR = 12
DRAWS = 1000  # attempts to find numbers for a template before it is left out
MISSES = 300  # questions in a row that were there already, before a call gives up


class Template(NamedTuple):
    name: str
    text: str
    chain: str

    @property
    def steps(self) -> int:
        return self.chain.count(";") + 1

    @property
    def variables(self) -> list[str]:
        return sorted(set(re.findall(r"\b[a-e]\b", self.chain)))


def word_problems(
    n: int,
    seed: int,
    language: str = "en",
    steps: int | list[int] = 1,
    largest: int = 9,
    templates: str = "all",
    split: str = "all",
) -> Iterator[dict[str, Any]]:
    """Rows {id, question, answer, steps, template, language}; no two questions are the same.

    `templates`: train and eval have no template in common, so that evaluation can ask stories of
    an unseen form. `split`: train and eval have no name, no thing and no choice of numbers for a
    template in common, so that evaluation can ask seen forms with unseen content.
    """
    wanted = wholes("steps", steps, 1, 4)
    largest = whole("largest", largest, 3, 10_000)
    group = choice("templates", templates, GROUPS)
    split = choice("split", split, GROUPS)
    rng = random.Random(f"word_problems {seed}")
    pools = {count: _templates(language, group, count) for count in dict.fromkeys(wanted)}
    seen: set[str] = set()
    misses = 0
    while len(seen) < n:
        pool = pools[wanted[len(seen) % len(wanted)]]
        if not pool or misses > MISSES:
            raise UserError(
                f"generator word_problems: only {len(seen)} different problems found with "
                f"steps {wanted} and largest {largest}, {n} asked for; lower n, raise "
                "`largest` or allow more `steps`"
            )
        template = rng.choice(pool)
        question, answer = _fill(template, largest, split, language, rng)
        if answer == 0:
            pool.remove(template)  # no numbers fit: do not look for them again
            continue
        if question in seen:
            misses += 1
            continue
        misses = 0
        seen.add(question)
        yield {
            "id": f"{template.name}-{digest(question, 10)}",
            "question": question,
            "answer": str(answer),
            "steps": template.steps,
            "template": template.name,
            "language": language,
        }


def _templates(language: str, group: str, steps: int) -> list[Template]:
    stories = STORIES[language]
    train = [Template(*row) for row in stories.TRAIN]
    unseen = [Template(*row) for row in stories.EVAL]
    pool = {"train": train, "eval": unseen, "all": train + unseen}[group]
    return [template for template in pool if template.steps == steps]


def _fill(
    template: Template, largest: int, split: str, language: str, rng: random.Random
) -> tuple[str, int]:
    """A question and its answer; the answer is 0 where no numbers were found."""
    limits = {
        name: min(largest, LARGEST_FACTOR) if _is_factor(name, template) else largest
        for name in template.variables
    }
    for _ in range(DRAWS):
        numbers = {name: rng.randint(2, limits[name]) for name in template.variables}
        answer = evaluate(template.chain, numbers)
        if answer and split in ("all", _side(template, numbers)):
            words = _words(split, language, rng)
            return template.text.format(**numbers, **words), answer
    return "", 0


def evaluate(chain: str, numbers: dict[str, int]) -> int:
    """The chain's last result; 0 as soon as one is not a positive whole number or a division
    leaves one for each, which makes an odd story."""
    values = dict(numbers)
    result = 0
    for step in chain.split(";"):
        name, _, formula = step.strip().rpartition("=")
        left, sign, right = re.fullmatch(r"(\w+)([-+*/])(\w+)", formula.strip()).groups()  # type: ignore[union-attr]
        one, two = (int(v) if v.isdecimal() else values[v] for v in (left, right))
        if sign == "/" and one % two:
            return 0
        result = {"+": one + two, "-": one - two, "*": one * two, "/": one // two}[sign]
        if result < 1 or (sign == "/" and result == 1):
            return 0
        values[name] = result
    return result


def _is_factor(name: str, template: Template) -> bool:
    return re.search(rf"[*/]{name}\b|\b{name}\*", template.chain) is not None


def _side(template: Template, numbers: dict[str, int]) -> str:
    """A quarter of all choices of numbers is never trained on."""
    draw = int(digest([template.name, sorted(numbers.items())], 4), 16)
    return "eval" if draw % 4 == 0 else "train"


def _words(split: str, language: str, rng: random.Random) -> dict[str, str]:
    stories = STORIES[language]
    name, friend, third = rng.sample(_side_of(stories.NAMES, split), 3)
    thing: dict[str, str] = rng.choice(_side_of(stories.THINGS, split))
    return thing | {"name": name, "friend": friend, "third": third}


def _side_of(pool: tuple[Any, ...], split: str) -> tuple[Any, ...]:
    return {"all": pool, "train": pool[: -len(pool) // 4], "eval": pool[-len(pool) // 4 :]}[split]
