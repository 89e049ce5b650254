"""`distill verify RUN`: every checksum, id and file of a run; `--repair` sets damage aside."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import TypeVar

import msgspec

from pipeline.commands import run_config, run_folder
from pipeline.config import Config
from pipeline.errors import DONE, FAILED, UserError
from pipeline.launch.units import one_alive, status_folder, statuses
from pipeline.ledger import Damage, Ledger, decode_line, ledger_folder, repair, scan
from pipeline.models import model_identity
from pipeline.records import Example, Finish, Seed, read_jsonl, request_id
from pipeline.stage1_generate.curate.funnel import Dropped
from pipeline.stage1_generate.dataset import read_mixture
from pipeline.stage1_generate.recipes import teaches
from pipeline.stage1_generate.used import RUNS, UsedRow
from pipeline.stage3_evaluate.arms import arm_model, trained_folder
from pipeline.steps import FileStamp, StepRecord, stamp_of

NAMED = 10  # of problems that one cause gives many times

T = TypeVar("T")


def verify(name: str, repairing: bool) -> int:
    run = run_folder(name)
    config = run_config(run)
    again = f"distill run {run / 'config.yaml'} --redo"
    if repairing:
        _refuse_company()
    problems: list[str] = []
    for folder in _ledgers(config, run):
        problems += _check_ledger(folder, repairing, again)
    damaged = bool(problems)  # then the ledger cannot be opened for the checks of the run
    if not damaged:
        problems += _check_run(run)
    for problem in problems:
        print(f"bad: {problem}")
    if damaged:
        print(f"`distill verify {run.name} --repair` sets damaged rows aside")
    elif problems:
        print(
            f"`{again} STEP` makes the files of a step and of all that follow it again; "
            "answers that are stored are not bought a second time"
        )
    print("verified: everything is whole" if not problems else f"{len(problems)} problems")
    return FAILED if problems else DONE


def _refuse_company() -> None:
    """A repaired segment is a new file: who is writing the old one would write into nothing.

    Runs share the ledgers of their models, so it may be anyone's.
    """
    for run in sorted(path for path in RUNS.iterdir() if status_folder(path).is_dir()):
        if (other := one_alive(run, statuses(run))) is not None:
            raise UserError(
                f"--repair rewrites files of the ledger, and `distill {other.unit.words}` of {run} "
                f"is at work on {other.host} (process {other.pid}); stop it, or type this again "
                "when it has ended"
            )


def _ledgers(config: Config, run: Path) -> list[Path]:
    models = {model_identity(teacher) for teacher in config.all_teachers.values()}
    if config.train.preference:
        models.add(model_identity(arm_model(config, "before")))
    for arm in config.evaluate.all_arms:
        trained = trained_folder(config, arm)
        if trained is None or trained.is_dir():
            models.add(model_identity(arm_model(config, arm)))
    return [f for m in sorted(models) if (f := ledger_folder(RUNS, m)).is_dir()]


def _check_ledger(folder: Path, repairing: bool, again: str) -> list[str]:
    """Each line's checksum and that its id is the hash of its request."""
    problems: list[str] = []
    rows = errors = torn = 0
    answers = array("Q")  # their ids, in two halves: 16 bytes each
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
            if row.generation.finish is not Finish.ERROR:
                answers.extend((int(asked.id[:16], 16), int(asked.id[16:], 16)))
        if repairing and damaged:
            count, aside = repair(path, {d.offset for d in damaged})
            print(f"{path}: {count} bad lines set aside in {aside}")
            print(f"they are asked again by: {again} generate")
        else:
            problems += [f"{d.path} at byte {d.offset}: {d.reason}" for d in damaged]
    print(f"{folder}: {rows:,} rows, {errors} of them errors, {torn} torn tails")
    if twice := _more_than_once(answers):
        # Two runs that share a teacher may ask the same at once: paid twice, and nothing is wrong.
        print(f"note: {folder}: {twice} ids have more than one answer; the last one is used")
    return problems


def _more_than_once(ids: array[int]) -> int:
    """How many ids are there more than once."""
    import numpy as np

    high, low = np.frombuffer(ids, np.uint64).reshape(-1, 2).T
    order = np.lexsort((low, high))
    same = (np.diff(high[order]) == 0) & (np.diff(low[order]) == 0)
    return int((same & ~np.insert(same, 0, False)[:-1]).sum()) if len(same) else 0


