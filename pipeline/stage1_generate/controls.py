"""Step `controls`: datasets from the same answers that stage 3 compares the student with.

    random      answers drawn at random instead of filtered: is the filter needed?
    label_only  the final answer without its rationale: are the rationales needed?
    gold        the seeds' reference answers: is the teacher needed?

Each is a folder 3_controls/NAME/ in the form of 3_dataset/, with the same split of seeds.
3_controls/controls.json says what is equal to the dataset: completion tokens (random), or rows, one
for one (label_only, gold), because short answers cannot come to as many tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from pipeline import stopping
from pipeline.config import Config
from pipeline.config_dataset import Control
from pipeline.errors import UserError
from pipeline.models import student_identity
from pipeline.records import Decision, Example, Finish, Generation, Message, read_jsonl, write_jsonl
from pipeline.stage1_generate.curate.against import contamination_filter
from pipeline.stage1_generate.curate.judge import common_filters, filters_of, unsafe
from pipeline.stage1_generate.dataset import new_folder, put_in_place, split_of
from pipeline.stage1_generate.dataset_card import data_head
from pipeline.stage1_generate.example_file import ExampleFile
from pipeline.stage1_generate.mixture import Mixed, RowTokens, changed, mix
from pipeline.stage1_generate.parquet import write_split
from pipeline.stage1_generate.rationales import stated_answer
from pipeline.stage1_generate.recipes import teaches
from pipeline.stage1_generate.tokens import student_tokenizer, text_lengths
from pipeline.stage1_generate.used import StoredSeeds, candidates
from pipeline.stage3_evaluate.answers import EXTRACTOR_VERSION
from pipeline.steps import Step, StepResult

VERSION = 1  # raised with every change of what a control holds
# Their completions reason before they answer; other recipes' rows have no rationale to leave out.
REASONING = ("chain_of_thought", "self_consistency", "step_by_step")
GROUP = 256  # rows whose tokens are counted at a time
WHAT: dict[Control, str] = {
    "random": "Answers drawn at random, right and wrong, instead of those that filters kept.",
    "label_only": "The dataset's rows with final answers alone, without the reasoning before them.",
    "gold": "The dataset's prompts with the seeds' reference answers instead of the teacher's.",
}
NEEDED: dict[Control, str] = {
    "random": "no answer ended by itself",
    "label_only": "no kept answer of a recipe that reasons ends in a label or a number",
    "gold": "no seed of a kept row has a reference answer",
}

Change = Callable[[Example], Example | None]


class Made(msgspec.Struct, frozen=True):
    """What a control came to, beside the dataset. Tokens are those of the train completions."""

    equal: Literal["completion tokens", "rows"]
    rows: int
    validation_rows: int
    completion_tokens: int
    left_out: int  # train rows of the dataset that have no counterpart
    note: str = ""


class Report(msgspec.Struct, frozen=True):
    """3_controls/controls.json."""

    dataset_rows: int
    dataset_completion_tokens: int
    controls: dict[str, Made]


def step(config: Config) -> Step:
    run = config.run_dir
    return Step(
        name="controls",
        run=run,
        settings={
            "version": VERSION,
            "controls": list(config.curate.controls),
            "seed": config.seed,
            "student": student_identity(config),
            "extractor": EXTRACTOR_VERSION,
        },
        inputs=[
            run / name
            for name in ("0_seeds.jsonl", "1_generations.jsonl", "2_kept.jsonl", "3_dataset")
        ],
        outputs=[run / "3_controls"],
        work=lambda: make_controls(config),
    )


def make_controls(config: Config) -> StepResult:
    run = config.run_dir
    rows = ExampleFile(run / "2_kept.jsonl", split_of(config), config.seed)
    mixed = mix(config, rows)
    tokens = RowTokens(rows, partial(completion_tokens, config))
    total = int(tokens.lengths(mixed.train).sum())
    unfinished = run / "3_controls.partial"
    new_folder(unfinished)
    made: dict[str, Made] = {}
    for control in config.curate.controls:
        folder = unfinished / control
        new_folder(folder)
        if control == "random":
            made[control] = _random(config, folder, rows, mixed, tokens)
        else:
            seeds = StoredSeeds(run / "0_seeds.jsonl")
            change = partial(_label_only if control == "label_only" else _gold, seeds)
            made[control] = _changed(config, folder, control, rows, mixed, change)
            seeds.close()
        card = _card(config, folder, control, made[control])
        (folder / "README.md").write_text(card, encoding="utf-8")
    report = Report(len(mixed.train), total, made)
    text = msgspec.json.format(msgspec.json.encode(report), indent=2)
    (unfinished / "controls.json").write_bytes(text + b"\n")
    put_in_place(unfinished, run / "3_controls")
    return StepResult(counts={f"{name} rows": found.rows for name, found in made.items()})


def completion_tokens(config: Config, rows: Iterable[Example]) -> Iterator[int]:
    """Tokens of each row's completion alone, in the student's tokens."""
    tokenizer = student_tokenizer(config)
    texts: list[str] = []
    for row in rows:
        texts.append("\n".join(m.content for m in row.completion))
        if len(texts) == GROUP:
            yield from text_lengths(texts, tokenizer)
            texts.clear()
    if texts:
        yield from text_lengths(texts, tokenizer)


def _random(
    config: Config, folder: Path, rows: ExampleFile, mixed: Mixed, tokens: RowTokens
) -> Made:
    """As many completion tokens of every task as the dataset has, of any answer that is one."""
    path = folder / "rows.jsonl"
    write_jsonl(path, _eligible(config))
    every = ExampleFile(path, split_of(config), config.seed)
    counter = RowTokens(every, partial(completion_tokens, config))
    sides: dict[str, list[np.ndarray]] = {"train": [], "validation": []}
    short = []
    for code, task in enumerate(rows.tasks):
        mine = every.task == every.tasks.index(task)
        for side, numbers in (("train", mixed.train), ("validation", mixed.validation)):
            wanted = int(tokens.lengths(numbers[rows.task[numbers] == code]).sum())
            pool = np.flatnonzero(mine & (every.validates == (side == "validation")))
            drawn, count, _ = counter.draw(pool, wanted)
            sides[side].append(drawn)
            if side == "train" and len(drawn) == len(pool) and count < 0.99 * wanted:
                short.append(task)
    chosen = {side: np.sort(np.concatenate(parts)) for side, parts in sides.items()}
    total = int(counter.lengths(chosen["train"]).sum())
    counts = _write(config, folder, every, chosen)
    note = f"all answers of {', '.join(short)} come to fewer tokens" if short else ""
    return Made("completion tokens", *counts, total, 0, note)


def _eligible(config: Config) -> Iterator[Example]:
    """Every answer that ended by itself and says something, right or wrong.

    Not one that overlaps with an evaluation item: the control would know what the student must not.
    """
    against, common = contamination_filter(config), common_filters(config)
    checks = {task.name: filters_of(config, task, common) for task in config.tasks}
    for task, row in candidates(config):
        stopping.raise_if_requested()
        generation = row.generation
        ended = generation.finish is Finish.STOP and generation.text.strip()
        if not teaches(task) or not ended or unsafe(row, checks[task.name]):
            continue
        if against is None or against(row).decision is Decision.KEEP:
            yield from row.examples


def _changed(
    config: Config, folder: Path, control: Control, rows: ExampleFile, mixed: Mixed, change: Change
) -> Made:
    """The dataset's rows with other completions, one for one."""
    path = folder / "rows.jsonl"
    n_train = write_jsonl(path, _rows(changed(rows, mixed, mixed.train, change)))
    if not n_train:
        raise UserError(
            f"curate.controls: {control} has no rows, because {NEEDED[control]}; take it out"
        )
    held_back = _rows(changed(rows, mixed, mixed.validation, change))
    write_jsonl(path, chain(read_jsonl(path, Example), held_back))
    every = ExampleFile(path, split_of(config), config.seed)
    train, validation = np.split(np.arange(len(every)), [n_train])
    total = int(RowTokens(every, partial(completion_tokens, config)).lengths(train).sum())
    counts = _write(config, folder, every, {"train": train, "validation": validation})
    return Made("rows", *counts, total, len(mixed.train) - n_train)


