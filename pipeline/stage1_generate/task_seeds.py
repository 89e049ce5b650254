"""The seeds of the tasks as a run uses them, in 0_seeds.jsonl.

They come from files, generators, hubs and other runs, or from what an earlier task's answers hold
(`seeds: {from: TASK}`). The latter are known when that task is answered; so a run asks its tasks
in waves, and each wave's seeds are written behind those of the waves before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.config import Config, Task
from pipeline.config_tasks import RunSeeds
from pipeline.errors import UserError
from pipeline.records import (
    Decision,
    Finish,
    Generation,
    Request,
    Seed,
    digest,
    read_jsonl,
    write_jsonl,
)
from pipeline.stage1_generate.curate.against import contamination_filter
from pipeline.stage1_generate.curate.judge import (
    common_filters,
    filters_of,
    judged,
    looks_back,
    unsafe,
)
from pipeline.stage1_generate.recipes import (
    Lost,
    hook,
    recipe_identity,
    recipe_named,
    wants_seeds,
)
from pipeline.stage1_generate.seeds import read_seeds, seed_of_row
from pipeline.stage1_generate.split import Split
from pipeline.stage1_generate.used import RUNS, UsedRow, candidates
from pipeline.steps import stamp_of


def waves(config: Config) -> list[list[Task]]:
    """The tasks in the order in which they can be asked: each after the one it comes from."""
    depth: dict[str, int] = {}
    for task in config.tasks:  # a task's source stands before it, or the config is refused
        source = task.seeds.from_task
        depth[task.name] = 0 if source is None else depth[source] + 1
    found: list[list[Task]] = [[] for _ in range(max(depth.values()) + 1)]
    for task in config.tasks:
        found[depth[task.name]].append(task)
    return found


class Derived(msgspec.Struct):
    """What a task's answers came to as seeds of another."""

    seeds: int = 0
    lost: dict[str, int] = {}


def seeds_of(config: Config, task: Task, derived: Iterable[Seed] = ()) -> Iterator[Seed]:
    """A task's seeds, each as its recipe wants it; `derived` are those of its `from`."""
    recipe = recipe_named(task.recipe)
    sources: list[Iterable[Seed]] = []
    if task.seeds.run is not None:
        sources.append(_seeds_of_run(task))
    elif task.seeds.from_task is None or task.seeds.path is not None:
        sources.append(read_seeds(task.seeds, task.name, config.seed))
    seeds: Iterator[Seed] = chain(*sources, derived)
    if arrange := hook(recipe, "arrange", task.options):
        seeds = arrange(seeds)
    prepare = hook(recipe, "prepare", task.options)
    for number, seed in enumerate(seeds):
        yield prepare(seed, number) if prepare else seed


def count_seeds(config: Config, task: Task) -> int:
    """How many seeds a task has; of JSON lines about so many, by their line ends."""
    source, recipe = task.seeds, recipe_named(task.recipe)
    plain = source.path is not None and source.where is None and not hasattr(recipe, "arrange")
    if not plain or not str(source.path).endswith(".jsonl"):
        return sum(1 for _ in seeds_of(config, task))
    lines = 0
    with Path(str(source.path)).open("rb") as file:
        while block := file.read(1 << 20):
            lines += block.count(b"\n")
    return lines if source.n is None else min(lines, source.n)


def write_seeds(config: Config, wave: int) -> dict[str, Derived]:
    """0_seeds.jsonl with the seeds of all waves up to `wave`; what was derived, by task.

    The first wave's are not written again where they were made from the same files in the same way.
    """
    path, marker = config.run_dir / "0_seeds.jsonl", config.run_dir / ".requests" / "seeds.json"
    found: dict[str, Derived] = {}
    if wave:
        before = read_jsonl(path, msgspec.Raw)
        tasks = waves(config)[wave]
        new = (
            seed for task in tasks for seed in seeds_of(config, task, _derived(config, task, found))
        )
        write_jsonl(path, chain(before, new))
        for task in tasks:
            if not found[task.name].seeds and task.seeds.path is None:
                _refuse_nothing(task, found[task.name])
        return found
    tasks = waves(config)[0]
    files = [Path(task.seeds.path) for task in tasks if task.seeds.path]
    made_from: list[Any] = [
        [task.name, recipe_identity(task.recipe), task.options, task.seeds.described()]
        for task in tasks
    ]
    made_from += [stamp_of(file).sha256 for file in files]
    if len(files) == len(config.tasks) and path.is_file() and marker.is_file():
        written, _ = msgspec.json.decode(marker.read_bytes(), type=tuple[str, int])
        if written == digest([made_from, stamp_of(path).sha256]):
            return found
    count = write_jsonl(path, (s for task in tasks for s in seeds_of(config, task)))
    # Whole or not at all: a start that finds half of it could not go on.
    write_jsonl(marker, [(digest([made_from, stamp_of(path).sha256]), count)])
    return found


def stored_seeds(config: Config, task: Task, left_out: Any = None) -> Iterator[tuple[int, Seed]]:
    """A task's seeds as a run wrote them down, numbered; not those that `left_out` says."""
    glance, decoder = msgspec.json.Decoder(SeedTask), msgspec.json.Decoder(Seed)
    number = -1
    with (config.run_dir / "0_seeds.jsonl").open("rb") as file:
        for line in file:
            if glance.decode(line).task == task.name:
                number += 1
                if left_out is None or number >= len(left_out) or not left_out[number]:
                    yield number, decoder.decode(line)


