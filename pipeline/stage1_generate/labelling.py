"""What a labelling answer says: a label of a fixed set, entities of a text, or JSON by a schema.

One reading serves the recipe `label` (what the student learns), the filter `label_set` (what is
kept) and the table of label quality (what was right). A reading is a set of (class, item): one
(label, "") for a classification, (type, span) for each entity, (field, value) for each field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from pipeline.records import Extraction, Finish, Seed, canonical_json
from pipeline.stage3_evaluate.answers import extract_label

_FENCE = re.compile(r"^\s*```[a-z]*\s*\n(.*?)\n\s*```\s*$", re.DOTALL)


class Reading(NamedTuple):
    """`canonical` is what the student learns to write; `problem` says why there is nothing."""

    canonical: str | None
    items: frozenset[tuple[str, str]] = frozenset()
    problem: str = ""


class Entity(msgspec.Struct, frozen=True):
    text: str
    type: str


def read(seed: Seed, text: str, finish: Finish = Finish.STOP) -> Reading:
    """Read an answer by what the seed asks for: `labels`, `entity_types` or `schema`."""
    if labels := seed.fields.get("labels"):
        return _label(text, labels, finish)
    if types := seed.fields.get("entity_types"):
        return _entities(text, str(seed.fields.get("text", "")), types)
    return _fields(text, seed.fields.get("schema"))


def _label(text: str, labels: list[str], finish: Finish) -> Reading:
    found, label = extract_label(text, labels, finish)
    if found is not Extraction.VALUE or label is None:
        return Reading(None, problem="no label of the set, or several")
    return Reading(label, frozenset({(label, "")}))


def _entities(answer: str, text: str, types: list[str]) -> Reading:
    """Entities in the order of the text, each once; every span must stand in the text."""
    try:
        found = msgspec.json.decode(_unfenced(answer).encode(), type=list[Entity])
    except msgspec.DecodeError:
        return Reading(None, problem="not a JSON list of {text, type}")
    for entity in found:
        if entity.type not in types:
            return Reading(None, problem=f"a type that is not in the set: {entity.type:.40}")
        if not entity.text.strip() or entity.text not in text:
            return Reading(None, problem=f"a span that is not in the text: {entity.text:.40}")
    ordered = sorted(set(found), key=lambda one: (text.find(one.text), one.text, one.type))
    canonical = msgspec.json.encode(ordered).decode()
    return Reading(canonical, frozenset((one.type, one.text) for one in ordered))


def _fields(answer: str, schema: Mapping[str, Any] | None) -> Reading:
    try:
        value = msgspec.json.decode(_unfenced(answer).encode())
    except msgspec.DecodeError:
        return Reading(None, problem="not JSON")
    if schema is not None:
        broken = next(iter(_checker(canonical_json(schema)).iter_errors(value)), None)
        if broken is not None:
            return Reading(None, problem=f"breaks the schema: {broken.json_path}")
    canonical = msgspec.json.encode(value, order="sorted").decode()
    named = value.items() if isinstance(value, dict) else [("answer", value)]
    items = ((key, msgspec.json.encode(one, order="sorted").decode()) for key, one in named)
    return Reading(canonical, frozenset(items))


@lru_cache(maxsize=16)
def _checker(schema: bytes) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(msgspec.json.decode(schema))


def _unfenced(answer: str) -> str:
    """JSON without the code fence that chat models like to put around it."""
    fenced = _FENCE.match(answer)
    return (fenced.group(1) if fenced else answer).strip()
