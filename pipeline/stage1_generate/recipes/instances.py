"""Inputs and outputs for instructions that a teacher made up; several rows from one answer.

Source: Self-Instruct (2212.10560), its third step. Grade B0.
Asked: for an instruction that is a classification task, first the labels and then an input for each
(output-first: a teacher that begins with inputs writes most of them for one label); for any other,
an input and then its output (input-first), or the output alone where no input is needed. Which it
is says the seed's answer where a task with the recipe `label` decided it (a label that begins
with "yes"), else the seed's field `classification`.
Kept: by the filter `instances`, answers in which at least one instance can be read. An input that
is there twice, with equal or different outputs, is taken once or not at all, as in the paper.
Student sees: instruction and input -> output, a row for each instance.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

import msgspec

from pipeline.prompts import Prompt, render
from pipeline.records import Generation, Grade, Message, Seed
from pipeline.stage1_generate.recipes import Row, response

GRADE = Grade.TEXT

requests = response.requests
FILTERS: dict[str, dict[str, object]] = {"instances": {}}

_PART = re.compile(
    r"^[ \t#*_-]*(?:(?:example|示例|例)?[ \t]*\d*[.:)]?[ \t]*)?"
    r"(?P<kind>inputs?|outputs?|labels?|class|answer|输入|输出|标签|类别)"
    r"[ \t]*\d*[*_ \t]*[:：][*_ \t]*",
    re.I | re.M,
)
_INPUTS = ("input", "inputs", "输入")
_NO_INPUT = re.compile(
    r"^\W*(?:none|n/?a|no input|not needed|not applicable|empty|无|没有|不需要)\b.{0,40}$", re.I
)


class Instance(NamedTuple):
    input: str  # empty where the instruction needs none
    output: str


def prepare(seed: Seed, number: int) -> Seed:
    said = seed.reference.lower().startswith("yes") if seed.reference is not None else None
    found = bool(seed.fields.get("classification", False)) if said is None else said
    return msgspec.structs.replace(seed, fields=seed.fields | {"classification": found})


def example(
    seed: Seed, generation: Generation, showing: Prompt
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    first = rows(seed, generation, showing)[0]
    return first.prompt, first.completion


def rows(seed: Seed, generation: Generation, showing: Prompt) -> list[Row]:
    found = read(seed, generation.text) or [Instance("", generation.text.strip())]
    asked = str(seed.fields["question"])
    every = []
    for number, one in enumerate(found):
        question = f"{asked}\n\n{one.input}" if one.input else asked
        prompt = render(showing, seed.fields | {"question": question})
        view = f"instance {number + 1}"
        # An instruction with many instances must not outweigh the others.
        every.append(Row(prompt, (Message("assistant", one.output),), 1 / len(found), view))
    return every


def read(seed: Seed, text: str) -> list[Instance]:
    """The instances in an answer, in order; empty where none can be read."""
    marks = list(_PART.finditer(text))
    after = [mark.start() for mark in marks[1:]] + [len(text)]
    parts = [
        (mark["kind"].lower() in _INPUTS, text[mark.end() : end].strip())
        for mark, end in zip(marks, after, strict=False)
    ]
    found: list[Instance] = []
    for (is_input, first), (next_is_input, second) in pairwise(parts):
        if seed.fields["classification"] and not is_input and next_is_input:
            found.append(Instance(second, first))
        elif not seed.fields["classification"] and is_input and not next_is_input:
            found.append(Instance("" if _NO_INPUT.match(first) else first, second))
    if not marks and not seed.fields["classification"] and text.strip():
        return [Instance("", text.strip())]  # it simply did what the instruction says
    if not found and len(parts) == 1 and not parts[0][0] and not seed.fields["classification"]:
        found.append(Instance("", parts[0][1]))
    return _consistent(found, seed.fields["classification"])


def _consistent(found: list[Instance], needs_input: bool) -> list[Instance]:
    outputs: dict[str, set[str]] = {}
    for one in found:
        outputs.setdefault(one.input, set()).add(one.output)
    return [
        one
        for one in dict.fromkeys(found)
        if one.output
        and one.input != one.output
        and len(outputs[one.input]) == 1
        and (one.input or not needs_input)
    ]
