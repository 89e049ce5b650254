"""`train.stages`: ordered parts of the dataset, each trained on with settings of its own.

Sources: short before long (2501.12948 and others), low before high temperature (DASD, 2601.09088),
easy before hard. Each stage begins with the weights of the one before, a new optimizer and a new
schedule.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config_train import Stage
from pipeline.errors import UserError
from pipeline.stage1_generate.example_file import EASE
from pipeline.stage1_generate.parquet import dataset_files

DIFFICULTY = "difficulty"


def stage_rows(stage: Stage, place: str, rows: Any) -> Any:
    """The train rows (a `datasets.Dataset`) of one stage, in the dataset's order.

    Raises `UserError` where nothing is left or the column is not there.
    """
    if stage.tasks is not None:
        wanted = set(stage.tasks)
        rows = rows.select([i for i, task in enumerate(rows["task"]) if task in wanted])
    if stage.by is not None and len(rows):
        values = _values(rows, stage.by, place)
        order = np.argsort(values, kind="stable")
        low, high = (round(part * len(order)) for part in stage.share)
        rows = rows.select(np.sort(order[low:high]).tolist())
    if not len(rows):
        raise UserError(f"{place}: no row of the dataset is in this stage")
    return rows


def stage_files(stage: Stage, place: str) -> dict[str, str] | None:
    """The Parquet files of a stage's own dataset; None where it takes the run's."""
    if stage.dataset is None:
        return None
    folder = Path(stage.dataset)
    files = dataset_files(folder) if folder.is_dir() else {}
    if "train" not in files:
        raise UserError(
            f"{place}.dataset: {stage.dataset!r} has no train-*.parquet; name the 3_dataset of a "
            f"finished run (looked from {Path.cwd()})"
        )
    return files


def _values(rows: Any, column: str, place: str) -> np.ndarray:
    """A number for each row, ascending as the curriculum goes."""
    if column == DIFFICULTY:
        found = next((name for name in EASE if name in rows.column_names), None)
        if found is None:
            raise UserError(
                f"{place}.by: no row has {' or '.join(EASE)}, which difficulty is made of; add a "
                "filter that measures it (pass_rate, vote), or take `by: characters`"
            )
        return 1.0 - _numbers(rows, found, place)
    if column not in rows.column_names:
        numeric = [n for n, f in rows.features.items() if getattr(f, "dtype", "")[:3] in _NUMERIC]
        raise UserError(
            f"{place}.by: the dataset has no column {column!r}; allowed: {DIFFICULTY}, "
            f"{', '.join(sorted(numeric))}"
        )
    return _numbers(rows, column, place)


_NUMERIC = ("int", "flo")


def _numbers(rows: Any, column: str, place: str) -> np.ndarray:
    try:
        values = np.array(rows[column], dtype=float)
    except (TypeError, ValueError):
        raise UserError(f"{place}.by: the column {column!r} holds no numbers") from None
    missing = int(np.isnan(values).sum())
    if missing:
        raise UserError(f"{place}.by: {missing:,} of {len(values):,} rows have no {column}")
    return values
