"""The numbers of a run as a page shows them: cards, tables and charts; no HTML but the charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec
from markupsafe import Markup

from pipeline.records import Score
from pipeline.stage3_evaluate import charts
from pipeline.stage3_evaluate.charts import Line, Point, percent
from pipeline.stage3_evaluate.harness_scores import ABILITY as LM_EVAL
from pipeline.stage3_evaluate.metrics_instruction_following import IF_SETS
from pipeline.stage3_evaluate.report_data import RunFiles
from pipeline.stage3_evaluate.statistics import Gap
from pipeline.stage3_evaluate.verdicts import Comparison, Finding, Role

NO_NAMES: Mapping[str, str] = MappingProxyType({})  # arms are called what they are
TITLES = {
    "in_context": "In-context learning",
    "chain_of_thought": "Chain of thought",
    "instruction_following": "Instruction following",
    LM_EVAL: "Tasks of lm-evaluation-harness",
}
METRICS = {
    "strict/unseen_types": "strict, constraint types never trained on",
    "strict/seen_types": "strict, trained constraint types on new topics",
    "loose/unseen_types": "loose, constraint types never trained on",
    "loose/seen_types": "loose, trained constraint types on new topics",
    "strict/ifeval": "strict, IFEval",
    "accuracy/step_by_step": "accuracy, step by step",
    "accuracy/direct": "accuracy, direct answer",
    "gain": "gain of reasoning over the direct answer, points",
    "gain/mean": "gain of the examples (largest k over none), points, mean of tasks",
}
_WORDS = {
    "mean": "mean of tasks",
    "gain_over_random": "gain of true labels over random ones, points",
    "random": "random labels",
    "flipped": "flipped labels",
    "arbitrary": "arbitrary labels",
    "invalid": "invalid answers",
    "no_answer": "no answer found",
    "truncated": "cut off before an answer",
    "output_tokens": "tokens an answer",
    "tokens_per_correct": "tokens per right answer",
    "step_by_step": "step by step",
    "direct": "direct answer",
    "seen_types": "trained constraint types",
    "unseen_types": "constraint types never trained on",
    "ifeval": "IFEval",
    "strict_instructions": "strict, single constraints",
    "loose_instructions": "loose, single constraints",
}
LOSSES = {
    "sft": "Loss on the teacher's words",
    "dpo": "Loss on pairs (DPO), the teacher's answer over the student's own; 0.69 is none",
}
GAPS = {
    Gap.NO_TEACHER: "unknown: no teacher tested",
    Gap.LEAD_INCLUDES_ZERO: "undefined: the teacher's lead includes zero",
    Gap.TEACHER_BEHIND: "undefined: the teacher is behind",
}


class Figure(msgspec.Struct, frozen=True):
    caption: str
    chart: Markup


class Card(msgspec.Struct, frozen=True):
    """One comparison, ready to show."""

    title: str
    metric: str
    primary: bool
    verdict: str
    kind: str  # its CSS class
    badge: str
    before: str
    after: str
    change: str
    interval: str
    reason: str
    facts: list[tuple[str, str]]
    strip: Markup


class Row(msgspec.Struct, frozen=True):
    """A metric over the arms: (value, interval) for each arm, None where it was not measured."""

    metric: str
    main: bool
    n: int
    cells: list[tuple[str, str] | None]


class Table(msgspec.Struct, frozen=True):
    title: str
    rows: list[Row]


class Chart(msgspec.Struct, frozen=True):
    title: str
    caption: str
    svg: Markup


_SIGNS = {
    Finding.DISTILLED: "▲",
    Finding.FORM: "△",
    Finding.HARMED: "▼",
    Finding.INCONCLUSIVE: "○",
}
_VERDICTS = {
    Finding.DISTILLED: "distilled",
    Finding.FORM: "answers in the asked form now, no more is shown",
    Finding.HARMED: "harmed",
    Finding.INCONCLUSIVE: "without a clear change",
}


def points(value: float) -> str:
    """ "+45 points" for 0.45."""
    rounded = round(100 * value)
    sign = "+" if rounded > 0 else "−" if rounded < 0 else "±"
    return f"{sign}{abs(rounded)} point{'' if abs(rounded) == 1 else 's'}"


def metric_name(metric: str) -> str:
    """A metric's path as words."""
    if metric in METRICS:
        return METRICS[metric]
    return ", ".join(_WORDS.get(part, part.replace("_", " ")) for part in metric.split("/"))


