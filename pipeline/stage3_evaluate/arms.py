"""Which model each arm is, where the students are that a run trains, and how an arm is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.config import Budget, Config, ModelConfig, Price
from pipeline.config_evaluate import CONTROL, ONLY, SEED, Arm
from pipeline.errors import Stopped, UserError
from pipeline.ledger import Ledger
from pipeline.models import model_identity, open_model, student_model
from pipeline.models.ask import Spending, ask
from pipeline.progress import Progress
from pipeline.records import ErrorKind, Generation, Request
from pipeline.stage1_generate.used import RUNS


def arm_model(config: Config, arm: Arm) -> ModelConfig:
    """Which model an arm is."""
    if arm == "teacher":
        return config.teacher_of(config.evaluate.teacher)
    if arm in config.evaluate.models:
        return config.evaluate.models[arm]
    folder = trained_folder(config, arm)
    if folder is None:
        return student_model(config)
    student = config.student
    return ModelConfig(backend=student.backend, model=str(folder), serving=student.serving)


def trained_folder(config: Config, arm: Arm) -> Path | None:
    """Where the student of an arm is that this run trains; None for the other arms."""
    if arm == "after":
        return config.run_dir / "4_student"
    if arm.startswith(CONTROL):
        return config.run_dir / "4_controls" / arm.removeprefix(CONTROL)
    if arm.startswith(SEED):
        return config.run_dir / "4_seeds" / arm.removeprefix(SEED)
    if arm.startswith(ONLY):
        return config.run_dir / "4_only" / arm.removeprefix(ONLY)
    return None


def identities(config: Config) -> dict[Arm, str]:
    """Of the arms that this run does not train; the others are folders with identities."""
    arms = [arm for arm in config.evaluate.all_arms if trained_folder(config, arm) is None]
    return {arm: model_identity(arm_model(config, arm)) for arm in arms}


def ask_all(
    config: Config,
    arm: Arm,
    chosen: ModelConfig,
    requests: Sequence[Request],
    spending: Spending,
    *,
    gather: bool = False,
    watch: Callable[[Progress], None] | None = None,
) -> tuple[dict[str, Generation], int]:
    """(answers by request id, how many were asked now), out of the ledger where it has them.

    Raises `Stopped` where a row failed for now; one that failed for good is among the answers.
    `gather`: ask nothing, and raise a `UserError` where an answer is missing.
    """
    if is_student(config, arm):
        spending = Spending(Budget())
    place = "teacher" if arm == "teacher" else "student"
    if arm in config.evaluate.models:
        place = f"evaluate.models.{arm}"
    with Ledger(RUNS, model_identity(chosen)) as ledger:
        price, seconds = price_of(config, arm), config.execution.progress_seconds
        progress = Progress(f"testing {arm}", len(requests), seconds=seconds, price=price)
        if watch is not None:
            watch(progress)
        try:
            ask(
                lambda: open_model(chosen, place, run=config.run_dir),
                iter(() if gather else requests),
                ledger,
                progress,
                spending,
                price,
            )
        finally:
            progress.close()
        found: dict[str, Generation] = {}
        if missing := sum(ledger.get(request.id) is None for request in requests):
            raise UserError(
                f"{arm}: {missing:,} of {len(requests):,} questions have no answer yet; type "
                f"`distill evaluate CONFIG --arm {arm}`, or `distill evaluate CONFIG` without "
                "--gather, which asks what is missing itself"
            )
        for request in requests:
            row = ledger.get(request.id)
            assert row is not None, request.id
            if row.generation.error_kind is ErrorKind.TRANSIENT:
                raise Stopped(
                    f"{arm}: a request failed for now ({row.generation.error}); all other "
                    "answers are stored. Run the same command again to ask what is missing"
                )
            found[request.id] = row.generation
    return found, progress.rows


def is_student(config: Config, arm: Arm) -> bool:
    """The student before and every one that is trained: they have no budget and no price."""
    return arm != "teacher" and arm not in config.evaluate.models


def price_of(config: Config, arm: Arm) -> Price:
    """A student costs no one anything by the token."""
    if arm == "teacher":
        return config.teacher_of(config.evaluate.teacher).price
    other = config.evaluate.models.get(arm)
    return other.price if other is not None else Price()
