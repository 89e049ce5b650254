"""`distill status RUN`: from the files alone, where a run is, what it cost, what failed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipeline.commands import printable, run_config, run_folder
from pipeline.commands.status_parts import print_parts
from pipeline.commands.status_servers import print_servers
from pipeline.config import Config, Task
from pipeline.errors import DONE
from pipeline.flow import COMMANDS, beside_student, left_out, summary
from pipeline.ledger import Ledger
from pipeline.models import model_identity
from pipeline.models.batch_records import open_parts
from pipeline.records import Finish, Seed
from pipeline.stage1_generate.generate import requests_of
from pipeline.stage1_generate.task_seeds import stored_seeds
from pipeline.stage1_generate.used import RUNS
from pipeline.steps import records

MOST_BYTES = 64 * 2**20  # of 0_seeds.jsonl; of a larger run the rows are looked up when asked for


def status(name: str, rows: bool = False, every_part: bool = False) -> int:
    """Print it. `rows`: look up every row in the ledger, `every_part`: a line for each, always."""
    run = run_folder(name)
    config = run_config(run)
    done = records(run)
    print(f"run: {run}")
    absent = left_out(config)
    for command, steps in COMMANDS.items():
        beside = [f"train{variant.flag}" for variant in beside_student(config)]
        for step in (*steps, *(beside if command == "train" else ())):
            if step in done:
                record = done[step]
                print(f"  {summary(record)}, {record.finished_at}")
            elif step not in absent:
                print(f"  {step}: to do (`distill {command} {run / 'config.yaml'}`)")
    print_parts(config, run, every_part)
    print_servers(run)
    seeds = run / "0_seeds.jsonl"
    if seeds.is_file() and (rows or seeds.stat().st_size <= MOST_BYTES):
        _answers(config, run)
    elif seeds.is_file():
        print(f"  answers by outcome: `distill status {run.name} --rows` looks up every row")
    if (run / "7_report.html").is_file():
        print(f"report: {run / '7_report.html'}")
    return DONE


def _seeds(config: Config, task: Task) -> Iterator[Seed]:
    return (seed for _, seed in stored_seeds(config, task))


def _answers(config: Config, run: Path) -> None:
    """What the ledger holds of this run's requests, by how they ended."""
    for task in config.tasks:
        for teacher in config.teachers_of(task):
            _answers_of(config, task, teacher)


def _answers_of(config: Config, task: Task, teacher: str) -> None:
    ledger = Ledger(RUNS, model_identity(config.all_teachers[teacher]))
    outcomes: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    output, busy = 0, 0.0
    for request in requests_of(config, task, teacher, ledger, partial(_seeds, config)):
        row = ledger.get(request.id)
        outcomes[row.generation.finish.value if row else "not asked yet"] += 1
        if row is not None:
            output += row.generation.usage.output
            busy += row.generation.seconds
            if row.generation.finish is Finish.ERROR:
                errors[row.generation.error or "unknown error"] += 1
    parts = ", ".join(f"{n:,} {outcome}" for outcome, n in outcomes.most_common())
    by = f" by {teacher}" if task.teachers else ""
    if not parts:
        print(f"  task {task.name}{by}: its seeds come from task {task.seeds.from_task}")
        return
    print(f"  task {task.name}{by}: {parts}; {output:,} tokens of answers, {busy:.0f} s of calls")
    if out := open_parts(ledger.folder):
        rows = sum(part.rows for part in out)
        print(f"    {len(out)} batches of {rows:,} rows are open at the provider")
    for error, n in errors.most_common(5):
        print(f"    {n} x {printable(error, 200)}", file=sys.stdout)
