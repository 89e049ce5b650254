"""More of what the student fails at: the teacher writes new problems of that kind.

Source: Lion (2305.12870), its stages of discrimination and generation. Grade B0. A round is an
ordinary run; the next one's config has the last student among its `teachers` and three tasks:

    probe    the student is asked the last run's held-back seeds; a filter says what is right
             (`answer`; without gold answers a judge's score), `train: false`
    more     this recipe, with `seeds: {from: probe, rows: dropped}`; a second such task with
             `rows: kept` gives the paper's easy ones, as many by `n`
    answers  the teacher answers what is harvested, with `self_consistency` where code cannot check

Asked: once for each failed problem, for a new one of the same field and kind, of similar length and
difficulty. Kept: problems with ROUGE-L under `most_alike` to every seed and to those taken before,
of a third to three times the seed's length, that ask something where the seed does. Student sees:
nothing; what it learns are the answers. What overlaps with the evaluation is never bred from, and
curation drops it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pipeline.records import Generation, Grade, Request, Seed
from pipeline.stage1_generate.curate.validity import words
from pipeline.stage1_generate.new_instructions import admit, pool_of, single, speaker_fault
from pipeline.stage1_generate.recipes import Lost, response

GRADE = Grade.TEXT
TEACHES = False

# A teacher that cannot wait solves the new problem at once.
_SOLVED = re.compile(
    r"\n+[ \t#*_]*(?:solution|answer|explanation|step 1|let's solve|解答?|答案|解析)[^\n]*"
    r"(?:\n|:|：|$).*",
    re.I | re.S,
)

requests = response.requests
example = response.example


def _asks(text: str) -> bool:
    return text.rstrip().endswith(("?", "？"))


def arrange(seeds: Iterator[Seed]) -> Iterator[Seed]:
    """One request for each problem, however many of its samples failed."""
    seen: set[str] = set()
    for seed in seeds:
        problem = str(seed.fields["question"])
        if problem not in seen:
            seen.add(problem)
            yield seed


def harvest(
    answers: Iterator[tuple[Seed, Request, Generation]],
    seeds: Iterator[Seed],
    *,
    novelty: str = "rouge",
    most_alike: float = 0.7,
) -> Iterator[dict[str, Any] | Lost]:
    pool = pool_of(novelty, (str(seed.fields["question"]) for seed in seeds), most_alike)
    for seed, request, generation in answers:
        text = _SOLVED.sub("", single(generation.text)).strip()
        size, wanted = len(words(text)), len(words(str(seed.fields["question"])))
        fault = speaker_fault(text)
        if fault is None and _asks(str(seed.fields["question"])) and not _asks(text):
            fault = "asks nothing"
        if fault is None and not wanted <= 3 * size <= 9 * wanted:
            fault = "much shorter or longer than its seed"
        if lost := admit(pool, text, fault):
            yield lost
            continue
        yield {
            # Not below its seed's id: that seed was held back, and its group still is.
            "id": request.id[:16],
            "question": text,
            "before": seed.fields["question"],
            "source_seed": seed.fields.get("source_seed", seed.id),
            "source_request": request.id,
        }
