"""One evaluation item as it is put to a model: what the three ability files have in common."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.config import Config
from pipeline.records import Message, PromptRef, Request, Sampling, Seed, request_id


class Question(msgspec.Struct, frozen=True):
    ability: str
    variant: str
    item: Seed
    prompt: PromptRef
    messages: tuple[Message, ...]
    sampling: Sampling
    draw: int = 0  # of the shots, in-context learning
    order: int = 0
    sample: int = 0  # of `samples` of one item, chain of thought
    samples: int = 1

    def request(self, model: str, repeat: int = 0) -> Request:
        """`repeat`: asked once more, so that another sample is drawn."""
        sample_index = repeat * self.samples + self.sample
        return Request(
            id=request_id(model, self.messages, self.sampling, sample_index),
            seed_id=self.item.id,
            recipe=f"evaluate/{self.ability}",
            prompt=self.prompt,
            messages=self.messages,
            sampling=self.sampling,
            sample_index=sample_index,
            model=model,
        )


def sampling_of(config: Config, own: dict[str, Any]) -> Sampling:
    """The evaluation's decoding with an ability's own settings over it; the same for all arms."""
    return msgspec.convert(config.evaluate.sampling | own, Sampling)
