"""Our items as tasks of lm-evaluation-harness: a folder of YAML and JSON lines that it can run.

Each set of items is one task. A row holds the rendered prompt and the question itself; the task's
metric reads an answer with the pipeline's own extractor, so that both give the same score on the
same answers. What lm-eval runs is `load` and `process` of this file, through the folder's utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.records import (
    Answer,
    Extraction,
    Finish,
    Followed,
    Generation,
    Sampling,
    read_jsonl,
    write_jsonl,
)
from pipeline.stage3_evaluate.evaluate import ABILITIES, questions_of
from pipeline.stage3_evaluate.questions import Question

# Settings of a task's generation_kwargs with the names of `Sampling`. A greedy decoding keeps them:
# penalties change it, and the others are part of which request it is.
SAMPLING = (
    "top_p", "top_k", "min_p", "seed",
    "repetition_penalty", "frequency_penalty", "presence_penalty",
)  # fmt: skip
# Those of `Sampling` that generation_kwargs have no word for.
UNSAID = ("extra_body", "logprobs", "logprobs_temperature")
UTILS = '''"""Made by `distill export --what items`; needs the package blackbox-distill."""

from pathlib import Path

from pipeline.stage3_evaluate.harness_tasks import load, process, share_of_all


def items(file, **settings):
    return load(Path(__file__).parent / file)
'''


def write_tasks(config: Config, folder: Path) -> dict[str, int]:
    """Write a task for each set of items; task name -> number of items.

    The prompts are the student's. Raises `UserError` for what a task of lm-eval cannot say: a
    prompt with worked examples as turns, a setting of the decoding that it has no word for.
    """
    sets: dict[tuple[str, str], list[Question]] = {}
    for question in questions_of(config, "before"):
        if question.sample:  # further samples of an item are lm-eval's `repeats`
            continue
        sets.setdefault((question.ability, question.variant), []).append(question)
    named = dict(zip(task_names(config.name, list(sets)), sets.values(), strict=True))
    for questions in named.values():  # every mistake before the first file
        _settings(questions[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, questions in named.items():
        write_jsonl(folder / f"{name}.jsonl", (_row(question) for question in questions))
        _write_yaml(folder / f"{name}.yaml", name, questions[0])
    (folder / "utils.py").write_text(UTILS, encoding="utf-8")
    return {name: len(questions) for name, questions in named.items()}


def task_names(run: str, sets: Sequence[tuple[str, str]]) -> list[str]:
    """Letters, digits and "_": "quickstart_in_context_headlines_k_2", for (ability, variant).

    Sets that differ in other letters alone are numbered in their order: "..._k_2_set2".
    """
    found: list[str] = []
    for ability, variant in sets:
        words = f"{run}_{ability}_{variant}"
        plain = re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_").lower()
        name, number = plain, 1
        while name in found:
            number += 1
            name = f"{plain}_set{number}"
        found.append(name)
    return found


def _row(question: Question) -> dict[str, str]:
    roles = [message.role for message in question.messages]
    if roles not in (["user"], ["system", "user"]):
        raise UserError(
            f"{question.prompt.name}: renders {', '.join(roles)}; a task of lm-eval can ask an "
            "item by a system text and one turn of the user. Put the worked examples into `user`"
        )
    return {
        "id": question.item.id,
        "system": question.messages[0].content if len(roles) == 2 else "",
        "prompt": question.messages[-1].content,
        "reference": question.item.reference or "",
        # As one text: a table of lm-eval's has one type for each column, and items differ.
        "question": msgspec.json.encode(question).decode(),
    }


def _write_yaml(path: Path, name: str, question: Question) -> None:
    lines = [
        f"task: {name}",
        "custom_dataset: !function utils.items",
        f"dataset_kwargs: {{file: {path.stem}.jsonl}}",
        "output_type: generate_until",
        "test_split: test",
        "num_fewshot: 0",
        'description: "{{system}}"',
        "doc_to_text: prompt",
        "doc_to_target: reference",
        f"generation_kwargs: {msgspec.json.encode(_settings(question)).decode()}",
        "process_results: !function utils.process",
        "metric_list:",
    ]
    for metric, better in metrics_of(question.ability).items():
        how = "!function utils.share_of_all" if metric.endswith("_instructions") else "mean"
        lines += [
            f"  - metric: {metric}",
            f"    aggregation: {how}",
            f"    higher_is_better: {str(better).lower()}",
        ]
    lines.append("metadata: {version: 1.0}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _settings(question: Question) -> dict[str, Any]:
    """generation_kwargs that `harness_model.sampling_of` reads as the same decoding."""
    sampling, plain = question.sampling, Sampling()
    if lost := [name for name in UNSAID if getattr(sampling, name) != getattr(plain, name)]:
        raise UserError(
            f"{question.ability}, {question.variant}: its sampling has {', '.join(lost)}, which a "
            "task of lm-eval cannot say; without it other requests would be asked. Take it out of "
            "evaluate.sampling or the ability's own"
        )
    found: dict[str, Any] = {
        "do_sample": sampling.temperature > 0,
        "temperature": sampling.temperature,
        "max_gen_toks": sampling.max_tokens,
        "until": list(sampling.stop),
    }
    said = {name: getattr(sampling, name) for name in SAMPLING}
    return found | {name: it for name, it in said.items() if it != getattr(plain, name)}


def metrics_of(ability: str) -> dict[str, bool]:
    """The metrics of an ability's task; whether more is better."""
    unread = {"no_answer": False, "truncated": False}
    if ability == "instruction_following":
        levels = ("strict", "loose", "strict_instructions", "loose_instructions")
        return dict.fromkeys(levels, True) | unread
    return {"accuracy": True} | unread


# --- what lm-eval calls


def load(path: Path) -> Any:
    """The items as lm-eval wants a data set; each with the columns of `_row`."""
    from datasets import Dataset, DatasetDict

    rows = list(read_jsonl(path, dict[str, str]))
    return DatasetDict({"test": Dataset.from_list(rows)})


def process(doc: dict[str, str], results: Sequence[str]) -> dict[str, Any]:
    """The metrics of one answer.

    An arm's answer says how it ended (`harness_model.Reply`). Other models of lm-eval do not, and
    then an answer that was cut counts as one that ended.
    """
    question = msgspec.json.decode(doc["question"], type=Question)
    (text,) = results
    finish = getattr(text, "finish", Finish.STOP)
    answer = ABILITIES[question.ability].read(
        question, Generation("", str(text), finish), "lm-eval"
    )
    return {name: _value(answer, name) for name in metrics_of(question.ability)}


def _value(answer: Answer, metric: str) -> float | list[float]:
    if metric == "strict_instructions":
        return [float(one is Followed.STRICT) for one in answer.followed]
    if metric == "loose_instructions":
        return [float(one is not Followed.BROKEN) for one in answer.followed]
    values = {
        "accuracy": answer.correct,
        "strict": answer.correct,
        "loose": answer.loose or 0.0,
        "no_answer": float(answer.extraction is Extraction.NO_ANSWER),
        "truncated": float(answer.extraction is Extraction.TRUNCATED),
    }
    return values[metric]


def share_of_all(items: Sequence[Sequence[float]]) -> float:
    """Over all constraints of all items."""
    every = [one for item in items for one in item]
    return sum(every) / len(every)
