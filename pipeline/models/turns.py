"""Where a chat template ends a turn, and a template for models that have none.

Two things must hold for a student. Training must teach the token that ends its turn, so the
template has to write one after the assistant's words. And generation must stop at that token: the
base form of a model often has a template whose last token it does not stop at, and would talk on.
"""

from __future__ import annotations

import json
from typing import Any

# Letters only: a template may trim or quote anything else.
_QUESTION, _WORDS = "XQQUESTIONQX", "XQWORDSQX"

CHATML = ("<|im_start|>", "<|im_end|>")

# ChatML. BEGIN stands before everything, OPEN before a role, CLOSE after it, END after a turn.
# The `generation` marks are for TRL's assistant_only_loss; they write nothing.
_DEFAULT = """\
{{- BEGIN -}}
{%- for message in messages -%}
{{- OPEN + message['role'] + CLOSE -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- message['content'] + END -}}{%- endgeneration -%}
{%- else -%}
{{- message['content'] + END -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- OPEN + 'assistant' + CLOSE -}}{%- endif -%}
"""


def default_template(tokenizer: Any) -> str | None:
    """A ChatML-like template in tokens that this tokenizer has; None: it has none to end a turn.

    With `<|im_start|>` and `<|im_end|>` in the vocabulary these are used. Without them a role is
    ordinary text (`<|user|>`), which any tokenizer can write, and a turn ends with the model's
    own end token, which it knows and which generation stops at. No embedding has to be learned.
    """
    if all(token in tokenizer.get_vocab() for token in CHATML):
        opened, end = CHATML
        closed = "\n"
    elif tokenizer.eos_token is not None:
        opened, closed, end = "<|", "|>\n", tokenizer.eos_token
    else:
        return None
    # Where the tokenizer begins every text with a token, the model has never seen one without.
    first = tokenizer("a")["input_ids"][:1]
    begins = tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
    words = {
        "BEGIN": tokenizer.bos_token if begins else "",
        "OPEN": opened,
        "CLOSE": closed,
        "END": end,
    }
    text = _DEFAULT
    for name, word in words.items():
        text = text.replace(name, json.dumps(word, ensure_ascii=False))
    return text


def turn_end(tokenizer: Any) -> int | None:
    """The id of the one token that the template writes after the assistant's words.

    None: it writes nothing there, or ordinary text. Raises whatever the template raises.
    """
    ending = _whole(tokenizer).partition(_WORDS)[2].lstrip()
    ids = tokenizer(ending, add_special_tokens=False)["input_ids"] if ending else []
    known = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    return int(ids[0]) if ids and ids[0] in known else None


def faults(tokenizer: Any) -> str | None:
    """What is wrong with a chat template that someone gives a student, as a message; or None."""
    try:
        whole = _whole(tokenizer)
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": _QUESTION}], tokenize=False, add_generation_prompt=True
        )
        end = turn_end(tokenizer)
    except Exception as error:  # a template is a program of a stranger
        return f"it cannot be filled in: {error}"
    if _QUESTION not in whole or _WORDS not in whole:
        return "it leaves out what the user or the assistant says (it gets a list `messages`)"
    if not whole.startswith(prompt):
        return (
            "with add_generation_prompt it writes another beginning than a whole conversation has, "
            "so that the student would be asked in another form than it was taught in: "
            f"{prompt!r} is no beginning of {whole!r}"
        )
    if end is None:
        ending = whole.partition(_WORDS)[2]
        specials = [token for token in tokenizer.all_special_tokens if isinstance(token, str)]
        return (
            f"after the assistant's words it writes {ending!r}, which does not begin with one "
            "token that generation can stop at. End a turn with one of "
            f"{', '.join(specials) or 'the special tokens'}, or name your own in student.add_tokens"
        )
    return None


def _whole(tokenizer: Any) -> str:
    turns = [
        {"role": "user", "content": _QUESTION},
        {"role": "assistant", "content": _WORDS},
    ]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))
