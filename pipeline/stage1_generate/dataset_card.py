"""The dataset's card, 3_dataset/README.md: what it is, who wrote it, what was dropped, how long."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pipeline.config import Config, Teacher
from pipeline.prompts import load_prompt
from pipeline.records import digest
from pipeline.stage1_generate.lengths import QUANTILES, Lengths, too_long
from pipeline.stage1_generate.parquet import dataset_files
from pipeline.steps import stamp_of

if TYPE_CHECKING:
    from pipeline.stage1_generate.curate.funnel import Funnel
    from pipeline.stage1_generate.dataset import MixtureReport

BAR = 40  # characters of the histogram's longest line


class TaskLine(msgspec.Struct, frozen=True):
    """Rows and groups of seeds of a task in the dataset; mean characters of a completion."""

    name: str
    rows: int
    seeds: int
    characters: float


def dataset_card(
    config: Config,
    folder: Path,
    funnel: Funnel,
    splits: Mapping[str, int],
    tasks: Sequence[TaskLine],
    lengths: Lengths,
    mixture: MixtureReport,
) -> str:
    """Markdown with a YAML head that the hub and `datasets.load_dataset` read."""
    rows = ", ".join(f"{n:,} {split}" for split, n in splits.items())
    return f"""{_head(config, folder)}
# {config.name}

{sum(splits.values()):,} rows ({rows}) that a teacher model wrote and that passed every filter, in
TRL's conversational prompt-completion form. Each row names its requests (`source`), its seed and
its teacher. No seed, and nothing that was derived from it, is on both sides of the split. Made by
blackbox-distill.

```python
from datasets import load_dataset

data = load_dataset("path/to/this/folder")  # or the name of the repository on the hub
```

{_table(("task", "rows", "seeds", "mean characters of a completion"), _task_rows(tasks))}

## Teachers

{_teachers(config)}

{_licences(config)}

## Prompts

{_prompts(config)}

## What was dropped, and what it cost

{funnel.asked:,} asked, {funnel.answered:,} answered, {funnel.kept:,} kept.

{_table(("filter", "rows in", "dropped", "reasons"), _stages(funnel))}

{
        _table(
            ("task", "asked", "kept", "tokens", "USD", "tokens a kept row", "USD a kept row"),
            _costs(funnel),
        )
    }

{_contamination(config, funnel)}

## Mixture

{_mixture(mixture)}

## Length

{_lengths(config, lengths)}
"""


def licence_of(teacher: Teacher) -> str | None:
    """What the model card of a local folder, or an installed package, states; None: nothing."""
    if teacher.model.startswith("package:"):
        try:
            found = importlib.metadata.metadata(teacher.model.removeprefix("package:")).json
        except importlib.metadata.PackageNotFoundError:
            return None
        name = found.get("license_expression") or found.get("license")
        return str(name) if name else None
    card = Path(teacher.model) / "README.md"
    if not card.is_file():
        return None
    from huggingface_hub import ModelCard

    try:
        stated = ModelCard.load(card, ignore_metadata_errors=True).data.license
    except ValueError:  # a head that is no YAML: nothing is stated that can be read
        return None
    return str(stated) if stated else None


def data_head(folder: Path) -> str:
    """The lines of a card's head that say where the rows are, for `load_dataset`.

    `load_dataset` finds its cache by the folder's last name and these lines alone (datasets 5.2):
    without a trace of the content, two runs' 3_dataset/ would be the same dataset to it.
    """
    files = dataset_files(folder)
    content = digest([stamp_of(path).sha256 for path in sorted(folder.glob("*.parquet"))], 16)
    splits = "\n".join(f"  - split: {s}\n    path: {s}-*.parquet" for s in files)
    return f"""configs:
- config_name: default
  description: content {content}
  data_files:
{splits}"""


def _head(config: Config, folder: Path) -> str:
    licences = {licence_of(teacher) for teacher in config.all_teachers.values()}
    known = licences.pop() if len(licences) == 1 else None
    # The hub knows licences by their lower-case identifiers, and everything else as "other".
    name = known.lower() if known and known.lower() in ("apache-2.0", "mit") else "other"
    return f"""---
pretty_name: {config.name}
license: {name}
task_categories:
- text-generation
tags:
- synthetic
- distillation
{data_head(folder)}
---
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(c) for c in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _task_rows(tasks: Sequence[TaskLine]) -> list[tuple[str, ...]]:
    return [(t.name, f"{t.rows:,}", f"{t.seeds:,}", f"{t.characters:,.0f}") for t in tasks]


def _teachers(config: Config) -> str:
    lines = []
    for name, teacher in config.all_teachers.items():
        revision = f" at {teacher.revision}" if teacher.revision else ""
        sampling = teacher.sampling or "the pipeline's defaults"
        lines.append(f"- `{name}`: {teacher.model}{revision}, sampling {sampling}")
    for task in config.tasks:
        if task.sampling:
            lines.append(f"- in task `{task.name}` with {task.sampling} over that")
    return "\n".join(lines)


