"""The steps in order, and how a command does its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from pipeline import stopping
from pipeline.commands import printable
from pipeline.config import Config, api_key, load_config, save_config, task_arm
from pipeline.config_evaluate import CONTROL, ONLY, SEED
from pipeline.config_train import MAIN, Variant
from pipeline.errors import DONE, FAILED, NAMED, UserError
from pipeline.launch.beating import alone, beating
from pipeline.launch.units import Unit, status_folder
from pipeline.steps import State, Step, StepRecord, forget, run_step, state

# Which steps a command does; `distill run` does the commands in this order.
COMMANDS: dict[str, tuple[str, ...]] = {
    "generate": ("generate",),
    "curate": ("curate", "controls"),
    "train": ("pairs", "train"),
    "evaluate": ("evaluate", "text", "suite", "cost", "score"),
    "report": ("report",),
}


def all_steps(config: Config) -> list[Step]:
    from pipeline.stage1_generate import controls, generate
    from pipeline.stage1_generate.curate import run as curate
    from pipeline.stage2_train import pairs, sft
    from pipeline.stage3_evaluate import cost_of_use, evaluate, harness, held_out_text

    return [
        generate.step(config),
        curate.step(config),
        *([controls.step(config)] if config.curate.controls else []),
        *([pairs.step(config)] if config.train.preference else []),
        sft.step(config),
        *(step for variant in beside_student(config) for step in _training_of(config, variant)),
        evaluate.step(config),
        *([held_out_text.step(config)] if config.evaluate.held_out_text else []),
        *([harness.step(config)] if config.evaluate.suite else []),
        *([cost_of_use.step(config)] if config.evaluate.cost_of_use else []),
        evaluate.score_step(config),
        evaluate.report_step(config),
    ]


def left_out(config: Config) -> dict[str, str]:
    """The steps that this config does not ask for, each with the key that would."""
    asked_by = {
        "controls": ("curate.controls", config.curate.controls),
        "pairs": ("train.preference", config.train.preference),
        "text": ("evaluate.held_out_text", config.evaluate.held_out_text),
        "suite": ("evaluate.suite", config.evaluate.suite),
        "cost": ("evaluate.cost_of_use", config.evaluate.cost_of_use),
    }
    return {step: key for step, (key, value) in asked_by.items() if not value}


def beside_student(config: Config) -> list[Variant]:
    """The other students that the evaluation has an arm for: they are trained with the student."""
    arms = config.evaluate.arms
    controls = [name for name in config.curate.controls if f"{CONTROL}{name}" in arms]
    seeds = [int(arm.removeprefix(SEED)) for arm in arms if arm.startswith(SEED)]
    tasks = [arm.removeprefix(ONLY) for arm in arms if arm.startswith(ONLY)]
    return [
        *(Variant(control=name) for name in controls),
        *(Variant(seed=one) for one in seeds),
        *(Variant(only=task) for task in tasks),
    ]


def steps_of(steps: Sequence[Step], command: str, until: str | None = None) -> list[Step]:
    """Those that a command does, up to `until`; "train --control random" is a step of train."""
    kinds = COMMANDS[command]
    if until in kinds:
        kinds = kinds[: kinds.index(until) + 1]
    return [step for step in steps if step.name.split()[0] in kinds]


def checked_config(path: Path, overrides: Sequence[str], *, keys: bool = True) -> Config:
    """The config, with everything tested that can be tested without opening a model.

    `keys`: also that the environment has the teachers' keys, which another machine may have.
    """
    from pipeline.stage1_generate.checks import check_together
    from pipeline.stage1_generate.curate.judge import common_filters, filters_of
    from pipeline.stage1_generate.generate import check_tasks
    from pipeline.stage3_evaluate.evaluate import check_items

    config = load_config(path, overrides)
    check_tasks(config)
    check_items(config)
    check_together(config)
    for task in config.tasks:
        filters_of(config, task, common_filters(config))
    for name, teacher in config.all_teachers.items():
        place = "teacher" if config.teacher is not None else f"teachers.{name}"
        if keys and teacher.over_http:
            api_key(teacher.serving, place)
    return config


def run_command(
    command: str,
    path: Path,
    overrides: Sequence[str],
    *,
    redo: str | None = None,
    control: str | None = None,
    seed: int | None = None,
    only: str | None = None,
    until: str | None = None,
    gather: bool = False,
) -> int:
    """Do the steps of one command that are missing, up to `until`.

    `control`, `seed` or `only`: train that one, not the student. `gather`: ask no model, take what
    shards have asked.
    """
    stopping.install()
    config = checked_config(path, overrides)
    steps = all_steps(config)
    mine = steps_of(steps, command, until)
    if gather:
        mine = [_gathering(config, step) for step in mine]
    variant = _variant(config, control, seed, only)
    if variant != MAIN:
        steps = _training_of(config, variant)
        mine = steps_of(steps, command, until)
        redo = next((step.name for step in mine if step.name.split()[0] == redo), redo)
    names = [step.name for step in mine]
    allowed = names if variant != MAIN else COMMANDS[command]
    if redo is not None and redo not in allowed:
        raise UserError(f"distill {command} --redo takes {' or '.join(allowed)}; seen {redo}")
    if redo is not None and command == "train":
        from pipeline.stage2_train.check import check_training

        check_training(path, overrides)  # before the old student is gone
    if int(os.environ.get("RANK", "0")) > 0:
        return _follow(mine, redo is not None)
    if any(step.name == "suite" and not step.outputs[0].exists() for step in mine):
        from pipeline.stage3_evaluate import harness

        harness.check_suite(config)  # before anything is asked
    code = DONE
    with alone(config.run_dir), beating(config.run_dir, Unit(command), ""):
        if redo is not None:
            if variant == MAIN:
                redo_from(config, steps, redo)
            else:
                forget(config.run_dir, steps[names.index(redo) :])
        for step in mine:
            if state(step) is State.DONE:
                print(f"{step.name}: done already")
            else:
                # Not earlier: a command that is refused must not change what the run says it is.
                save_config(config, config.run_dir / "config.yaml")
                print(f"{step.name}: starting", flush=True)
                record = run_step(step)
                print(summary(record), flush=True)
                if step.name in ("text", "suite", "cost"):  # named later, new numbers for these
                    later = [one for one in steps if one.name in ("score", "report")]
                    forget(config.run_dir, later)
                if record.notes.get("failed_requests"):
                    # The step is done and what follows can use the rest; the code says that a
                    # person should look.
                    code = FAILED
                    _name_failed(record)
    return code


def _follow(steps: Sequence[Step], redo: bool) -> int:
    """One of several processes that train together: the first keeps the books, this one trains."""
    training = [step for step in steps if step.name.split()[0] == "train"]
    if not training:
        raise UserError(
            "several processes at once are for `distill train` alone; start the other commands "
            "without accelerate or torchrun"
        )
    for step in training:
        if redo or state(step) is State.TO_DO:
            step.work()
    return DONE


def _gathering(config: Config, step: Step) -> Step:
    """The step without asking: what is missing is a mistake of whoever says it is all there."""
    from pipeline.stage1_generate.generate import generate
    from pipeline.stage3_evaluate.evaluate import run_arms
    from pipeline.stage3_evaluate.harness import run_suite
    from pipeline.stage3_evaluate.held_out_text import measure

    works = {"generate": generate, "evaluate": run_arms, "text": measure, "suite": run_suite}
    work = works.get(step.name)
    return msgspec.structs.replace(step, work=partial(work, config, gather=True)) if work else step


def _name_failed(record: StepRecord) -> None:
    failed = record.notes["failed_requests"]
    print(f"{record.counts['errors']} rows failed for good and are left out:", file=sys.stderr)
    for line in failed[:NAMED]:
        print(f"  {printable(line, 300)}", file=sys.stderr)
    if len(failed) > NAMED:
        print("  `distill status` counts the others by reason", file=sys.stderr)


def redo_from(config: Config, steps: list[Step], name: str) -> None:
    """Forget a step and all that follow. What they had written goes; the ledger stays."""
    from pipeline.stage3_evaluate.no_longer_asked import no_longer_asked
    from pipeline.stage3_evaluate.served_arms import ask_servers_again

    if key := left_out(config).get(name):
        raise UserError(f"--redo {name}: {key} is not set, so there is no such step")
    at = [step.name for step in steps].index(name)
    # What follows the controls is their own training, which no other step waits for.
    gone = [steps[at]] if name == "controls" else [*steps[at:], *no_longer_asked(config, name)]
    if any(step.name == "controls" for step in gone):
        for name in config.curate.controls:
            gone = [*gone, *_training_of(config, Variant(name))]
    forget(config.run_dir, gone)
    if any(step.name == "generate" for step in gone):
        for path in status_folder(config.run_dir).glob("generate-*-of-*.json"):
            path.unlink(missing_ok=True)  # a launcher starts a done shard no second time
    if any(step.name == "evaluate" for step in gone):
        ask_servers_again(config)


def _training_of(config: Config, variant: Variant) -> list[Step]:
    """A control has pairs of its own; another seed learns from the student's."""
    from pipeline.stage2_train import pairs, sft

    own_pairs = variant.control is not None and config.train.preference is not None
    made = [pairs.step(config, variant.control)] if own_pairs else []
    return [*made, sft.step(config, variant)]


