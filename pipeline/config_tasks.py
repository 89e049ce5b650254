"""The part of a config that says what is asked: tasks, where their seeds come from, filters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.config_models import SamplingDict, Strict


def _seed_source(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class SeedSource(BaseModel):
    """Where a task's seeds come from; one of

    a file: JSON lines, .csv, .tsv or .txt; `columns` and `answers` say what is where in it,
                                       `where` which rows are meant: {language: en}; `form` is
                                       the form of a benchmark: gsm8k, svamp, bbh
    {generator: NAME, n: ...}          further keys are the generator's options
    {dataset: HUB_ID, split: ...}      further keys are `datasets.load_dataset`'s
    {from: TASK, rows: kept}           what an earlier task of this config made; a `path` beside
                                       it is read first
    {run: NAME, task: T, split: validation}    the seeds of another run, as it wrote them down
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    path: str | None = None
    generator: str | None = None
    dataset: str | None = None
    from_task: str | None = Field(None, alias="from")
    # With `from`: which of its answers. `all`: those that filters drop too. Left out: kept.
    rows: Literal["kept", "dropped", "all"] | None = None
    run: str | None = None
    columns: dict[str, str | int | list[str | int]] | None = None  # field -> column(s) of a file
    answers: dict[str | int, str] | None = None  # a file's answers under other names
    where: dict[str | int, str | int | float | bool] | None = None  # column -> its value
    form: Literal["rows", "gsm8k", "svamp", "bbh"] | None = None  # left out: recognised
    n: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> SeedSource:
        given = [k for k in ("path", "generator", "dataset", "run") if getattr(self, k) is not None]
        given += ["from"] if self.from_task is not None else []
        if len(given) != 1 and given != ["path", "from"]:
            raise ValueError(
                f"give one of path, generator, dataset, from, run; seen: {given or 'none'}"
            )
        if self.rows is not None and self.from_task is None:
            raise ValueError("rows goes with `from`, the task whose answers are meant")
        if self.path is None and (self.columns or self.answers or self.where or self.form):
            raise ValueError("columns, answers, where and form are for a file (`path`)")
        if self.columns and self.form:
            raise ValueError("give columns, which say what is what, or form, which knows it")
        if (self.path or self.from_task) and self.model_extra:
            kind = (
                "a file takes columns, answers, where and form"
                if self.path
                else "`from` takes no options"
            )
            raise ValueError(f"{kind}; seen: {sorted(self.model_extra)}")
        if self.run is not None:
            try:
                msgspec.convert(self.options, RunSeeds)
            except msgspec.ValidationError as error:
                raise ValueError(f"seeds of another run take task and split: {error}") from error
        return self

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def described(self) -> dict[str, Any]:
        """What was given, by its names in the config; for fingerprints."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)


class RunSeeds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of seeds that come from another run."""

    task: str | None = None  # all of its tasks where none is named
    split: Literal["all", "train", "validation"] = "validation"


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
    teachers: list[str] | None = Field(None, min_length=1)  # instead: each is asked every seed
    teacher_prompt: str
    student_prompt: str
    samples: int = Field(1, ge=1)
    accept: Accept | None = None  # instead of `samples`: ask until so many answers pass
    sampling: SamplingDict = {}
    longer_max_tokens: int | None = Field(None, ge=2)  # ask a cut-off answer again, once
    response_schema: Annotated[dict[str, Any] | None, BeforeValidator(_schema)] = None
    filters: FilterList = []
    weight: float = Field(1.0, gt=0)
    train: bool = True  # false: the answers are seeds or scores for other tasks only
    options: dict[str, Any] = {}  # of the recipe

    @model_validator(mode="after")
    def _samples_or_accept(self) -> Task:
        # A config that was saved has every default in it.
        default = type(self).model_fields["samples"].default
        if self.accept is not None and self.samples != default:
            raise ValueError("give either `samples` or `accept`, whose at_most bounds the samples")
        if self.teacher is not None and self.teachers is not None:
            raise ValueError("give either `teacher` (one) or `teachers` (a pool)")
        if self.teachers is not None and len(set(self.teachers)) < len(self.teachers):
            raise ValueError(f"teachers: one is named twice: {self.teachers}")
        if self.accept is not None and self.teachers is not None:
            raise ValueError(
                "`accept` counts the answers of one teacher; with `teachers` use samples"
            )
        return self
