"""Instructions without seeds: the teacher is given the beginning of a user's turn and writes it.

Source: Magpie (2406.08464). Grade B0, and a backend that renders the chat template itself
(`vllm`, `transformers`); a chat endpoint adds the template on its own side, so there it is refused
before anything is asked. Trains nothing itself: another task answers what is harvested.
Asked: the teacher's own chat template up to where the user speaks (models/open_turn.py), with the
prompt's `system` text where it has one, and with its `user` text as the first words of the turn.
How many: `samples` of one seed; with a prompt that uses the seed (a topic), of each seed.
Kept: what ended by itself, of `fewest_words` to `most_words` words, with ROUGE-L under
`most_alike` to all that were taken before, that does not speak as an assistant. Filters of the
task (`language`, `repetition`) look at the same text. Student sees: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.prompts import Prompt, render
from pipeline.records import OPEN_USER, Generation, Grade, Message, Request, Seed
from pipeline.stage1_generate.new_instructions import admit, pool_of, size_fault, speaker_fault
from pipeline.stage1_generate.recipes import Lost, response

GRADE = Grade.TEXT
TEACHES = False
OPEN_TURN = True  # it needs the prompt's template in hand

example = response.example


def requests(seed: Seed, asking: Prompt) -> tuple[Message, ...]:
    *before, user = render(asking, seed.fields)
    return (*before, Message(OPEN_USER, user.content))


def harvest(
    answers: Iterator[tuple[Seed, Request, Generation]],
    *,
    novelty: str = "rouge",
    most_alike: float = 0.7,
    fewest_words: int = 3,
    most_words: int = 400,
) -> Iterator[dict[str, Any] | Lost]:
    pool = pool_of(novelty, (), most_alike)
    for seed, request, generation in answers:
        text = (request.messages[-1].content + generation.text).strip()
        fault = size_fault(text, fewest_words, most_words) or speaker_fault(text)
        if lost := admit(pool, text, fault):
            yield lost
            continue
        yield {
            "id": request.id[:16],
            "instruction": text,
            "source_seed": seed.id,
            "source_request": request.id,
        }
