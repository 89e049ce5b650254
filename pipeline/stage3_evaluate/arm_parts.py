"""What `evaluate CONFIG --arm ARM` makes beside answers, until the command for all arms takes it.

    launch/arms/text-<identity>/<arm>.jsonl
    launch/arms/suite-<identity>/<arm>/

The identity is of the step, so what was made for other settings or another student is never taken.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.steps import Step, identity_of


def arm_place(step: Step, arm: str, ending: str = "") -> Path:
    """Where an arm's part of a step is or will be."""
    return _folder(step) / f"{arm}{ending}"


@contextmanager
def made_whole(place: Path) -> Iterator[Path]:
    """A path to write a file or folder to, which is at `place` when it is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        yield partial
        if place.is_dir():
            shutil.rmtree(place)
        os.replace(partial, place)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def refuse_missing(step: Step, arm: str) -> None:
    """For a command that asks nothing."""
    raise UserError(
        f"{arm}: the step {step.name} has nothing of this arm yet; type `distill evaluate CONFIG "
        f"--arm {arm}`, or `distill evaluate CONFIG` without --gather, which does it itself"
    )


def taken(step: Step) -> None:
    """The step has all of it in its own files now."""
    shutil.rmtree(_folder(step), ignore_errors=True)


def _folder(step: Step) -> Path:
    return step.run / "launch" / "arms" / f"{step.name}-{identity_of(step)[:16]}"