def _variant(config: Config, control: str | None, seed: int | None, only: str | None) -> Variant:
    if only is not None:
        try:
            task_arm(config, "--only", f"{ONLY}{only}")
        except ValueError as error:
            raise UserError(str(error)) from None
        return Variant(only=only)
    if seed is not None and (seed < 0 or seed == config.training_seed):
        raise UserError(
            f"--seed {seed}: give a whole number other than {config.training_seed}, which is the "
            "seed of 4_student"
        )
    known = config.curate.controls
    for name in known:
        if name == control:
            return Variant(control=name)
    if control is None:
        return Variant(seed=seed)
    raise UserError(
        f"--control {control}: curate.controls has {', '.join(known) or 'none'}; add it there and "
        "type `distill curate` first"
    )


def summary(record: StepRecord) -> str:
    """One line: what a step did, how long it took, what it cost."""
    counts = ", ".join(f"{n:,} {name}" for name, n in record.counts.items())
    tokens = record.tokens.input + record.tokens.output
    parts = [counts] if counts else []
    parts += [f"{tokens:,} tokens"] if tokens else []
    parts += [f"{record.cost_usd:.4f} USD"] if record.cost_usd else []
    return f"{record.step}: done in {record.seconds:.1f} s ({'; '.join(parts)})"
