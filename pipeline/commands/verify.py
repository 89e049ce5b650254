"""`distill verify RUN`: every checksum, id and file of a run; `--repair` sets damage aside."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from pipeline.commands import run_config, run_folder
from pipeline.config import Config
from pipeline.errors import DONE, FAILED
from pipeline.ledger import Damage, Ledger, decode_line, ledger_folder, repair, scan
from pipeline.models import model_identity
from pipeline.records import Example, Finish, Seed, read_jsonl, request_id
from pipeline.stage1_generate.curate.run import Dropped
from pipeline.stage1_generate.dataset import dataset_files
from pipeline.stage1_generate.generate import RUNS, UsedRow
from pipeline.stage3_evaluate.evaluate import arm_model
from pipeline.steps import records, stamp_of


def verify(name: str, repairing: bool) -> int:
    run = run_folder(name)
    config = run_config(run)
    problems: list[str] = []
    for folder in _ledgers(config, run):
        problems += _check_ledger(folder, repairing)
    if not problems:
        problems += _check_run(run)
    for problem in problems:
        print(f"bad: {problem}")
    if problems and not repairing:
        print("`distill verify RUN --repair` sets damaged rows aside; they are then asked again")
    print("verified: everything is whole" if not problems else f"{len(problems)} problems")
    return FAILED if problems else DONE


def _ledgers(config: Config, run: Path) -> list[Path]:
    models = {model_identity(teacher) for teacher in config.all_teachers.values()}
    for arm in config.evaluate.arms:
        if arm != "after" or (run / "4_student").is_dir():
            models.add(model_identity(arm_model(config, arm)))
    return [f for m in sorted(models) if (f := ledger_folder(RUNS, m)).is_dir()]


def _check_ledger(folder: Path, repairing: bool) -> list[str]:
    """Each line's checksum and that its id is the hash of its request; one answer an id."""
    problems: list[str] = []
    rows = errors = torn = 0
    answers: Counter[str] = Counter()
    for path in sorted(folder.glob("*.jsonl")):
        damaged: list[Damage] = []
        for item in scan(path):
            if isinstance(item, Damage):
                torn += item.reason == "torn"
                damaged += [item] if item.reason != "torn" or repairing else []
                continue
            try:
                row = decode_line(item[1])
            except msgspec.DecodeError as error:
                damaged.append(Damage(path, item[0], str(error)))
                continue
            asked = row.request
            right = request_id(
                asked.model, asked.messages, asked.sampling, asked.sample_index, asked.schema
            )
            if right != asked.id:
                damaged.append(Damage(path, item[0], "the id is not the hash of the request"))
            rows += 1
            errors += row.generation.finish is Finish.ERROR
            answers[asked.id] += row.generation.finish is not Finish.ERROR
        if repairing and damaged:
            count, aside = repair(path)
            print(f"{path}: {count} bad lines set aside in {aside}")
        else:
            problems += [f"{d.path} at byte {d.offset}: {d.reason}" for d in damaged]
    twice = [key for key, n in answers.items() if n > 1]
    problems += [f"{folder}: {key} has {answers[key]} answers" for key in twice[:10]]
    print(f"{folder}: {rows:,} rows, {errors} of them errors, {torn} torn tails")
    return problems


def _check_run(run: Path) -> list[str]:
    """The run's own files: whole, consistent with each other and with the ledger."""
    problems: list[str] = []
    done = records(run)
    ledgers: dict[str, Ledger] = {}
    if "generate" in done:
        seeds = {(s.task, s.id) for s in read_jsonl(run / "0_seeds.jsonl", Seed)}
        used = list(read_jsonl(run / "1_generations.jsonl", UsedRow))
        for row in used:
            ledger = ledgers.setdefault(row.model, Ledger(RUNS, row.model))
            if ledger.get(row.request_id) is None:
                problems.append(f"1_generations.jsonl: the ledger lacks {row.request_id}")
            if (row.task, row.seed_id) not in seeds:
                problems.append(f"1_generations.jsonl: unknown seed {row.seed_id}")
        if "curate" in done:
            problems += _check_curated(run, used)
    for record in done.values():
        for name, stamp in record.inputs.items():
            if stamp_of(Path(name)).sha256 != stamp.sha256:
                problems.append(f"{name} is not what step {record.step} read")
    print(f"{run}: {len(done)} finished steps looked at")
    return problems


def _check_curated(run: Path, used: list[UsedRow]) -> list[str]:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()

    kept = [s for e in read_jsonl(run / "2_kept.jsonl", Example) for s in e.source]
    dropped = [d.request_id for d in read_jsonl(run / "2_dropped.jsonl", Dropped)]
    problems = []
    if sorted(kept + dropped) != sorted(row.request_id for row in used):
        problems.append("2_kept.jsonl and 2_dropped.jsonl do not hold every used row once")
    data = load_dataset("parquet", data_files=dataset_files(run / "3_dataset"))
    rows = sum(len(split) for split in data.values())
    if rows != len(kept):
        problems.append(f"3_dataset has {rows} rows, 2_kept.jsonl {len(kept)}")
    return problems
