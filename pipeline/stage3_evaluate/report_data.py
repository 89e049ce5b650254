"""What a run folder holds, read for the report. A part that is missing is None or empty."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import UserError
from pipeline.records import Answer, Example, Usage, read_jsonl
from pipeline.stage1_generate.curate.funnel import Dropped, Funnel
from pipeline.stage1_generate.curate.label_quality import LabelQuality
from pipeline.stage1_generate.lengths import Lengths, read_lengths
from pipeline.stage3_evaluate.cost_of_use import Cost, saved_costs
from pipeline.stage3_evaluate.score import Scores


class StepLine(msgspec.Struct, frozen=True):
    """What the report needs of a line of steps.jsonl."""

    step: str
    settings: dict[str, Any] = {}
    counts: dict[str, int] = {}
    seconds: float = 0.0
    tokens: Usage = Usage()
    cost_usd: float | None = None
    versions: dict[str, str] = {}
    git_commit: str | None = None
    finished_at: str = ""
    machine: str = ""
    notes: dict[str, Any] = {}


class LogPoint(msgspec.Struct, frozen=True):
    """A logged loss at an optimizer step; `evaluated` for one on the validation rows."""

    step: int
    loss: float
    evaluated: bool
    method: str = "sft"  # which loss it is: sft | dpo


class RunFiles(msgspec.Struct, frozen=True):
    """Everything the report is made of. Secrets are already masked in `config`."""

    name: str
    config: dict[str, Any]
    steps: list[StepLine]
    funnel: Funnel | None
    labels: list[LabelQuality]
    lengths: Lengths | None
    kept: list[Example]
    dropped: list[Dropped]
    log: list[LogPoint]
    answers: dict[str, list[Answer]]
    scores: Scores | None
    costs: list[Cost]
    secrets: tuple[str, ...]  # values that must not appear anywhere, whoever wrote them


def read_run(run: Path) -> RunFiles:
    """Read a run folder; raises `UserError` where a file is there but damaged."""
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder; `distill run CONFIG` makes one")
    try:
        return _read_run(run)
    except (ValueError, msgspec.DecodeError) as error:
        raise UserError(
            f"{run}: a file of this run is damaged ({error}); `distill verify {run.name}` checks "
            "them all, and `--redo STEP` makes a step's files anew"
        ) from error


def _read_run(run: Path) -> RunFiles:
    config = _config(run / "config.yaml")
    funnel, scores = run / "2_funnel.json", run / "6_scores.json"
    labels = run / "2_label_quality.json"
    answers: dict[str, list[Answer]] = {}
    for path in sorted((run / "5_answers").glob("*/*.jsonl")):
        answers.setdefault(path.parent.name, []).extend(read_jsonl(path, Answer))
    return RunFiles(
        name=str(config.get("name", run.name)),
        config=_masked(config),
        steps=list(_rows(run / "steps.jsonl", StepLine)),
        funnel=msgspec.json.decode(funnel.read_bytes(), type=Funnel) if funnel.exists() else None,
        labels=(
            msgspec.json.decode(labels.read_bytes(), type=list[LabelQuality])
            if labels.exists()
            else []
        ),
        lengths=read_lengths(run / "3_dataset"),
        kept=list(_rows(run / "2_kept.jsonl", Example)),
        dropped=list(_rows(run / "2_dropped.jsonl", Dropped)),
        log=list(_training_log(run / "4_student" / "training_log.jsonl")),
        answers=answers,
        scores=msgspec.json.decode(scores.read_bytes(), type=Scores) if scores.exists() else None,
        costs=saved_costs(run),
        secrets=tuple(_secret_values(config)),
    )


def _rows(path: Path, kind: type[Any]) -> Iterator[Any]:
    return read_jsonl(path, kind) if path.exists() else iter(())


def _config(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not path.exists():
        return {}
    try:
        found = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except YAMLError as error:
        raise ValueError(f"{path}: {error}") from error
    return found if isinstance(found, dict) else {}


def _training_log(path: Path) -> Iterator[LogPoint]:
    """The finite losses; json and not msgspec, because a diverged run logs NaN."""
    if not path.exists():
        return
    for line in path.read_text("utf-8").splitlines():
        if not line.strip():
            continue
        row = json.loads(line)
        for key in ("loss", "eval_loss"):
            value = row.get(key)
            if isinstance(value, int | float) and math.isfinite(value) and "step" in row:
                method = str(row.get("method", "sft"))
                yield LogPoint(int(row["step"]), float(value), key == "eval_loss", method)


_SECRET_KEY = re.compile(r"(?:^|_)(?:api_key|key|token|password|secret|authorization)$", re.I)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


def _masked(value: Any) -> Any:
    """The config without anything that could be a secret, should a person have put one there."""
    if isinstance(value, dict):
        return {
            key: "***" if _SECRET_KEY.search(str(key)) and item else _masked(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return _URL_LOGIN.sub("***@", value) if isinstance(value, str) else value


def _secret_values(value: Any) -> Iterator[str]:
    """What the variables that the config names as keys hold now."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "api_key_env" and isinstance(item, str) and os.environ.get(item):
                yield os.environ[item]
            else:
                yield from _secret_values(item)
    elif isinstance(value, list):
        for item in value:
            yield from _secret_values(item)
