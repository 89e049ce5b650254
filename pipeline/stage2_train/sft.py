"""Step `train`: TRL's SFTTrainer on 3_dataset/, loss on the completion only.

A control (`distill train CONFIG --control NAME`) is trained in the same way on 3_controls/NAME/ and
becomes 4_controls/NAME/.

`train.sft` goes to SFTConfig and `train.lora` to peft's LoraConfig untouched; below them lie a few
defaults that fit the machine. Work happens in 4_student.partial/, which becomes 4_student/ when it
is whole; after a kill, training goes on from the last complete checkpoint there.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from pipeline import stopping
from pipeline.config import Config
from pipeline.config_dataset import Control
from pipeline.errors import RunFatal, Stopped, UserError
from pipeline.models import local_checkpoint
from pipeline.models.locate import identity_of
from pipeline.records import Usage, digest
from pipeline.stage1_generate.lengths import read_lengths, too_long
from pipeline.stage1_generate.parquet import dataset_files
from pipeline.stage2_train.card import model_card
from pipeline.stage2_train.soft_targets import check_soft_targets, with_soft_targets
from pipeline.steps import Step, StepResult, stamp_of


def step(config: Config, control: Control | None = None) -> Step:
    soft = config.train.soft_targets
    return Step(
        name="train" if control is None else f"train --control {control}",
        run=config.run_dir,
        settings={
            "seed": config.seed,
            "student": identity_of(config.student.model, config.student.revision),
            "sft": config.train.sft,
            "lora": config.train.lora,
        }
        | ({"soft_targets": soft.model_dump(mode="json")} if soft else {}),
        inputs=[dataset_folder(config, control)],
        outputs=[student_folder(config, control)],
        work=lambda: train(config, control),
    )


def dataset_folder(config: Config, control: Control | None) -> Path:
    """What is trained on."""
    run = config.run_dir
    return run / "3_dataset" if control is None else run / "3_controls" / control


def student_folder(config: Config, control: Control | None) -> Path:
    """What comes of it."""
    run = config.run_dir
    return run / "4_student" if control is None else run / "4_controls" / control


def train_arguments(config: Config, output: Path) -> Any:
    """The SFTConfig; a field that TRL does not have is a `UserError`."""
    import torch
    from trl import SFTConfig

    on_cpu = not torch.cuda.is_available()
    defaults: dict[str, Any] = {
        "seed": config.seed,
        "completion_only_loss": True,
        "logging_steps": 5,
        "save_strategy": "steps",
        "save_steps": 0.25,  # of all steps
        "save_total_limit": 2,
        "report_to": "tensorboard",
        "train_sampling_strategy": "group_by_length",
    }
    if on_cpu:
        # TRL's defaults (bf16, checkpointing) were measured 3.5 times slower on a CPU.
        defaults |= {"bf16": False, "gradient_checkpointing": False, "use_cpu": True}
    if config.curate.mixture is not None and config.curate.mixture.order != "as_is":
        defaults["train_sampling_strategy"] = "sequential"
        _keeps_the_order(config)
    if "output_dir" in config.train.sft:
        raise UserError(
            f"train.sft.output_dir: the student goes to {config.run_dir}/4_student; leave it out"
        )
    settings = defaults | config.train.sft | {"output_dir": str(output)}
    try:
        return SFTConfig(**settings)
    except (TypeError, ValueError) as error:
        raise UserError(_explain("train.sft", error, SFTConfig)) from None


def _keeps_the_order(config: Config) -> None:
    """Refuse settings of `train.sft` that would shuffle what `curate.mixture.order` has ordered."""
    assert config.curate.mixture is not None
    wanted = {"train_sampling_strategy": "sequential", "shuffle_dataset": False, "packing": False}
    for key, value in wanted.items():
        seen = config.train.sft.get(key, value)
        if seen != value:
            raise UserError(
                f"train.sft.{key} {seen!r} would undo curate.mixture.order "
                f"{config.curate.mixture.order}; leave {key} out, or set the order to as_is"
            )


def lora_config(config: Config) -> Any:
    """peft's LoraConfig, or None."""
    if config.train.lora is None:
        return None
    from peft import LoraConfig

    try:
        return LoraConfig(**({"task_type": "CAUSAL_LM"} | config.train.lora))
    except (TypeError, ValueError) as error:
        raise UserError(_explain("train.lora", error, LoraConfig)) from None


def _explain(place: str, error: Exception, kind: type) -> str:
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if not found:
        return f"{place}: {error}"
    fields = list(getattr(kind, "__dataclass_fields__", {}))
    close = difflib.get_close_matches(found[1], fields, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{place}: {kind.__name__} has no field {found[1]!r}{hint}"


def check(config: Config) -> None:
    """Find mistakes in `train:` and `student:` before the teacher is paid for anything."""
    train_arguments(config, config.run_dir / "4_student.partial")
    lora_config(config)
    check_soft_targets(config)
    checkpoint = local_checkpoint(
        config.student.model, config.student.revision, config.student.serving
    )
    from transformers import AutoConfig, AutoTokenizer

    try:
        # A hub's model is only known to exist, and to need no code of its own, once it is asked.
        options = {"revision": checkpoint.revision, "trust_remote_code": False}
        if config.student.serving.trust_remote_code:
            options["trust_remote_code"] = True
        AutoConfig.from_pretrained(checkpoint.source, **options)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"student.model {config.student.model!r} cannot be opened: {error}"
        ) from None
    if tokenizer.chat_template is None:
        raise UserError(
            f"student.model {config.student.model!r} has no chat template; take an "
            "instruction-tuned model"
        )


