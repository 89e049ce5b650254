"""The stage of a training that learns preferences: TRL's DPOTrainer on 3_preference/ (pairs.py).

Sources: DPO (2305.18290); SODA (2604.03873), which takes the teacher's answers as chosen and one
snapshot of the student's own as rejected. The reference is the student as the stage begins with it:
with an adapter, the weights below it; else a second copy, unless `precompute_ref_log_probs` has
asked it everything before.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.stage1_generate.parquet import dataset_files
from pipeline.stage1_generate.tokens import student_tokenizer
from pipeline.stage2_train.care import apply_smaller_batch
from pipeline.stage2_train.one_stage import Method, Work
from pipeline.stage2_train.pairs import check_pairs
from pipeline.stage2_train.ranks import first_process_first, processes, rank
from pipeline.stage2_train.settings import arguments, best_model, defaults, lora_config
from pipeline.stage2_train.stand_in import stand_in
from pipeline.stage2_train.student import open_student

PLACE = "train.preference.dpo"
COLUMNS = ["prompt", "chosen", "rejected", "ended"]


def dpo_arguments(config: Config, output: Path, *, validates: bool = False) -> Any:
    """The DPOConfig; a field that TRL does not have is a `UserError`."""
    from trl import DPOConfig

    assert config.train.preference is not None
    wanted = config.train.preference.dpo
    if "model_init_kwargs" in wanted:
        raise UserError(
            f"{PLACE}.model_init_kwargs: the student is opened with train.sft.model_init_kwargs, "
            "here too; put them there"
        )
    own = defaults(config) | {"train_sampling_strategy": "group_by_length"}
    if validates:
        own["eval_strategy"] = "epoch"
    return arguments(PLACE, DPOConfig, best_model(own, wanted) | wanted, output)


def check_preference(config: Config) -> None:
    """Find what TRL will refuse before the teacher is paid: `UserError`.

    DPOTrainer looks at most of its settings only when it is made, and at some in its first step;
    so one is made of a very small model, and takes it.
    """
    from transformers.trainer_utils import IntervalStrategy

    check_pairs(config)
    with tempfile.TemporaryDirectory() as folder:
        held_back = bool(config.curate.validation_share)
        settings = dpo_arguments(config, Path(folder), validates=held_back)
        # The rehearsal has a single row and no validation.
        settings.eval_strategy, settings.load_best_model_at_end = IntervalStrategy.NO, False
        if settings.deepspeed or settings.fsdp or processes() > 1:
            return  # a small model of its own has no place among processes that train together
        settings.report_to = []
        try:
            _rehearse(config, settings)
        except (ValueError, TypeError, NotImplementedError, ImportError) as error:
            raise UserError(f"{PLACE}: {error}") from None


def _rehearse(config: Config, settings: Any) -> None:
    import datasets
    from peft import LoraConfig

    from pipeline.stage2_train.pair_trainer import PairTrainer

    tokenizer = student_tokenizer(config)
    adapter = None
    if (lora := lora_config(config)) is not None:
        # Its names are those of another model's layers; the head has the same name in most.
        heads = {"lm_head"} & set(lora.target_modules or ())
        adapter = LoraConfig(task_type="CAUSAL_LM", r=1, target_modules=["q_proj", *heads])
    said = [[{"role": role, "content": text}] for role, text in _PAIR]
    row = dict(zip(COLUMNS, [*said, True], strict=True))
    shared = adapter is not None or settings.precompute_ref_log_probs
    os.environ["TQDM_DISABLE"] = "1"
    datasets.disable_progress_bars()
    trainer = PairTrainer(
        model=stand_in(tokenizer),
        ref_model=None if shared else stand_in(tokenizer),
        args=settings,
        train_dataset=datasets.Dataset.from_list([row]),
        processing_class=tokenizer,
        peft_config=adapter,
    )
    batch = trainer.data_collator([trainer.train_dataset[0]])
    trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch))


_PAIR = (("user", "a"), ("assistant", "b"), ("assistant", "c"))


def _dpo_arguments(work: Work, validates: bool) -> Any:
    return dpo_arguments(work.config, work.folder, validates=validates)


def _dpo_trainer(work: Work) -> Any:
    from pipeline.models.cpu import tune_cpu
    from pipeline.stage2_train.pair_trainer import PairTrainer

    config = work.config
    rows, validation = _rows(work)
    settings = _dpo_arguments(work, validation is not None)
    apply_smaller_batch(work.folder, settings)
    if settings.use_cpu:
        tune_cpu()
    lora = lora_config(config)
    model, tokenizer = open_student(config, work.before)
    reference = None
    if lora is None and not settings.precompute_ref_log_probs:
        # TRL's own would come from the model's name alone, without its revision.
        reference, _ = open_student(config, work.before)
    os.environ["TQDM_DISABLE"] = "1"  # TRL's bar over the reference's log-probabilities
    trainer = PairTrainer(
        model=model,
        ref_model=reference,
        args=settings,
        train_dataset=rows,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=lora,
    )
    if rank() == 0:
        _say_what_is_cut(trainer)
    return trainer


def _rows(work: Work) -> tuple[Any, Any]:
    """(train pairs, validation pairs or None)."""
    import datasets

    datasets.disable_progress_bars()
    # One cache for all processes: in it TRL's first one leaves the reference's log-probabilities
    # for the others.
    with first_process_first():
        data = datasets.load_dataset(
            "parquet",
            data_files=dataset_files(work.dataset),
            cache_dir=str(work.folder / "cache"),
        )
    validation = data.get("validation")
    return (
        _repeated(data["train"]).select_columns(COLUMNS),
        None if validation is None else validation.select_columns(COLUMNS),
    )


def _say_what_is_cut(trainer: Any) -> None:
    limit, lengths = trainer.args.max_length, trainer.train_dataset["length"]
    longer = sum(length > limit for length in lengths) if limit is not None else 0
    if longer:
        print(
            f"warning: {longer:,} of {len(lengths):,} pairs are longer than the {limit:,} tokens "
            f"of {PLACE}.max_length, and lose the end of an answer; raise it",
            flush=True,
        )


def _repeated(rows: Any) -> Any:
    """Pairs by their weight: 2 is there twice; 0.5, every second (by its source's hash).

    DPOTrainer has one loss for all of a pair's tokens together, and no weights.
    """
    from pipeline.records import digest

    keep: list[int] = []
    for i, (weight, source) in enumerate(zip(rows["weight"], rows["source"], strict=True)):
        whole = int(weight)
        part = int(digest(list(source), 8), 16) / 16**8 < weight - whole
        keep += [i] * (whole + part)
    if not keep:
        raise UserError("the weights of all tasks leave no row to train on; raise tasks.*.weight")
    return rows if keep == list(range(len(rows))) else rows.select(keep)


DPO = Method("dpo", PLACE, _dpo_arguments, _dpo_trainer)
