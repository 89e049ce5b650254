"""The evaluation's items: loaded once here, for asking and for the contamination check alike."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import Config, SeedSource
from pipeline.config_evaluate import Evaluate
from pipeline.records import Seed
from pipeline.stage1_generate.seeds import load_seeds


def named_sources(evaluate: Evaluate) -> list[tuple[str, str, SeedSource]]:
    """(ability, name of the set, source) of everything that is measured."""
    found: list[tuple[str, str, SeedSource]] = []
    if "in_context" in evaluate.abilities and evaluate.in_context:
        found += [("in_context", t.name, t.items) for t in evaluate.in_context.tasks]
    if "chain_of_thought" in evaluate.abilities and evaluate.chain_of_thought:
        found.append(("chain_of_thought", "problems", evaluate.chain_of_thought.items))
    if "instruction_following" in evaluate.abilities and (table := evaluate.instruction_following):
        found.append(("instruction_following", "seen_types", table.seen_types))
        found.append(("instruction_following", "unseen_types", table.unseen_types))
    return found


def item_sources(evaluate: Evaluate) -> list[SeedSource]:
    return [source for _, _, source in named_sources(evaluate)]


def load_items(config: Config, ability: str, name: str) -> list[Seed]:
    """Items of one set, as seeds; the same for every arm."""
    for found, set_name, source in named_sources(config.evaluate):
        if (found, set_name) == (ability, name):
            return load_seeds(source, f"{ability}/{name}", config.seed)
    raise KeyError((ability, name))


def evaluation_items(config: Config) -> Iterator[Seed]:
    """Every item of every set, for the contamination check."""
    for ability, name, _ in named_sources(config.evaluate):
        yield from load_items(config, ability, name)
