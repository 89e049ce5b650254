"""Saved answers -> scores and verdicts; a pure function, so scoring again needs no model.

Primary metrics, declared here before any run:

* in-context learning: mean over tasks of the accuracy at the largest k, with the labels as they
  are, each item's draws of shots averaged;
* chain of thought: accuracy step by step;
* instruction following: all constraints hold (strict), on constraint types training never saw;
  beside it, in the same Holm family, on the types it did see.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipeline.records import Answer, Score
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.answers import EXTRACTOR_VERSION
from pipeline.stage3_evaluate.comparing import (
    Primary,
    abilities,
    changes_of,
    compare,
    differences,
    primary_of,
)
from pipeline.stage3_evaluate.held_out_text import TextScore
from pipeline.stage3_evaluate.metric_items import paired_strata
from pipeline.stage3_evaluate.metrics import ability_scores
from pipeline.stage3_evaluate.metrics_chain_of_thought import GainChange, gain_changes
from pipeline.stage3_evaluate.metrics_in_context import Spread, spreads
from pipeline.stage3_evaluate.verdicts import Change, Comparison, decided


class Noise(msgspec.Struct, frozen=True):
    """The student before, asked a second time: what differs between two equal arms."""

    ability: str
    metric: str
    difference: float  # second - first
    low: float
    high: float
    differing: int  # items on which the two are not equally right
    n: int


class Scores(msgspec.Struct, frozen=True):
    """Everything in 6_scores.json."""

    arms: list[str]
    scores: list[Score]
    comparisons: list[Comparison]
    notes: list[str]
    noise: list[Noise] = []
    changes: list[Change] = []  # of every student that this run trained
    text: list[TextScore] = []
    spread: list[Spread] = []  # over draws of shots, in-context learning
    reasoning: list[GainChange] = []  # of the gain from reasoning, chain of thought
    extractor: str = EXTRACTOR_VERSION
    confidence: float = 0.95


def score(
    answers: dict[str, list[Answer]],
    *,
    arms: Sequence[str],
    seed: int = 0,
    margin: float = 0.05,
    than: str = "before",
) -> Scores:
    """Score every arm's answers and compare `after` with `before`.

    `answers` maps an arm to its rows; `arms` gives the order of the report, and an arm of it
    without answers is noted, not an error. `margin`: a smaller loss counts as nothing lost.
    `than`: what the reasons call the arm before. The same answers and seed give the same bytes.
    """
    notes = [f"The arm {arm} has no answers." for arm in arms if not answers.get(arm)]
    present = [arm for arm in arms if answers.get(arm)]
    present += [arm for arm in sorted(answers) if arm not in arms and answers[arm]]
    scores: list[Score] = []
    for ability in abilities(answers):
        for arm in present:
            rows = [answer for answer in answers[arm] if answer.ability == ability]
            if rows:
                found, said = ability_scores(arm, ability, rows, seed)
                scores += found
                notes += said
            else:
                notes.append(f"The arm {arm} was not asked about {ability}.")
    primary = primary_of(answers)
    comparisons, said = compare(answers, primary, arms, seed, margin)
    noise = _noise(primary, seed)
    notes += [*said, *(_noise_note(one) for one in noise)]
    changes = changes_of(primary, arms, seed, margin)
    spread = spreads({arm: answers[arm] for arm in present})
    reasoning = gain_changes(answers, seed)
    verdicts = decided(comparisons, than)
    return Scores(
        present, scores, verdicts, notes, noise, changes, spread=spread, reasoning=reasoning
    )


def _noise(primary: Primary, seed: int) -> list[Noise]:
    found = []
    again = primary.get("before_again", {})
    for ability, metrics in primary.get("before", {}).items():
        for metric, first in metrics.items():
            second = again.get(ability, {}).get(metric, {})
            if not first.keys() & second.keys():
                continue
            gaps = differences(*paired_strata(first, second))
            low, high = statistics.difference_interval(gaps, seed)
            flat = [gap for stratum in gaps for gap in stratum]
            differing = sum(gap != 0 for gap in flat)
            mean = statistics.mean_of(gaps)
            found.append(Noise(ability, metric, mean, low, high, differing, len(flat)))
    return found


def _noise_note(found: Noise) -> str:
    return (
        f"Noise: asked a second time, the student before differs on {found.differing} of {found.n} "
        f"items of {found.ability}, {found.metric} ({100 * found.difference:+.1f} points)."
    )
