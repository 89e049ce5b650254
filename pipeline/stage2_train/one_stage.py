"""One stage of training: the trainer, its watch, and what happens when it cannot go on.

The same for every method: what is particular to SFT stands at the end, to preferences in
preference.py.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.config_train import Stage
from pipeline.errors import RunFatal, Stopped, UserError
from pipeline.stage1_generate.parquet import dataset_files
from pipeline.stage2_train.care import apply_smaller_batch, is_out_of_memory, shrink
from pipeline.stage2_train.checkpoints import last_complete_checkpoint
from pipeline.stage2_train.packing import check_packing
from pipeline.stage2_train.ranks import processes, rank, wait_for_all
from pipeline.stage2_train.settings import sft_arguments
from pipeline.stage2_train.stages import stage_files, stage_rows
from pipeline.stage2_train.student import open_student, student_lora
from pipeline.stage2_train.targets import trainer_kind

LOG = "log.jsonl"  # written last: a stage that has one, and its student, is done
NOTES = "notes.json"
STUDENT = "student"


@dataclass(frozen=True)
class Method:
    """How a stage teaches: the settings of its trainer, and the trainer itself."""

    name: str  # marks its entries in the training log
    settings: str  # their place in the config, for messages
    arguments: Callable[[Work, bool], Any]  # the flag: there are validation rows
    trainer: Callable[[Work], Any]


@dataclass(frozen=True)
class Work:
    """What one stage is done with. `before` is the student it begins with; None: the config's."""

    method: Method
    config: Config
    stage: Stage
    place: str  # of the stage in the config, for messages
    dataset: Path
    folder: Path
    before: str | None


def train_stage(work: Work) -> None:
    """Leaves `student/`, `log.jsonl` and `notes.json` in the folder.

    Raises `Stopped` at a saved checkpoint, `RunFatal` where the loss is no number any more.
    """
    work.folder.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            _attempt(work)
            _free_memory()  # for the next stage
            return
        except (RuntimeError, MemoryError) as error:
            # Several processes would have to agree on it; a new start with smaller ones is simpler.
            if not is_out_of_memory(error) or processes() > 1:
                raise
            arguments = work.method.arguments(work, bool(work.config.curate.validation_share))
            shrink(work.folder, arguments, work.method.settings, error)
        _free_memory()  # not above: the error's traceback holds the tensors


def _attempt(work: Work) -> None:
    folder = work.folder
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder.parent / "logs" / folder.name)
    trainer = work.method.trainer(work)
    watch = _watched(trainer)
    checkpoint = last_complete_checkpoint(folder)
    if checkpoint and rank() == 0:
        print(f"training goes on from {checkpoint.name}")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if watch.diverged:
        raise RunFatal(_diverged(watch.diverged, work))
    if watch.stopped:
        raise Stopped("training stopped at a saved checkpoint; run the same command again to go on")
    _save(trainer, folder / STUDENT, work)
    log = [entry | {"method": work.method.name} for entry in trainer.state.log_history]
    if rank() == 0:
        notes = _notes(trainer, watch)
        (folder / NOTES).write_text(json.dumps(notes))
        partial = folder / f"{LOG}.partial"
        partial.write_text("".join(json.dumps(entry) + "\n" for entry in log))
        os.replace(partial, folder / LOG)
        # Only now: until here they are what a new start goes on from.
        for left in [*folder.glob("checkpoint-*"), *folder.glob("cache-*")]:
            shutil.rmtree(left, ignore_errors=True)
    wait_for_all()


def is_done(folder: Path) -> bool:
    """Was the stage of this folder trained to its end?"""
    return (folder / LOG).is_file() and (folder / STUDENT).is_dir()


def _notes(trainer: Any, watch: Any) -> dict[str, Any]:
    """What steps.jsonl says of a stage."""
    log = trainer.state.log_history
    losses = [entry["train_loss"] for entry in log if "train_loss" in entry]
    speed = watch.speed()
    return {
        "rows": len(trainer.train_dataset),
        "train_loss": round(losses[-1], 4) if losses else None,
        "tokens_per_second": round(speed.tokens_per_second, 1),
        "mfu": round(speed.utilisation, 4),
        "mfu_of": speed.peak,
        "memory_gb": round(speed.memory_gb, 2),
    }


