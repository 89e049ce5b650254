"""The part of a config that says how models are tested: abilities, their items, arms."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config_models import Compared, SamplingDict, Strict
from pipeline.config_tasks import Seeds

Ability = Literal["in_context", "chain_of_thought", "instruction_following"]

# What is tested. `before_again` is the student before, asked once more: what differs is noise.
# Beside these: control-NAME, a student trained on the control NAME; seed-N, the student trained
# once more with the seed N; only-TASK, one trained on the rows of that task alone; and the names
# in `models`.
ARMS = ("teacher", "before", "after", "before_again")
CONTROL = "control-"
SEED = "seed-"
ONLY = "only-"
TRAINED = (CONTROL, SEED, ONLY)  # beginnings of the arms that are trained beside the student
Arm = str
NAME = r"[^\W_][\w.-]*"  # of an arm, whose folder has the same: never one like ".."


# What the labels of the shots say: see pipeline/stage3_evaluate/label_conditions.py.
Labels = Literal["natural", "random", "flipped", "arbitrary"]


BEYOND_TASK = " (beyond)"  # after the name of a task that is beyond what was trained


class InContextItems(Strict):
    """A task: episodes that bring their own shots, or labelled texts (`text` and `answer`)."""

    # Part of a metric's path, "accuracy/NAME/k=4", where "mean" stands for all tasks.
    # No outer spaces: names that look the same would be two tasks.
    name: str = Field(pattern=r"^[^/\s]([^/]*[^/\s])?$")
    items: Seeds
    beyond: bool = False  # a kind of task that training had nothing of: no part of the mean
    pool: Seeds | None = None  # labelled texts to draw shots from; left out: rows of `items`
    labels: list[Labels] = Field(["natural"], min_length=1)
    draws: int | None = Field(None, ge=1)  # over the table's, as the four below
    orders: int | None = Field(None, ge=1)
    prompt: str | None = None
    teacher_prompt: str | None = None
    sampling: SamplingDict = {}

    @model_validator(mode="after")
    def _natural_labels(self) -> InContextItems:
        if "natural" not in self.labels or len(set(self.labels)) < len(self.labels):
            raise ValueError(
                f"labels: {', '.join(self.labels)}; each once, and natural among them: the primary "
                "number is measured with it"
            )
        return self

    @property
    def called(self) -> str:
        """Its name in variants and metrics."""
        return f"{self.name}{BEYOND_TASK}" if self.beyond else self.name


class InContext(Strict):
    tasks: list[InContextItems] = Field(min_length=1)
    shots: list[Annotated[int, Field(ge=0)]] = [0, 1, 2, 4, 8]
    draws: int = Field(1, ge=1)  # sets of shots for each item
    orders: int = Field(1, ge=1)  # orders of each set
    prompt: str = "prompts/student/in_context.yaml"
    teacher_prompt: str | None = None
    sampling: SamplingDict = {}

    @model_validator(mode="after")
    def _named_once(self) -> InContext:
        names = [task.name for task in self.tasks]
        if "mean" in names:
            raise ValueError("tasks: no task can have the name mean: it stands for all of them")
        if marked := [name for name in names if name.endswith(BEYOND_TASK)]:
            raise ValueError(
                f"tasks: {marked[0]!r} cannot be a name: a name that ends in {BEYOND_TASK!r} means "
                "a task with `beyond: true`"
            )
        if all(task.beyond for task in self.tasks):
            raise ValueError("tasks: all are `beyond: true`; the primary number needs another one")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"tasks: {', '.join(twice)} is there twice; each needs its own name")
        return self


class ChainOfThought(Strict):
    items: Seeds
    prompt: str = "prompts/student/question.yaml"
    direct_prompt: str = "prompts/student/direct.yaml"
    teacher_prompt: str | None = None
    sampling: SamplingDict = {}
    direct_sampling: SamplingDict = {}
    # Named sets that are longer or larger than what was trained: accuracy/step_by_step/NAME.
    beyond: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], Seeds] = {}
    samples: int = Field(1, ge=1)  # of each of `items`, for majority votes
    samples_sampling: SamplingDict = {}

    @model_validator(mode="after")
    def _samples_differ(self) -> ChainOfThought:
        if self.samples > 1 and self.samples_sampling.get("temperature") == 0:
            raise ValueError(
                "samples_sampling: at temperature 0 all samples are the same; give one above 0, or "
                "samples: 1"
            )
        return self


class Ifeval(Strict):
    """A file in IFEval's form, checked by the code of lm-evaluation-harness (`.[lm-eval]`)."""

    path: str
    n: int | None = Field(None, ge=1)  # only the first so many
    errata: bool = False  # take the known mistakes of the published file out


