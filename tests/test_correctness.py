"""Right answers are kept, wrong ones dropped, and no answer can hang or end the run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from pipeline.errors import UserError
from pipeline.records import Decision, Finish, TokenLogprob, Verdict
from pipeline.stage1_generate.curate import make_filter
from pipeline.stage1_generate.curate.math_answers import MathOutcome, MathVerifier
from tests.project import Project
from tests.test_filters import row


def verdict(name: str, candidate: Any, **settings: Any) -> Verdict:
    return make_filter(name, settings, "test")(candidate)


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    yield MathVerifier(seconds=0.5)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("The answer is 1/2.", "0.5"),
        ("So $x = 3$.", "3"),
        ("We get \\boxed{2\\sqrt{2}}.", "\\sqrt{8}"),
        ("$\\boxed{x^2+2x+1}$", "(x+1)^2"),
        ("It costs $1,234.", "1234"),
        ("The answer is \\$1,234.50.", "1234.5"),
        ("The answer is 1234.", "1,234"),
        ("The answer is 50%.", "0.5"),
        ("The points are $(2, 1)$", "(2,1)"),
    ],
)
def test_equal_mathematics_is_right(verifier: MathVerifier, answer: str, reference: str) -> None:
    assert verifier.verify(answer, reference) is MathOutcome.RIGHT


@pytest.mark.parametrize(
    ("answer", "reference", "outcome"),
    [
        ("The answer is 7.", "8", MathOutcome.WRONG),
        ("I do not know.", "8", MathOutcome.NO_ANSWER),
        ("The answer is $x+1$", "$x-1$", MathOutcome.WRONG),
        ("The answer is 5.", "", MathOutcome.NO_REFERENCE),
    ],
)
def test_other_mathematics_is_not(
    verifier: MathVerifier, answer: str, reference: str, outcome: MathOutcome
) -> None:
    assert verifier.verify(answer, reference) is outcome


@pytest.mark.parametrize(
    "answer",
    [
        "The answer is $10^{10^{10}}$.",
        "The answer is 10**10**10",
        "The answer is $" + "(" * 4000 + "1" + ")" * 4000 + "$.",
        "The answer is $" + "\\sqrt{" * 2000 + "2" + "}" * 2000 + "$.",
        "The answer is $((10!)!)!$.",
        "$\\sum_{n=1}^{10^{12}} \\sin(n)$",
        "1 " * 50_000,
        "The answer is " + "1" * 100_000,
        "\\boxed{" * 5_000,
        "\ud800\x00 $1$",
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_a_hostile_answer_is_dropped_and_the_next_one_read(
    verifier: MathVerifier, answer: str
) -> None:
    assert verifier.verify(answer, "42") is not MathOutcome.RIGHT
    assert verifier.verify("The answer is 42.", "42") is MathOutcome.RIGHT


def test_a_hostile_reference_is_dropped_too(verifier: MathVerifier) -> None:
    assert verifier.verify("The answer is 42.", "10^{10^{10}}") is not MathOutcome.RIGHT
    assert verifier.verify("The answer is 42.", "42") is MathOutcome.RIGHT


def test_the_reason_says_that_the_verifier_timed_out() -> None:
    candidate = row("The answer is $10^{10^{10}}$.", reference="42")
    found = verdict("answer", candidate, kind="math", seconds=0.2)
    assert (found.decision, found.reason) == (Decision.DROP, "verifier timed out")


def test_a_verifier_that_somebody_kills_is_replaced() -> None:
    verifier = MathVerifier()
    assert verifier.verify("The answer is 42.", "42") is MathOutcome.RIGHT
    assert verifier._process is not None
    os.kill(verifier._process.pid, signal.SIGKILL)
    verifier._process.wait()
    assert verifier.verify("The answer is 42.", "42") is MathOutcome.DIED
    assert verifier.verify("The answer is 42.", "42") is MathOutcome.RIGHT


def test_no_key_reaches_the_verifier_and_none_outlives_its_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-verifiers")
    verifier = MathVerifier()
    verifier.verify("1", "1")
    assert verifier._process is not None
    pid = verifier._process.pid
    assert b"sk-not" not in Path(f"/proc/{pid}/environ").read_bytes()
    del verifier
    assert not Path(f"/proc/{pid}").exists()


def test_a_cut_answer_is_not_read_as_mathematics() -> None:
    candidate = row("First 3 + 4 = 7, then", reference="7", finish=Finish.LENGTH)
    assert verdict("answer", candidate, kind="math").reason == "truncated"


def test_a_task_with_a_target_is_judged_by_mathematics_as_answers_arrive(project: Project) -> None:
    project.edit(
        tasks__0__filters=[{"answer": {"kind": "math"}}],
        tasks__0__accept={"per_seed": 1, "at_most": 3},
    )
    text = project.config.read_text().replace("samples: 3", "")
    project.config.write_text(text)
    done = project.make(str(project.config))
    assert done.returncode == 0, done.stderr
    assert len(project.rows("2_kept.jsonl")) == 12
    assert len(project.asked()) == 12  # the first is right: no other was wanted


CHOICES = ["a whale", "a trout", "a newt", "an ant"]


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "(B)",
        "b) a trout",
        "B. a trout",
        "**B**",
        "The answer is (B).",
        "The answer is B because fish have gills.",
        "the correct option is (b)",
        "A whale is a mammal, and a newt no fish.\n\nAnswer: B",
        "So we get \\boxed{B}.",
        "The answer is: a trout.",
        "A trout",
        "答案是B。",
        "选B",
        "I first thought the answer is A, but the answer is B.",
        "Think: whales breathe air.\nB)",
    ],
)
def test_a_right_choice_is_kept(text: str) -> None:
    candidate = row(text, reference="B", choices=CHOICES)
    assert verdict("answer", candidate).decision is Decision.KEEP
    by_text = row(text, reference="A trout", choices=CHOICES)
    assert verdict("answer", by_text, kind="choice").decision is Decision.KEEP


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The answer is (C).", "wrong"),
        ("a newt", "wrong"),
        ("The answer is B. Wait, actually it may be another.", "no answer"),
        ("It could be B or C, who knows", "no answer"),
        ("The answer is A fish, of course", "no answer"),
        ("E", "no answer"),
        ("", "no answer"),
    ],
)
def test_another_choice_is_not(text: str, reason: str) -> None:
    candidate = row(text, reference="B", choices=CHOICES)
    assert verdict("answer", candidate).reason == reason


def test_choices_with_labels_of_their_own_and_broken_ones() -> None:
    arc = {"text": CHOICES, "label": ["1", "2", "3", "4"]}
    assert verdict("answer", row("Answer: 2", reference="2", choices=arc)).score == 1.0
    lost = verdict("answer", row("B", reference="Z", choices=CHOICES))
    assert lost.reason == "the reference is none of the seed's choices"
    broken = verdict("answer", row("B", reference="B", choices=7))
    assert broken.reason.startswith("the seed has no choices: ")


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("Paris", Decision.KEEP),
        ("  **paris.** ", Decision.KEEP),
        ("The capital of France?\nAnswer: Paris", Decision.KEEP),
        ("The answer is Paris.", Decision.KEEP),
        ("Paris, Texas", Decision.DROP),
        ("", Decision.DROP),
    ],
)
def test_exact_answers_differ_in_form_only(text: str, decision: Decision) -> None:
    assert verdict("answer", row(text, reference="Paris"), kind="exact").decision is decision


def test_limits_of_mathematics_are_refused_where_nothing_heeds_them() -> None:
    with pytest.raises(UserError, match="limits of kind: math"):
        make_filter("answer", {"kind": "number", "seconds": 1.0}, "test")
    with pytest.raises(UserError, match=r"kind is one of|Invalid enum value"):
        make_filter("answer", {"kind": "algebra"}, "test")


def with_logprobs(*values: float) -> Any:
    candidate = row("yes it is")
    tokens = tuple(TokenLogprob("t", value) for value in values) or None
    generation = structs.replace(candidate.generation, logprobs=tokens)
    return structs.replace(candidate, generation=generation)


def test_unsure_answers_are_dropped_by_their_mean_log_probability() -> None:
    sure = verdict("logprob", with_logprobs(-0.5, -1.5), min_mean=-1.0)
    assert (sure.decision, sure.score) == (Decision.KEEP, -1.0)
    unsure = verdict("logprob", with_logprobs(-0.5, -3.5), min_mean=-1.0)
    assert (unsure.decision, unsure.reason, unsure.score) == (Decision.DROP, "mean below -1", -2.0)
    none = verdict("logprob", with_logprobs())
    assert none.reason == "the answer came without log-probabilities"
    impossible = verdict("logprob", with_logprobs(-0.5, float("-inf")))
    assert impossible.decision is Decision.DROP


def test_logprob_is_refused_before_anything_is_asked_without_log_probabilities(
    project: Project,
) -> None:
    project.edit(tasks__0__filters=[{"logprob": {"min_mean": -1.0}}])
    done = project.make(str(project.config))
    assert done.returncode == 2
    assert "sampling: {logprobs: 0}" in done.stderr
    assert not project.asked()


def asked_of(seed: str, text: str = "yes", finish: Finish = Finish.STOP) -> Any:
    candidate = row(text, finish=finish)
    return structs.replace(candidate, seed=structs.replace(candidate.seed, id=seed))


def test_seeds_that_are_too_easy_or_too_hard_are_dropped_by_their_pass_rate() -> None:
    check: Any = make_filter("pass_rate", {"band": [0.25, 0.75]}, "test")
    passed = {"easy": 4, "right": 2, "hard": 1}
    for seed, times in passed.items():
        for number in range(5 if seed == "hard" else 4):
            check.saw(asked_of(seed))
            if number < times:
                check.gather(asked_of(seed))
        check.saw(asked_of(seed, finish=Finish.ERROR))  # the endpoint's doing, not the seed's
    easy, right, hard = (check(asked_of(seed)) for seed in passed)
    assert (easy.decision, easy.reason, easy.score) == (
        Decision.DROP,
        "too easy: above 0.75",
        1.0,
    )
    assert (right.decision, right.score) == (Decision.KEEP, 0.5)
    assert (hard.decision, hard.reason, hard.score) == (Decision.DROP, "too hard: below 0.25", 0.2)


@pytest.mark.parametrize("band", [[0.9, 0.2], [-0.1, 0.5], [0.5], "0.2-0.9"])
def test_a_band_that_is_none_is_refused(band: Any) -> None:
    with pytest.raises(UserError, match="band"):
        make_filter("pass_rate", {"band": band}, "test")


def test_wrong_answers_count_in_the_pass_rate_that_kept_rows_carry(project: Project) -> None:
    # Of the three samples of a seed the fake teacher gets two right, in equal words.
    project.edit(
        tasks__0__filters=[{"answer": {}}, {"pass_rate": {"band": [0.5, 0.9]}}],
    )
    done = project.make(str(project.config))
    assert done.returncode == 0, done.stderr
    kept = project.rows("2_kept.jsonl")
    assert len(kept) == 12
    assert {example["meta"]["pass_rate"] for example in kept} == {0.6667}


@pytest.mark.parametrize(
    ("type_name", "params"),
    [
        ("include_words", {"words": ["-" * 5000 + "a"]}),
        ("include_words", {"words": [f"word{i}" for i in range(100_000)]}),
        ("word_frequency", {"word": "-" * 5000 + "a", "count": 1}),
    ],
)
def test_a_seed_s_constraint_that_would_hang_its_check_is_refused(
    type_name: str, params: dict[str, Any]
) -> None:
    from pipeline.constraints import check
    from pipeline.records import Constraint

    started = time.monotonic()
    with pytest.raises(UserError, match="at most"):
        check(Constraint(type_name, params), "-" * 1_000_000)
    assert time.monotonic() - started < 1