def _diverged(what: str, work: Work) -> str:
    good = last_complete_checkpoint(work.folder)
    kept = f"the last good checkpoint is {good}" if good else "there was no checkpoint yet"
    return (
        f"training diverged: {what}; nothing was saved over what was good, {kept}. Lower "
        f"{work.method.settings}.learning_rate (or raise warmup_steps), then type the command "
        "again: with other settings it begins anew"
    )


def _watched(trainer: Any) -> Any:
    """Its Watch, which is now one of its callbacks; and its rows have an order that can resume."""
    from transformers import PrinterCallback

    from pipeline.stage2_train.flops import peak_flops
    from pipeline.stage2_train.order import SameOrder
    from pipeline.stage2_train.watch import Watch

    trainer.add_callback(SameOrder(trainer))
    trainer.remove_callback(PrinterCallback)  # it prints raw dictionaries; Watch prints lines
    watch = Watch(
        "training",
        trainer.model,
        _mean_tokens(trainer),
        peak_flops(processes()),
        lambda: int(trainer._total_train_tokens),
    )
    # First, so that what it adds to the logs reaches TensorBoard and the others.
    trainer.callback_handler.callbacks.insert(0, watch)
    return watch


def _mean_tokens(trainer: Any) -> float:
    """Of the documents that attention looks within: a packed row holds several."""
    rows = trainer.train_dataset
    if "seq_lengths" in rows.column_names:
        lengths = [length for row in rows["seq_lengths"][:1000] for length in row]
    elif "input_ids" in rows.column_names:
        lengths = [len(row) for row in rows["input_ids"][:1000]]
    else:  # a pair is two documents
        lengths = [
            len(row["prompt_ids"]) + len(row[answer])
            for row in rows.select(range(min(1000, len(rows))))
            for answer in ("chosen_ids", "rejected_ids")
        ]
    return float(sum(lengths)) / max(1, len(lengths))


def _save(trainer: Any, folder: Path, work: Work) -> None:
    """Plain safetensors that every backend opens; of an adapter also the adapter itself."""
    lora = work.config.train.lora is not None
    target = folder / "adapter" if lora else folder
    trainer.save_model(str(target))  # gathers what FSDP or DeepSpeed have spread; all processes
    if rank() != 0:
        return
    (target / "training_args.bin").unlink(missing_ok=True)  # a pickle
    if lora:
        from peft import PeftModel

        # Into the weights as they were, not into a quantised copy of them.
        model, _ = open_student(work.config, work.before, quantised=False)
        PeftModel.from_pretrained(model, str(target)).merge_and_unload().save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _sft_arguments(work: Work, validates: bool) -> Any:
    return sft_arguments(work.config, work.folder, work.stage.sft, validates=validates)


def _rows(work: Work) -> tuple[Any, Any]:
    """(train rows, validation rows or None) as the dataset has them."""
    import datasets

    datasets.disable_progress_bars()
    files = stage_files(work.stage, work.place) or dataset_files(work.dataset)
    # A cache of the folder's own: nothing stale from another run's files of the same name; and one
    # for each process, for they would write the same file.
    cache = work.folder / f"cache-{rank()}"
    data = datasets.load_dataset("parquet", data_files=files, cache_dir=str(cache))
    return stage_rows(work.stage, work.place, data["train"]), data.get("validation")


def _sft_trainer(work: Work) -> Any:
    from pipeline.models.cpu import tune_cpu

    config = work.config
    rows, validation = _rows(work)
    if config.train.early_stopping and validation is None:
        raise UserError(
            "train.early_stopping watches the validation loss, and the dataset has no validation "
            "rows; raise curate.validation_share and `--redo curate`, or leave it out"
        )
    arguments = _sft_arguments(work, validation is not None)
    apply_smaller_batch(work.folder, arguments)
    if arguments.use_cpu:
        tune_cpu()
    model, tokenizer = open_student(config, work.before)
    rows, kind, more = trainer_kind(config, rows, tokenizer)
    if validation is not None:
        validation = validation.select_columns(["prompt", "completion"])
    trainer = kind(
        **more,
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=student_lora(config, model),
        callbacks=_early_stopping(config),
    )
    check_packing(trainer)
    return trainer


def _early_stopping(config: Config) -> list[Any]:
    from transformers import EarlyStoppingCallback

    settings = config.train.early_stopping
    return [EarlyStoppingCallback(settings.patience, settings.threshold)] if settings else []


SFT = Method("sft", "train.sft", _sft_arguments, _sft_trainer)
