"""Chat messages -> the text of a prompt, by a tokenizer's chat template.

A request may end with an open turn of the user (Magpie, 2406.08464): the model is given the
template up to where the user begins to speak, and writes what a user would say. No template says
what that text is; it is what stands before a user's words when the template is filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.records import OPEN_USER, Message

# Letters only: a template may trim or quote anything else.
_MARK = "XQOPENTURNQX"


class Rendered(msgspec.Struct, frozen=True):
    text: str
    stop_token: int | None = None  # ends an open turn, beside the model's own end tokens
    stop_text: str | None = None  # the same, where the template ends a turn in plain text


# In `extra_body`: what a chat template gets beside the messages, as vLLM's API calls it.
TEMPLATE_ARGUMENTS = "chat_template_kwargs"


class NoOpenTurn(ValueError):
    """The chat template cannot be cut where the user begins."""


def is_open(messages: Sequence[Message]) -> bool:
    """Is the model to write the user's turn?"""
    return bool(messages) and messages[-1].role == OPEN_USER


def render_chat(tokenizer: Any, messages: Sequence[Message], **arguments: Any) -> Rendered:
    """The prompt's text. `arguments` go to the template. Raises what the template raises."""
    opened = is_open(messages)
    turns = [{"role": m.role, "content": m.content} for m in messages]
    if opened:
        turns[-1] = {"role": "user", "content": messages[-1].content + _MARK}
    text = str(
        tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, **arguments
        )
    )
    if not opened:
        return Rendered(text)
    before, mark, after = text.partition(_MARK)
    if not mark or not after.strip():
        raise NoOpenTurn(
            "the chat template does not show where the user's turn ends; Magpie needs one that does"
        )
    ending = after.lstrip()
    first = tokenizer(ending, add_special_tokens=False)["input_ids"][0]
    if first in tokenizer.added_tokens_decoder:  # all that a template writes as one token
        return Rendered(before, stop_token=int(first))
    return Rendered(before, stop_text=ending.split()[0])
