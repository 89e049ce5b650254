"""What soft targets cost over plain training: time of a step, peak memory; the same rows.

    python bench/soft_cost.py                                    # SmolLM2-135M, k = 20
    python bench/soft_cost.py --packing 2048 --batch 8 --bf16 --steps 40      # a GPU
    python bench/soft_cost.py --role soft --profile              # where the time goes

The teacher's log-probabilities are drawn at random, 20 tokens at each position of an answer. Each
training in a process of its own, in turn. Memory: the most that the process held (on a GPU: the
most that was allocated there).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness
import numpy as np
import train_ratio
import training_rows

ROLES = ("plain", "soft", "weights")


def train(chosen: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """(seconds a step, peak MB) of the role."""
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTTrainer

    from pipeline.config_train import SoftTargets
    from pipeline.models.cpu import tune_cpu
    from pipeline.models.locate import unpack
    from pipeline.stage2_train.settings import sft_arguments
    from pipeline.stage2_train.student import model_init
    from pipeline.stage2_train.targets import with_weights
    from pipeline.stage2_train.targets_trainer import TargetsTrainer

    config = training_rows.config(chosen, folder)
    if not torch.cuda.is_available():
        tune_cpu()
    source = unpack(config.student.model, None).source
    dtype = model_init(config).get("dtype", "float32")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype))
    rows = load_dataset(
        "parquet",
        data_files=str(folder / "3_dataset" / "train-*.parquet"),
        cache_dir=str(folder / "cache"),
    )["train"]
    k, size = chosen.k, model.config.get_text_config().vocab_size
    kind: Any = TargetsTrainer
    more: dict[str, Any] = {}
    if chosen.role == "plain":
        kind, rows = SFTTrainer, rows.select_columns(["prompt", "completion"])
    elif chosen.role == "weights":
        more = {"add_columns": lambda found: found.map(with_weights)}
    else:
        more = {
            "add_columns": lambda found: found.map(lambda row: drawn(row, k, size)),
            "soft": SoftTargets(weight=0.5, top_k=k),
        }
    trainer = kind(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(source),
        train_dataset=rows,
        args=sft_arguments(config, folder / "out", validates=False),
        callbacks=[train_ratio.clock()],
        **more,
    )
    if chosen.profile:
        profiled(trainer)
    else:
        trainer.train()
    _, seconds = train_ratio.measured(trainer)
    peak = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0
    return seconds / (chosen.steps - 1), peak or harness.memory()[1]


def drawn(row: dict[str, Any], k: int, size: int) -> dict[str, Any]:
    """Log-probabilities of k tokens, the label among them, for each token with a loss."""
    from pipeline.stage2_train.soft_rows import entry_type
    from pipeline.stage2_train.targets import IGNORED, SOFT

    draw = np.random.default_rng(len(row["input_ids"]))
    entries = []
    for label in row["labels"]:
        if label == IGNORED:
            entries.append(b"")
            continue
        entry = np.zeros((), dtype=entry_type(k))
        entry["ids"] = draw.integers(0, size, k)
        entry["ids"][0] = label
        entry["logprobs"] = np.sort(np.log(draw.dirichlet(np.ones(k + 1))[:k]))[::-1]
        entries.append(entry.tobytes())
    return {SOFT: entries}


def profiled(trainer: Any) -> None:
    import torch

    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        trainer.train()
    key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=key, row_limit=25), file=sys.stderr)


def main() -> None:
    parser = training_rows.options(__doc__)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--profile", action="store_true")
    chosen = parser.parse_args()
    chosen.work.mkdir(exist_ok=True)
    if chosen.role:
        with tempfile.TemporaryDirectory(dir=chosen.work) as folder:
            print(json.dumps(train(chosen, Path(folder))))
        return
    ratios: dict[str, list[tuple[float, float]]] = {role: [] for role in ROLES[1:]}
    harness.table(["round", "training", "s a step", "peak MB", "time", "memory"])
    for number in range(chosen.rounds):
        order = ROLES if number % 2 == 0 else ROLES[::-1]
        found = {role: train_ratio.in_its_own_process(__file__, role) for role in order}
        for role in ROLES:
            time_, memory = (x / y for x, y in zip(found[role], found["plain"], strict=True))
            cells = [role, f"{found[role][0]:.3f}", f"{found[role][1]:,.0f}"]
            harness.line([number + 1, *cells, f"{time_:.3f}", f"{memory:.3f}"])
            if role in ratios:
                ratios[role].append((time_, memory))
    for role, each in ratios.items():
        times, memories = zip(*each, strict=True)
        print(
            f"{role}: median time {statistics.median(times):.3f} ({min(times):.3f} to "
            f"{max(times):.3f}), memory {statistics.median(memories):.3f}"
        )
    print("reach of soft: time 1.25, memory 1.3")


if __name__ == "__main__":
    main()
