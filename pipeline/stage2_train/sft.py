"""Step `train`: TRL's SFTTrainer on 3_dataset/, loss on the completion only, in one or more stages;
after them, or instead of them, preferences (preference.py) as one more stage.

A control (`distill train CONFIG --control NAME`) is trained in the same way on 3_controls/NAME/ and
becomes 4_controls/NAME/; one with another seed (`--seed N`) becomes 4_seeds/N/, and one of a task
alone (`--only TASK`) becomes 4_only/TASK/.

Work happens in 4_student.partial/, with a folder for each stage; the last stage's student becomes
4_student/ when it is whole. After a kill, training goes on from the last complete checkpoint.
Several processes (`accelerate launch -m pipeline train CONFIG`) do this together; the first of them
keeps the books.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config
from pipeline.config_train import MAIN, Stage, Variant
from pipeline.errors import UserError
from pipeline.models import student_identity
from pipeline.records import Usage, digest
from pipeline.stage1_generate.lengths import read_lengths, too_long
from pipeline.stage2_train.card import model_card
from pipeline.stage2_train.checkpoints import prepare_folder
from pipeline.stage2_train.one_stage import (
    LOG,
    NOTES,
    SFT,
    STUDENT,
    Method,
    Work,
    is_done,
    train_stage,
)
from pipeline.stage2_train.pairs import pairs_folder, wait_for_pairs
from pipeline.stage2_train.preference import DPO, check_preference
from pipeline.stage2_train.ranks import processes, rank, wait_for_all
from pipeline.stage2_train.settings import lora_config, sft_arguments
from pipeline.stage2_train.soft_targets import check_soft_targets
from pipeline.stage2_train.stages import stage_files
from pipeline.stage2_train.student import check_student
from pipeline.steps import Step, StepResult, stamp_of

MADE = "made.jsonl"  # in a finished student's folder (a .json would be a part of its identity)


def step(config: Config, variant: Variant = MAIN) -> Step:
    config = settings_of(config, variant)
    train_ = config.train
    settings: dict[str, Any] = {
        "seed": config.seed,
        "student": student_identity(config),
        "sft": train_.sft,
        "lora": train_.lora,
    }
    if train_.soft_targets:
        settings["soft_targets"] = train_.soft_targets.model_dump(mode="json")
    if train_.stages:
        settings["stages"] = [
            s.model_dump(mode="json", exclude_defaults=True) for s in train_.stages
        ]
    if train_.early_stopping:
        settings["early_stopping"] = train_.early_stopping.model_dump(mode="json")
    if train_.preference:
        # What else it has are settings of the step `pairs`.
        include = {"dpo", "after"}
        settings["preference"] = train_.preference.model_dump(mode="json", include=include)
    others = [Path(s.dataset) for s in train_.stages if s.dataset is not None]
    return Step(
        name=f"train{variant.flag}",
        run=config.run_dir,
        settings=settings,
        inputs=[
            dataset_folder(config, variant),
            *([pairs_folder(config, variant.control)] if train_.preference else []),
            *others,
        ],
        outputs=[student_folder(config, variant)],
        work=lambda: train(config, variant),
    )


def dataset_folder(config: Config, variant: Variant) -> Path:
    """What is trained on."""
    run = config.run_dir
    return run / "3_controls" / variant.control if variant.control else run / "3_dataset"


def student_folder(config: Config, variant: Variant) -> Path:
    """What comes of it."""
    run = config.run_dir
    if variant.control is not None:
        return run / "4_controls" / variant.control
    if variant.only is not None:
        return run / "4_only" / variant.only
    return run / "4_student" if variant.seed is None else run / "4_seeds" / str(variant.seed)


def settings_of(config: Config, variant: Variant) -> Config:
    """The config that this student is trained with."""
    if variant.only is not None:
        stages = config.train.stages or [Stage()]
        mine = [stage.model_copy(update={"tasks": [variant.only]}) for stage in stages]
        return config.model_copy(update={"train": config.train.model_copy(update={"stages": mine})})
    if variant.seed is None:
        return config
    more = {"seed": variant.seed}
    changed: dict[str, Any] = {"sft": config.train.sft | more}
    if (kept := config.train.preference) is not None:
        changed["preference"] = kept.model_copy(update={"dpo": kept.dpo | more})
    return config.model_copy(update={"train": config.train.model_copy(update=changed)})


def check(config: Config) -> None:
    """Find mistakes in `train:` and `student:` before the teacher is paid for anything."""
    if config.train.early_stopping and not config.curate.validation_share:
        raise UserError(
            "train.early_stopping watches the validation loss, and curate.validation_share is 0; "
            "set it, as 0.05"
        )
    for number, stage in enumerate(config.train.stages or [Stage()]):
        sft_arguments(config, Path("4_student.partial"), stage.sft)
        stage_files(stage, f"train.stages.{number}")
    lora_config(config)
    check_soft_targets(config)
    if config.train.preference:
        check_preference(config)
    check_student(config)


def train(config: Config, variant: Variant = MAIN) -> StepResult:
    """Train (or go on training), save plain safetensors, write the log and the card."""
    import transformers

    config = settings_of(config, variant)
    transformers.utils.logging.disable_progress_bar()
    final = student_folder(config, variant)
    partial = final.with_name(f"{final.name}.partial")
    identity = _identity(config, variant)
    if rank() == 0:
        if _made(final, identity) is None:
            _warn_of_idle_gpus()
            _warn_of_long_rows(config, variant)
            prepare_folder(partial, identity)
    elif config.train.preference:
        wait_for_pairs(config, variant.control)
    wait_for_all()  # and only then look: before, the first process may still forget the student
    if (made := _made(final, identity)) is not None:
        # Killed between the last stage and the line in steps.jsonl.
        if rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
        return made
    work, parts = None, _parts(config, variant)
    for number, (method, stage, place, dataset) in enumerate(parts, 1):
        before = str(work.folder / STUDENT) if work else None
        folder = partial / f"stage-{number}"
        work = Work(method, config, stage, place, dataset, folder, before)
        if not is_done(folder):
            if len(parts) > 1 and rank() == 0:
                print(f"training: stage {number} of {len(parts)}, {method.name}", flush=True)
            train_stage(work)
    assert work is not None
    if rank() != 0:
        return StepResult()
    log = _whole_log(partial)
    student = work.folder / STUDENT
    lines = [json.dumps(entry) for entry in log]
    (student / "training_log.jsonl").write_text("\n".join(lines) + "\n")
    (student / "README.md").write_text(model_card(config, log, variant), encoding="utf-8")
    if (partial / "logs").is_dir():
        shutil.copytree(partial / "logs", student / "logs", dirs_exist_ok=True)
    result = _result(partial, len(parts), log)
    (student / MADE).write_bytes(msgspec.json.encode(Made(identity, result)))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(student, final)
    shutil.rmtree(partial)
    return result


def _warn_of_idle_gpus() -> None:
    import torch

    if processes() == 1 and (count := torch.cuda.device_count()) > 1:
        print(f"training: on one of {count} GPUs; docs/eight_gpus.md says how all of them do it")


class Made(msgspec.Struct, frozen=True):
    """What a finished student was made with, and what the step says of it."""

    identity: str
    result: StepResult


def _made(final: Path, identity: str) -> StepResult | None:
    try:
        found = msgspec.json.decode((final / MADE).read_bytes(), type=Made)
    except (OSError, msgspec.DecodeError):
        return None
    return found.result if found.identity == identity else None


def _result(partial: Path, stages: int, log: list[dict[str, Any]]) -> StepResult:
    folders = [partial / f"stage-{number + 1}" for number in range(stages)]
    notes = [json.loads((folder / NOTES).read_text()) for folder in folders]
    return StepResult(
        counts={
            "rows": sum(note.pop("rows") for note in notes),
            "steps": max((entry["step"] for entry in log), default=0),
        },
        tokens=Usage(input=max((int(entry.get("num_tokens", 0)) for entry in log), default=0)),
        notes=notes[-1],
    )


def _parts(config: Config, variant: Variant) -> list[tuple[Method, Stage, str, Path]]:
    """(method, stage, its place in the config, rows) in order."""
    preference, dataset = config.train.preference, dataset_folder(config, variant)
    found = []
    if preference is None or preference.after == "sft":
        for number, stage in enumerate(config.train.stages or [Stage()]):
            found.append((SFT, stage, f"train.stages.{number}", dataset))
    if preference is not None:
        found.append((DPO, Stage(), "train.preference", pairs_folder(config, variant.control)))
    return found


def _warn_of_long_rows(config: Config, variant: Variant) -> None:
    lengths = read_lengths(dataset_folder(config, variant))
    if lengths is not None and (warning := too_long(config, lengths)):
        print(f"warning: {warning}", file=sys.stderr)


def _identity(config: Config, variant: Variant) -> str:
    """Of a training: all its settings and all it reads."""
    this = step(config, variant)
    return digest([dict(this.settings), [stamp_of(path).sha256 for path in this.inputs]])


def _whole_log(partial: Path) -> list[dict[str, Any]]:
    """The logs of all stages as one: steps and tokens are counted on."""
    found: list[dict[str, Any]] = []
    folders = sorted(partial.glob("stage-*"), key=lambda path: int(path.name.split("-")[1]))
    for number, folder in enumerate(folders, 1):
        steps = max((entry["step"] for entry in found), default=0)
        tokens = max((entry.get("num_tokens", 0) for entry in found), default=0)
        for line in (folder / LOG).read_text().splitlines():
            entry = json.loads(line)
            entry["step"] = entry.get("step", 0) + steps
            if "num_tokens" in entry:
                entry["num_tokens"] = int(entry["num_tokens"]) + tokens
            found.append(entry | ({"stage": number} if len(folders) > 1 else {}))
    return found
