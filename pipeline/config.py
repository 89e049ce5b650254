"""A YAML file -> a strict, typed, frozen config.

A mistake is one `UserError` that names the place in the file, what was seen, what is allowed.
`what` settings make identities; those under `serving`, `execution`, `budget` and `price` never do.
Options of other libraries (`train.sft`, `train.lora`, `serving.engine`) are handed on untouched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from pipeline.config_dataset import Control, DatasetFiles, Mixture
from pipeline.config_evaluate import ARMS, CONTROL, ONLY, SEED, Evaluate
from pipeline.config_execution import Execution
from pipeline.config_file import Location, apply_override, dump_yaml, load_yaml
from pipeline.config_models import (
    Backend,
    Batch,
    ModelConfig,
    Price,
    Serving,
    Strict,
    Student,
    Teacher,
    logprobs_problem,
    unknown_key,
)
from pipeline.config_tasks import Accept, FilterList, SeedSource, Task
from pipeline.config_train import SoftTargets, Train
from pipeline.errors import UserError
from pipeline.records import Sampling

__all__ = [
    "Accept",
    "Backend",
    "Batch",
    "Config",
    "ModelConfig",
    "Price",
    "SeedSource",
    "Serving",
    "SoftTargets",
    "Student",
    "Task",
    "Teacher",
    "load_config",
    "save_config",
]

RESERVED = ("ledger", "models")  # folders in runs/ that are no run


class Contamination(Strict):
    against: Literal["evaluation", "nothing"] = "evaluation"
    ngram: int = Field(13, ge=3)
    alike: bool = True  # also near copies, and copies with other numbers or names
    files: list[str] = []  # further JSONL files whose rows must not be trained on


class Curate(Strict):
    filters: FilterList = [
        {"finish": {}},
        {"empty": {}},
        {"length": {}},
        {"repetition": {}},
        {"refusal": {}},
        {"unclosed_reasoning": {}},
        {"leaked_prompt": {}},
        {"exact_duplicates": {}},
    ]
    contamination: Contamination = Contamination()
    validation_share: float = Field(0.05, ge=0, lt=1)
    mixture: Mixture | None = None
    controls: list[Control] = []
    dataset: DatasetFiles = DatasetFiles()


class Budget(Strict):
    max_usd: float | None = Field(None, gt=0)
    max_tokens: int | None = Field(None, gt=0)
    max_minutes: float | None = Field(None, gt=0)
    # Of the last 200 new answers of a task at least this share must pass its filters, and a
    # quarter of the share that passed before; else the run pauses before more is spent. 0: never.
    min_acceptance: float = Field(0.02, ge=0, le=1)


def _not_reserved(name: str) -> str:
    if name.lower() in RESERVED:
        raise ValueError(f"runs/{name} is where all runs keep their {name}; take another name")
    return name


class Config(Strict):
    name: Annotated[str, AfterValidator(_not_reserved)] = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
    )
    seed: int = 0
    teacher: Teacher | None = None
    teachers: dict[str, Teacher] | None = None
    student: Student
    tasks: list[Task] = Field(min_length=1)
    curate: Curate = Curate()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    budget: Budget = Budget()
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _names_fit(self) -> Config:
        if (self.teacher is None) == (self.teachers is None):
            raise ValueError("give either `teacher:` (one) or `teachers:` (several by name)")
        asked: list[tuple[str, str | None]] = []
        for t in self.tasks:
            if t.teachers is None:
                asked.append((f"tasks.{t.name}.teacher", t.teacher))
            asked += [(f"tasks.{t.name}.teachers", name) for name in t.teachers or ()]
        for place, name in [*asked, ("evaluate.teacher", self.evaluate.teacher)]:
            if name is not None and name not in self.all_teachers:
                raise ValueError(f"{place}: {unknown_key(name, list(self.all_teachers))}")
            if name is None and len(self.all_teachers) > 1:
                raise ValueError(f"{place}: name one of {sorted(self.all_teachers)}")
        for task in self.tasks:
            limit = max(self.sampling_of(task, n).max_tokens for n in self.teachers_of(task))
            if task.longer_max_tokens is not None and task.longer_max_tokens <= limit:
                raise ValueError(
                    f"tasks.{task.name}.longer_max_tokens {task.longer_max_tokens} is not more "
                    f"than the task's max_tokens {limit}"
                )
        names = [t.name for t in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"two tasks have the same name: {names}")
        for number, task in enumerate(self.tasks):
            source = task.seeds.from_task
            if source is not None and source not in names[:number]:
                raise ValueError(
                    f"tasks.{task.name}.seeds.from: {source!r} is not a task before this one; "
                    f"allowed: {', '.join(names[:number]) or 'none, it is the first'}"
                )
        return self

    @property
    def training_seed(self) -> int:
        """Of the student that the run is about."""
        return int(self.train.sft.get("seed", self.seed))

    @model_validator(mode="after")
    def _arms_fit(self) -> Config:
        known = [*ARMS, *(f"{CONTROL}{name}" for name in self.curate.controls)]
        for number, arm in enumerate(self.evaluate.arms):
            place = f"evaluate.arms.{number}"
            if arm.startswith(CONTROL) and arm not in known:
                raise ValueError(
                    f"{place}: {arm} needs curate.controls to name "
                    f"{arm.removeprefix(CONTROL)}; seen there: {self.curate.controls or 'nothing'}"
                )
            if arm.startswith(SEED):
                seed = arm.removeprefix(SEED)
                # As it is spelled in 4_seeds/N: "01" would be another folder.
                canonical = seed.isdecimal() and seed == str(int(seed))
                if not canonical or int(seed) == self.training_seed:
                    raise ValueError(
                        f"{place}: {arm} is no student trained once more; write {SEED}N with a "
                        f"whole number N without zeros before it, not {self.training_seed}: that "
                        "is the seed of `after`"
                    )
                continue
            if arm.startswith(ONLY):
                task_arm(self, place, arm)
                continue
            if arm not in known and arm not in self.evaluate.models:
                known += self.evaluate.models
                raise ValueError(f"{place}: {unknown_key(arm, known)}")
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> Config:
        names = [t.name for t in self.tasks]
        for number, stage in enumerate(self.train.stages):
            for name in stage.tasks or ():
                if stage.dataset is None and name not in names:
                    place = f"train.stages.{number}.tasks"
                    raise ValueError(f"{place}: {unknown_key(name, names)}")
        return self

    @model_validator(mode="after")
    def _logprobs_can_be_taken(self) -> Config:
        """Log-probabilities at another temperature than 1, where the backend can give them."""
        for task in self.tasks:
            for name in self.teachers_of(task):
                teacher, sampling = self.all_teachers[name], self.sampling_of(task, name)
                if problem := logprobs_problem(teacher, sampling):
                    raise ValueError(f"tasks.{task.name}, sampling.logprobs_temperature: {problem}")
        return self

    @model_validator(mode="after")
    def _mixture_fits(self) -> Config:
        parts = {t.name for t in self.tasks} | {t.recipe for t in self.tasks}
        for name in self.curate.mixture.weights if self.curate.mixture else ():
            if name not in parts:
                raise ValueError(
                    f"curate.mixture.weights: {name!r} is no task and no recipe of one; allowed: "
                    f"{', '.join(sorted(parts))}"
                )
        return self

    @property
    def all_teachers(self) -> dict[str, Teacher]:
        return self.teachers if self.teachers is not None else {"teacher": self.teacher}  # type: ignore[dict-item]

    def teacher_of(self, name: str | None) -> Teacher:
        """The teacher a task or the evaluation names; the only one when it names none."""
        return self.all_teachers[name or next(iter(self.all_teachers))]

    def teachers_of(self, task: Task) -> list[str]:
        """The names of the teachers that are asked a task's seeds."""
        return task.teachers or [task.teacher or next(iter(self.all_teachers))]

    def sampling_of(self, task: Task, teacher: str) -> Sampling:
        """A teacher's sampling with the task's own settings over it."""
        return msgspec.convert(self.all_teachers[teacher].sampling | task.sampling, Sampling)

    def task_named(self, name: str) -> Task:
        return next(task for task in self.tasks if task.name == name)

    @property
    def run_dir(self) -> Path:
        return Path("runs") / self.name


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read, override (`a.b=value`), validate; every problem found is in one `UserError`."""
    raw, lines = load_yaml(path)
    for override in overrides:
        apply_override(raw, override)
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(e, raw, lines) for e in error.errors()]
        raise UserError(f"{path}: " + f"\n{path}: ".join(problems)) from None


def save_config(config: Config, path: Path) -> None:
    """The resolved config as YAML. Secrets cannot be in it: it knows only variables' names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dump_yaml(config.model_dump(mode="json", exclude_none=True, by_alias=True), path)


