"""The matrix "trained on this, measured on that": what each training gained and what it cost."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipeline.config_evaluate import CONTROL, ONLY, SEED, TRAINED
from pipeline.stage3_evaluate.held_out_text import TextScore
from pipeline.stage3_evaluate.report_data import RunFiles
from pipeline.stage3_evaluate.report_view import TITLES, metric_name
from pipeline.stage3_evaluate.score import Scores
from pipeline.stage3_evaluate.statistics import Kept
from pipeline.stage3_evaluate.verdicts import Change


class Cell(msgspec.Struct, frozen=True):
    kind: str  # up | down | same | open: the CSS class, and in words for Markdown
    value: str
    interval: str


class MatrixRow(msgspec.Struct, frozen=True):
    trained: str
    cells: list[Cell | None]


class Matrix(msgspec.Struct, frozen=True):
    """`columns`: (ability, metric)."""

    columns: list[tuple[str, str]]
    rows: list[MatrixRow]
    margin: str


def matrix(run: RunFiles) -> Matrix | None:
    """None where no trained student was measured."""
    if run.scores is None:
        return None
    trained = [arm for arm in run.scores.arms if arm == "after" or arm.startswith(TRAINED)]
    return of_trained([(trained_on(arm), run.scores, arm) for arm in trained])


def of_trained(students: Sequence[tuple[str, Scores, str]]) -> Matrix | None:
    """A row for each (what it was trained on, scores of its run, its arm) that was measured."""
    changes = [
        (name, c) for name, found, arm in students for c in found.changes if c.found.arm == arm
    ]
    measured = list(dict.fromkeys((c.ability, c.metric) for _, c in changes))
    cells = {(name, c.ability, c.metric): _cell(c) for name, c in changes}
    texts = {
        name: _text(text)
        for name, found, arm in students
        for text in found.text
        if text.arm == arm and text.ratio is not None
    }
    rows_of = [name for name, _, _ in students if name in texts or any(k[0] == name for k in cells)]
    if not rows_of:
        return None
    columns = [(TITLES.get(ability, ability), metric_name(metric)) for ability, metric in measured]
    if texts:
        columns.append(("Held-out text", "perplexity, times that of before"))
    rows = [
        MatrixRow(
            name,
            [
                *(cells.get((name, ability, metric)) for ability, metric in measured),
                *([texts.get(name)] if texts else []),
            ],
        )
        for name in rows_of
    ]
    margin = next((c.margin for _, found, _ in students for c in found.comparisons), 0.05)
    return Matrix(columns, rows, f"{100 * margin:g}")


def trained_on(arm: str) -> str:
    """A trained arm in words."""
    if arm.startswith(ONLY):
        return f"the task {arm.removeprefix(ONLY)} alone"
    if arm.startswith(SEED):
        return f"everything, seed {arm.removeprefix(SEED)}"
    if arm.startswith(CONTROL):
        return f"the control {arm.removeprefix(CONTROL).replace('_', ' ')}"
    return "everything"


def _cell(change: Change) -> Cell:
    found = change.found
    kind = "up" if found.low > 0 else "down" if found.high < 0 else _same(change.kept)
    return Cell(kind, _points(found.difference), f"{_points(found.low)} to {_points(found.high)}")


def _text(text: TextScore) -> Cell:
    assert text.ratio is not None and text.low is not None and text.high is not None
    assert text.kept is not None
    kind = "up" if text.high < 1 else "down" if text.low > 1 else _same(text.kept)
    return Cell(kind, f"×{text.ratio:.2f}", f"×{text.low:.2f} to ×{text.high:.2f}")


def _same(kept: Kept) -> str:
    return "same" if kept is Kept.KEPT else "open"


def _points(value: float) -> str:
    rounded = round(100 * value)
    return f"{'+' if rounded > 0 else '−' if rounded < 0 else '±'}{abs(rounded)}"
