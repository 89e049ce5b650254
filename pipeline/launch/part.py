"""One part of a step, as a command of its own: `generate --shard 3/16`, `evaluate --arm before`.

A part asks its own requests and stores the answers in the ledger; it writes nothing else of the
run. When all parts are done, the plain command (or with --gather, which asks nothing) takes the
step to its end. Parts run in any order, at once, twice; a launcher only decides where.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import stopping
from pipeline.config import Config, load_config, save_config
from pipeline.errors import DONE, UserError
from pipeline.flow import all_steps, checked_config
from pipeline.launch.beating import Beating, beating
from pipeline.launch.units import Unit
from pipeline.records import digest
from pipeline.stage1_generate.asking import ask_shard, shard_of
from pipeline.stage3_evaluate.evaluate import ask_one_arm
from pipeline.steps import State, Step, stamp_of, state


def run_shard(path: Path, overrides: Sequence[str], shard: str) -> int:
    """`distill generate CONFIG --shard 3/16`."""
    mine = shard_of(shard)
    config = checked_config(path, overrides)
    unit = Unit("generate", mine.number, mine.of)
    return _run(config, unit, lambda at_work: ask_shard(config, mine, at_work.watch))


def run_arm(path: Path, overrides: Sequence[str], arm: str) -> int:
    """`distill evaluate CONFIG --arm before`."""
    config = checked_config(path, overrides)
    known = config.evaluate.all_arms
    if arm not in known:
        raise UserError(f"--arm {arm}: evaluate.arms has {', '.join(known)}")
    unit = Unit("evaluate", arm=arm)
    return _run(config, unit, lambda at_work: ask_one_arm(config, arm, at_work.watch))


def _run(config: Config, unit: Unit, work: Callable[[Beating], None]) -> int:
    stopping.install()
    step = next(s for s in all_steps(config) if s.name == unit.command)
    if state(step) is State.DONE:
        print(f"{unit.command}: done already")
        return DONE
    _check_inputs(step)
    identity = identity_of(step)
    with beating(config.run_dir, unit, identity, config.execution.grace_seconds) as at_work:
        _save_config_once(config)
        print(f"{unit.words}: starting", flush=True)
        work(at_work)
    done = at_work.status
    tokens = done.input_tokens + done.output_tokens
    print(f"{unit.words}: done ({done.done:,} rows, {done.new:,} new, {tokens:,} tokens)")
    return DONE


def identity_of(step: Step) -> str:
    """Of a step's settings and inputs: what a part did counts only for these."""
    return digest([dict(step.settings), [stamp_of(path).sha256 for path in step.inputs]], 32)


def _check_inputs(step: Step) -> None:
    for path in step.inputs:
        if not path.exists():
            raise UserError(
                f"step {step.name} needs {path}, which is not there; the steps before it make it"
            )


def _save_config_once(config: Config) -> None:
    """Every part would write the same file: it is left alone where it says the same."""
    path = config.run_dir / "config.yaml"
    if path.is_file() and load_config(path).model_dump() == config.model_dump():
        return
    partial = config.run_dir / f".config-{os.getpid()}-{digest(str(Path.cwd()), 8)}.yaml"
    save_config(config, partial)
    os.replace(partial, path)
