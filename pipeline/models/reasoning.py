"""Take a model's visible thinking out of its text, whichever tags it wrote and however badly.

Servers without a reasoning parser, and both local backends, return the thinking inside the text.
Training on it by accident is the costly mistake, so every doubtful case counts as reasoning.
"""

from __future__ import annotations

import re

# <think>: DeepSeek, Qwen, and most open models; [THINK]: Mistral; seed:think: ByteDance Seed.
_TAG = re.compile(r"<(/?)(?:think|seed:think)>|\[(/?)THINK\]")
_OPEN_AT_END = re.compile(r"(?:<think>|<seed:think>|\[THINK\])\s*\Z")


def opens_reasoning(rendered_prompt: str) -> bool:
    """Whether a chat template has already opened the thinking, so that the answer starts in it."""
    return _OPEN_AT_END.search(rendered_prompt[-64:]) is not None


def split_reasoning(text: str, opened: bool = False) -> tuple[str, str | None]:
    """The answer and the reasoning of `text`; reasoning is None when there are no tags.

    `opened` says that the prompt ended inside a thinking block. A closing tag without an opening
    one means the same, so what stands before it is reasoning. A block that is never closed
    (an answer cut off while thinking) is reasoning to its end. Text without tags is returned
    as it is; otherwise both parts are stripped of the white space around them.
    """
    if not opened and "think>" not in text and "THINK]" not in text:
        return text, None
    answer: list[str] = []
    thoughts: list[str] = []
    depth = 1 if opened else 0
    position = 0
    tags = 0
    for tag in _TAG.finditer(text):
        tags += 1
        part = text[position : tag.start()]
        position = tag.end()
        (thoughts if depth else answer).append(part)
        if not (tag.group(1) or tag.group(2)):
            depth += 1
        elif depth:
            depth -= 1
        else:  # closed but never opened: all of it so far was thinking
            thoughts.extend(answer)
            answer.clear()
    if not tags and not opened:
        return text, None
    (thoughts if depth else answer).append(text[position:])
    reasoning = "\n".join(part.strip() for part in thoughts if part.strip())
    return "".join(answer).strip(), reasoning
