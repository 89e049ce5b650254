"""7_report.md: the same verdicts and numbers as the page, for a pull request or a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.stage3_evaluate.report_samples import Outcome, Pair

if TYPE_CHECKING:
    from pipeline.stage3_evaluate.compare import Versus
    from pipeline.stage3_evaluate.report import Page

_PAIRS = 4


def markdown(page: Page) -> str:
    """The whole report as GitHub-flavoured Markdown."""
    blocks = [
        f"# {_inline(page.name)}",
        _inline(page.headline),
        "\n".join(f"- {name}: {_inline(value)}" for name, value in page.facts),
        "## Verdicts",
        _verdicts(page),
        *(["## What was trained, and what it cost the rest", _matrix(page)] if page.matrix else []),
        "## All arms",
        _numbers(page),
        *(["## In-context learning by number of examples", _curves(page)] if page.curves else []),
        *(
            ["## What was gained by reasoning", _table(page.gains.columns, page.gains.rows)]
            if page.gains
            else []
        ),
        *_costs(page),
        "## Training data",
        _funnel(page),
        "## Time and cost",
        _steps(page),
        "## Before and after",
        *_pairs(page.samples.pairs),
        "## How this was made",
        "\n".join(f"- {name}: {_inline(value)}" for name, value in page.about),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def comparison_markdown(page: Versus) -> str:
    """Two runs against each other as GitHub-flavoured Markdown."""
    first, second = page.names
    verdicts = [
        [
            f"{card.title}{'' if card.primary else ' (secondary)'}", card.metric, card.before,
            card.after, f"{card.change} ({card.interval})", dict(card.facts)["p; by Holm"],
            f"**{card.badge}**: {card.reason}",
        ]
        for card in page.cards
    ]  # fmt: skip
    head = ["ability", "metric", first, second, "difference", "p; by Holm", "verdict"]
    blocks = [
        f"# {_inline(first)} against {_inline(second)}",
        _inline(page.headline),
        _table(head, verdicts),
        "\n".join(f"- {_inline(note)}" for note in page.notes),
        *(["## What each training gained and cost", _matrix(page)] if page.matrix else []),
        "## What the configs do not have in common",
        _table(["key", first, second], page.settings) if page.settings else "Nothing but the name.",
        "## Time and cost",
        _table(page.effort_columns, page.effort),
        "## Answers",
        *_pairs(page.pairs, (first, second)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _verdicts(page: Page) -> str:
    if not page.cards:
        return "No verdicts: before and after have not both been scored."
    rows = [
        [
            f"{card.title}{'' if card.primary else ' (secondary)'}", card.metric, card.before,
            card.after, f"{card.change} ({card.interval})", dict(card.facts)["p; by Holm"],
            dict(card.facts)["gap recovered"], f"**{card.verdict}**: {card.reason}",
        ]
        for card in page.cards
    ]  # fmt: skip
    head = ["ability", "metric", "before", "after", "change", "p; by Holm", "gap", "verdict"]
    return _table(head, rows)


def _matrix(page: Page | Versus) -> str:
    assert page.matrix is not None
    head = ["trained on", *(f"{ability}: {metric}" for ability, metric in page.matrix.columns)]
    signs = {"up": "▲ ", "down": "▼ ", "same": "", "open": "? "}
    rows = [
        [
            row.trained,
            *(f"{signs[c.kind]}{c.value} ({c.interval})" if c else "–" for c in row.cells),
        ]
        for row in page.matrix.rows
    ]
    return (
        f"{_table(head, rows)}\n\nChange against before, in points. ▲ ▼: the 95% interval leaves "
        f"out zero; ?: not even a loss of {page.matrix.margin} can be ruled out."
    )


def _numbers(page: Page) -> str:
    if not page.tables:
        return "No scores yet."
    rows = [
        [
            table.title,
            row.metric,
            *(f"{c[0]} ({c[1]})" if c else "–" for c in row.cells),
            str(row.n),
        ]
        for table in page.tables
        for row in table.rows
        if row.main
    ]
    return (
        _table(["ability", "metric", *page.arms, "items"], rows) + "\n\nIn brackets: 95% intervals."
    )


def _curves(page: Page) -> str:
    assert page.curves is not None
    head = ["task", "labels", "arm", *(f"k={k}" for k in page.curves.ks), "chance", "invalid"]
    rows = [
        [
            *(row.task, row.labels, row.arm),
            *(f"{c[0]} ({c[1]})" if c and c[1] else c[0] if c else "–" for c in row.cells),
            row.chance,
            row.invalid,
        ]
        for row in page.curves.rows
    ]
    legend = page.curves.legend.replace("Small print:", "In brackets:")
    return f"{_table(head, rows)}\n\n{legend}"


def _costs(page: Page) -> list[str]:
    if page.costs is None:
        return []
    rows = _table(page.costs.columns, page.costs.rows)
    return ["## What it costs to use", page.costs.lead, rows]


def _funnel(page: Page) -> str:
    if page.funnel is None:
        return "No funnel: the step `curate` has not run."
    bars = _table(["filter", "rows", "why"], [[bar.name, bar.count, bar.why] for bar in page.bars])
    tables = [f"**{t.title}**\n\n{_table(t.columns, t.rows)}" for t in page.curation]
    return "\n\n".join([bars, *tables])


def _steps(page: Page) -> str:
    if not page.steps:
        return "No finished steps are recorded."
    head = ["step", "time", "tokens in", "tokens out", "USD", "what it did"]
    rows = [[s.name, s.time, s.tokens_in, s.tokens_out, s.cost, s.counts] for s in page.steps]
    return _table(head, rows)


def _pairs(pairs: Sequence[Pair], names: tuple[str, str] = ("Before", "After")) -> list[str]:
    gained = [pair for pair in pairs if pair.outcome is Outcome.GAINED]
    lost = [pair for pair in pairs if pair.outcome is Outcome.LOST]
    chosen = (gained[: _PAIRS - 1] + lost[:1]) or list(pairs[:_PAIRS])
    if not chosen:
        return ["No items that both arms, before and after, have answered."]
    blocks = []
    for pair in chosen:
        blocks.append(f"### {_inline(pair.ability)}, {_inline(pair.variant)}: {pair.outcome.value}")
        blocks.append(_fenced(pair.question))
        blocks += [f"{_inline(names[0])} ({_inline(pair.before.note)}):", _fenced(pair.before.text)]
        blocks += [f"{_inline(names[1])} ({_inline(pair.after.note)}):", _fenced(pair.after.text)]
    return blocks


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_inline(cell) for cell in line)} |" for line in lines)


def _inline(text: str) -> str:
    """A text inside a line: no markup of its own but our bold verdicts, no new cell or line."""
    flat = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\|<>`\[\]])", r"\\\1", flat)


def _fenced(text: str) -> str:
    """A text as code, in a fence longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