def headline(run: RunFiles) -> str:
    """What came of it: the verdicts, and where a secondary one differs from its ability's."""
    if run.scores is None:
        return "Not scored yet."
    primary = [c for c in run.scores.comparisons if c.role is Role.PRIMARY]
    if not primary:
        return "Before and after were not both tested, so there is no verdict."
    parts = []
    for verdict, words in _VERDICTS.items():
        names = [TITLES.get(c.ability, c.ability) for c in primary if c.verdict is verdict]
        if names:
            parts.append(f"{' and '.join(names)}: {words}.")
    found = {c.ability: c.verdict for c in primary}
    for other in run.scores.comparisons:
        if other.role is not Role.PRIMARY and found.get(other.ability) not in (None, other.verdict):
            title = TITLES.get(other.ability, other.ability)
            parts.append(f"{title}, {metric_name(other.metric)}: {_VERDICTS[other.verdict]}.")
    return " ".join(parts)


def cards(run: RunFiles) -> list[Card]:
    if run.scores is None:
        return []
    intervals = {(s.model, s.ability, s.metric): s for s in run.scores.scores}
    return [card_of(c, intervals) for c in run.scores.comparisons]


def card_of(found: Comparison, intervals: dict[tuple[str, str, str], Score]) -> Card:
    """`intervals`: (arm, ability, metric) -> score."""

    def point(arm: str, value: float) -> Point:
        score = intervals.get((arm, found.ability, found.metric))
        return Point(0, value, score.low if score else value, score.high if score else value)

    facts = [
        ("items", f"{found.n}: {found.gained} gained, {found.lost} lost"),
        ("p; by Holm", f"{_p(found.p)}; {_p(found.p_adjusted)}"),
        ("gap recovered", _gap(found)),
    ]
    if found.teacher is not None:
        facts.insert(0, ("teacher", percent(found.teacher)))
    if found.smallest_detectable is not None:
        least = points(found.smallest_detectable).lstrip("+")
        facts.append(("detectable change", least))
    if found.valid is not None:
        valid = f"{points(found.valid.difference)} ({found.valid.n} items)"
        facts.append(("on readable answers", valid))
    for part in found.beyond[1:]:
        name = f"beyond training: {part.arm.replace('_', ' ')}"
        facts.append((name, f"{points(part.difference)} ({part.n} items)"))
    if found.seeds is not None:
        spread = found.seeds.differences
        text = f"{points(min(spread))} to {points(max(spread))}"
        facts.append((f"{len(spread)} training seeds", text))
    return Card(
        title=TITLES.get(found.ability, found.ability),
        metric=metric_name(found.metric),
        primary=found.role is Role.PRIMARY,
        verdict=found.verdict.value,
        kind=found.verdict.value.split()[0],
        badge=f"{_SIGNS[found.verdict]} {found.verdict}",
        before=percent(found.before),
        after=percent(found.after),
        change=points(found.difference),
        interval=f"95%: {_signed(found.low)} to {_signed(found.high)}",
        reason=found.reason,
        facts=facts,
        strip=charts.dumbbell(
            point("before", found.before), point("after", found.after), found.teacher
        ),
    )


def _gap(found: Comparison) -> str:
    gap = found.gap
    if gap.value is None or gap.low is None or gap.high is None:
        return GAPS[gap.outcome]
    return f"{percent(gap.value)} ({percent(gap.low)} to {percent(gap.high)})"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _signed(value: float) -> str:
    rounded = round(100 * value)
    return f"{'+' if rounded > 0 else '−' if rounded < 0 else ''}{abs(rounded)}"


