"""The folder that a training works in, and what is whole in it after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pipeline.stage2_train.ranks import rank


def prepare_folder(folder: Path, identity: str) -> None:
    """Keep a stopped training's folder only if it was made with the very same settings."""
    marker = folder / "settings.txt"
    if folder.is_dir() and (not marker.is_file() or marker.read_text() != identity):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_text(identity)


def last_complete_checkpoint(folder: Path) -> Path | None:
    """transformers writes trainer_state.json last: without a readable one a checkpoint is torn."""
    for checkpoint in reversed(_checkpoints(folder)):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
            return checkpoint
        except (OSError, json.JSONDecodeError):
            if rank() == 0:  # the others only pass it over
                shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def remove_checkpoints(folder: Path) -> None:
    for checkpoint in _checkpoints(folder):
        shutil.rmtree(checkpoint)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
