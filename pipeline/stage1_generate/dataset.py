"""3_dataset/: what the student is trained on, as `datasets.load_dataset` opens it.

Parquet in TRL's conversational prompt-completion form, split by seed (no seed on both sides), with
a dataset card that says where every row comes from.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pipeline.config import Config
from pipeline.prompts import load_prompt
from pipeline.records import Example, digest

if TYPE_CHECKING:
    from pipeline.stage1_generate.curate.run import Funnel


def in_validation(examples: Iterable[Example], share: float, seed: int) -> list[bool]:
    """Decided by each seed's id alone, so adding rows never moves a row to the other side.

    Where that leaves nothing to train on, the rows of one seed are trained on all the same.
    """
    places = [_place(seed, e.meta["task"], e.meta["seed_id"]) for e in examples]
    last = max(places, default=0)
    return [place < min(share * 16**8, last) for place in places]


def held_back(seed: int, task: str, seed_id: str, share: float) -> bool:
    """Is this seed of a run kept out of its training?"""
    return _place(seed, task, seed_id) < share * 16**8


def _place(seed: int, task: str, seed_id: str) -> int:
    return int(digest([seed, task, seed_id], 8), 16)


def write_dataset(config: Config, kept: list[Example], funnel: Funnel) -> None:
    """Write the folder under a temporary name, then rename it."""
    import pandas as pd

    share = config.curate.validation_share
    table = pd.DataFrame([_row(example) for example in kept])
    validation = pd.Series(in_validation(kept, share, config.seed))
    splits = {"train": table[~validation], "validation": table[validation]}
    splits = {name: rows.reset_index(drop=True) for name, rows in splits.items() if len(rows)}
    folder = config.run_dir / "3_dataset"
    partial = folder.with_name("3_dataset.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, rows in splits.items():
        rows.to_parquet(partial / f"{name}-00000-of-00001.parquet", index=False)
    by_task = table.groupby("task").agg(
        rows=("seed_id", "size"), seeds=("seed_id", "nunique"), characters=("characters", "mean")
    )
    card = _card(config, funnel, {n: len(r) for n, r in splits.items()}, by_task)
    (partial / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def _row(example: Example) -> dict[str, Any]:
    return {
        "prompt": msgspec.to_builtins(example.prompt),
        "completion": msgspec.to_builtins(example.completion),
        "weight": example.weight,
        "source": list(example.source),
        **example.meta,
    }


def _card(config: Config, funnel: Funnel, splits: dict[str, int], by_task: Any) -> str:
    files = "\n".join(f"  - split: {s}\n    path: {s}-*.parquet" for s in splits)
    tasks = "\n".join(
        f"| {name} | {int(row.rows)} | {int(row.seeds)} | {row.characters:.0f} |"
        for name, row in by_task.iterrows()
    )
    asked = "\n".join(
        f"- `{name}`: {t.model}{f' at {t.revision}' if t.revision else ''}, "
        f"sampling {t.sampling or 'defaults'}"
        for name, t in config.all_teachers.items()
    )
    prompts = "\n".join(
        f"- {t.name}: recipe `{t.recipe}`, teacher asked with `{t.teacher_prompt}` "
        f"({load_prompt(t.teacher_prompt).ref.hash}), student shown `{t.student_prompt}` "
        f"({load_prompt(t.student_prompt).ref.hash}), {t.samples} samples"
        for t in config.tasks
    )
    stages = "\n".join(
        f"| {s.filter} | {s.into} | {s.dropped} | "
        f"{'; '.join(f'{reason} ({n})' for reason, n in s.reasons.items()) or '-'} |"
        for s in funnel.stages
    )
    against = config.curate.contamination
    return f"""---
configs:
- config_name: default
  data_files:
{files}
tags:
- synthetic
- distillation
---

# {config.name}

{funnel.kept} rows ({", ".join(f"{n} {s}" for s, n in splits.items())}) that a teacher model wrote
and that passed every filter, in TRL's conversational prompt-completion form. Each row names its
requests (`source`), its seed and its teacher. Made by blackbox-distill.

| task | rows | seeds | mean characters |
|---|---|---|---|
{tasks}

## Teachers

{asked}

The text was written by these models: their licences and terms of use apply to it.

## Prompts

{prompts}

## What was dropped

{funnel.asked} asked, {funnel.answered} answered, {funnel.kept} kept.

| filter | rows in | dropped | reasons |
|---|---|---|---|
{stages}

Contamination was checked against {against.against} (n-grams of {against.ngram} words).
"""


def dataset_files(folder: Path) -> dict[str, str]:
    """split -> path pattern, for `datasets.load_dataset("parquet", data_files=...)`."""
    return {
        name: str(folder / f"{name}-*.parquet")
        for name in ("train", "validation")
        if any(folder.glob(f"{name}-*.parquet"))
    }
