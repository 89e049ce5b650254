"""Stage 2 (what `distill train` runs, with all it watches) against a bare TRL script.

    python bench/train_ratio.py                                  # SmolLM2-135M
    python bench/train_ratio.py --model tiny --steps 200
    python bench/train_ratio.py --packing 2048 --batch 8 --bf16 --steps 60    # a GPU

Same rows, same settings, same CPU settings; each in a process of its own, in turn. Printed: tokens
a second between the first step and the last, and the median of the ratios of each round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import training_rows


def ours(chosen: argparse.Namespace, folder: Path) -> tuple[float, float]:
    from pipeline.config_train import Stage
    from pipeline.stage2_train.one_stage import SFT, Method, Work, train_stage

    found: list[Any] = []

    def clocked(work: Work) -> Any:
        found.append(trainer := SFT.trainer(work))
        trainer.add_callback(clock())
        return trainer

    method = Method(SFT.name, SFT.settings, SFT.arguments, clocked)
    config = training_rows.config(chosen, folder)
    dataset, output = folder / "3_dataset", folder / "stage-1"
    train_stage(Work(method, config, Stage(), "train", dataset, output, None))
    return measured(found[0])


def bare(chosen: argparse.Namespace, folder: Path) -> tuple[float, float]:
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from pipeline.models.cpu import tune_cpu
    from pipeline.models.locate import unpack

    config = training_rows.config(chosen, folder)
    settings = dict(config.train.sft)
    dtype = settings.pop("model_init_kwargs", {}).get("dtype", "float32")
    if not torch.cuda.is_available():
        tune_cpu()
        settings |= {"bf16": False, "gradient_checkpointing": False, "use_cpu": True}
    source = unpack(config.student.model, None).source
    rows = load_dataset(
        "parquet",
        data_files=str(folder / "3_dataset" / "train-*.parquet"),
        cache_dir=str(folder / "cache"),
    )["train"]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype)),
        processing_class=AutoTokenizer.from_pretrained(source),
        train_dataset=rows.select_columns(["prompt", "completion"]),
        args=SFTConfig(
            **settings,
            output_dir=str(folder / "out"),
            completion_only_loss=True,
            seed=config.seed,
            logging_steps=5,
            disable_tqdm=True,
        ),
        callbacks=[clock()],
    )
    trainer.train()
    return measured(trainer)


def clock() -> Any:
    """A callback that notes when the first step and the last one ended."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if args.device.type == "cuda" and state.global_step in (1, state.max_steps):
                import torch

                torch.cuda.synchronize()
            if state.global_step == 1:
                self.begin = time.perf_counter()
            self.end = time.perf_counter()

    return Clock()


def measured(trainer: Any) -> tuple[float, float]:
    """(tokens, seconds) of all steps but the first."""
    found = next(c for c in trainer.callback_handler.callbacks if type(c).__name__ == "Clock")
    steps = trainer.state.max_steps
    return trainer._total_train_tokens * (steps - 1) / steps, found.end - found.begin


def in_its_own_process(script: str, role: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, script, *sys.argv[1:], "--role", role],
        capture_output=True,
        text=True,
        timeout=3600,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode != 0:
        sys.exit(f"{role} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    chosen = training_rows.options(__doc__).parse_args()
    chosen.work.mkdir(exist_ok=True)
    if chosen.role:
        with tempfile.TemporaryDirectory(dir=chosen.work) as folder:
            role = {"ours": ours, "bare": bare}[chosen.role]
            print(json.dumps(role(chosen, Path(folder))))
        return
    ratios = []
    harness.table(["round", "ours, tokens/s", "bare, tokens/s", "ratio"])
    for number in range(chosen.rounds):
        order = ("ours", "bare") if number % 2 == 0 else ("bare", "ours")
        rate = {}
        for role in order:
            tokens, seconds = in_its_own_process(__file__, role)
            rate[role] = tokens / seconds
        ratios.append(rate["ours"] / rate["bare"])
        cells = [f"{rate['ours']:,.1f}", f"{rate['bare']:,.1f}", f"{ratios[-1]:.3f}"]
        harness.line([number + 1, *cells])
    print(
        f"median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); "
        "reach: 0.97"
    )


if __name__ == "__main__":
    main()
