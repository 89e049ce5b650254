"""What the labels of the shots say: the mapping itself, chance, or something else than the words.

natural     the labels as they are.
random      every shot has a label drawn evenly from all. Right is the true label: what accuracy
            is left does not come from the mapping that the shots show (Min et al., 2202.12837).
flipped     every label stands for the next one in alphabetical order, the last for the first:
            always the same derangement. Right is the flipped label: the model follows the shots
            against what it knows (Wei et al., 2303.03846).
arbitrary   every label has a nonsense word instead, another one in each draw. Right is that
            word: only the shots say which it is (Wei et al., 2303.03846).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from pipeline.config_evaluate import Labels
from pipeline.stage1_generate.generators.episodes import remapped
from pipeline.stage3_evaluate.shot_draws import Shot


def renamed(labels: Sequence[str], how: Labels, salt: str) -> dict[str, str]:
    """What each label of a task is called under a condition; `salt` names the draw."""
    if how == "flipped":
        return remapped(labels, "flipped", salt)
    if how == "arbitrary":
        return remapped(labels, "symbols", salt, split="eval")
    return {label: label for label in labels}


def shown(
    shots: Sequence[Shot], names: dict[str, str], how: Labels, salt: str
) -> list[dict[str, str]]:
    """The shots as a prompt shows them.

    A random label depends on the draw and the shot's text alone, so that the shots stay nested.
    """
    if how != "random":
        return [{"text": shot.text, "label": names.get(shot.label, shot.label)} for shot in shots]
    every = sorted(names)
    return [
        {"text": shot.text, "label": random.Random(f"{salt} random {shot.text}").choice(every)}
        for shot in shots
    ]
