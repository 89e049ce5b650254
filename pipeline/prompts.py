"""Load, check and render prompts.

A prompt is a YAML file: `system` (optional), `shots` (optional worked examples, a list of
`{user, assistant}`), `shots_from` (instead: the seed's field that holds such a list, or one of
`{text, label}`, which become the turns of user and assistant), `user`.
`system` and `user` are Jinja templates with strict variables: a
variable that a seed does not have is an error which lists what there is.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.config_file import load_yaml
from pipeline.errors import UserError
from pipeline.records import Message, PromptRef, digest

# What an expression of a template raises on a value that it was not written for.
_OF_EXPRESSIONS = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)


class Shot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str
    assistant: str


class PromptText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str
    system: str | None = None
    shots: tuple[Shot, ...] = ()
    shots_from: str | None = None


class Prompt(msgspec.Struct, frozen=True):
    ref: PromptRef  # the path, and a hash of the text without its comments
    text: PromptText
    variables: frozenset[str]


@lru_cache(maxsize=256)
def load_prompt(path: str) -> Prompt:
    """Read and check one prompt file."""
    from jinja2 import TemplateSyntaxError, meta

    if not Path(path).is_file():
        raise UserError(
            f"{path}: no such prompt file (looked from {Path.cwd()}); "
            "prompts that ship are in prompts/teacher and prompts/student"
        )
    raw, _ = load_yaml(Path(path))
    try:
        text = msgspec.convert(raw, PromptText)
        variables: set[str] = {text.shots_from} if text.shots_from else set()
        for template in (text.system, text.user):
            tree = _environment().parse(template or "")
            variables |= meta.find_undeclared_variables(tree)
            _compiled(template or "")  # finds unknown filters
    except msgspec.ValidationError as error:
        raise UserError(
            f"{path}: {error}; a prompt has system, shots or shots_from, user"
        ) from None
    except TemplateSyntaxError as error:
        raise UserError(f"{path}: not a valid Jinja template: {error}") from None
    return Prompt(PromptRef(path, digest(text, 16)), text, frozenset(variables))


def render(prompt: Prompt, fields: Mapping[str, Any]) -> tuple[Message, ...]:
    """Chat messages for one seed's fields: system, worked examples, the question."""
    missing = prompt.variables - fields.keys()
    if missing:
        raise UserError(
            f"{prompt.ref.name} uses {', '.join(sorted(missing))}, which this seed does not have; "
            f"it has: {', '.join(sorted(fields))}"
        )
    messages = []
    if prompt.text.system is not None:
        messages.append(Message("system", _fill(prompt, "system", fields)))
    shots: tuple[Shot, ...] = prompt.text.shots
    if prompt.text.shots_from:
        shots = _shots_of(fields[prompt.text.shots_from], prompt)
    for shot in shots:
        messages += [Message("user", shot.user), Message("assistant", shot.assistant)]
    messages.append(Message("user", _fill(prompt, "user", fields)))
    return tuple(messages)


def _shots_of(found: Any, prompt: Prompt) -> tuple[Shot, ...]:
    """A seed's worked examples, or the labelled shots of an in-context episode."""
    try:
        if isinstance(found, list) and found and "label" in found[0]:
            return tuple(Shot(str(shot["text"]), str(shot["label"])) for shot in found)
        return msgspec.convert(found, tuple[Shot, ...])
    except (msgspec.ValidationError, KeyError, TypeError):
        raise UserError(
            f"{prompt.ref.name}: shots_from names `{prompt.text.shots_from}`, which must be a list "
            f"of {{user, assistant}} or of {{text, label}}; this seed has {found!r:.120}"
        ) from None


def _fill(prompt: Prompt, part: Literal["system", "user"], fields: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError

    try:
        return str(_compiled(getattr(prompt.text, part)).render(fields)).strip()
    except (TemplateError, *_OF_EXPRESSIONS) as error:
        # Jinja puts a frame of the template, with its line, into the traceback.
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
        line = f"line {lines[-1]} of " if lines else ""
        raise UserError(
            f"{prompt.ref.name}: {line}`{part}` cannot be filled in: {error}; this seed has: "
            f"{', '.join(sorted(fields))}. Correct the template, or give every seed what it uses"
        ) from None


@lru_cache(maxsize=256)
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment() -> Any:
    # Seed fields are data from strangers: only the template itself is ever compiled, and the
    # sandbox keeps a downloaded prompt file from reaching into Python.
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=False)
