"""Step `evaluate`: the same items to every arm -> 5_answers/<arm>/<ability>.jsonl.

Step `score`: saved answers -> 6_scores.json. Scoring needs no model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from pipeline.config import Config, ModelConfig
from pipeline.config_evaluate import Arm, Evaluate
from pipeline.errors import UserError
from pipeline.models import model_identity
from pipeline.models.ask import Spending, cost_of
from pipeline.progress import Progress
from pipeline.prompts import load_prompt
from pipeline.records import (
    Answer,
    Finish,
    Request,
    Seed,
    Usage,
    read_jsonl,
    write_jsonl,
)
from pipeline.stage3_evaluate import (
    chain_of_thought,
    held_out_text,
    ifeval,
    in_context,
    instruction_following,
)
from pipeline.stage3_evaluate.answers import EXTRACTOR_VERSION
from pipeline.stage3_evaluate.arms import (
    arm_model,
    ask_all,
    identities,
    price_of,
    trained_folder,
)
from pipeline.stage3_evaluate.harness_scores import saved_suite
from pipeline.stage3_evaluate.items import item_sources, load_items, named_sources
from pipeline.stage3_evaluate.questions import Question
from pipeline.stage3_evaluate.score import score
from pipeline.stage3_evaluate.served_arms import asked_of_servers
from pipeline.steps import Step, StepResult, records

ABILITIES: dict[str, ModuleType] = {
    "in_context": in_context,
    "chain_of_thought": chain_of_thought,
    "instruction_following": instruction_following,
}


def step(config: Config) -> Step:
    evaluate, run = config.evaluate, config.run_dir
    tables: dict[str, Any] = {}
    for ability in evaluate.abilities:
        table = getattr(evaluate, ability)
        tables[ability] = _with_hashes(table.model_dump(mode="json", exclude_none=True))
    trained = [trained_folder(config, arm) for arm in evaluate.all_arms]
    files = [Path(s.path) for s in item_sources(evaluate) if s.path]
    return Step(
        name="evaluate",
        run=run,
        settings={
            "seed": config.seed,
            "sampling": evaluate.sampling,
            "arms": evaluate.all_arms,
            "models": identities(config),
            "abilities": tables,
            "extractor": EXTRACTOR_VERSION,
            **_foreign_checks(evaluate),
        },
        inputs=[*(folder for folder in trained if folder is not None), *files],
        outputs=[run / "5_answers"],
        work=lambda: run_arms(config),
    )


def _foreign_checks(evaluate: Evaluate) -> dict[str, str]:
    """The version of the code that reads answers to IFEval."""
    table = evaluate.instruction_following
    used = "instruction_following" in evaluate.abilities and table and table.ifeval
    return {"lm_eval": ifeval.lm_eval_version()} if used else {}


def _with_hashes(settings: dict[str, Any]) -> dict[str, Any]:
    """A table of the config with the hash of each prompt in place of its path."""
    found = dict(settings)
    for key, value in settings.items():
        if key.endswith("prompt"):
            found[key] = load_prompt(value).ref.hash
        elif key == "tasks":
            found[key] = [_with_hashes(task) for task in value]
    return found


def score_step(config: Config) -> Step:
    run = config.run_dir
    suite = [run / "5_suite"] if config.evaluate.suite else []
    return Step(
        name="score",
        run=run,
        settings={
            "seed": config.seed,
            "arms": config.evaluate.all_arms,
            "margin": config.evaluate.margin,
        },
        inputs=[
            run / "5_answers",
            *suite,
            *([run / held_out_text.FOLDER] if config.evaluate.held_out_text else []),
        ],
        outputs=[run / "6_scores.json"],
        work=lambda: score_answers(config),
    )


def report_step(config: Config) -> Step:
    run = config.run_dir
    return Step(
        name="report",
        run=run,
        settings={},
        inputs=[run / name for name in ("2_funnel.json", "2_kept.jsonl", "6_scores.json")],
        outputs=[run / "7_report.html", run / "7_report.md"],
        work=lambda: _report(run),
    )


def _report(run: Path) -> StepResult:
    from pipeline.stage3_evaluate.report import write_report

    write_report(run)
    return StepResult()


def check_items(config: Config) -> None:
    """Everything about the evaluation's items that can be wrong before anything is asked."""
    evaluate = config.evaluate
    for ability, name, _ in named_sources(evaluate):
        for item in load_items(config, ability, name):
            lacks = [what for what, has in NEEDED[ability].items() if not has(item)]
            if lacks:
                raise UserError(
                    f"evaluate.{ability}, {name}: item {item.id} ({item.origin}) has no "
                    f"{' and no '.join(lacks)}; every item of this ability needs one"
                )
    if evaluate.in_context is not None and not evaluate.in_context.shots:
        raise UserError("evaluate.in_context.shots is empty; give numbers, as in [0, 2, 8]")
    if evaluate.held_out_text:
        held_out_text.documents(Path(evaluate.held_out_text))
    for arm in ("teacher", "before"):
        for _ in questions_of(config, arm):  # renders every prompt
            pass


NEEDED: dict[str, dict[str, Callable[[Seed], bool]]] = {
    "in_context": {"answer": lambda item: item.reference is not None},
    "chain_of_thought": {"answer": lambda item: bool(item.reference)},
    "instruction_following": {"constraints": lambda item: bool(item.constraints)},
}


