"""Step `suite`: tasks of lm-evaluation-harness, asked of all arms -> 5_suite/.

Generation goes through the same door and ledger as everything else, so nothing is asked twice and
a stopped suite goes on. Tasks that need the probability of a given text are for arms whose
weights are here. 5_suite/ARM/ has lm-eval's own results.json and the samples of each task.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.config_evaluate import Suite
from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.models import model_identity
from pipeline.models.ask import Spending, cost_of
from pipeline.records import Finish, Generation, Request, Score, Usage, write_jsonl
from pipeline.stage1_generate.used import RUNS
from pipeline.stage3_evaluate import ifeval
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
from pipeline.stage3_evaluate.harness_scores import SCORES, suite_scores
from pipeline.steps import Step, StepResult

FEWSHOT_SEED = 1234  # as lm-eval's own command
LOCAL = ("transformers", "vllm")  # backends whose weights can be opened here


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


def run_suite(config: Config) -> StepResult:
    """Every task for every arm."""
    suite = _suite(config)
    manager = check_suite(config)
    partial = config.run_dir / "5_suite.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    spending = spent_before(config)
    if spending.limited:
        for arm in config.evaluate.all_arms:
            _add_answers(config, arm, spending)
    found: list[Score] = []
    usage, cost, new = Usage(), 0.0, 0
    failed: list[str] = []
    for arm in config.evaluate.all_arms:
        asking = _Asking(config, arm, spending, failed)
        results = _results(suite, manager, asking.model())
        _write(partial / arm, results)
        found += suite_scores(arm, results, config.seed)
        new += asking.new
        usage = Usage(usage.input + asking.usage.input, usage.output + asking.usage.output)
        cost += cost_of(asking.usage, price_of(config, arm))
    write_jsonl(partial / SCORES, found)
    _print_table(found, config.evaluate.all_arms)
    final = config.run_dir / "5_suite"
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    return StepResult(
        counts={"new": new} | ({"errors": len(failed)} if failed else {}),
        tokens=usage,
        cost_usd=round(cost, 6),
        notes={"failed_requests": failed} if failed else {},
    )


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
    tasks = _loaded(manager, suite.tasks)
    scored = sorted(n for n, task in tasks.items() if task.OUTPUT_TYPE != "generate_until")
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

    def __init__(self, config: Config, arm: str, spending: Spending, failed: list[str]) -> None:
        self._config = config
        self._arm = arm
        self._spending = spending
        self._failed = failed
        self._counted: set[str] = set()
        self.chosen = arm_model(config, arm)
        self.usage = Usage()
        self.new = 0

    def model(self) -> Any:
        from pipeline.stage3_evaluate.harness_model import Arm

        return Arm(
            self.chosen,
            model_identity(self.chosen),
            self.answers,
            again=self._arm == "before_again",
        )

    def answers(self, requests: Sequence[Request]) -> dict[str, Generation]:
        found, new = ask_all(self._config, self._arm, self.chosen, requests, self._spending)
        self.new += new
        for name, one in found.items():
            if name not in self._counted:
                self._counted.add(name)
                self.usage = Usage(
                    self.usage.input + one.usage.input, self.usage.output + one.usage.output
                )
                if one.finish is Finish.ERROR:
                    self._failed.append(f"{name} ({self._arm}): {one.error}")
        return found


def _results(suite: Suite, manager: Any, model: Any) -> dict[str, Any]:
    from lm_eval import evaluate

    loaded = manager.load(list(suite.tasks))
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        # A task that says 0 means it: its examples, if it has any, are in its text.
        if own is None or (suite.num_fewshot is not None and own != 0):
            task.set_config(key="num_fewshot", value=suite.num_fewshot or 0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    random.seed(0)  # tasks may draw as they please; lm-eval's own command begins so
    try:
        found: dict[str, Any] = evaluate(
            lm=model,
            task_dict=loaded,
            limit=suite.limit,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            bootstrap_iters=1000,
        )
    except ValueError as error:  # what lm-eval raises for tasks that it will not run
        raise UserError(f"lm-eval: {error}") from None
    return found


def _write(folder: Path, results: dict[str, Any]) -> None:
    from lm_eval.utils import handle_non_serializable

    folder.mkdir(parents=True)
    for task, rows in results.get("samples", {}).items():
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in task)
        with (folder / f"samples_{name}.jsonl").open("w", encoding="utf-8") as file:
            for row in rows:
                line = json.dumps(row, default=handle_non_serializable, ensure_ascii=False)
                file.write(line + "\n")
    kept = ("results", "groups", "group_subtasks", "n-shot", "n-samples", "versions")
    found = {key: results[key] for key in kept if key in results}
    text = json.dumps(
        found | {"lm_eval": ifeval.lm_eval_version()},
        default=handle_non_serializable,
        indent=2,
        ensure_ascii=False,
    )
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")


def _print_table(found: Sequence[Score], arms: Sequence[str]) -> None:
    values = {(one.metric, one.model): one.value for one in found}
    metrics = list(dict.fromkeys(one.metric for one in found))
    width = max((len(metric) for metric in metrics), default=0)
    print(" " * width + "".join(f"  {arm:>12}" for arm in arms))
    for metric in metrics:
        cells = [values.get((metric, arm)) for arm in arms]
        shown = "".join(f"  {'-' if v is None else f'{v:.3f}':>12}" for v in cells)
        print(f"{metric:<{width}}{shown}")


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
