"""Two runs against each other: their students after training on the items that both were asked.

The statistics are those of a run's report, with the first run's student in the place of before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import UserError
from pipeline.records import Answer
from pipeline.stage3_evaluate import report_view
from pipeline.stage3_evaluate.page import page_html, write_text
from pipeline.stage3_evaluate.report_changes import Matrix, of_trained
from pipeline.stage3_evaluate.report_data import RunFiles, read_run
from pipeline.stage3_evaluate.report_in_context import in_context_charts
from pipeline.stage3_evaluate.report_instruction_following import constraint_charts
from pipeline.stage3_evaluate.report_markdown import comparison_markdown
from pipeline.stage3_evaluate.report_paid import Shown, paid_charts
from pipeline.stage3_evaluate.report_samples import Pair, paired, pairs_of, safe
from pipeline.stage3_evaluate.report_view import Card, Chart, Table, card_of, duration
from pipeline.stage3_evaluate.score import Scores, score
from pipeline.stage3_evaluate.verdicts import Finding
from pipeline.steps import flatten

SAMPLES = 160
WORDS = {
    Finding.DISTILLED: ("▲", "{second} is better"),
    Finding.FORM: ("△", "{second} is better in form only"),
    Finding.HARMED: ("▼", "{second} is worse"),
    Finding.INCONCLUSIVE: ("○", "no clear difference"),
}

Asked = tuple[str, str, str, int, int, int]  # ability, variant, item id; draw, order, sample


class Versus(msgspec.Struct, frozen=True):
    """Everything the template of a comparison may use."""

    names: tuple[str, str]
    headline: str
    cards: list[Card]
    notes: list[str]
    matrix: Matrix | None
    charts: list[Chart]
    tables: list[Table]
    effort_columns: list[str]
    effort: list[list[str]]
    settings: list[tuple[str, str, str]]
    pairs: list[Pair]
    all_pairs: int


def compare(first: Path, second: Path, target: Path) -> Versus:
    """Write `target` (.html) and a .md beside it; `UserError` where nothing can be paired."""
    runs = read_run(first), read_run(second)
    names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    page = _versus(runs, names)
    secrets = [*runs[0].secrets, *runs[1].secrets]
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page_html("compare.html.jinja", page), secrets)
    write_text(target.with_suffix(".md"), comparison_markdown(page), secrets)
    return page


def _versus(runs: tuple[RunFiles, RunFiles], names: tuple[str, str]) -> Versus:
    scores = _scores_of(runs[0], names[0]), _scores_of(runs[1], names[1])
    if scores[0].extractor != scores[1].extractor:
        raise UserError(
            f"the answers of {names[0]} were read by version {scores[0].extractor} of the reader, "
            f"those of {names[1]} by {scores[1].extractor}; type `distill evaluate CONFIG --redo "
            "evaluate` for the older run: it reads them again and asks nothing"
        )
    old, new, notes = _shared(runs, names)
    notes += _asked_otherwise(runs)
    found = score(
        {"before": old, "after": new},
        arms=["before", "after"],
        seed=int(runs[0].config.get("seed", 0)),
        margin=float((runs[0].config.get("evaluate") or {}).get("margin", 0.05)),
        than=names[0],
    )
    shown = {"before": names[0], "after": names[1]}
    intervals = {(s.model, s.ability, s.metric): s for s in found.scores}
    cards = []
    for comparison in found.comparisons:
        sign, words = WORDS[comparison.verdict]
        badge = f"{sign} {words.format(second=names[1])}"
        card = card_of(comparison, intervals)
        facts = [fact for fact in card.facts if fact[0] != "gap recovered"]  # no teacher is in it
        cards.append(msgspec.structs.replace(card, badge=badge, facts=facts))
    both = msgspec.structs.replace(runs[0], scores=found)
    pairs = paired(old, new)
    secrets = [*runs[0].secrets, *runs[1].secrets]
    return Versus(
        names=names,
        headline=_headline(found, names),
        cards=cards,
        notes=notes,
        matrix=of_trained([(_trained(runs[at], names[at]), scores[at], "after") for at in (0, 1)]),
        charts=[
            *in_context_charts(both, shown),
            *report_view.score_charts(both, shown),
            *constraint_charts(both, shown),
            *paid_charts([Shown(runs[0], "before", names[0]), Shown(runs[1], "after", names[1])]),
        ],
        tables=report_view.tables(both),
        effort_columns=EFFORT,
        effort=[_effort(run, name) for run, name in zip(runs, names, strict=True)],
        settings=_settings(runs[0].config, runs[1].config),
        pairs=pairs_of(pairs, [], SAMPLES, secrets),
        all_pairs=len(pairs),
    )


def _scores_of(run: RunFiles, name: str) -> Scores:
    if run.scores is None or not run.answers.get("after"):
        raise UserError(
            f"{name} has no answers of its student; type `distill evaluate runs/{name}/config.yaml`"
        )
    return run.scores


def _shared(
    runs: tuple[RunFiles, RunFiles], names: tuple[str, str]
) -> tuple[list[Answer], list[Answer], list[str]]:
    """The answers to the same questions, and notes on what had to be left out."""
    first, second = ({_asked(row): row for row in run.answers["after"]} for run in runs)
    same = {
        key
        for key in first.keys() & second.keys()
        if (first[key].question, first[key].reference)
        == (second[key].question, second[key].reference)
    }
    if not same:
        raise UserError(
            f"{names[0]} and {names[1]} were asked no question in common; give both the same "
            "`evaluate:` part and the same `seed`"
        )
    notes = []
    for name, rows in zip(names, (first, second), strict=True):
        if left := len(rows.keys() - same):
            notes.append(f"{left} questions of {name} were not asked, or not so, in the other run.")
    old, new = ([row for row in run.answers["after"] if _asked(row) in same] for run in runs)
    return old, new, notes


def _asked_otherwise(runs: tuple[RunFiles, RunFiles]) -> list[str]:
    """A note where the same items were put in another way: prompts, shots, decoding."""
    one, two = (_how_asked(run) for run in runs)
    moved = sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))
    if not moved:
        return []
    keys = ", ".join(key.removeprefix("abilities.") for key in moved[:8])
    more = f" and {len(moved) - 8} more" if len(moved) > 8 else ""
    return [
        f"The runs did not ask in the same way: {keys}{more} differ (a prompt by its hash), so a "
        "difference between the students may be one between the questions."
    ]


def _how_asked(run: RunFiles) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for step in run.steps:
        if step.step == "evaluate":  # the last one counts
            found = {key: step.settings.get(key) for key in ("seed", "sampling", "abilities")}
    return flatten(found)


def _asked(row: Answer) -> Asked:
    return row.ability, row.variant, row.item_id, row.draw, row.order, row.sample


def _headline(found: Scores, names: tuple[str, str]) -> str:
    """The verdicts, those of one kind in one sentence."""
    by_verdict: dict[Finding, list[str]] = {}
    for comparison in found.comparisons:
        title = report_view.TITLES.get(comparison.ability, comparison.ability)
        words = f"{title} ({report_view.metric_name(comparison.metric)})"
        by_verdict.setdefault(comparison.verdict, []).append(words)
    parts = [
        f"{'; '.join(by_verdict[verdict])}: {words.format(second=names[1])}."
        for verdict, (_, words) in WORDS.items()
        if verdict in by_verdict
    ]
    return " ".join(parts) or "No declared number can be compared."


def _trained(run: RunFiles, name: str) -> str:
    tasks = [str(task.get("name", "")) for task in run.config.get("tasks") or []]
    return f"{name}: {', '.join(tasks)}" if tasks else name


EFFORT = ["run", "rows asked", "rows kept", "tokens of all steps", "USD", "time of all steps"]


def _effort(run: RunFiles, name: str) -> list[str]:
    tokens = sum(step.tokens.input + step.tokens.output for step in run.steps)
    costs = [step.cost_usd for step in run.steps if step.cost_usd is not None]
    return [
        name,
        f"{run.funnel.asked:,}" if run.funnel else "–",
        f"{run.funnel.kept:,}" if run.funnel else "–",
        f"{tokens:,}",
        f"{sum(costs):,.4f}" if costs else "–",
        duration(sum(step.seconds for step in run.steps)),
    ]


def _settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The keys of the two configs that differ: (key, first value, second value)."""
    one, two = _flat(first), _flat(second)
    return [
        (key, safe(one.get(key, "–"), (), 200), safe(two.get(key, "–"), (), 200))
        for key in sorted(one.keys() | two.keys())
        if one.get(key) != two.get(key) and key != "name"
    ]


def _flat(value: Any, place: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        parts = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        parts = [(_name(inner, number), inner) for number, inner in enumerate(value)]
    else:
        return {place: str(value)}
    found: dict[str, str] = {}
    for key, inner in parts:
        found |= _flat(inner, f"{place}.{key}" if place else key)
    return found


def _name(value: Any, number: int) -> str:
    """A task is known by its name, so that a task in front of it is no difference."""
    return str(value["name"]) if isinstance(value, Mapping) and "name" in value else str(number)
