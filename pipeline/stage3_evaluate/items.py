"""The evaluation's items: loaded once here, for asking and for the contamination check alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.config import Config, SeedSource
from pipeline.config_evaluate import Evaluate
from pipeline.records import Seed
from pipeline.stage1_generate.seeds import load_seeds
from pipeline.stage3_evaluate.ifeval import load_ifeval
from pipeline.stage3_evaluate.labelled_texts import task_items


def named_sources(evaluate: Evaluate) -> list[tuple[str, str, SeedSource]]:
    """(ability, name of the set, source) of everything that is measured."""
    found: list[tuple[str, str, SeedSource]] = []
    if "in_context" in evaluate.abilities and evaluate.in_context:
        found += [("in_context", t.name, t.items) for t in evaluate.in_context.tasks]
    if "chain_of_thought" in evaluate.abilities and evaluate.chain_of_thought:
        problems = evaluate.chain_of_thought
        found.append(("chain_of_thought", "problems", problems.items))
        found += [("chain_of_thought", f"beyond={k}", s) for k, s in problems.beyond.items()]
    if "instruction_following" in evaluate.abilities and (table := evaluate.instruction_following):
        sets = {"seen_types": table.seen_types, "unseen_types": table.unseen_types}
        if table.ifeval is not None:
            sets["ifeval"] = SeedSource(path=table.ifeval.path, n=table.ifeval.n)
        found += [("instruction_following", k, s) for k, s in sets.items() if s is not None]
    return found


def item_sources(evaluate: Evaluate) -> list[SeedSource]:
    """Where items come from, and the shots of in-context items."""
    tasks = evaluate.in_context.tasks if evaluate.in_context else []
    pools = [task.pool for task in tasks if task.pool] if "in_context" in evaluate.abilities else []
    return [*(source for _, _, source in named_sources(evaluate)), *pools]


def load_items(config: Config, ability: str, name: str) -> list[Seed]:
    """Items of one set, as seeds; the same for every arm."""
    if ability == "in_context" and config.evaluate.in_context:
        for task in config.evaluate.in_context.tasks:
            if task.name == name:
                return task_items(config, task).items
    for found, set_name, source in named_sources(config.evaluate):
        if (found, set_name) == (ability, name):
            if name == "ifeval":
                return ifeval_items(config)
            return load_seeds(source, f"{ability}/{name}", config.seed)
    raise KeyError((ability, name))


def ifeval_items(config: Config) -> list[Seed]:
    """The prompts of a file in IFEval's form; its errata are not in a `SeedSource`."""
    table = config.evaluate.instruction_following
    assert table is not None and table.ifeval is not None
    return load_ifeval(Path(table.ifeval.path), table.ifeval.n, errata=table.ifeval.errata)


def evaluation_items(config: Config) -> Iterator[Seed]:
    """Every item of every set, for the contamination check."""
    for ability, name, _ in named_sources(config.evaluate):
        yield from load_items(config, ability, name)
