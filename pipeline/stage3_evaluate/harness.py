"""Step `suite`: tasks of lm-evaluation-harness, asked of all arms -> 5_suite/.

Generation goes through the same door and ledger as everything else, so nothing is asked twice and
a stopped suite goes on. Tasks that need the probability of a given text are for arms whose
weights are here. 5_suite/ARM/ has lm-eval's own results.json and the samples of each task.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config
from pipeline.config_evaluate import Suite
from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.models import model_identity
from pipeline.models.ask import Spending, cost_of
from pipeline.progress import Progress
from pipeline.records import Finish, Generation, Request, Score, Usage, write_jsonl
from pipeline.stage1_generate.used import RUNS
from pipeline.stage3_evaluate import ifeval
from pipeline.stage3_evaluate.arm_parts import arm_place, made_whole, refuse_missing, taken
from pipeline.stage3_evaluate.arms import (
    arm_model,
    ask_all,
    identities,
    is_student,
    price_of,
    trained_folder,
)
from pipeline.stage3_evaluate.evaluate import asked_of, spent_before
from pipeline.stage3_evaluate.harness_data import data_files
from pipeline.stage3_evaluate.harness_results import ask_lm_eval, write_results
from pipeline.stage3_evaluate.harness_scores import SCORES, print_table, suite_scores
from pipeline.stage3_evaluate.served_arms import LOCAL, after_servers
from pipeline.steps import Step, StepResult


def step(config: Config) -> Step:
    suite = _suite(config)
    arms = config.evaluate.all_arms
    trained = [trained_folder(config, arm) for arm in arms]
    return Step(
        name="suite",
        run=config.run_dir,
        settings={
            "seed": config.seed,
            "suite": suite.model_dump(mode="json", exclude_none=True),
            "arms": arms,
            "models": identities(config),
            "lm_eval": ifeval.lm_eval_version(),
        },
        inputs=[
            *(folder for folder in trained if folder is not None),
            *(Path(folder) for folder in suite.include),
            *(file for folder in suite.include for file in data_files(Path(folder))),
        ],
        outputs=[config.run_dir / "5_suite"],
        work=lambda: run_suite(config),
    )


class Part(msgspec.Struct, frozen=True):
    """What one arm's suite found and took; beside lm-eval's own files."""

    scores: list[Score]
    usage: Usage
    new: int  # requests that were asked now
    failed: list[str]


PART = "part.json"


def run_suite(config: Config, *, gather: bool = False) -> StepResult:
    """Every task for every arm, out of what `evaluate --arm` made where it did.

    `gather`: ask nothing; a `UserError` where something is missing.
    """
    mine = step(config)
    manager = check_suite(config)
    final = config.run_dir / "5_suite"
    partial = final.with_name("5_suite.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    spending = _spent(config)
    parts: dict[str, Part] = {}
    for arm in config.evaluate.all_arms:
        made = arm_place(mine, arm)
        if made.is_dir():
            shutil.copytree(made, partial / arm)
            (partial / arm / PART).unlink()
            parts[arm] = msgspec.json.decode((made / PART).read_bytes(), type=Part)
            continue
        if gather and not _repeats(config, arm):
            refuse_missing(mine, arm)
        asking = _Asking(config, arm, spending, gather=gather)
        parts[arm] = _one_arm(config, manager, asking, partial / arm)
    found = [score for part in parts.values() for score in part.scores]
    write_jsonl(partial / SCORES, found)
    print_table(found, config.evaluate.all_arms)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    taken(mine)
    failed = [line for part in parts.values() for line in part.failed]
    used = [part.usage for part in parts.values()]
    cost = sum(cost_of(part.usage, price_of(config, arm)) for arm, part in parts.items())
    return StepResult(
        counts={"new": sum(part.new for part in parts.values())}
        | ({"errors": len(failed)} if failed else {}),
        tokens=Usage(sum(one.input for one in used), sum(one.output for one in used)),
        cost_usd=round(cost, 6),
        notes={"failed_requests": failed} if failed else {},
    )


def suite_of_arm(config: Config, arm: str, watch: Callable[[Progress], None]) -> None:
    """Every task for one arm, for another process to take."""
    made = arm_place(step(config), arm)
    if made.is_dir() or _repeats(config, arm):
        return
    asking = _Asking(config, arm, _spent(config), watch=watch)
    with made_whole(made) as partial:
        part = _one_arm(config, check_suite(config), asking, partial)
        (partial / PART).write_bytes(msgspec.json.encode(part))


def _one_arm(config: Config, manager: Any, asking: _Asking, folder: Path) -> Part:
    results = ask_lm_eval(_suite(config), manager, asking.model())
    write_results(folder, results)
    scores = suite_scores(asking.arm, results, config.seed)
    return Part(scores, asking.usage, asking.new, asking.failed)


def _repeats(config: Config, arm: str) -> bool:
    """Is it asked what an earlier arm is? Arms may be at work at once: the ledger will have it."""
    every = config.evaluate.all_arms
    mine = model_identity(arm_model(config, arm))
    return arm != "before_again" and any(
        other != "before_again" and model_identity(arm_model(config, other)) == mine
        for other in every[: every.index(arm)]
    )


def _spent(config: Config) -> Spending:
    spending = spent_before(config)
    if spending.limited:
        for arm in config.evaluate.all_arms:
            _add_answers(config, arm, spending)
    return spending


def _add_answers(config: Config, arm: str, spending: Spending) -> None:
    """What a priced arm used in the step `evaluate`; the record of that has the students', too."""
    if is_student(config, arm):
        return
    chosen = arm_model(config, arm)
    with Ledger(RUNS, model_identity(chosen)) as ledger:
        for _, request in asked_of(config, arm, chosen):
            if (row := ledger.get(request.id)) is not None:
                spending.add(row.generation.usage, price_of(config, arm))


