"""One part of a step, as a command of its own: `generate --shard 3/16`, `evaluate --arm before`.

A part asks its own requests and stores the answers in the ledger; of the run's own files it writes
none. When all parts are done, the plain command (or with --gather, which asks nothing) takes the
step to its end. Parts run in any order, at once, twice; a launcher only decides where.
"""

from __future__ import annotations

import os
import secrets
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
from pipeline.steps import State, Step, identity_of, state


def run_shard(path: Path, overrides: Sequence[str], shard: str) -> int:
    """`distill generate CONFIG --shard 3/16`."""
    mine = shard_of(shard)
    config = checked_config(path, overrides)
    unit = Unit("generate", mine.number, mine.of)
    return _run(config, unit, lambda at_work: ask_shard(config, mine, at_work.watch))


def run_arm(path: Path, overrides: Sequence[str], arm: str, *, weights: bool = True) -> int:
    """`distill evaluate CONFIG --arm before`; without `weights`, what no weights are opened for."""
    config = checked_config(path, overrides)
    known = config.evaluate.all_arms
    if arm not in known:
        raise UserError(f"--arm {arm}: evaluate.arms has {', '.join(known)}")
    unit = Unit("evaluate", arm=arm)
    return _run(config, unit, lambda at_work: _ask_arm(config, arm, at_work, weights))


def _ask_arm(config: Config, arm: str, at_work: Beating, weights: bool) -> None:
    """Its answers go to the ledger; its suite and texts to launch/arms/ until they are taken."""
    from pipeline.stage3_evaluate import harness, held_out_text

    kinds = {step.name for step in _to_do(config, "evaluate")}
    if "evaluate" in kinds:
        ask_one_arm(config, arm, at_work.watch)
    if "text" in kinds and weights:
        held_out_text.measure_arm(config, arm)
    if "suite" in kinds and (weights or not harness.opens_weights(config)):
        harness.suite_of_arm(config, arm, at_work.watch)


def _to_do(config: Config, command: str) -> list[Step]:
    return [s for s in parts_of(all_steps(config), command) if state(s) is not State.DONE]


def _run(config: Config, unit: Unit, work: Callable[[Beating], None]) -> int:
    stopping.install()
    if not _to_do(config, unit.command):
        print(f"{unit.command}: done already")
        return DONE
    steps = parts_of(all_steps(config), unit.command)
    for step in steps:
        _check_inputs(step)
    identity = identity_of_parts(steps)
    with beating(config.run_dir, unit, identity, config.execution.grace_seconds) as at_work:
        _save_config_once(config)
        print(f"{unit.words}: starting", flush=True)
        work(at_work)
    done = at_work.status
    tokens = done.input_tokens + done.output_tokens
    starts = f" in {done.starts} starts" if done.starts > 1 else ""
    print(f"{unit.words}: done ({done.done:,} rows, {done.new:,} new, {tokens:,} tokens{starts})")
    return DONE


def parts_of(steps: Sequence[Step], command: str) -> list[Step]:
    """The steps that the parts of a command do."""
    kinds = ("evaluate", "text", "suite") if command == "evaluate" else (command,)
    return [step for step in steps if step.name in kinds]


def identity_of_parts(steps: Sequence[Step]) -> str:
    """What a part did counts only for these."""
    found = [identity_of(step) for step in steps]
    return found[0] if len(found) == 1 else digest(found, 32)


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
    partial = config.run_dir / f".config-{secrets.token_hex(8)}.yaml"
    save_config(config, partial)
    os.replace(partial, path)
