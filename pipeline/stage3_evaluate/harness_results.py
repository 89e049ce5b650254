"""lm-eval, asked once for one arm, and what it found as its own files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from pipeline.config_evaluate import Suite
from pipeline.errors import UserError
from pipeline.stage3_evaluate import ifeval

FEWSHOT_SEED = 1234  # as lm-eval's own command


def ask_lm_eval(suite: Suite, manager: Any, model: Any) -> dict[str, Any]:
    """What `lm_eval.evaluate` returns for every task of the suite."""
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


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """results.json and samples_TASK.jsonl in a new folder."""
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
