"""YAML 1.2 in and out, with the line of every key.

YAML 1.2 through ruamel, because YAML 1.1 loaders read `1e-4` as text and the key `on` as true.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

Location = tuple[str | int, ...]


def load_yaml(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    """The mapping in a file, and the line (from 1) of each key path."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.is_file():
        raise UserError(f"{path}: no such file; the configs that ship are in configs/")
    try:
        tree = YAML().load(path.read_text(encoding="utf-8"))
    except (YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a date like 2024-13-45
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of keys; seen: {type(tree).__name__}")
    lines: dict[Location, int] = {}
    return _plain(tree, (), lines), lines


def _plain(node: Any, place: Location, lines: dict[Location, int]) -> Any:
    """ruamel's round-trip types -> dict, list and scalars, noting lines on the way."""
    if isinstance(node, dict):
        for key in node:
            # A key that came by `<<` has no line here; the one of its table is the nearest.
            own = (node.lc.data or {}).get(key)  # type: ignore[attr-defined]
            lines[(*place, str(key))] = (own[0] if own else node.lc.line) + 1  # type: ignore[attr-defined]
        return {str(k): _plain(v, (*place, str(k)), lines) for k, v in node.items()}
    if isinstance(node, list):
        for i in range(len(node)):
            lines[(*place, i)] = node.lc.item(i)[0] + 1  # type: ignore[attr-defined]
        return [_plain(v, (*place, i), lines) for i, v in enumerate(node)]
    for kind in (bool, int, float, str):  # ScalarFloat and friends are subclasses
        if isinstance(node, kind):
            return kind(node)
    return node


def apply_override(raw: dict[str, Any], override: str) -> None:
    """`train.sft.learning_rate=1e-4`; a list item goes by its number or its `name`."""
    path, equals, text = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {override}: write it as a.b.c=value")
    node: Any = raw
    for i, key in enumerate(keys):
        where = ".".join(keys[: i + 1])
        if isinstance(node, list):
            names = [v.get("name") if isinstance(v, dict) else None for v in node]
            index = names.index(key) if key in names else int(key) if key.isdecimal() else len(node)
            if index >= len(node):
                raise UserError(
                    f"--set {where}: no such item; seen {len(node)} items, names {names}"
                )
            key_or_index: Any = index
        elif isinstance(node, dict):
            key_or_index = key
        else:
            raise UserError(f"--set {where}: {'.'.join(keys[:i])} is a plain value, not a table")
        if i == len(keys) - 1:
            node[key_or_index] = _value(override, text)
        else:
            if isinstance(node, dict) and node.get(key) is None:
                node[key] = {}
            node = node[key_or_index]


def _value(override: str, text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return _plain(YAML().load(text), (), {}) if text else None
    except (YAMLError, ValueError) as error:
        why = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(
            f"--set {override}: the value is not valid YAML ({why}); write it as in a config, "
            "within quotes for the shell: --set 'teacher.sampling={temperature: 0.7}'"
        ) from None


def dump_yaml(value: dict[str, Any], path: Path) -> None:
    """Write atomically: a file that is there is whole."""
    from ruamel.yaml import YAML

    partial = path.with_name(path.name + ".partial")
    yaml = YAML()
    yaml.default_flow_style = False
    with partial.open("w", encoding="utf-8") as file:
        yaml.dump(value, file)
    os.replace(partial, path)