def _label_only(seeds: StoredSeeds, row: Example) -> Example | None:
    """A row that reasons -> its final answer alone. Rows of other recipes stay as they are."""
    if row.meta["recipe"] not in REASONING or row.meta.get("view") == "label":
        return row
    if row.meta["recipe"] == "step_by_step":
        return None  # the answer has a label row of its own
    seed = seeds.get(row.meta["task"], row.meta["seed_id"])
    answer = Generation(row.source[0], row.completion[-1].content, Finish.STOP)
    value = stated_answer(seed, answer)
    return _answering(row, value) if value else None


def _gold(seeds: StoredSeeds, row: Example) -> Example | None:
    """A row -> its seed's reference as the answer; None where there is none."""
    reference = seeds.get(row.meta["task"], row.meta["seed_id"]).reference
    return _answering(row, reference) if reference else None


def _answering(row: Example, text: str) -> Example:
    meta = row.meta | {"characters": len(text)}
    return msgspec.structs.replace(row, completion=(Message("assistant", text),), meta=meta)


def _rows(found: Iterable[Example | None]) -> Iterator[Example]:
    for row in found:
        stopping.raise_if_requested()
        if row is not None:
            yield row


def _write(
    config: Config, folder: Path, every: ExampleFile, sides: dict[str, np.ndarray]
) -> tuple[int, int]:
    """The Parquet files of both splits; the rows of each. The file they came from goes."""
    megabytes = config.curate.dataset.shard_megabytes
    counts = [
        write_split(folder, side, every.read(numbers), every.columns, megabytes)
        for side, numbers in sides.items()
    ]
    every.path.unlink()
    return counts[0], counts[1]


def _card(config: Config, folder: Path, control: Control, made: Made) -> str:
    left_out = f" {made.left_out:,} rows have no counterpart." if made.left_out else ""
    note = f" But {made.note}." if made.note else ""
    return f"""---
{data_head(folder)}
---

# {config.name}: control {control}

{WHAT[control]} {made.rows:,} training rows, {made.completion_tokens:,} tokens of completions, drawn
from the same run as its dataset. Equal to the dataset: {made.equal}.{note}{left_out} To compare a
student with, not to train one for use. Made by blackbox-distill.
"""
