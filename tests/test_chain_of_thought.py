"""Direct and step by step, sets beyond what was trained, samples and their votes."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from pipeline.records import Answer, Extraction, Finish, Generation, Seed
from pipeline.stage3_evaluate.answers import can_be_right, expected_of
from pipeline.stage3_evaluate.chain_of_thought import reasons_first
from pipeline.stage3_evaluate.majority import draws_of, majority_right
from pipeline.stage3_evaluate.metrics_chain_of_thought import (
    beyond_items,
    chain_of_thought_scores,
    gain_changes,
)
from pipeline.stage3_evaluate.report import write_report
from pipeline.stage3_evaluate.score import score
from tests.project import Project, write_seeds

Vote = str | None  # None: cannot be read


def drawn_majority(votes: Sequence[Vote], right: str, m: int) -> float:
    """The mean over every draw of m of the votes, ties split: the long way."""
    won = []
    for draw in itertools.combinations(votes, m):
        counts = Counter(vote for vote in draw if vote is not None)
        top = [vote for vote, count in counts.items() if count == max(counts.values())]
        won.append((right in top) / len(top) if top else 0.0)
    return sum(won) / len(won)


@pytest.mark.parametrize(
    "votes",
    [
        ["a", "a", "b", "b", "c", None],
        ["a", "b", "c", "d", "e"],
        ["b", "b", "b", "a"],
        [None, None, None, "a"],
        [None, None, None],
        ["a", "a", "a", "a", "a", "a", "a", "b", None],
        ["a", "a", "b", "b", "b", "c", "c", None, None],
    ],
    ids=lambda votes: "".join(vote or "-" for vote in votes),
)
def test_the_majority_is_the_mean_over_every_draw(votes: list[Vote]) -> None:
    counts = Counter(votes)
    others = [n for vote, n in counts.items() if vote not in ("a", None)]
    for m in range(1, len(votes) + 1):
        exact = majority_right(counts["a"], others, counts[None], m)
        assert exact == pytest.approx(drawn_majority(votes, "a", m), abs=1e-12)


def test_a_majority_of_many_samples_is_exact_and_quick() -> None:
    assert majority_right(60, [3] * 20, 40, 159) == pytest.approx(1.0)
    assert majority_right(0, [64], 64, 5) == 0.0


def test_draws_are_odd_and_all() -> None:
    assert draws_of(1) == [1]
    assert draws_of(5) == [1, 3, 5]
    assert draws_of(8) == [1, 3, 5, 7, 8]
    assert draws_of(40) == [1, 3, 5, 9, 17, 33, 40]


def answer(
    item: str, variant: str, right: bool, *, said: str | None = None, reasoned: bool | None = None
) -> Answer:
    value = said or ("12" if right else "7")
    read = Extraction.VALUE if value != "-" else Extraction.NO_ANSWER
    return Answer(
        "arm", "chain_of_thought", variant, item, "", Finish.STOP, read, value, float(right),
        output_tokens=10, spelled=value, reasoned=reasoned,
    )  # fmt: skip


def arm_rows(direct: str, reasoned: str, behind: str = "") -> list[Answer]:
    """A row for each character: 1 is right."""
    rows = []
    for i, (one, two) in enumerate(zip(direct, reasoned, strict=True)):
        rows.append(answer(f"q{i}", f"direct{behind}", one == "1", reasoned=False))
        rows.append(answer(f"q{i}", f"step_by_step{behind}", two == "1"))
    return rows


def test_the_gain_of_after_less_that_of_before_is_over_the_same_items() -> None:
    before = arm_rows("10" * 20, "10" * 20)  # no gain
    after = arm_rows("10" * 20, "11" * 20)  # right on the other half too: a gain of 0.5
    (found,) = gain_changes({"before": before, "after": after}, seed=1)
    assert (found.first, found.second, found.n) == ("before", "after", 40)
    assert (found.gain_first, found.gain_second, found.difference) == (0.0, 0.5, 0.5)
    assert found.low is not None and found.high is not None and found.p is not None
    assert 0 < found.low < 0.5 < found.high < 1
    assert found.p < 0.001


def test_a_student_that_is_better_in_both_modes_gained_no_reasoning() -> None:
    before = arm_rows("0000000000", "1100000000")
    after = arm_rows("1111111100", "1111111111")
    (found,) = gain_changes({"before": before, "after": after}, seed=1)
    assert found.difference == pytest.approx(0.0)
    assert found.low is not None and found.low < 0


def test_direct_answers_that_reason_spoil_the_gain_and_are_reported() -> None:
    rows = arm_rows("1100000000", "1111110000")
    spoilt = [
        answer(row.item_id, row.variant, bool(row.correct), reasoned=i < 4)
        if row.variant == "direct"
        else row
        for i, row in enumerate(sorted(rows, key=lambda row: row.variant))
    ]
    scores, notes = chain_of_thought_scores("after", spoilt, seed=1)
    metrics = {found.metric: found.value for found in scores}
    assert metrics["reasoned/direct"] == pytest.approx(0.4)
    assert "gain" not in metrics
    assert any("is not measured: 40 %" in note for note in notes)
    (found,) = gain_changes({"before": rows, "after": spoilt}, seed=1)
    assert (found.difference, found.p) == (None, None)
    assert found.why_not == "40 % of the direct answers of after reason first"


def test_sets_beyond_have_numbers_of_their_own() -> None:
    rows = arm_rows("1100", "1111") + arm_rows("0000", "1000", " beyond=longer")
    scores, _ = chain_of_thought_scores("after", rows, seed=1)
    metrics = {found.metric: found.value for found in scores}
    assert metrics["accuracy/step_by_step"] == 1.0
    assert metrics["accuracy/step_by_step/longer"] == 0.25
    assert metrics["gain"] == 0.5
    assert metrics["gain/longer"] == 0.25
    assert list(beyond_items(rows)) == ["accuracy/step_by_step/longer"]


def test_votes_of_samples_are_counted_and_unread_ones_have_none() -> None:
    said = ["12", "12", "7", "8", "-"]
    rows = [answer("q", "sampled", one == "12", said=one) for one in said]
    scores, _ = chain_of_thought_scores("after", rows, seed=1)
    metrics = {found.metric: found.value for found in scores}
    assert metrics["majority/m=1"] == pytest.approx(0.4)
    assert metrics["majority/m=5"] == pytest.approx(1.0)
    assert metrics["no_answer/sampled"] == pytest.approx(0.2)
    assert "accuracy/sampled" not in metrics


@pytest.mark.parametrize(
    ("text", "reasoning", "value", "reasons"),
    [
        ("12", None, "12", False),
        ("The answer is 12.", None, "12", False),
        ("12. Because 5 + 7 = 12 and there are no other apples in the story.", None, "12", False),
        ("5 + 7 = 12", None, "12", True),
        ("Tom has 5 apples and buys 7 more at the market, so he has now 12", None, "12", True),
        ("Tom has 5 apples and buys 7 more. We have to add these two", None, None, True),
        ("12", "5 + 7 is 12", "12", True),
        ("", "Okay, the user wants", None, True),
        ("$1,200", None, "1200", False),
        ("12", "  ", "12", False),
    ],
)
def test_a_direct_answer_that_reasons_before_it_answers_is_noticed(
    text: str, reasoning: str | None, value: str | None, reasons: bool
) -> None:
    said = Generation("r", text, Finish.STOP, reasoning=reasoning)
    assert reasons_first(said, value, expected_of(Seed("q", "t", {}, "12"))) is reasons


def test_a_run_asks_sets_beyond_and_samples_and_scores_them(project: Project) -> None:
    write_seeds(project.folder / "longer.jsonl", 4, start=200)
    (project.folder / "coins.jsonl").write_text(
        '{"id": "c", "question": "Heads up, 1 flip and 1 flip. Still heads up?", "answer": "yes"}\n'
    )
    project.edit(
        evaluate__arms=["teacher", "before", "before_again"],
        evaluate__chain_of_thought__beyond={"longer": "longer.jsonl", "coins": "coins.jsonl"},
        evaluate__chain_of_thought__samples=3,
        evaluate__chain_of_thought__direct_sampling={"max_tokens": 8},
    )
    assert project.make("config.yaml").returncode == 0
    done = project.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    rows = [
        json.loads(line)
        for line in (project.run / "5_answers/teacher/chain_of_thought.jsonl").open()
    ]
    counts = Counter(row["variant"] for row in rows)
    assert counts["step_by_step beyond=longer"] == counts["direct beyond=longer"] == 4
    assert counts["sampled"] == 3 * counts["step_by_step"] == 18
    sampled = [row for row in rows if row["variant"] == "sampled"]
    assert len({row["request_id"] for row in sampled}) == 18
    assert {row["sample"] for row in sampled} == {0, 1, 2}
    metrics = {
        found["metric"]: found["value"]
        for found in json.loads((project.run / "6_scores.json").read_text())["scores"]
        if found["model"] == "teacher"
    }
    assert metrics["accuracy/step_by_step/longer"] == 1.0
    # The teacher of this project is wrong in every third sample.
    assert metrics["majority/m=1"] == pytest.approx(2 / 3)
    assert metrics["majority/m=3"] == 1.0
    assert metrics["reasoned/direct"] == 0.0


def test_samples_at_temperature_zero_are_refused(project: Project) -> None:
    project.edit(
        evaluate__chain_of_thought__samples=3,
        evaluate__chain_of_thought__samples_sampling={"temperature": 0},
    )
    done = project.call("plan", "config.yaml")
    assert done.returncode == 2
    assert "all samples are the same" in done.stderr


def test_an_item_whose_answer_is_none_of_its_choices_is_refused(project: Project) -> None:
    Path(project.folder / "eval.jsonl").write_text(
        '{"id": "c", "question": "Which?", "choices": ["red", "blue"], "answer": "green"}\n'
    )
    done = project.call("plan", "config.yaml")
    assert done.returncode == 2
    assert "'green', which is none of its choices: (A) red, (B) blue" in done.stderr


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"answer": "Paris"}, "item c (eval.jsonl:1) has the answer 'Paris', which is read as"),
        ({"answer": "Paris"}, "the kind number"),
        ({"answer": "Spam", "labels": ["spam", "ham"]}, "the kind label"),
        ({"answer": "10:30", "answer_kind": "number"}, "give the row its `answer_kind`, one of"),
        ({"answer": " "}, "has the answer ' '"),
    ],
)
def test_an_answer_that_can_never_be_right_is_refused(
    project: Project, fields: dict[str, object], told: str
) -> None:
    row = {"id": "c", "question": "Which?"} | fields
    (project.folder / "eval.jsonl").write_text(json.dumps(row) + "\n")
    done = project.call("plan", "config.yaml")
    assert done.returncode == 2 and told in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("\\sqrt{2}", "number"),
        ("72 apples", "number"),
        ("Dr. No", "text"),
        ("a phrase of more words than a bare line may have", "text"),
        ("3 1", "list"),
        ("True", "true_false"),
    ],
)
def test_an_answer_that_is_read_in_some_form_is_taken(answer: str, kind: str) -> None:
    item = Seed("c", "t", {"question": "Which?", "answer_kind": kind}, answer)
    assert can_be_right(answer, expected_of(item))


def test_the_report_has_sets_beyond_votes_and_the_change_of_the_gain(tmp_path: Path) -> None:
    before = arm_rows("1100", "1100") + arm_rows("1100", "0000", " beyond=longer")
    after = arm_rows("1100", "1111") + arm_rows("1100", "1000", " beyond=longer")
    spoilt = [msgspec.structs.replace(row, reasoned=row.variant == "direct") for row in before]
    before += [answer(f"q{i}", "sampled", i % 2 == 0) for i in range(4) for _ in range(3)]
    answers = {"before": before, "after": after, "control-random": spoilt}
    scores = score(answers, arms=list(answers), seed=1)
    (tmp_path / "6_scores.json").write_bytes(msgspec.json.encode(scores))
    page, plain = (path.read_text() for path in write_report(tmp_path))
    assert "beyond what was trained" in page
    assert "majority of m samples" in page
    for text in (page, plain):
        assert "longer" in text
        assert "+50 points" in text
        assert "100 % of the direct answers of control-random reason first" in text
