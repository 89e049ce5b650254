"""Step `pairs`: the student before answers the dataset's prompts once -> 3_preference/.

Source: SODA (2604.03873): the teacher's answer is chosen; rejected is the student's own, of one
snapshot taken before any training. Asked through the one door and kept in the ledger, so that other
settings of the training ask nothing again.

Each prompt becomes one pair, with the first of its teacher's answers: with all of them the one
rejected answer would be pushed away as many times as the teacher was sampled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from pipeline import stopping
from pipeline.config import Budget, Config, ModelConfig, Price, Task
from pipeline.config_dataset import Control
from pipeline.config_train import Preference
from pipeline.errors import Stopped, UserError
from pipeline.ledger import Ledger
from pipeline.models import model_identity, open_model
from pipeline.models.ask import Spending, ask
from pipeline.progress import Progress
from pipeline.prompts import load_prompt
from pipeline.records import Request, Sampling, request_id
from pipeline.stage1_generate.dataset import new_folder, put_in_place
from pipeline.stage1_generate.used import RUNS
from pipeline.stage2_train.pair_choice import SIDES, Asking, Pairs, verifiers_of
from pipeline.stage2_train.pair_files import Report, Row, pair_card, read_rows, write_pairs
from pipeline.stage2_train.ranks import first_has_ended
from pipeline.stage3_evaluate.answers import EXTRACTOR_VERSION
from pipeline.stage3_evaluate.arms import arm_model
from pipeline.steps import Step, StepResult

POLL_SECONDS = 1.0
LOOK_SECONDS = 10.0  # between looks for the process that makes the pairs
VERSION = 1  # raised with every change of which pairs are made


def step(config: Config, control: Control | None = None) -> Step:
    settings = _settings(config)
    run = config.run_dir
    found: dict[str, Any] = {
        "version": VERSION,
        "student": model_identity(arm_model(config, "before")),
        "sampling": {task.name: _sampling(config, task) for task in config.tasks},
        "rejected": settings.rejected,
    }
    if settings.rejected == "wrong":
        found["extractor"] = EXTRACTOR_VERSION
        found["verifiers"] = {task.name: verifiers_of(config, task) for task in config.tasks}
    return Step(
        name="pairs" if control is None else f"pairs --control {control}",
        run=run,
        settings=found,
        inputs=[run / "0_seeds.jsonl", _dataset(config, control)],
        outputs=[pairs_folder(config, control)],
        work=lambda: make_pairs(config, control),
    )


def pairs_folder(config: Config, control: Control | None) -> Path:
    """Where the pairs of the dataset, or of a control, are."""
    run = config.run_dir
    return run / "3_preference" if control is None else run / "3_control_preference" / control


def wait_for_pairs(config: Config, control: Control | None) -> None:
    """For all processes but the first, which makes them: asking takes longer than a barrier."""
    looked = time.monotonic()
    while not pairs_folder(config, control).is_dir():
        stopping.raise_if_requested()
        if time.monotonic() - looked > LOOK_SECONDS:
            if first_has_ended():
                raise Stopped(
                    "the first process, which makes the pairs, has ended; see its message"
                )
            looked = time.monotonic()
        time.sleep(POLL_SECONDS)


def check_pairs(config: Config) -> None:
    """Find a sampling that the student's backend cannot do before anything is asked."""
    from pipeline.models.transformers_local import refuse_unsupported

    if config.student.backend == "transformers":
        for task in config.tasks:
            refuse_unsupported(
                msgspec.convert(_sampling(config, task), Sampling), None, "train.preference"
            )


def make_pairs(config: Config, control: Control | None = None) -> StepResult:
    """Ask the student what the ledger lacks, then write the pairs.

    Raises `Stopped` where requests failed for now, `UserError` where no pair to train on is left.
    """
    student = arm_model(config, "before")
    asking = partial(_requests, config, _dataset(config, control), model_identity(student))
    with Ledger(RUNS, model_identity(student)) as ledger:
        new = _ask(config, student, ledger, asking)
        pairs = Pairs(config, ledger, asking)
        folder = pairs_folder(config, control)
        unfinished = folder.with_name(f"{folder.name}.partial")
        new_folder(unfinished)
        counts = {side: write_pairs(unfinished, side, pairs.of(side)) for side in SIDES}
        pairs.close()
    report = Report({s: n for s, n in counts.items() if n}, pairs.cut_off, pairs.reasons())
    if not counts["train"]:
        raise UserError(
            f"train.preference: no row of {_dataset(config, control)} makes a pair "
            f"({report.reasons() or 'it is empty'}); `rejected: any` takes the student's right "
            "answers, too, and another `sampling` gives other answers"
        )
    (unfinished / "pairs.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    )
    card = pair_card(config, unfinished, _settings(config).rejected, report)
    (unfinished / "README.md").write_text(card, encoding="utf-8")
    put_in_place(unfinished, folder)
    return StepResult(
        counts={"pairs": counts["train"], "validation pairs": counts["validation"], "new": new}
        | report.left_out,
        tokens=pairs.usage,
        notes={"failed_requests": pairs.failed} if pairs.failed else {},
    )


def _settings(config: Config) -> Preference:
    assert config.train.preference is not None
    return config.train.preference


def _sampling(config: Config, task: Task) -> dict[str, Any]:
    """The student's; with no limit of its own an answer may be as long as the teacher's could."""
    longest = max(config.sampling_of(task, name).max_tokens for name in config.teachers_of(task))
    return {"max_tokens": longest} | _settings(config).sampling


def _dataset(config: Config, control: Control | None) -> Path:
    run = config.run_dir
    return run / "3_dataset" if control is None else run / "3_controls" / control


def _requests(
    config: Config, dataset: Path, model: str, side: str
) -> Iterator[tuple[Row, Request]]:
    """Every row of a split with what the student is asked for it."""
    samplings = {t.name: msgspec.convert(_sampling(config, t), Sampling) for t in config.tasks}
    for row in read_rows(dataset, side):
        sampling = samplings[row.task]
        yield (
            row,
            Request(
                id=request_id(model, row.prompt, sampling, 0),
                seed_id=row.seed_id,
                recipe="preference",
                prompt=load_prompt(config.task_named(row.task).student_prompt).ref,
                messages=row.prompt,
                sampling=sampling,
                sample_index=0,
                model=model,
            ),
        )


def _ask(config: Config, student: ModelConfig, ledger: Ledger, asking: Asking) -> int:
    """Each prompt once; how many were new."""

    def distinct() -> Iterator[Request]:
        seen: set[str] = set()
        for side in SIDES:
            for _, request in asking(side):
                if request.id not in seen:
                    seen.add(request.id)
                    yield request

    progress = Progress(
        "asking student before",
        sum(1 for _ in distinct()),
        seconds=config.execution.progress_seconds,
    )
    # A student costs no one anything by the token; its minutes are the run's.
    spending = Spending(Budget(max_minutes=config.budget.max_minutes))
    try:
        ask(lambda: open_model(student, "student"), distinct(), ledger, progress, spending, Price())
    finally:
        progress.close()
    return progress.rows
