"""Bad answers planted among good ones: does curation drop each for the right reason?

    python bench/planted.py                      # 3,000 good, 48 kinds of bad, 20 of each

Everything is made from `--seed`: seeds, answers, the evaluation's items. The rows go through the
filters of a config as `distill curate` applies them. The table says for each kind how many were
dropped, by which filter, and how many of them for the right reason; then which good rows were lost.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import harness  # noqa: F401  (puts the project on the path)
import planted_content as content
import planted_form as form
import planted_good as good
import planted_kinds as kinds

from pipeline.config import Config, Task
from pipeline.prompts import load_prompt
from pipeline.records import (
    Decision,
    ErrorKind,
    Finish,
    Generation,
    Request,
    Sampling,
    Seed,
    Usage,
    Verdict,
    digest,
    request_id,
)
from pipeline.stage1_generate.curate import Candidate
from pipeline.stage1_generate.curate.against import contamination_filter
from pipeline.stage1_generate.curate.judge import (
    candidate,
    common_filters,
    filters_of,
    judged,
)
from pipeline.stage1_generate.recipes import recipe_named

COMMON: list[dict[str, Any]] = [
    {"finish": {}}, {"empty": {}}, {"fits_student": {}}, {"repetition": {}}, {"refusal": {}},
    {"unclosed_reasoning": {}}, {"leaked_prompt": {}}, {"unfinished": {}}, {"language": {}},
    {"secrets": {}}, {"personal_data": {}}, {"exact_duplicates": {}}, {"near_duplicates": {}},
]  # fmt: skip
TASKS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "arithmetic": ("chain_of_thought", [{"one_answer": {}}, {"answer": {}}, {"unit": {}}]),
    "arithmetic-zh": ("chain_of_thought", [{"one_answer": {}}, {"answer": {}}, {"unit": {}}]),
    "instructions": ("constraints", [{"constraints": {}}]),
    "labels": ("response", [{"answer": {}}]),
    "extraction": ("response", [{"format": {"schema": good.ORDER_SCHEMA}}]),
    "writing": ("response", []),
    "writing-zh": ("response", []),
    "code": ("response", []),
    "choices": ("response", [{"answer": {}}]),
}


class Found(NamedTuple):
    row: good.Row
    verdict: Verdict


def config_in(folder: Path, student: str) -> Config:
    """The config that a user would write for these tasks, its files in `folder`."""
    ask = {"system": form.SYSTEM, "user": "{{ question }}",
           "shots": [{"user": q, "assistant": a} for q, a in form.SHOTS]}  # fmt: skip
    (folder / "ask.yaml").write_text(json.dumps(ask))
    (folder / "show.yaml").write_text(json.dumps({"user": "{{ question }}"}))
    lines = [json.dumps(item) for item in content.items()]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    show = str(folder / "show.yaml")
    return Config.model_validate(
        {
            "name": "planted",
            "teacher": {"backend": "fake", "model": "planted"},
            "student": {"model": student},
            "tasks": [
                {
                    "name": name, "recipe": recipe, "seeds": "planted.jsonl", "filters": filters,
                    "teacher_prompt": str(folder / "ask.yaml"), "student_prompt": show,
                }
                for name, (recipe, filters) in TASKS.items()
            ],
            "curate": {"filters": COMMON},
            "train": {"sft": {"max_length": 4096}},
            "evaluate": {
                "abilities": ["chain_of_thought"],
                "chain_of_thought": {
                    "items": str(folder / "items.jsonl"), "prompt": show, "direct_prompt": show,
                },
            },
        }
    )  # fmt: skip


def planted(seed: int, n: int, each: int) -> list[good.Row]:
    """The good rows and the bad ones in random order, duplicates after what they repeat."""
    rng = random.Random(f"planted {seed}")
    fine = good.good_rows(n, rng)
    rows = [*fine, *kinds.bad_rows(each, fine, rng)]
    rng.shuffle(rows)
    return rows + kinds.duplicate_rows(each, fine, rng)


def candidate_of(row: good.Row, number: int, task: Task) -> Candidate:
    """What curation sees of one answer."""
    seed_id = digest(row.fields["question"], 16)
    seed = Seed(seed_id, row.task, row.fields, row.reference, row.constraints, "planted")
    asking = load_prompt(task.teacher_prompt)
    messages = tuple(recipe_named(task.recipe).requests(seed, asking))
    sampling = Sampling()
    key = request_id("planted", messages, sampling, number)
    request = Request(key, seed_id, task.recipe, asking.ref, messages, sampling, number, "planted")
    error = "the server answered 500" if row.finish == "error" else None
    generation = Generation(
        key, row.text, Finish(row.finish), Usage(9, len(row.text) // 4), row.reasoning,
        error=error, error_kind=ErrorKind.FINAL if error else None,
    )  # fmt: skip
    return candidate(task, seed, request, generation, "teacher")


def judge_all(rows: list[good.Row], config: Config) -> list[Found]:
    """The verdict of the config's filters on every row, in order."""
    tasks = {task.name: task for task in config.tasks}
    shared, against = common_filters(config), contamination_filter(config)
    filters = {name: filters_of(config, task, shared, against) for name, task in tasks.items()}

    def source() -> Iterator[tuple[Task, Candidate]]:
        for number, row in enumerate(rows):
            task = tasks[row.task]
            yield task, candidate_of(row, number, task)

    verdicts = (found.verdict for found in judged(source, filters))
    return [Found(row, verdict) for row, verdict in zip(rows, verdicts, strict=True)]