def _licences(config: Config) -> str:
    stated = {t.model: licence_of(t) for t in config.all_teachers.values()}
    lines = [f"{model} states its licence as: {name}." for model, name in stated.items() if name]
    silent = [model for model, name in stated.items() if not name]
    if silent:
        lines.append(
            f"No local model card states the licence of {', '.join(silent)}; look it up before "
            "this is passed on."
        )
    lines.append(
        "The completions were written by these models: their licences and terms of use apply to "
        "them, some of which do not allow training other models. The licences of the seeds apply "
        "to the prompts."
    )
    return " ".join(lines)


def _prompts(config: Config) -> str:
    parts = []
    shown: set[str] = set()
    for task in config.tasks:
        asked = f"{task.samples} samples" if task.accept is None else f"accept {task.accept}"
        parts.append(
            f"**{task.name}**: recipe `{task.recipe}`, {asked}; the teacher is asked with "
            f"`{task.teacher_prompt}`, the student is shown `{task.student_prompt}`."
        )
        for path in (task.teacher_prompt, task.student_prompt):
            if path not in shown:
                shown.add(path)
                text = Path(path).read_text(encoding="utf-8").strip()
                parts.append(f"`{path}` ({load_prompt(path).ref.hash}):\n\n{_fenced(text)}")
    return "\n\n".join(parts)


def _fenced(text: str) -> str:
    fence = "~~~~"
    while fence in text:
        fence += "~"
    return f"{fence}yaml\n{text}\n{fence}"


def _stages(funnel: Funnel) -> list[tuple[str, ...]]:
    return [
        (
            s.filter,
            f"{s.into:,}",
            f"{s.dropped:,}",
            "; ".join(f"{reason} ({n:,})" for reason, n in s.reasons.items()) or "-",
        )
        for s in funnel.stages
    ]


def _costs(funnel: Funnel) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{y.asked:,}",
            f"{y.kept:,}",
            f"{y.tokens:,}",
            f"{y.usd:.4f}",
            f"{y.tokens / y.kept:,.0f}" if y.kept else "-",
            f"{y.usd / y.kept:.6f}" if y.kept else "-",
        )
        for name, y in funnel.by_task.items()
    ]


def _contamination(config: Config, funnel: Funnel) -> str:
    found = next((s for s in funnel.stages if s.filter == "contamination"), None)
    if found is None:
        return "Rows were not compared with any evaluation item (no contamination check)."
    against = config.curate.contamination
    where = ["the evaluation's items"] if against.against == "evaluation" else []
    return (
        f"{found.into:,} rows were compared with {' and '.join([*where, *against.files])}; "
        f"{found.dropped:,} overlapped and were dropped."
    )


def _mixture(mixture: MixtureReport) -> str:
    lines = [
        f"{mixture.kept:,} rows were kept, {mixture.left_out:,} of them are left out here; the "
        f"training rows stand in the order `{mixture.order}`."
    ]
    if any(part.tokens is not None for part in mixture.parts.values()):
        budget = "" if mixture.budget is None else f" Budget: {mixture.budget:,} tokens."
        lines[0] += budget
        rows = [
            (
                name,
                f"{part.wanted_share or 0:.3f}",
                f"{part.share or 0:.3f}",
                f"{part.tokens or 0:,}",
                f"{part.rows:,}",
                f"{part.left_out:,}",
            )
            for name, part in mixture.parts.items()
        ]
        head = ("part", "share wanted", "share", "tokens", "training rows", "left out")
        lines.append(_table(head, rows))
    if mixture.shots:
        by_k = ", ".join(f"{n:,} with {k}" for k, n in mixture.shots.items())
        lines.append(
            f"Training rows shown after others of their task, as turns of the chat: {by_k}."
        )
    return "\n\n".join(lines)


def _lengths(config: Config, lengths: Lengths) -> str:
    of = (
        f"a random {len(lengths.counted):,} of the {lengths.rows:,}"
        if (lengths.rows > len(lengths.counted))
        else f"all {lengths.rows:,}"
    )
    quantiles = ", ".join(f"{q:.0%} up to {lengths.quantile(q):,}" for q in QUANTILES)
    most = max(n for _, n in lengths.histogram)
    bars = "\n".join(
        f"{edge:>9,}  {'#' * max(n > 0, round(BAR * n / most)):<{BAR}}  {n:,}"
        for edge, n in lengths.histogram
    )
    warning = too_long(config, lengths)
    return (
        f"Tokens of prompt and completion in the chat template of {lengths.student}, of {of} "
        f"rows: mean {lengths.mean:,.0f}; {quantiles}.\n\n```text\n    up to\n{bars}\n```"
        + (f"\n\nWhen this was written, {warning}." if warning else "")
    )
