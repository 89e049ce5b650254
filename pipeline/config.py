"""A YAML file -> a strict, typed, frozen config.

A mistake is one `UserError` that names the place in the file, what was seen, what is allowed.
`what` settings make identities; those under `serving`, `execution`, `budget` and `price` never do.
Options of other libraries (`train.sft`, `train.lora`, `serving.engine`) are handed on untouched.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from pipeline.config_file import Location, apply_override, dump_yaml, load_yaml
from pipeline.errors import UserError
from pipeline.records import Sampling

Backend = Literal["openai", "vllm", "transformers", "fake"]
Ability = Literal["in_context", "chain_of_thought", "instruction_following"]
Arm = Literal["teacher", "before", "after"]

RESERVED = ("ledger", "models")  # folders in runs/ that are no run
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _check_sampling(value: dict[str, Any]) -> dict[str, Any]:
    for key in value:
        if key not in Sampling.__struct_fields__:
            raise ValueError(_unknown(key, Sampling.__struct_fields__))
    try:
        msgspec.convert(value, Sampling)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    for key, (fine, allowed) in _RANGES.items():
        seen = value.get(key)
        if seen is not None and not fine(seen):
            raise ValueError(f"{key} is {allowed}; seen: {seen!r}")
    return value


# Comparisons that a NaN fails.
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (lambda x: 0 <= x < math.inf, "a number from 0 (always the likeliest token)"),
    "top_p": (lambda x: 0 < x <= 1, "a number above 0 and up to 1 (1: all tokens)"),
    "max_tokens": (lambda x: x >= 1, "a whole number from 1"),
    "logprobs": (lambda x: x >= 0, "a whole number from 0 (0: of the sampled token only)"),
    "top_k": (lambda x: x >= 1 or x == -1, "a whole number from 1, or -1 for all tokens"),
}

SamplingDict = Annotated[dict[str, Any], AfterValidator(_check_sampling)]


class Price(Strict):
    """USD per million tokens."""

    input: float = 0.0
    output: float = 0.0


class Batch(Strict):
    """How a job goes through a provider's batch API (docs/teachers.md)."""

    rows: int = Field(50_000, ge=1)  # a batch at most; OpenAI takes 50,000
    megabytes: float = Field(100.0, gt=0)  # of its input file, at most; OpenAI takes 200
    at_once: int = Field(10, ge=1)  # batches that are open at a time
    poll_seconds: float = Field(30.0, gt=0)
    window: str = "24h"  # in which the provider promises to be done
    online_below: int = Field(0, ge=0)  # a batch of fewer rows is asked online instead


class Serving(Strict):
    """Where a model runs and how hard it is driven; never part of an identity."""

    base_url: str | list[str] | None = None
    api_key_env: str | None = None
    concurrency: int = Field(64, ge=1)
    timeout: float = Field(120.0, gt=0)
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    max_retries: int = Field(6, ge=0)
    batch_size: int = Field(64, ge=1)  # transformers backend
    device: str | None = None  # transformers backend; default: cuda when there is one
    trust_remote_code: bool = False
    engine: dict[str, Any] = {}  # vllm: any field of AsyncEngineArgs
    script: str | None = None  # fake backend: a Python file with `answer(request) -> str`
    batch: Batch | None = None  # openai backend: through the provider's batch API

    # Messages about these two never show what was seen: it may be a password or a key. (At a
    # field's own validator the value would be shown; the whole table is not.)
    @model_validator(mode="after")
    def _no_secrets(self) -> Serving:
        urls = [self.base_url] if isinstance(self.base_url, str) else self.base_url or []
        if any("@" in url.rpartition("://")[2].partition("/")[0] for url in urls):
            raise ValueError(
                "base_url: holds a user name or a password, which the saved config would hold "
                "too; take it out, and name the environment variable of a key in api_key_env"
            )
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            raise ValueError(
                "api_key_env: is not the name of an environment variable (letters, digits and _, "
                "as in OPENAI_API_KEY); if it is the key itself, type `export OPENAI_API_KEY=...` "
                "with it, and write api_key_env: OPENAI_API_KEY here"
            )
        return self

    @model_validator(mode="after")
    def _one_provider(self) -> Serving:
        if self.batch is not None and isinstance(self.base_url, list) and len(self.base_url) != 1:
            raise ValueError("batch: a batch lives at one provider; give one base_url")
        return self


def _check_batch(backend: str, serving: Serving) -> None:
    if serving.batch is not None and backend != "openai":
        raise ValueError(
            f"serving.batch is for the backend openai; {backend} has no batch API, and fills its "
            "own batches"
        )


