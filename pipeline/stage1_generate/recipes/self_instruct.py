"""New instructions from a pool of instructions that people wrote, in rounds.

Source: Self-Instruct (2212.10560). Grade B0. Trains nothing itself: what is harvested are the
seeds of further tasks (`instances` or `response` answers them, another round draws from them).
Asked: `requests` times, for `per_request` new instructions, after eight of the pool: six of people
and two machine-made ones, or eight of people where there are none of the latter (round 1).
Which ones is drawn from a hash of the request's number and the instruction's id, so a pool that
grows changes few requests. A later round has `seeds: {from: the round before, path: the pool}`.
Kept: instructions with ROUGE-L under `most_alike` to the whole pool and to those taken before (or,
with `novelty: minhash`, that much of their three-character shingles in common), of
`fewest_words` to `most_words` words, that name nothing of the `blacklist`, and begin with a
letter. The field `classification` guesses whether an instruction asks for one of a few labels; a
task with the recipe `label` can decide that better (docs/recipes.md). Student sees: nothing.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.errors import UserError
from pipeline.records import Generation, Grade, Request, Seed
from pipeline.stage1_generate.new_instructions import (
    admit,
    form_fault,
    listed,
    pool_of,
    size_fault,
    speaker_fault,
)
from pipeline.stage1_generate.recipes import Lost, response

GRADE = Grade.TEXT
TEACHES = False

BLACKLIST = (
    *("image", "images", "graph", "graphs", "picture", "pictures", "photo", "photos", "video"),
    *("file", "files", "map", "maps", "draw", "plot", "go to", "attached", "website"),
    *("图片", "图像", "图表", "照片", "视频", "文件", "地图", "绘制", "画一", "附件", "网站"),
)
_LABELS = re.compile(
    r"\b(classif|categori[sz]|true or false|yes or no|sentiment of|which category|detect (?:if|"
    r"whether)|determine (?:if|whether)|decide (?:if|whether)|identify (?:if|whether)|tell (?:me )?"
    r"(?:if|whether)|is (?:it|this|the following) (?:a |an )?\w+ or )|分类|判断|是否|哪一类|属于哪",
    re.I,
)

requests = response.requests
example = response.example


def arrange(
    seeds: Iterator[Seed],
    requests: int = 100,
    per_request: int = 8,
    human: int = 6,
    machine: int = 2,
) -> Iterator[Seed]:
    """The requests of one round. Each carries its share of the pool, for the harvest to compare."""
    pool = list(seeds)
    task = pool[0].task
    for name, number, least in (
        ("requests", requests, 1),
        ("per_request", per_request, 1),
        ("human", human, 0),
        ("machine", machine, 0),
    ):
        if type(number) is not int or number < least:
            raise UserError(
                f"tasks.{task}.options.{name}: a whole number from {least}; seen: {number!r}"
            )
    made = [seed for seed in pool if "source_request" in seed.fields]
    people = [seed for seed in pool if "source_request" not in seed.fields]
    for number in range(requests):
        new = _drawn(made, machine, number)
        shown = _drawn(people, human + machine - len(new), number) + new
        shown = _drawn(shown, len(shown), -1 - number)  # the machine's are not always last
        texts = [str(seed.fields["question"]) for seed in shown]
        fields = {
            "question": "\n".join(texts),
            "instructions": texts,
            "per_request": per_request,
            "pool": [str(seed.fields["question"]) for seed in pool[number::requests]],
        }
        origin = f"{len(people)} instructions of people, {len(made)} machine-made"
        yield Seed(f"request-{number:05d}", task, fields, origin=origin)


def harvest(
    answers: Iterator[tuple[Seed, Request, Generation]],
    seeds: Iterator[Seed],
    *,
    novelty: str = "rouge",
    most_alike: float = 0.7,
    fewest_words: int = 4,
    most_words: int = 150,
    blacklist: Sequence[str] = BLACKLIST,
) -> Iterator[dict[str, Any] | Lost]:
    pool = pool_of(novelty, (text for seed in seeds for text in seed.fields["pool"]), most_alike)
    for _, request, generation in answers:
        items = listed(generation.text)
        if not items:
            yield Lost("no list", generation.text)
        for place, text in enumerate(items):
            fault = (
                size_fault(text, fewest_words, most_words)
                or form_fault(text, blacklist)
                or speaker_fault(text)
            )
            if lost := admit(pool, text, fault):
                yield lost
                continue
            yield {
                "id": f"{request.id[:12]}-{place}",
                "instruction": text,
                "classification": _LABELS.search(text) is not None,
                "source_request": request.id,
            }


def _drawn(seeds: list[Seed], n: int, number: int) -> list[Seed]:
    def rank(seed: Seed) -> bytes:
        return hashlib.blake2b(f"{number}/{seed.id}".encode(), digest_size=8).digest()

    return heapq.nsmallest(n, seeds, key=rank)