def train(config: Config, control: Control | None = None) -> StepResult:
    """Train (or go on training), save plain safetensors, write the log and the card."""
    import transformers

    final = student_folder(config, control)
    partial = final.with_name(f"{final.name}.partial")
    lengths = read_lengths(dataset_folder(config, control))
    if lengths is not None and (warning := too_long(config, lengths)):
        print(f"warning: {warning}", file=sys.stderr)
    _start_or_continue(partial, config, control)
    transformers.utils.logging.disable_progress_bar()
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(partial / "logs")
    trainer = _trainer(config, dataset_folder(config, control), partial)
    checkpoint = last_complete_checkpoint(partial)
    if checkpoint:
        print(f"training goes on from {checkpoint.name}")
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stopping.requested():
        raise Stopped("training stopped at a saved checkpoint; run the same command again to go on")
    if not math.isfinite(result.training_loss):
        raise RunFatal(
            f"the training loss is {result.training_loss}; nothing was saved over the last good "
            f"checkpoint in {partial}. Lower train.sft.learning_rate, then `--redo train`"
        )
    log = trainer.state.log_history
    _save(trainer, partial, config)
    for folder in partial.glob("checkpoint-*"):
        shutil.rmtree(folder)
    lines = [json.dumps(entry) for entry in log]
    (partial / "training_log.jsonl").write_text("\n".join(lines) + "\n")
    (partial / "README.md").write_text(model_card(config, log, control), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    tokens = int(max((entry.get("num_tokens", 0) for entry in log), default=0))
    return StepResult(
        counts={"rows": len(trainer.train_dataset), "steps": trainer.state.global_step},
        tokens=Usage(input=tokens),
        notes={"train_loss": round(result.training_loss, 4)},
    )


def _start_or_continue(partial: Path, config: Config, control: Control | None) -> None:
    """Keep a stopped training's folder only if it was made with the very same settings."""
    data = stamp_of(dataset_folder(config, control)).sha256
    wanted = digest([dict(step(config, control).settings), data])
    marker = partial / "settings.txt"
    if partial.is_dir() and (not marker.is_file() or marker.read_text() != wanted):
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    marker.write_text(wanted)


def _trainer(config: Config, dataset: Path, partial: Path) -> Any:
    import datasets
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import SFTTrainer

    from pipeline.models.cpu import tune_cpu

    files = dataset_files(dataset)
    datasets.disable_progress_bars()  # Watch prints what a log file can hold
    # The run folder's own cache: nothing stale from another run's files of the same name.
    data = datasets.load_dataset("parquet", data_files=files, cache_dir=str(partial / "cache"))
    rows = weighted(data["train"])
    arguments = train_arguments(config, partial)
    validation = None
    if "validation" in data:
        validation = data["validation"].select_columns(["prompt", "completion"])
        if "eval_strategy" not in config.train.sft:
            arguments.eval_strategy = "epoch"
    checkpoint = local_checkpoint(
        config.student.model, config.student.revision, config.student.serving
    )
    if arguments.use_cpu:
        tune_cpu()
    options: dict[str, Any] = {
        "revision": checkpoint.revision,
        "trust_remote_code": config.student.serving.trust_remote_code,
    }
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint.source, dtype=torch.float32, use_safetensors=True, **options
    )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, **options)

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Plain progress lines, and a checkpoint when the run is told to stop."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                print(
                    f"training: step {state.global_step}/{state.max_steps}, "
                    f"loss {float(logs['loss']):.4f}, epoch {state.epoch:.2f}",
                    flush=True,
                )
            if logs and "eval_loss" in logs:
                print(f"training: validation loss {float(logs['eval_loss']):.4f}", flush=True)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if stopping.requested():
                control.should_save = control.should_training_stop = True

    arguments.disable_tqdm = True
    kind, more = SFTTrainer, {}
    if (soft := config.train.soft_targets) is not None:
        from pipeline.stage2_train.soft_trainer import SoftTrainer

        rows = with_soft_targets(config, rows, tokenizer, arguments.max_length)
        kind, more = SoftTrainer, {"soft": soft}
    else:
        rows = rows.select_columns(["prompt", "completion"])
    trainer = kind(
        **more,
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=lora_config(config),
        callbacks=[Watch()],
    )
    trainer.remove_callback(PrinterCallback)  # it prints raw dictionaries; Watch prints lines
    return trainer


def weighted(rows: Any) -> Any:
    """Rows by their weight: 2 is there twice; 0.5, every second row (by its source's hash)."""
    keep: list[int] = []
    for i, (weight, source) in enumerate(zip(rows["weight"], rows["source"], strict=True)):
        whole = int(weight)
        part = int(digest(list(source), 8), 16) / 16**8 < weight - whole
        keep += [i] * (whole + part)
    if not keep:
        raise UserError("the weights of all tasks leave no row to train on; raise tasks.*.weight")
    return rows if keep == list(range(len(rows))) else rows.select(keep)


def last_complete_checkpoint(folder: Path) -> Path | None:
    """transformers writes trainer_state.json last: without a readable one a checkpoint is torn."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    for checkpoint in reversed(found):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
            return checkpoint
        except (OSError, json.JSONDecodeError):
            shutil.rmtree(checkpoint)
    return None


def _save(trainer: Any, folder: Path, config: Config) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    if config.train.lora is not None:
        model.save_pretrained(folder / "adapter")
        model = model.merge_and_unload()  # so that every backend can open the student
    model.save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    (folder / "settings.txt").unlink(missing_ok=True)