def api_key(serving: Serving, place: str) -> str | None:
    """The key from the environment, or a `UserError` that names the variable to set."""
    if serving.api_key_env is None:
        return None
    value = os.environ.get(serving.api_key_env)
    if not value:
        raise UserError(
            f"{place}.serving.api_key_env: the environment variable {serving.api_key_env} is not "
            f"set; type `export {serving.api_key_env}=...` first, or set api_key_env to null "
            "for an endpoint that needs no key"
        )
    return value


def _model_at(place: Sequence[str | int]) -> type[BaseModel] | None:
    """The config class whose keys are allowed at `place`."""
    model: type[BaseModel] | None = Config
    for key in place:
        if model is None:
            return None
        field = model.model_fields.get(str(key))
        if field is not None:  # list positions and the names of `teachers:` are no fields
            model = next(iter(_classes_in(field.annotation)), None)
    return model


def _classes_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _classes_in(part)]


def _explain(error: Any, raw: Any, lines: dict[Location, int]) -> str:
    place = tuple(error["loc"])
    known = place
    while known and known not in lines:
        known = known[:-1]
    line = f"line {lines[known]}: " if known else ""
    dotted = ".".join(str(p) for p in place)
    if error["type"] == "extra_forbidden":
        model = _model_at(place[:-1])
        allowed = list(model.model_fields) if model else []
        return f"{line}{dotted}: {unknown_key(str(place[-1]), allowed)}"
    if error["type"] == "missing":
        return f"{line}{dotted}: this key is required and missing"
    message = error["msg"].removeprefix("Value error, ")
    seen = error.get("input")
    shown = "" if isinstance(seen, dict | list | BaseModel) else f"; seen: {seen!r}"
    return f"{line}{dotted + ': ' if dotted else ''}{message}{shown}"


def task_arm(config: Config, place: str, arm: str) -> None:
    """Raise `ValueError` where no student can be trained on that one task alone."""
    task, tasks = arm.removeprefix(ONLY), [t.name for t in config.tasks]
    if task not in tasks:
        raise ValueError(f"{place}: {unknown_key(arm, [ONLY + name for name in tasks])}")
    if config.train.preference is not None:
        raise ValueError(
            f"{place}: {arm} is trained by SFT alone, and train.preference is set; take one out"
        )
    if any(stage.dataset or stage.tasks for stage in config.train.stages):
        raise ValueError(
            f"{place}: {arm} chooses the rows of one task, and so does a stage in train.stages; "
            "take one out"
        )
