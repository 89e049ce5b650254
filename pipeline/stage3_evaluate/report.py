"""Step `report`: the files of a run folder -> 7_report.html and 7_report.md."""

from __future__ import annotations

import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec

from pipeline.stage1_generate.curate.funnel import Funnel
from pipeline.stage3_evaluate import report_view
from pipeline.stage3_evaluate.page import page_html, write_text
from pipeline.stage3_evaluate.report_chain_of_thought import (
    GainTable,
    gain_table,
    reasoning_charts,
)
from pipeline.stage3_evaluate.report_changes import Matrix, matrix
from pipeline.stage3_evaluate.report_costs import CostTable, cost_table
from pipeline.stage3_evaluate.report_curation import CurationTable, curation_tables
from pipeline.stage3_evaluate.report_data import RunFiles, read_run
from pipeline.stage3_evaluate.report_in_context import CurveTable, curve_table, in_context_charts
from pipeline.stage3_evaluate.report_instruction_following import constraint_charts
from pipeline.stage3_evaluate.report_markdown import markdown
from pipeline.stage3_evaluate.report_paid import Shown, paid_charts
from pipeline.stage3_evaluate.report_samples import Samples, choose, safe
from pipeline.stage3_evaluate.report_view import Card, Chart, Figure, Table

MAX_BYTES = 5_000_000
SAMPLES = 120  # texts of each kind; fewer when the page would grow past MAX_BYTES


class Bar(msgspec.Struct, frozen=True):
    """A line of the funnel; `stay` and `go` are widths out of 1000."""

    name: str
    stay: int
    go: int
    count: str
    why: str


class StepRow(msgspec.Struct, frozen=True):
    name: str
    time: str
    tokens_in: str
    tokens_out: str
    cost: str
    counts: str


class Page(msgspec.Struct, frozen=True):
    """Everything the templates may use."""

    name: str
    headline: str
    facts: list[tuple[str, str]]
    arms: list[str]
    cards: list[Card]
    notes: list[str]
    matrix: Matrix | None
    costs: CostTable | None
    charts: list[Chart]
    curves: CurveTable | None
    gains: GainTable | None
    tables: list[Table]
    funnel: Funnel | None
    bars: list[Bar]
    curation: list[CurationTable]
    losses: list[Figure]
    speed: str  # of training
    steps: list[StepRow]
    samples: Samples
    about: list[tuple[str, str]]
    config: str


def write_report(run: Path) -> tuple[Path, Path]:
    """Write and return (7_report.html, 7_report.md) of a run folder.

    Parts whose files are missing are said to be missing. Raises `UserError` for a folder that
    is not there or a file that is damaged.
    """
    files = read_run(run)
    limit = SAMPLES
    while True:
        page = _page(files, choose(files, limit))
        text = page_html("report.html.jinja", page)
        if len(text.encode("utf-8", "replace")) < MAX_BYTES or limit == 0:
            break
        limit //= 2
    hidden = files.secrets
    plain = markdown(page)
    return (
        write_text(run / "7_report.html", text, hidden),
        write_text(run / "7_report.md", plain, hidden),
    )


def _page(run: RunFiles, samples: Samples) -> Page:
    return Page(
        name=run.name,
        headline=report_view.headline(run),
        facts=_facts(run),
        arms=run.scores.arms if run.scores else [],
        cards=report_view.cards(run),
        notes=run.scores.notes if run.scores else [],
        matrix=matrix(run),
        costs=cost_table(run),
        charts=[
            *in_context_charts(run),
            *report_view.score_charts(run),
            *reasoning_charts(run),
            *constraint_charts(run),
            *paid_charts([Shown(run, "after", "after")]),
        ],
        curves=curve_table(run),
        gains=gain_table(run),
        tables=report_view.tables(run),
        funnel=run.funnel,
        bars=_bars(run.funnel) if run.funnel else [],
        curation=curation_tables(run),
        losses=report_view.loss_charts(run),
        speed=_training_speed(run),
        steps=_steps(run),
        samples=samples,
        about=_about(run),
        config=_yaml(run.config),
    )