class ModelConfig(Strict):
    backend: Backend
    model: str
    revision: str | None = None
    serving: Serving = Serving()

    @model_validator(mode="after")
    def _batch_has_a_provider(self) -> ModelConfig:
        _check_batch(self.backend, self.serving)
        return self


class Teacher(ModelConfig):
    sampling: SamplingDict = {}
    price: Price = Price()


class Student(Strict):
    model: str
    revision: str | None = None
    backend: Literal["transformers", "vllm"] = "transformers"  # evaluates it
    serving: Serving = Serving()

    @model_validator(mode="after")
    def _batch_has_a_provider(self) -> Student:
        _check_batch(self.backend, self.serving)
        return self


def _seed_source(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class SeedSource(BaseModel):
    """A JSONL path, `{generator: NAME, n: ...}` or `{dataset: HUB_ID, split: ...}`.

    Further keys are the generator's options, or `datasets.load_dataset`'s.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    path: str | None = None
    generator: str | None = None
    dataset: str | None = None
    n: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> SeedSource:
        given = [k for k in ("path", "generator", "dataset") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of path, generator, dataset; seen: {given or 'none'}")
        if self.path and self.model_extra:
            raise ValueError(f"a file takes no options; seen: {sorted(self.model_extra)}")
        return self

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


Seeds = Annotated[SeedSource, BeforeValidator(_seed_source)]


def _one_key(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) != 1:
        raise ValueError(f"a filter is one `name: {{settings}}`; seen: {sorted(value)}")
    for name, settings in value.items():
        if not isinstance(settings, dict | None):
            raise ValueError(
                f"the settings of {name} are a table, as in {{length: {{max_tokens: 512}}}}; "
                f"seen: {settings!r}"
            )
    return {k: v or {} for k, v in value.items()}


FilterList = list[Annotated[dict[str, Any], AfterValidator(_one_key)]]


class Accept(Strict):
    """How many answers that pass the filters a task wants; at most `at_most` samples a seed."""

    per_seed: int | None = Field(None, ge=1)
    total: int | None = Field(None, ge=1)
    at_most: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _one_target(self) -> Accept:
        if (self.per_seed is None) == (self.total is None):
            raise ValueError("give one of per_seed and total")
        if self.per_seed is not None and self.per_seed > self.at_most:
            raise ValueError(f"per_seed {self.per_seed} is more than at_most {self.at_most}")
        return self


def _schema(value: Any) -> Any:
    """A JSON schema, written out or as the path of a JSON file."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(Path(value).read_bytes())
        except OSError as error:
            raise ValueError(f"cannot read the schema file: {error}") from error
        except msgspec.DecodeError as error:
            raise ValueError(f"{value} is not JSON: {error}") from error
    if isinstance(value, dict):
        from jsonschema import Draft202012Validator, SchemaError

        try:
            Draft202012Validator.check_schema(value)
        except SchemaError as error:
            raise ValueError(f"not a JSON schema: {error.message}") from error
    return value


class Task(Strict):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    recipe: str
    seeds: Seeds
    teacher: str | None = None  # a name under `teachers:`
    teacher_prompt: str
    student_prompt: str
    samples: int = Field(1, ge=1)
    accept: Accept | None = None  # instead of `samples`: ask until so many answers pass
    sampling: SamplingDict = {}
    longer_max_tokens: int | None = Field(None, ge=2)  # ask a cut-off answer again, once
    response_schema: Annotated[dict[str, Any] | None, BeforeValidator(_schema)] = None
    filters: FilterList = []
    weight: float = Field(1.0, gt=0)
    options: dict[str, Any] = {}  # of the recipe

    @model_validator(mode="after")
    def _samples_or_accept(self) -> Task:
        if self.accept is not None and "samples" in self.model_fields_set:
            raise ValueError("give either `samples` or `accept`, whose at_most bounds the samples")
        return self


class Contamination(Strict):
    against: Literal["evaluation", "nothing"] = "evaluation"
    ngram: int = Field(13, ge=3)
    files: list[str] = []  # further JSONL files whose rows must not be trained on


class Curate(Strict):
    filters: FilterList = [
        {"finish": {}},
        {"empty": {}},
        {"length": {}},
        {"repetition": {}},
        {"refusal": {}},
        {"exact_duplicates": {}},
    ]
    contamination: Contamination = Contamination()
    validation_share: float = Field(0.05, ge=0, lt=1)


class Train(Strict):
    sft: dict[str, Any] = {}  # any field of TRL's SFTConfig
    lora: dict[str, Any] | None = None  # any field of peft's LoraConfig


class InContextItems(Strict):
    name: str
    items: Seeds


class InContext(Strict):
    tasks: list[InContextItems]
    shots: list[int] = [0, 1, 2, 4, 8]
    prompt: str = "prompts/student/in_context.yaml"
    teacher_prompt: str | None = None
    sampling: SamplingDict = {}


class ChainOfThought(Strict):
    items: Seeds
    prompt: str = "prompts/student/question.yaml"
    direct_prompt: str = "prompts/student/direct.yaml"
    teacher_prompt: str | None = None
    sampling: SamplingDict = {}
    direct_sampling: SamplingDict = {}


class InstructionFollowing(Strict):
    seen_types: Seeds
    unseen_types: Seeds
    prompt: str = "prompts/student/instruction.yaml"
    teacher_prompt: str | None = None
    sampling: SamplingDict = {}


class Evaluate(Strict):
    abilities: list[Ability] = []
    arms: list[Arm] = ["teacher", "before", "after"]
    teacher: str | None = None
    sampling: SamplingDict = {"temperature": 0.0, "max_tokens": 256}
    in_context: InContext | None = None
    chain_of_thought: ChainOfThought | None = None
    instruction_following: InstructionFollowing | None = None

    @model_validator(mode="after")
    def _abilities_have_items(self) -> Evaluate:
        for ability in self.abilities:
            if getattr(self, ability) is None:
                raise ValueError(
                    f"abilities names {ability}, but there is no `evaluate.{ability}:` table "
                    "that says which items to use (configs/quickstart.yaml has one to copy)"
                )
        return self


class Budget(Strict):
    max_usd: float | None = Field(None, gt=0)
    max_tokens: int | None = Field(None, gt=0)
    max_minutes: float | None = Field(None, gt=0)
    # Of the last 200 new answers of a task at least this share must pass its filters, and a
    # quarter of the share that passed before; else the run pauses before more is spent. 0: never.
    min_acceptance: float = Field(0.02, ge=0, le=1)


class Execution(Strict):
    on: Literal["local", "print"] = "local"
    shards: int = Field(1, ge=1)
    progress_seconds: float = Field(10.0, gt=0)  # between plain progress lines in a log
    probe_every: int | None = Field(1000, ge=1)  # rows between probes of a hosted teacher


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
        asked = [(f"tasks.{t.name}.teacher", t.teacher) for t in self.tasks]
        for place, name in [*asked, ("evaluate.teacher", self.evaluate.teacher)]:
            if name is not None and name not in self.all_teachers:
                raise ValueError(f"{place}: {_unknown(name, list(self.all_teachers))}")
            if name is None and len(self.all_teachers) > 1:
                raise ValueError(f"{place}: name one of {sorted(self.all_teachers)}")
        for task in self.tasks:
            limit = self.sampling_of(task).max_tokens
            if task.longer_max_tokens is not None and task.longer_max_tokens <= limit:
                raise ValueError(
                    f"tasks.{task.name}.longer_max_tokens {task.longer_max_tokens} is not more "
                    f"than the task's max_tokens {limit}"
                )
        names = [t.name for t in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"two tasks have the same name: {names}")
        return self

    @property
    def all_teachers(self) -> dict[str, Teacher]:
        return self.teachers if self.teachers is not None else {"teacher": self.teacher}  # type: ignore[dict-item]

    def teacher_of(self, name: str | None) -> Teacher:
        """The teacher a task or the evaluation names; the only one when it names none."""
        return self.all_teachers[name or next(iter(self.all_teachers))]

    def sampling_of(self, task: Task) -> Sampling:
        """The teacher's sampling with the task's own settings over it."""
        return msgspec.convert(self.teacher_of(task.teacher).sampling | task.sampling, Sampling)

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
    dump_yaml(config.model_dump(mode="json", exclude_none=True), path)


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


def _unknown(seen: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(seen, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key {seen!r}; {hint}allowed: {', '.join(sorted(allowed))}"


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
        return f"{line}{dotted}: {_unknown(str(place[-1]), allowed)}"
    if error["type"] == "missing":
        return f"{line}{dotted}: this key is required and missing"
    message = error["msg"].removeprefix("Value error, ")
    seen = error.get("input")
    shown = "" if isinstance(seen, dict | list | BaseModel) else f"; seen: {seen!r}"
    return f"{line}{dotted + ': ' if dotted else ''}{message}{shown}"