def check_suite(config: Config) -> Any:
    """lm-eval's task manager, once every task is seen to be there and every arm able to do it."""
    suite = _suite(config)
    _require()
    if any(name.startswith("ifeval") for name in suite.tasks):
        ifeval.checkers()  # its sentence tables, which lm-eval would else download
    manager = _manager(tuple(suite.tasks), tuple(suite.include))
    scored = _scored(manager, suite)
    unable = [
        f"{arm} ({chosen.backend})"
        for arm in config.evaluate.all_arms
        if (chosen := arm_model(config, arm)).backend not in LOCAL
    ]
    if scored and unable:
        raise UserError(
            f"the tasks {', '.join(scored)} need the probability of given texts, which only the "
            f"backends {' and '.join(LOCAL)} can give; not: {', '.join(unable)}. Leave these tasks "
            "or these arms out (`--set evaluate.arms=[before,after]`)"
        )
    return manager


def opens_weights(config: Config) -> bool:
    """Does any task need the probability of given texts?"""
    return bool(_scored(check_suite(config), _suite(config)))


def _scored(manager: Any, suite: Suite) -> list[str]:
    tasks = _loaded(manager, suite.tasks)
    return sorted(name for name, task in tasks.items() if task.OUTPUT_TYPE != "generate_until")


@functools.cache
def _manager(tasks: tuple[str, ...], include: tuple[str, ...]) -> Any:
    """The index of task files: of the folders named alone where they have every task, because
    that of lm-eval's own takes ten seconds and more to read."""
    if missing := [folder for folder in include if not Path(folder).is_dir()]:
        raise UserError(f"evaluate.suite.include: {missing[0]}: no such folder of task files")
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=list(include), include_defaults=False)
    if all(name in manager.task_index for name in tasks):
        return manager
    manager = TaskManager(include_path=list(include))
    if unknown := [name for name in tasks if name not in manager.task_index]:
        raise UserError(
            f"lm-eval has no task {', '.join(unknown)}; `lm-eval ls tasks` lists all, and "
            "evaluate.suite.include names folders with your own"
        )
    return manager


def _loaded(manager: Any, names: Sequence[str]) -> dict[str, Any]:
    try:
        tasks: dict[str, Any] = manager.load(list(names))["tasks"]
    except UserError:
        raise
    except Exception as error:  # a task is foreign code and data: it may raise anything
        raise UserError(
            f"lm-eval cannot load {', '.join(names)}: {type(error).__name__}: {error}. The data "
            "of most tasks are on the hub; a task over a file of yours works without: "
            "docs/evaluating.md"
        ) from None
    return tasks


class _Asking:
    """How one arm is asked, and what that took."""

    def __init__(
        self,
        config: Config,
        arm: str,
        spending: Spending,
        *,
        gather: bool = False,
        watch: Callable[[Progress], None] | None = None,
    ) -> None:
        self._config = config
        self._ask = functools.partial(ask_all, gather=gather, watch=watch)
        self._spending = spending
        self._counted: set[str] = set()
        self.arm = arm
        self.chosen = after_servers(config, arm)
        self.failed: list[str] = []
        self.usage = Usage()
        self.new = 0

    def model(self) -> Any:
        from pipeline.stage3_evaluate.harness_model import Arm

        return Arm(
            self.chosen,
            model_identity(self.chosen),
            self.answers,
            again=self.arm == "before_again",
        )

    def answers(self, requests: Sequence[Request]) -> dict[str, Generation]:
        found, new = self._ask(self._config, self.arm, self.chosen, requests, self._spending)
        self.new += new
        for name, one in found.items():
            if name not in self._counted:
                self._counted.add(name)
                self.usage = Usage(
                    self.usage.input + one.usage.input, self.usage.output + one.usage.output
                )
                if one.finish is Finish.ERROR:
                    self.failed.append(f"{name} ({self.arm}): {one.error}")
        return found


def _suite(config: Config) -> Suite:
    assert config.evaluate.suite is not None
    return config.evaluate.suite


def _require() -> None:
    ifeval.lm_eval_version()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it speaks of every setting


def tasks_of(word: str) -> list[str]:
    """The tasks of `--suite lm-eval:gsm8k,ifeval`."""
    kind, colon, names = word.partition(":")
    tasks = [name.strip() for name in names.split(",") if name.strip()]
    if kind != "lm-eval" or not colon or not tasks:
        raise UserError(f"--suite {word}: write lm-eval:TASK,TASK as in lm-eval:gsm8k,ifeval")
    return tasks