def _check_run(run: Path) -> list[str]:
    """The run's own files: whole, as their step left them, consistent with the ledger."""
    problems: list[str] = []
    steps_file = run / "steps.jsonl"
    found = _read(steps_file, StepRecord, problems) if steps_file.is_file() else []
    done = {record.step: record for record in found or []}
    # A record that cannot be read leaves open whether its step is done: look at what is there.
    if "generate" in done or (found is None and (run / "1_generations.jsonl").is_file()):
        used = _check_generated(run, problems)
        if "curate" in done or (found is None and (run / "2_kept.jsonl").is_file()):
            _check_curated(run, used, problems)
    for record in done.values():
        for word, stamps in (("wrote", record.outputs), ("read", record.inputs)):
            for name, stamp in stamps.items():
                if not _unchanged(name, stamp) and not any(name in p for p in problems):
                    problems.append(f"{name} is not what step {record.step} {word}")
    print(f"{run}: {len(done)} finished steps looked at")
    return problems


def _check_generated(run: Path, problems: list[str]) -> list[UsedRow] | None:
    seeds = _read(run / "0_seeds.jsonl", Seed, problems)
    known = None if seeds is None else {(s.task, s.id) for s in seeds}
    used = _read(run / "1_generations.jsonl", UsedRow, problems)
    ledgers: dict[str, Ledger] = {}
    lacking: list[str] = []
    unknown: list[str] = []
    for row in used or []:
        if row.model not in ledgers:
            ledgers[row.model] = Ledger(RUNS, row.model)
        if ledgers[row.model].get(row.request_id) is None:
            lacking.append(f"1_generations.jsonl: the ledger lacks {row.request_id}")
        if known is not None and (row.task, row.seed_id) not in known:
            unknown.append(f"1_generations.jsonl: unknown seed {row.seed_id}")
    for many in (lacking, unknown):
        problems += many[:NAMED]
        if (others := len(many) - NAMED) > 0:
            problems.append(f"1_generations.jsonl: {others} more like this")
    if lacking:
        config = run / "config.yaml"
        print(f"what the ledger lacks is asked again by: distill run {config} --redo generate")
    return used


def _check_curated(run: Path, used: list[UsedRow] | None, problems: list[str]) -> None:
    examples = _read(run / "2_kept.jsonl", Example, problems)
    dropped = _read(run / "2_dropped.jsonl", Dropped, problems)
    rows = _dataset_rows(run / "3_dataset", problems)
    if examples is None:
        return
    # An answer may be several rows; and those of tasks that only serve others are never kept.
    kept = {(example.meta["task"], source) for example in examples for source in example.source}
    if used is not None and dropped is not None:
        lost = [(row.task, row.request_id) for row in dropped]
        serving = {task.name for task in run_config(run).tasks if not teaches(task)}
        wanted = {(row.task, row.request_id) for row in used if row.task not in serving}
        once = len(lost) == len(set(lost)) and not kept.intersection(lost)
        if not once or kept.union(pair for pair in lost if pair[0] not in serving) != wanted:
            problems.append("2_kept.jsonl and 2_dropped.jsonl do not hold every used row once")
    mixture = read_mixture(run / "3_dataset")
    expected = len(examples) if mixture is None else mixture.train + mixture.validation
    if rows is not None and rows != expected:
        problems.append(f"3_dataset has {rows} rows, not {expected}")
    if mixture is not None and mixture.kept != len(examples):
        problems.append(f"3_dataset was made of {mixture.kept} rows, 2_kept.jsonl {len(examples)}")


def _dataset_rows(folder: Path, problems: list[str]) -> int | None:
    """Read whole, page by page: a footer alone would not tell of a hole in the middle."""
    import pyarrow
    import pyarrow.parquet

    rows = 0
    before = len(problems)
    for path in sorted(folder.glob("*.parquet")):
        try:
            rows += pyarrow.parquet.read_table(path).num_rows
        except (OSError, pyarrow.ArrowException) as error:
            problems.append(f"{path} is not whole parquet: {' '.join(str(error).split())}")
    return rows if len(problems) == before else None


def _read(path: Path, kind: type[T], problems: list[str]) -> list[T] | None:
    """The records of a file; None, and a problem, where it is gone or cut."""
    try:
        return list(read_jsonl(path, kind))
    except FileNotFoundError:
        problems.append(f"{path} is not there")
    except (OSError, ValueError) as error:
        problems.append(str(error))
    return None


def _unchanged(name: str, stamp: FileStamp) -> bool:
    # Nothing is taken from size and time, as the steps do: that is what is to be proven.
    try:
        return stamp_of(Path(name)).sha256 == stamp.sha256
    except OSError:
        return False