def is_right(found: Found) -> bool:
    """Whether a bad row was dropped by a filter that names its fault."""
    verdict = found.verdict
    begins = kinds.EXPECTED[found.row.fault].get(verdict.filter)
    dropped = verdict.decision is Decision.DROP
    return dropped and begins is not None and verdict.reason.startswith(begins)


def shares(found: list[Found]) -> tuple[float, float]:
    """The share of bad rows dropped for the right reason, and of good rows dropped."""
    bad = [f for f in found if f.row.fault]
    fine = [f for f in found if not f.row.fault]
    lost = sum(f.verdict.decision is Decision.DROP for f in fine)
    return sum(map(is_right, bad)) / len(bad), lost / len(fine)


def table(found: list[Found]) -> str:
    """Kind, rows, dropped for the right reason, and all the filters that dropped some."""
    of: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        of[one.row.fault].append(one)
    lines = ["| kind | rows | right | dropped by |", "|---|---|---|---|"]
    for kind in [*kinds.EXPECTED, ""]:
        by = Counter(
            f.verdict.filter if f.verdict.decision is Decision.DROP else "(kept)" for f in of[kind]
        )
        right = sum(map(is_right, of[kind])) if kind else by["(kept)"]
        shown = ", ".join(f"{name} {count}" for name, count in by.most_common())
        lines.append(f"| {kind or 'good'} | {len(of[kind])} | {right} | {shown} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--good", type=int, default=3000)
    parser.add_argument("--each", type=int, default=20, help="bad rows of each kind")
    parser.add_argument("--student", help="a model folder; else a tiny one is made")
    parser.add_argument("--show", type=int, default=0, help="so many misjudged rows of each kind")
    options = parser.parse_args()
    rows = planted(options.seed, options.good, options.each)
    with tempfile.TemporaryDirectory() as name:
        student = options.student or str(_tiny_student(Path(name)))
        begin = time.monotonic()
        found = judge_all(rows, config_in(Path(name), student))
        seconds = time.monotonic() - begin
    print(table(found))
    right, lost = shares(found)
    print(f"\n{len(rows)} rows in {seconds:.1f} s; {len(kinds.EXPECTED)} kinds of bad answer: "
          f"{right:.2%} dropped for the right reason; {lost:.2%} of the good dropped")  # fmt: skip
    _show(found, options.show)
    return 0 if right >= 0.98 and lost <= 0.01 else 1


def _show(found: list[Found], most: int) -> None:
    shown: Counter[str] = Counter()
    for row, verdict in found:
        dropped = verdict.decision is Decision.DROP
        wrong = not is_right(Found(row, verdict)) if row.fault else dropped
        shown[row.fault] += wrong
        if wrong and shown[row.fault] <= most:
            print(
                f"--- {row.fault or 'good'}: {verdict.filter} {verdict.decision} {verdict.reason}"
            )
            print(f"[{row.fields['question']}]\n{row.text[:600]}")


def _tiny_student(folder: Path) -> Path:
    from tests.tiny import make_tiny_model

    return make_tiny_model(folder / "student", hidden=16, layers=1)


if __name__ == "__main__":
    sys.exit(main())
