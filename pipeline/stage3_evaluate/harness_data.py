"""Local data files that lm-evaluation-harness's task files name: inputs of the step `suite`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError


class _Constructor(SafeConstructor):
    """Reads `!function own.items` as nothing: no code of a task runs to see what it reads."""


_Constructor.add_constructor(None, lambda constructor, node: None)


def data_files(folder: Path) -> list[Path]:
    """Files named by `dataset_kwargs.data_files` of a folder's task files, as far as they are here.

    Paths are from where `distill` is typed, as lm-eval reads them. What a task's own code opens,
    and patterns like *.jsonl, are not known here.
    """
    found = {
        path
        for file in sorted([*folder.rglob("*.yaml"), *folder.rglob("*_yaml")])
        for name in _names(_task(file).get("dataset_kwargs"))
        if (path := Path(name)).is_file()
    }
    return sorted(found)


def _task(file: Path) -> dict[str, Any]:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        read = yaml.load(file.read_text("utf-8"))
    except (YAMLError, UnicodeDecodeError):
        return {}  # lm-eval says what is wrong with it, if it is one of the tasks
    return read if isinstance(read, dict) else {}


def _names(settings: Any) -> Iterator[str]:
    """The texts of `{data_files: FILE}`, of a list of them, or of either for each split."""
    left = [settings.get("data_files")] if isinstance(settings, dict) else []
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list):
            left += one