def tables(run: RunFiles) -> list[Table]:
    """Every metric for every arm, an ability a table."""
    if run.scores is None:
        return []
    scores = {(s.ability, s.metric, s.model): s for s in run.scores.scores}
    found: list[Table] = []
    for ability in dict.fromkeys(s.ability for s in run.scores.scores):
        rows = []
        for metric in dict.fromkeys(s.metric for s in run.scores.scores if s.ability == ability):
            some = [scores.get((ability, metric, arm)) for arm in run.scores.arms]
            there = [score for score in some if score]
            if not there:
                continue
            share = ability != LM_EVAL or all(0 <= score.value <= 1 for score in there)
            shown = _cell if share else _plain
            cells = [shown(score) if score else None for score in some]
            main = ability == LM_EVAL or _is_main(metric)
            rows.append(Row(metric_name(metric), main, max(s.n for s in there), cells))
        if rows:
            found.append(Table(TITLES.get(ability, ability), rows))
    return found


def _is_main(metric: str) -> bool:
    always = ("accuracy/mean/k=", "accuracy/direct", "accuracy/step", "strict/")
    return metric.startswith(always) or (
        metric in ("gain", "gain/mean", "gain_over_random/mean")
        or metric in ("loose/seen_types", "loose/unseen_types")
        or metric in ("truncated/step_by_step", "tokens_per_correct/step_by_step")
    )


def _cell(score: Score) -> tuple[str, str]:
    if score.metric.startswith(("output_tokens", "tokens_per_correct")):
        return f"{score.value:.0f}", f"{score.low:.0f}–{score.high:.0f}"
    if score.metric.startswith("gain"):
        return _signed(score.value), f"{_signed(score.low)} to {_signed(score.high)}"
    return percent(score.value), f"{100 * score.low:.0f}–{100 * score.high:.0f}"


def _plain(score: Score) -> tuple[str, str]:
    """A number on a scale of its own: BLEU is of 100, a perplexity of nothing."""
    return f"{score.value:.2f}", f"{score.low:.2f} to {score.high:.2f}"


def score_charts(run: RunFiles, names: Mapping[str, str] = NO_NAMES) -> list[Chart]:
    """Bars for reasoning and for instructions; report_in_context.py has the k-shot curves."""
    if run.scores is None:
        return []
    found: list[Chart] = []
    for ability, title, caption, groups in (
        (
            "chain_of_thought", "Chain of thought", "accuracy on the same problems",
            {"accuracy/direct": "direct answer", "accuracy/step_by_step": "step by step"},
        ),
        (
            "instruction_following", "Instruction following", "share of items with all "
            "constraints kept; strict",
            {f"strict/{name}": shown for name, shown in IF_SETS.items()},
        ),
    ):  # fmt: skip
        known = {s.metric for s in run.scores.scores if s.ability == ability}
        groups = {metric: shown for metric, shown in groups.items() if metric in known}
        lines = lines_of(run, ability, list(groups), names)
        if any(line.points for line in lines):
            found.append(Chart(title, caption, charts.bars(title, list(groups.values()), lines)))
    return found


def lines_of(
    run: RunFiles, ability: str, metrics: Sequence[str], names: Mapping[str, str]
) -> list[Line]:
    assert run.scores is not None
    by = {(s.model, s.metric): s for s in run.scores.scores if s.ability == ability}
    found = []
    for arm in run.scores.arms:
        scores = [(place, by.get((arm, metric))) for place, metric in enumerate(metrics)]
        points = [Point(i, s.value, s.low, s.high) for i, s in scores if s]
        found.append(Line(arm, points, names.get(arm, "")))
    return found


def loss_charts(run: RunFiles) -> list[Figure]:
    """A chart for each kind of loss: they are no numbers of one scale."""
    found = []
    for method, caption in LOSSES.items():
        points = [p for p in run.log if p.method == method]
        train = [(p.step, p.loss) for p in points if not p.evaluated]
        held = [(p.step, p.loss) for p in points if p.evaluated]
        if points:
            first = 0 if method == "sft" else min(p.step for p in points)
            found.append(Figure(caption, charts.loss_curve(train, held, first)))
    return found


def duration(seconds: float) -> str:
    """ "12 s", "4 min 10 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