class InstructionFollowing(Strict):
    seen_types: Seeds | None = None
    unseen_types: Seeds | None = None
    ifeval: Ifeval | None = None
    prompt: str = "prompts/student/instruction.yaml"
    teacher_prompt: str | None = None
    sampling: SamplingDict = {}

    @model_validator(mode="after")
    def _some_items(self) -> InstructionFollowing:
        if self.seen_types is None and self.unseen_types is None and self.ifeval is None:
            raise ValueError("give items: seen_types, unseen_types or ifeval")
        return self


class Suite(Strict):
    """Tasks of lm-evaluation-harness that all arms are asked as well (`.[lm-eval]`)."""

    tasks: list[str] = Field(min_length=1)
    include: list[str] = []  # folders with task files of your own
    num_fewshot: int | None = Field(None, ge=0)  # instead of each task's
    limit: int | None = Field(None, ge=1)  # only the first so many items of each task


class CostOfUse(Strict):
    """What answering costs with each model, asked the same few questions."""

    questions: int = Field(8, ge=1)
    tokens: int = Field(64, ge=2)  # max_tokens of an answer


class Evaluate(Strict):
    abilities: list[Ability] = []
    arms: list[Arm] = ["teacher", "before", "after"]
    models: dict[str, Compared] = {}  # others to compare with, each an arm by its name
    teacher: str | None = None
    held_out_text: str | None = None  # a JSONL file with `text`: perplexity on it
    cost_of_use: CostOfUse | None = None
    margin: float = Field(0.05, gt=0, lt=1)  # a smaller loss than this counts as nothing lost
    sampling: SamplingDict = {"temperature": 0.0, "max_tokens": 256}
    in_context: InContext | None = None
    chain_of_thought: ChainOfThought | None = None
    instruction_following: InstructionFollowing | None = None
    suite: Suite | None = None

    @model_validator(mode="after")
    def _names_of_models(self) -> Evaluate:
        for name in self.models:
            if name in ARMS or name.startswith(TRAINED) or not re.fullmatch(NAME, name):
                raise ValueError(
                    f"models: {name!r} cannot be the name of one; a letter or a digit, then also "
                    f"_ . and -; none of {', '.join(ARMS)}, or with {', '.join(TRAINED)} before it"
                )
        twice = {arm for arm in self.arms if self.arms.count(arm) > 1}
        if twice:
            raise ValueError(f"arms: {', '.join(sorted(twice))} is there twice")
        return self

    @property
    def all_arms(self) -> list[Arm]:
        """`arms`, and the other models, whether `arms` names their place or not."""
        return [*self.arms, *(name for name in self.models if name not in self.arms)]

    @model_validator(mode="after")
    def _abilities_have_items(self) -> Evaluate:
        if twice := sorted({name for name in self.abilities if self.abilities.count(name) > 1}):
            raise ValueError(f"abilities: {', '.join(twice)} is there twice; name each once")
        for ability in self.abilities:
            if getattr(self, ability) is None:
                raise ValueError(
                    f"abilities names {ability}, but there is no `evaluate.{ability}:` table "
                    "that says which items to use (configs/quickstart.yaml has one to copy)"
                )
        if self.cost_of_use is not None and not self.abilities:
            raise ValueError(
                "cost_of_use asks questions of the evaluation, and `abilities` names none; add "
                "one with its table, or leave cost_of_use out"
            )
        return self
