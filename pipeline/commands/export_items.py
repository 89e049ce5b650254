"""`distill export RUN --what items --to folder PATH`: the evaluation's items as tasks of lm-eval.

RUN may be a config that was never run. Without `--yes` nothing is written there.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.commands import run_config, run_folder
from pipeline.commands.export import Target
from pipeline.commands.hand_over import copy_folder, refuse_taken
from pipeline.config import Config, load_config
from pipeline.errors import DONE, UserError
from pipeline.stage3_evaluate.harness_tasks import write_tasks


def export_items(name: str, target: Target, *, yes: bool) -> int:
    if target.kind != "folder":
        raise UserError("--what items: the tasks go to a folder; write --to folder PATH")
    config = _config(name)
    if not config.evaluate.abilities:
        raise UserError(f"{name}: evaluate.abilities is empty, so there are no items to export")
    refuse_taken(target.place, replace=target.replace)
    with TemporaryDirectory() as made:
        tasks = write_tasks(config, Path(made))
        print(f"tasks of lm-evaluation-harness, to folder {target.place}:")
        for task, items in tasks.items():
            print(f"  {task:<64} {items:>6,} items")
        if not yes:
            print("\nnothing was written: this was a dry run; add --yes to write them")
            return DONE
        copy_folder(Path(made), target.place, replace=target.replace)
    print(f"written. `lm-eval run --include_path {target.place} --tasks {next(iter(tasks))} ...`")
    return DONE


def _config(name: str) -> Config:
    if Path(name).is_file():
        return load_config(Path(name))
    return run_config(run_folder(name))
