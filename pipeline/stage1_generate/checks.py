"""Settings of a config that are each fine and do not go together, found before any question."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline import constraints
from pipeline.config import Config, SeedSource, Task
from pipeline.errors import UserError
from pipeline.stage1_generate.curate.judge import task_filters
from pipeline.stage1_generate.seed_files import read_file

_ASKS_BY_CONSTRAINT = ("constraints", "phrase")


def check_together(config: Config) -> None:
    """Raise `UserError` for a vote without voters, or unseen constraint types that are trained."""
    for task in config.tasks:
        _check_vote(config, task)
    _check_unseen_types(config)


def _check_vote(config: Config, task: Task) -> None:
    settings = dict(task_filters(task)).get("vote")
    if settings is None:
        return
    each = task.accept.at_most if task.accept else task.samples
    answers, needed = each * len(config.teachers_of(task)), settings.get("min_votes", 2)
    if answers < needed:
        raise UserError(
            f"tasks.{task.name}: the filter vote wants {needed} equal answers to a seed, and "
            f"{answers} will be asked for; give the task more `samples` (5, say), or the vote a "
            "smaller `min_votes`"
        )


def _check_unseen_types(config: Config) -> None:
    table = config.evaluate.instruction_following
    if table is None or "instruction_following" not in config.evaluate.abilities:
        return
    if table.unseen_types is None:
        return
    unseen = _types_of(table.unseen_types)
    for task in config.tasks:
        if task.recipe not in _ASKS_BY_CONSTRAINT:
            continue
        if both := sorted(unseen & _types_of(task.seeds)):
            raise UserError(
                f"evaluate.instruction_following.unseen_types: {', '.join(both)} would be trained "
                f"on by the task {task.name}; give both their own `types`, with none in common"
            )


def _types_of(source: SeedSource) -> set[str]:
    """The constraint types that a source asks for, as far as can be known beforehand."""
    found: set[str] = set()
    if source.generator == "constrained_instructions":
        language = source.options.get("language", "en")
        every = [name for name in constraints.types() if language in constraints.languages(name)]
        found |= _names(source.options.get("types")) or set(every)
    if source.path is not None:
        for _, row in read_file(Path(source.path), source.columns, source.answers, source.where):
            listed = row.get("constraints")
            if isinstance(listed, list):
                found |= _names(one.get("type") for one in listed if isinstance(one, dict))
    return found


def _names(values: object) -> set[str]:
    return {str(value) for value in values} if isinstance(values, Iterable) else set()
