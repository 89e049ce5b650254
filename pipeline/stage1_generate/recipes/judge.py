"""An LLM judge: one more request through the same door, whose answer another task's filter reads.

Source: MT-Bench's judge (2306.05685). Grade B0.
Asked: a question with an answer of the task that `seeds: {from: TASK, rows: all}` names, for a
score; with `compare: true` two answers to one question, in both orders. At most `most` answers of a
question are compared, each with each. Kept: nothing to train on; the filter `judge` of the judged
task reads the scores. `rows: all` judges also what other filters drop: where the truth is known, it
shows how far the judge can be trusted.

Foreign text stands between delimiters that are a hash of it: who wrote it could not know them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice, permutations
from typing import Any

import msgspec

from pipeline.errors import UserError
from pipeline.records import Grade, Seed, digest
from pipeline.stage1_generate.recipes import response

GRADE = Grade.TEXT
TEACHES = False

requests = response.requests
example = response.example


def arrange(seeds: Iterator[Seed], compare: bool = False, most: int = 4) -> Iterator[Seed]:
    if not compare:
        yield from (_delimited(seed, {}) for seed in seeds)
        return
    # The answers of a question come one after the other.
    for _, found in groupby(seeds, key=lambda seed: _field(seed, "source_seed")):
        answers = list(islice({_field(seed, "response"): seed for seed in found}.values(), most))
        for first, second in permutations(answers, 2):
            other = str(second.fields["source_request"])
            pair = {
                "first": first.fields["response"],
                "second": second.fields["response"],
                "second_request": other,
                "second_reference": second.reference,
            }
            named = msgspec.structs.replace(first, id=f"{first.id}-{other[:12]}")
            yield _delimited(named, pair)


def _field(seed: Seed, name: str) -> str:
    if name not in seed.fields:
        raise UserError(
            f"task {seed.task}: the recipe judge judges another task's answers; write "
            "`seeds: {from: TASK, rows: all}`"
        )
    return str(seed.fields[name])


def _delimited(seed: Seed, more: dict[str, Any]) -> Seed:
    texts = [seed.id, _field(seed, "response"), more.get("second")]
    fields = seed.fields | more | {"delimiter": digest(["judge", *texts], 12)}
    return msgspec.structs.replace(seed, fields=fields)
