"""What a recipe is: a module with these functions.

    GRADE                                   the access it needs to the teacher
    POOL                                    True: it needs `teachers`, at least two
    TEACHES                                 False: its answers are for other tasks only
    requests(seed, asking) -> messages      what the teacher is asked (one list of chat messages)
    example(seed, generation, showing)      what the student sees: (prompt, completion) messages

It may have more:

    prepare(seed, number) -> seed           changes the seed with this number of the task
    arrange(seeds) -> seeds                 changes the whole stream: joins, draws, sorts
    rows(seed, generation, showing)         several training rows from one answer, as `Row`s; the
                                            first is the one that filters look at
    harvest(answers) -> rows of a seed file what a task's accepted answers hold for a task with
                                            `seeds: {from: ...}`; `Lost` says what was not taken;
                                            an argument named `seeds` gets all seeds of the task
    OPEN_TURN                               True: it needs a teacher that can be made to write the
                                            user's turn

Each takes the task's `options` that it names as keyword arguments. `asking` and `showing` are
the task's two prompts. They are separate on purpose: with one prompt for both, the result would
measure the prompt.

A recipe is named, or is the path of a user's own Python file with these functions.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from pipeline.config import Task
from pipeline.errors import UserError
from pipeline.records import Grade, Message

# The files of this folder.
RECIPES = (
    "response",
    "chain_of_thought",
    "constraints",
    "in_context",
    "context",
    "step_by_step",
    "self_consistency",
    "label",
    "phrase",
    "multi_teacher",
    "judge",
    "self_instruct",
    "instances",
    "evolve",
    "magpie",
    "hard_examples",
)

WHITE_BOX = {
    "feature": "hidden states",
    "attention": "attention maps",
    "relation": "hidden states of pairs of examples",
}

# Each function, and how many arguments the pipeline gives it; what follows are options.
HOOKS = {"prepare": 2, "arrange": 1, "requests": 2, "example": 3, "rows": 3, "harvest": 1}
GIVEN = {"harvest": ("seeds",)}  # arguments that the pipeline gives where they are named


class Row(msgspec.Struct, frozen=True):
    """One training row of an answer; `weight` is multiplied with the task's."""

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    weight: float = 1.0
    view: str = ""  # which of an answer's rows it is; empty where there is one


class Lost(msgspec.Struct, frozen=True):
    """A piece of an answer that did not become a seed."""

    reason: str
    text: str


def recipe_named(name: str) -> ModuleType:
    """The recipe's module, or a `UserError` that lists what there is."""
    if name in RECIPES:
        return _shipped(name)
    if name.endswith(".py"):
        try:
            found = Path(name).stat()
        except OSError as error:
            raise UserError(f"recipe {name}: {error.strerror} (looked from {Path.cwd()})") from None
        return _own_recipe(name, found.st_mtime_ns, found.st_size)
    for kind, need in WHITE_BOX.items():
        if name.startswith(kind):
            raise UserError(
                f"recipe {name!r}: {kind}-based distillation needs the teacher's {need}; a "
                "black-box teacher returns text (and at most log-probabilities), so this pipeline "
                f"does not do it. Allowed: {', '.join(RECIPES)}"
            )
    raise UserError(
        f"recipe {name!r} is not known; allowed: {', '.join(RECIPES)}, or the path of a Python "
        "file of your own (docs/recipes.md)"
    )


@lru_cache
def _shipped(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


@lru_cache(maxsize=64)
def _own_recipe(name: str, _mtime_ns: int, _size: int) -> ModuleType:
    """A user's own file, as it is now; it need not have `requests` or `example` of its own."""
    from pipeline.stage1_generate.recipes import response

    path = Path(name)
    spec = importlib.util.spec_from_file_location(f"own_recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None, name
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the file does at its top
        raise UserError(
            f"recipe {name} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not any(callable(getattr(module, name, None)) for name in HOOKS):
        raise UserError(
            f"recipe {name}: has none of the functions {', '.join(HOOKS)}; docs/recipes.md has a "
            "worked example"
        )
    for default in ("requests", "example"):
        if not hasattr(module, default):
            setattr(module, default, getattr(response, default))
    grade = getattr(module, "GRADE", Grade.TEXT)
    if grade not in list(Grade):
        raise UserError(f"recipe {name}: GRADE is {grade!r}; allowed: {', '.join(Grade)}")
    module.GRADE = Grade(grade)  # type: ignore[attr-defined]
    return module


def recipe_identity(name: str) -> Any:
    """What of a recipe belongs to a step's fingerprint: its name; of an own one, its content."""
    if not name.endswith(".py"):
        return name
    from pipeline.steps import stamp_of

    return [name, stamp_of(Path(name)).sha256]


def teaches(task: Task) -> bool:
    """Do a task's answers become training rows, or are they for other tasks only?"""
    return task.train and getattr(recipe_named(task.recipe), "TEACHES", True)


def hook(recipe: ModuleType, name: str, options: dict[str, Any]) -> Callable[..., Any] | None:
    """A recipe's function with the options that it takes, or None where it has none."""
    function = getattr(recipe, name, None)
    if function is None:
        return None
    taken = {key: options[key] for key in _options_of(name, function) if key in options}
    return partial(function, **taken) if taken else function


def check_options(recipe: ModuleType, options: dict[str, Any], place: str) -> None:
    """`UserError` for an option that no function of the recipe takes, or one that is missing."""
    allowed: dict[str, inspect.Parameter] = {}
    for name in HOOKS:
        if function := getattr(recipe, name, None):
            allowed |= _options_of(name, function)
    unknown = [key for key in options if key not in allowed]
    if unknown:
        have = f"allowed: {', '.join(allowed)}" if allowed else "this recipe has no options"
        raise UserError(f"{place}.options: unknown option {unknown[0]!r}; {have}")
    for key, parameter in allowed.items():
        if parameter.default is inspect.Parameter.empty and key not in options:
            raise UserError(f"{place}.options: the recipe needs `{key}`, which is missing")


@lru_cache(maxsize=256)
def _options_of(name: str, function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = list(inspect.signature(function).parameters.items())
    given = GIVEN.get(name, ())
    return {key: value for key, value in parameters[HOOKS[name] :] if key not in given}


def wants_seeds(harvest: Callable[..., Any]) -> bool:
    """Does a recipe's `harvest` compare with all the seeds of its task?"""
    return "seeds" in inspect.signature(harvest).parameters