def _bars(funnel: Funnel) -> list[Bar]:
    whole = max(1, funnel.asked)

    def wide(rows: int) -> int:
        return round(1000 * rows / whole)

    unanswered = funnel.asked - funnel.answered
    found = [Bar("asked", wide(funnel.answered), wide(unanswered), f"{funnel.asked:,}", "")]
    if unanswered:
        found[0] = msgspec.structs.replace(found[0], why=f"{unanswered:,} without an answer")
    for stage in funnel.stages:
        if stage.into == 0:
            continue
        reasons = sorted(stage.reasons.items(), key=lambda item: -item[1])
        found.append(
            Bar(
                name=stage.filter.replace("_", " "),
                stay=wide(stage.into - stage.dropped),
                go=wide(stage.dropped),
                count=f"−{stage.dropped:,}" if stage.dropped else "0",
                why=", ".join(f"{safe(reason, (), 120)}: {n:,}" for reason, n in reasons[:6]),
            )
        )
    return [*found, Bar("kept", wide(funnel.kept), 0, f"{funnel.kept:,}", "")]


def _steps(run: RunFiles) -> list[StepRow]:
    rows = [
        StepRow(
            name=step.step,
            time=report_view.duration(step.seconds),
            tokens_in=f"{step.tokens.input:,}" if step.tokens.input else "–",
            tokens_out=f"{step.tokens.output:,}" if step.tokens.output else "–",
            cost="–" if step.cost_usd is None else f"{step.cost_usd:.4f}".rstrip("0").rstrip("."),
            counts=", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in step.counts.items()),
        )
        for step in run.steps
    ]
    if len(rows) > 1:
        costs = [step.cost_usd for step in run.steps if step.cost_usd is not None]
        rows.append(
            StepRow(
                name="all",
                time=report_view.duration(sum(step.seconds for step in run.steps)),
                tokens_in=f"{sum(step.tokens.input for step in run.steps):,}",
                tokens_out=f"{sum(step.tokens.output for step in run.steps):,}",
                cost=f"{sum(costs):.4f}".rstrip("0").rstrip(".") if costs else "–",
                counts="",
            )
        )
    return rows


def _about(run: RunFiles) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if run.scores is not None:
        found.append(("answer reader", f"version {run.scores.extractor}, the same for every arm"))
        found.append(
            (
                "statistics",
                "intervals at 95%: Wilson for shares, else bootstrap over items (5,000 draws); "
                "test: exact McNemar, or sign-flip permutation for averaged items; Holm over "
                f"{len(run.scores.comparisons)} comparisons; detectable change at power 0.8",
            )
        )
    for step in reversed(run.steps):
        found += [(name, version) for name, version in step.versions.items()]
        found += [("git commit", step.git_commit)] if step.git_commit else []
        found += [("machine", step.machine)] if step.machine else []
        found += [("finished", step.finished_at)] if step.finished_at else []
        break
    return found or [("versions", "not recorded: no step has finished")]


def _yaml(config: dict[str, Any]) -> str:
    from ruamel.yaml import YAML

    if not config:
        return ""
    out = StringIO()
    yaml = YAML()
    yaml.width = 100
    yaml.dump(config, out)
    return safe(out.getvalue(), (), 40_000)


def _facts(run: RunFiles) -> list[tuple[str, str]]:
    """What a colleague asks first: who taught whom, when, on what, how long, for how much."""
    found: list[tuple[str, str]] = []
    teachers = run.config.get("teachers") or {"": run.config.get("teacher") or {}}
    names = [str(t["model"]) for t in teachers.values() if isinstance(t, dict) and "model" in t]
    if names:
        found.append(("teacher", ", ".join(names)))
    student = run.config.get("student")
    if isinstance(student, dict) and "model" in student:
        found.append(("student", str(student["model"])))
    if run.funnel is not None:
        found.append(("training rows", f"{run.funnel.kept:,} kept of {run.funnel.asked:,} asked"))
    if run.steps:
        found.append(("time", report_view.duration(sum(step.seconds for step in run.steps))))
        costs = [step.cost_usd for step in run.steps if step.cost_usd is not None]
        if any(costs):
            found.append(("cost", f"{sum(costs):,.4f} USD"))
        machine = next((step.machine for step in reversed(run.steps) if step.machine), "")
        if machine:
            found.append(("machine", machine))
        found.append(("finished", _date(run.steps[-1].finished_at)))
    return found


def _training_speed(run: RunFiles) -> str:
    """How fast the student was trained, and with how much of the machine; empty: not known."""
    notes = next((step.notes for step in run.steps if step.step == "train"), {})
    if not notes.get("tokens_per_second"):
        return ""
    return (
        f"{notes['tokens_per_second']:,.0f} tokens per second, {notes['mfu']:.0%} of the machine's "
        f"{notes['mfu_of']} used by the model's operations, {notes['memory_gb']:.1f} GB of memory."
    )


def _date(stamp: str) -> str:
    try:
        return datetime.datetime.fromisoformat(stamp).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return stamp