class SeedTask(msgspec.Struct, frozen=True):
    """All of a seed's line that counting needs."""

    task: str


def used_path(config: Config, wave: int) -> Path:
    """The answers that a wave uses, before the whole run's are known."""
    return config.run_dir / ".requests" / f"used-{wave}.jsonl"


def _derived(config: Config, task: Task, found: dict[str, Derived]) -> Iterator[Seed]:
    """The seeds that the answers of the task's `from` hold; what was lost is counted in `found`."""
    counts = found[task.name] = Derived()
    name = task.seeds.from_task
    assert name is not None
    source = config.task_named(name)
    harvest = hook(recipe_named(source.recipe), "harvest", source.options)
    answers = _answers(config, source, task.seeds.rows or "kept")
    if harvest is None or task.seeds.rows not in (None, "kept"):
        rows = _as_they_are(answers)
    elif wants_seeds(harvest):
        rows = harvest(answers, seeds=(seed for _, seed in stored_seeds(config, source)))
    else:
        rows = harvest(answers)
    number = 0
    for row in rows:
        if isinstance(row, Lost):
            counts.lost[row.reason] = counts.lost.get(row.reason, 0) + 1
            continue
        if task.seeds.n is not None and number >= task.seeds.n:
            return
        yield seed_of_row({"id": f"{name}-{number}"} | row, task.name, f"{name} #{number}")
        number += 1
        counts.seeds = number


def _answers(
    config: Config, source: Task, wanted: Literal["kept", "dropped", "all"]
) -> Iterator[tuple[Seed, Request, Generation]]:
    """The answers of a task that its filters keep, or drop, or all; rows that failed are none."""
    wave = next(i for i, tasks in enumerate(waves(config)) if source in tasks)

    def rows() -> Iterator[tuple[Task, Any]]:
        every = read_jsonl(used_path(config, wave), UsedRow)
        return candidates(config, (row for row in every if row.task == source.name))

    against = contamination_filter(config)
    checks = filters_of(config, source, common_filters(config), against)
    # What other tasks will say of these answers is not known yet.
    now = [check for check in checks if not hasattr(check, "load")]
    if wanted == "dropped":  # a duplicate of a good answer is no bad one
        now = [check for check in now if not looks_back(check) and check is not against]
    if wanted == "all":
        now = []
    keeps = wanted != "dropped"
    for found in judged(rows, {source.name: now}):
        row = found.row
        fits = (found.verdict.decision is Decision.KEEP) == keeps
        if not fits or row.generation.finish is Finish.ERROR or unsafe(row, checks):
            continue
        # Nothing may be bred from an item of the evaluation, whatever else was wrong with it.
        if wanted == "dropped" and against and against(row).decision is Decision.DROP:
            continue
        yield row.seed, row.request, row.generation


def _as_they_are(
    answers: Iterator[tuple[Seed, Request, Generation]],
) -> Iterator[dict[str, Any] | Lost]:
    """Each answer as a seed: its own seed's fields, and the answer in `response`."""
    for seed, request, generation in answers:
        row = {key: value for key, value in seed.fields.items() if key != "source_request"}
        yield row | {
            "id": f"{seed.id}/{request.id[:12]}",
            "answer": seed.reference,
            "constraints": msgspec.to_builtins(seed.constraints),
            "response": generation.text.strip(),
            "reasoning": generation.reasoning or "",
            "source_seed": seed.id,
            "source_request": request.id,
        }


def _refuse_nothing(task: Task, found: Derived) -> None:
    reasons = "; ".join(f"{reason} ({n})" for reason, n in found.lost.items())
    raise UserError(
        f"task {task.name}: no answer of {task.seeds.from_task} was "
        f"{task.seeds.rows or 'kept'}, so it has no seeds"
        + (f"; what was not taken: {reasons}" if reasons else "")
        + ". The answers are stored; loosen the filters of that task, or ask it for more"
    )


def _seeds_of_run(task: Task) -> Iterator[Seed]:
    """The seeds that another run wrote down, of the side of its split that is wanted."""
    from pipeline.config import load_config

    source = task.seeds
    assert source.run is not None
    wanted = msgspec.convert(source.options, RunSeeds)
    folder = RUNS / source.run
    if not (folder / "0_seeds.jsonl").is_file():
        raise UserError(
            f"tasks.{task.name}.seeds.run: {folder} has no seeds; the run {source.run} must have "
            "been made before (`distill run` with its config)"
        )
    other = load_config(folder / "config.yaml")
    if wanted.task is not None and wanted.task not in [t.name for t in other.tasks]:
        raise UserError(
            f"tasks.{task.name}.seeds.task: run {source.run} has no task {wanted.task!r}; it has: "
            + ", ".join(t.name for t in other.tasks)
        )
    split = Split(folder / "0_seeds.jsonl", other.seed, other.curate.validation_share)
    count = 0
    for seed in read_jsonl(folder / "0_seeds.jsonl", Seed):
        if wanted.task not in (None, seed.task):
            continue
        held = split.in_validation(seed.id)
        if wanted.split != "all" and held != (wanted.split == "validation"):
            continue
        count += 1
        if source.n is not None and count > source.n:
            return
        name = seed.id if wanted.task is not None else f"{seed.task}/{seed.id}"
        origin = f"run {source.run}: {seed.origin}"
        yield msgspec.structs.replace(seed, id=name, task=task.name, origin=origin)
    if not count:
        raise UserError(
            f"tasks.{task.name}.seeds: run {source.run} has no seeds of "
            f"{wanted.task or 'any task'} in its split {wanted.split}"
        )