def questions_of(config: Config, arm: Arm) -> Iterator[Question]:
    for ability in config.evaluate.abilities:
        yield from ABILITIES[ability].questions(config, arm)


def run_arms(config: Config, *, gather: bool = False) -> StepResult:
    """Ask every arm what the ledger lacks, then write all answers.

    `gather`: ask nothing; a `UserError` where something is missing.
    """
    partial = config.run_dir / "5_answers.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    spending = spent_before(config)
    usage, cost, asked = Usage(), 0.0, 0
    failed: list[str] = []
    for arm in config.evaluate.all_arms:
        model = arm_model(config, arm)
        # A row that failed for good is no reason to wait for servers that have ended.
        taken = gather or asked_of_servers(config, arm)
        answers, spent, new = ask_arm(config, arm, model, spending, failed, gather=taken)
        for ability in config.evaluate.abilities:
            rows = [a for a in answers if a.ability == ability]
            write_jsonl(partial / arm / f"{ability}.jsonl", rows)
        asked += new
        usage = Usage(usage.input + spent.input, usage.output + spent.output)
        cost += cost_of(spent, price_of(config, arm))
    final = config.run_dir / "5_answers"
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    return StepResult(
        counts={"new": asked} | ({"errors": len(failed)} if failed else {}),
        tokens=usage,
        cost_usd=round(cost, 6),
        notes={"failed_requests": failed} if failed else {},
    )


def spent_before(config: Config) -> Spending:
    """The budget is for what the teacher is paid, here and while it generated."""
    before = records(config.run_dir).get("generate")
    spending = Spending(config.budget)
    if before is not None:
        spending.start_from(before.tokens, before.cost_usd or 0.0)
    return spending


def ask_arm(
    config: Config,
    arm: Arm,
    chosen: ModelConfig,
    spending: Spending,
    failed: list[str],
    *,
    gather: bool = False,
) -> tuple[list[Answer], Usage, int]:
    """(answers of `chosen`, token use of all of them, how many were asked now).

    The arm says which questions: a teacher has prompts of its own.

    A failed row is no wrong answer: one that may work later stops the step, one that never will
    is left out of every score and goes to `failed`. `gather`: ask nothing.
    """
    questions = asked_of(config, arm, chosen)
    requests = [request for _, request in questions]
    found, new = ask_all(config, arm, chosen, requests, spending, gather=gather)
    answers, usage = [], Usage()
    for question, request in questions:
        generation = found[request.id]
        if generation.finish is Finish.ERROR:
            failed.append(f"{request.id} ({arm}, {question.item.id}): {generation.error}")
            continue
        read: Callable[..., Answer] = ABILITIES[question.ability].read
        answers.append(read(question, generation, arm))
        spent = generation.usage
        usage = Usage(usage.input + spent.input, usage.output + spent.output)
    return answers, usage, new


def asked_of(config: Config, arm: Arm, chosen: ModelConfig) -> list[tuple[Question, Request]]:
    model = model_identity(chosen)
    sample = 1 if arm == "before_again" else 0  # another sample is another request
    return [(q, q.request(model, sample)) for q in questions_of(config, arm)]


def ask_one_arm(config: Config, arm: Arm, watch: Callable[[Progress], None]) -> None:
    """Ask what the ledger lacks of one arm, for another process to write the answers."""
    chosen = arm_model(config, arm)
    requests = [r for _, r in asked_of(config, arm, chosen)]
    # Arms may be asked at once: what two of the same model share belongs to the first.
    for other in config.evaluate.all_arms[: config.evaluate.all_arms.index(arm)]:
        if model_identity(arm_model(config, other)) == model_identity(chosen):
            theirs = {r.id for _, r in asked_of(config, other, chosen)}
            requests = [r for r in requests if r.id not in theirs]
    ask_all(config, arm, chosen, requests, spent_before(config), watch=watch)


def saved_answers(run: Path) -> dict[str, list[Answer]]:
    """Arm -> its answers."""
    found: dict[str, list[Answer]] = {}
    for path in sorted((run / "5_answers").glob("*/*.jsonl")):
        found.setdefault(path.parent.name, []).extend(read_jsonl(path, Answer))
    return found


def score_answers(config: Config) -> StepResult:
    answers = saved_answers(config.run_dir)
    evaluate = config.evaluate
    asked = evaluate.all_arms if evaluate.abilities else []  # else only a suite was asked
    scores = score(answers, arms=asked, seed=config.seed, margin=evaluate.margin)
    if evaluate.held_out_text:
        texts = held_out_text.text_scores(
            held_out_text.saved_rows(config.run_dir),
            evaluate.all_arms,
            seed=config.seed,
            margin=evaluate.margin,
        )
        scores = msgspec.structs.replace(scores, text=texts)
    if evaluate.suite:
        suite = saved_suite(config.run_dir)
        there = {*scores.arms, *(one.model for one in suite)}
        arms = list(dict.fromkeys(a for a in (*evaluate.all_arms, *scores.arms) if a in there))
        scores = msgspec.structs.replace(scores, scores=scores.scores + suite, arms=arms)
    path = config.run_dir / "6_scores.json"
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(scores), indent=2))
    os.replace(partial, path)
    return StepResult(counts={"answers": sum(len(rows) for rows in answers.values())})
