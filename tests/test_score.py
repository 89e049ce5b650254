"""Saved answers come to the scores and verdicts that a person would work out by hand."""

from __future__ import annotations

import random

import msgspec
import pytest

from pipeline.records import Answer, Extraction, Finish, Score
from pipeline.stage3_evaluate.score import Scores, score
from pipeline.stage3_evaluate.statistics import Gap, Kept
from pipeline.stage3_evaluate.verdicts import Comparison, Finding, Role

ARMS = ["teacher", "before", "after"]


def rows(
    arm: str,
    ability: str,
    variant: str,
    right: list[int],
    *,
    extraction: Extraction = Extraction.VALUE,
    tokens: int = 10,
    prefix: str = "item",
) -> list[Answer]:
    return [
        Answer(
            model=arm,
            ability=ability,
            variant=variant,
            item_id=f"{prefix}-{number}",
            text="text",
            finish=Finish.STOP,
            extraction=extraction,
            extracted="1",
            correct=float(value),
            loose=1.0 if ability == "instruction_following" else None,
            output_tokens=tokens,
        )
        for number, value in enumerate(right)
    ]


def share(right: int, n: int = 40) -> list[int]:
    return [1] * right + [0] * (n - right)


def cot(arm: str, stepwise: int, direct: int = 4) -> list[Answer]:
    return [
        *rows(arm, "chain_of_thought", "step_by_step", share(stepwise), tokens=50),
        *rows(arm, "chain_of_thought", "direct", share(direct), tokens=5),
    ]


def value(found: Scores, arm: str, metric: str) -> Score:
    (one,) = [s for s in found.scores if s.model == arm and s.metric == metric]
    return one


def compared(found: Scores, metric: str) -> Comparison:
    (one,) = [c for c in found.comparisons if c.metric == metric]
    return one


def test_a_clear_gain_is_distilled_and_the_gap_is_a_share_of_the_teachers_lead() -> None:
    found = score(
        {"teacher": cot("teacher", 36), "before": cot("before", 6), "after": cot("after", 26)},
        arms=ARMS,
    )
    one = compared(found, "accuracy/step_by_step")
    assert one.verdict is Finding.DISTILLED
    assert one.difference == pytest.approx(0.5)
    assert (one.n, one.gained, one.lost) == (40, 20, 0)
    assert one.p == pytest.approx(2 / 2**20)
    assert one.gap.outcome is Gap.VALUE
    assert one.gap.value == pytest.approx(20 / 30)
    assert one.low > 0.3 and one.high < 0.7


def test_chain_of_thought_metrics_follow_from_the_rows() -> None:
    found = score({"before": cot("before", 10, direct=4)}, arms=["before"])
    assert value(found, "before", "accuracy/step_by_step").value == 0.25
    assert value(found, "before", "gain").value == pytest.approx(0.15)
    assert value(found, "before", "output_tokens/step_by_step").value == 50
    assert value(found, "before", "tokens_per_correct/step_by_step").value == 200
    assert found.comparisons == []


def test_a_loss_is_harm_and_no_difference_says_what_could_have_been_seen() -> None:
    worse = score({"before": cot("before", 30), "after": cot("after", 10)}, arms=ARMS)
    assert compared(worse, "accuracy/step_by_step").verdict is Finding.HARMED
    assert compared(worse, "accuracy/step_by_step").gap.outcome is Gap.NO_TEACHER
    same = score({"before": cot("before", 20), "after": cot("after", 21)}, arms=ARMS)
    one = compared(same, "accuracy/step_by_step")
    assert one.verdict is Finding.INCONCLUSIVE
    assert "40 items" in one.reason
    assert one.smallest_detectable is not None and 0.05 < one.smallest_detectable < 0.4


def test_a_floor_is_named_and_not_called_no_effect() -> None:
    found = score({"before": cot("before", 0), "after": cot("after", 0)}, arms=ARMS)
    assert "too hard" in compared(found, "accuracy/step_by_step").reason
    # Nothing right: tokens per right answer does not exist, and the notes say so.
    assert any("too few right answers" in note for note in found.notes)


def icl(arm: str, right: dict[tuple[str, int], list[int]]) -> list[Answer]:
    return [
        row
        for (task, k), values in right.items()
        for row in rows(arm, "in_context", f"{task} k={k}", values, prefix=task)
    ]


def test_in_context_is_the_mean_over_tasks_at_the_largest_k() -> None:
    before = {("map", 0): share(0), ("map", 8): share(10), ("topic", 0): share(5, 20)}
    before[("topic", 8)] = share(5, 20)
    after = before | {("map", 8): share(40), ("topic", 8): share(15, 20)}
    found = score({"before": icl("before", before), "after": icl("after", after)}, arms=ARMS)
    one = compared(found, "accuracy/mean/k=8")
    assert one.before == pytest.approx(0.25)
    assert one.after == pytest.approx((1.0 + 0.75) / 2)
    assert (one.n, one.gained, one.lost) == (60, 40, 0)
    assert one.verdict is Finding.DISTILLED
    assert value(found, "after", "accuracy/topic/k=0").value == 0.25
    assert value(found, "after", "gain/map").value == 1.0
    assert value(found, "after", "gain/mean").value == pytest.approx(0.75)


def test_several_draws_of_an_item_count_as_one_item() -> None:
    once = icl("before", {("map", 4): share(10)})
    thrice = [row for row in once for _ in range(3)]
    narrow = value(score({"before": once}, arms=ARMS), "before", "accuracy/map/k=4")
    wide = value(score({"before": thrice}, arms=ARMS), "before", "accuracy/map/k=4")
    assert (wide.n, wide.low, wide.high) == (narrow.n, narrow.low, narrow.high)


def following(arm: str, seen: int, unseen: int) -> list[Answer]:
    ability = "instruction_following"
    return [
        *rows(arm, ability, "seen_types", share(seen), prefix="seen"),
        *rows(arm, ability, "unseen_types", share(unseen), prefix="unseen"),
    ]


def test_unseen_types_are_primary_and_seen_types_share_the_holm_family() -> None:
    found = score(
        {"before": following("before", 10, 10), "after": following("after", 38, 16)}, arms=ARMS
    )
    unseen, seen = compared(found, "strict/unseen_types"), compared(found, "strict/seen_types")
    assert (unseen.role, seen.role) == (Role.PRIMARY, Role.SECONDARY)
    assert seen.verdict is Finding.DISTILLED
    # 6 of 6 alone is p = 0.031; as the larger of two it stays so, with a third test it does not.
    assert unseen.p == pytest.approx(unseen.p_adjusted)
    assert unseen.verdict is Finding.DISTILLED
    assert seen.p_adjusted == pytest.approx(2 * seen.p)
    assert value(found, "after", "loose/seen_types").value == 1.0
    third = score(
        {
            "before": [*following("before", 10, 10), *cot("before", 20)],
            "after": [*following("after", 38, 16), *cot("after", 20)],
        },
        arms=ARMS,
    )
    moved = compared(third, "strict/unseen_types")
    assert moved.p_adjusted == pytest.approx(2 * moved.p)
    assert moved.verdict is Finding.INCONCLUSIVE


def test_a_gain_only_in_format_shows_no_gain_on_readable_answers() -> None:
    ability = "chain_of_thought"
    before = rows("before", ability, "step_by_step", share(10)) + rows(
        "before", ability, "step_by_step", [0] * 20, extraction=Extraction.NO_ANSWER, prefix="mute"
    )
    after = rows("after", ability, "step_by_step", share(10)) + rows(
        "after", ability, "step_by_step", [1] * 20, prefix="mute"
    )
    found = score({"before": before, "after": after}, arms=ARMS)
    one = compared(found, "accuracy/step_by_step")
    assert one.difference == pytest.approx(20 / 60)
    assert one.valid is not None
    assert (one.valid.difference, one.valid.n) == (0.0, 40)
    assert (one.gained, one.gained_readable) == (20, 0)
    assert one.verdict is Finding.FORM
    assert "20 of them cut off or unreadable before" in one.reason


def test_a_missing_arm_and_missing_items_are_said() -> None:
    found = score({"before": cot("before", 10), "after": cot("after", 30)[5:]}, arms=ARMS)
    assert found.arms == ["before", "after"]
    assert any("teacher" in note for note in found.notes)
    assert compared(found, "accuracy/step_by_step").n == 35
    assert any("5 items" in note for note in found.notes)
    assert score({}, arms=ARMS).scores == []


def test_scores_survive_their_file_and_do_not_depend_on_row_order() -> None:
    answers = {"before": cot("before", 10), "after": cot("after", 30)}
    found = score(answers, arms=ARMS, seed=3)
    stored = msgspec.json.encode(found)
    assert msgspec.json.decode(stored, type=Scores) == found
    backwards = {arm: list(reversed(some)) for arm, some in answers.items()}
    again = score(backwards, arms=ARMS, seed=3)
    assert again.comparisons == found.comparisons


def arms(**right: int) -> dict[str, list[Answer]]:
    return {name.replace("_", "-", 1): cot(name, n) for name, n in right.items()}


def test_a_gain_that_a_control_has_as_well_is_not_distilled() -> None:
    found = score(arms(before=6, after=26, control_random=24), arms=["before", "after"])
    one = compared(found, "accuracy/step_by_step")
    assert one.p_adjusted < 0.001
    assert one.verdict is Finding.INCONCLUSIVE
    assert "not clearly better than the control random (+5 points" in one.reason
    (against,) = one.controls
    assert (against.arm, against.n) == ("control-random", 40)
    assert against.difference == pytest.approx(0.05)


def test_a_gain_over_before_and_over_every_control_is_distilled() -> None:
    beaten = arms(before=6, after=30, control_random=8, control_label_only=7)
    one = compared(score(beaten, arms=["before", "after"]), "accuracy/step_by_step")
    assert one.verdict is Finding.DISTILLED
    assert [against.arm for against in one.controls] == ["control-label_only", "control-random"]
    # One control that is as good is enough to take the claim away.
    matched = beaten | arms(control_gold=30)
    one = compared(score(matched, arms=["before", "after"]), "accuracy/step_by_step")
    assert one.verdict is Finding.INCONCLUSIVE and "control gold" in one.reason


def test_a_gain_that_is_not_clear_on_readable_answers_is_no_verdict() -> None:
    ability, variant = "chain_of_thought", "step_by_step"

    def arm(name: str, mute: list[int], readable: list[int], how: Extraction) -> list[Answer]:
        return rows(name, ability, variant, mute, extraction=how, prefix="mute") + rows(
            name, ability, variant, readable
        )

    before = arm("before", [0] * 20, share(10), Extraction.NO_ANSWER)
    after = arm("after", [1] * 20, share(13), Extraction.VALUE)
    found = score({"before": before, "after": after}, arms=ARMS)
    one = compared(found, "accuracy/step_by_step")
    assert one.low > 0 and one.p_adjusted < 0.05 and one.gained_readable == 3
    assert one.verdict is Finding.INCONCLUSIVE
    assert "not clearly on the items that both answered readably (+8 points" in one.reason


def test_a_gain_of_one_training_seed_alone_is_no_verdict() -> None:
    answers = {"before": cot("before", 10), "after": cot("after", 24)}
    assert compared(score(answers, arms=ARMS), "accuracy/step_by_step").seeds is None
    lucky = {"seed-1": cot("seed-1", 10), "seed-2": cot("seed-2", 2)}
    one = compared(score(answers | lucky, arms=ARMS), "accuracy/step_by_step")
    assert one.verdict is Finding.INCONCLUSIVE
    assert "not with every training seed (seed-2: -20 points)" in one.reason
    weak = {"seed-1": cot("seed-1", 11), "seed-2": cot("seed-2", 11)}
    two = compared(score(answers | weak, arms=ARMS), "accuracy/step_by_step")
    assert two.verdict is Finding.DISTILLED  # the mean over them is clear, and all of them gained
    assert one.seeds is not None and one.seeds.arms == ["after", "seed-1", "seed-2"]
    assert one.seeds.differences == pytest.approx([14 / 40, 0, -8 / 40])
    steady = {"seed-1": cot("seed-1", 22), "seed-2": cot("seed-2", 27)}
    one = compared(score(answers | steady, arms=ARMS), "accuracy/step_by_step")
    assert one.verdict is Finding.DISTILLED


def test_a_gain_that_ends_where_training_ended_is_no_verdict() -> None:
    def arm(name: str, inside: int, longer: int, larger: int) -> list[Answer]:
        variant = "step_by_step beyond="
        return [
            *cot(name, inside),
            *rows(name, "chain_of_thought", f"{variant}longer", share(longer), prefix="longer"),
            *rows(name, "chain_of_thought", f"{variant}larger", share(larger), prefix="larger"),
        ]

    before = arm("before", 10, 4, 4)
    found = score({"before": before, "after": arm("after", 30, 6, 3)}, arms=ARMS)
    one = compared(found, "accuracy/step_by_step")
    assert one.verdict is Finding.INCONCLUSIVE
    assert "not clearly beyond what was trained (+1 points" in one.reason
    assert [(part.arm, part.n) for part in one.beyond] == [
        ("beyond what was trained", 80), ("longer", 40), ("larger", 40),
    ]  # fmt: skip
    assert [part.difference for part in one.beyond] == pytest.approx([0.0125, 0.05, -0.025])
    found = score({"before": before, "after": arm("after", 30, 20, 18)}, arms=ARMS)
    assert compared(found, "accuracy/step_by_step").verdict is Finding.DISTILLED


def test_an_in_context_task_beyond_training_is_in_no_mean_but_in_the_verdict() -> None:
    def arm(name: str, inside: int, outside: int) -> list[Answer]:
        return [
            *rows(name, "in_context", "symbols k=8", share(inside)),
            *rows(name, "in_context", "lists (beyond) k=8", share(outside), prefix="list"),
        ]

    found = score({"before": arm("before", 5, 8), "after": arm("after", 30, 8)}, arms=ARMS)
    one = compared(found, "accuracy/mean/k=8")
    assert (one.before, one.after) == (5 / 40, 30 / 40)
    assert value(found, "after", "accuracy/lists (beyond)/k=8").value == 8 / 40
    assert one.beyond[1].arm == "lists"
    assert one.verdict is Finding.INCONCLUSIVE and "beyond what was trained" in one.reason


def test_a_gain_over_a_control_without_answers_is_no_verdict() -> None:
    answers = {"before": cot("before", 10), "after": cot("after", 30)}
    one = compared(score(answers, arms=[*ARMS, "control-random"]), "accuracy/step_by_step")
    assert one.verdict is Finding.INCONCLUSIVE
    assert one.reason == "better than before, but control-random has no answers to compare"


def test_a_loss_on_the_larger_task_does_not_prove_a_gain_of_the_mean() -> None:
    def arm(name: str, large: list[int], small: list[int]) -> list[Answer]:
        return [
            *rows(name, "in_context", "large k=8", large),
            *rows(name, "in_context", "small k=8", small, prefix="small"),
        ]

    before = arm("before", share(200, 400), share(8, 20))
    after = arm("after", share(170, 400), share(14, 20))
    one = compared(score({"before": before, "after": after}, arms=ARMS), "accuracy/mean/k=8")
    assert one.difference == pytest.approx((0.3 - 0.075) / 2)
    # Item by item it is 30 lost and 6 gained; the mean of the tasks is what is claimed.
    assert (one.gained, one.lost) == (6, 30)
    assert one.p > 0.005


def test_nothing_lost_is_a_claim_of_its_own_with_a_margin() -> None:
    def kept(before: int, after: int, margin: float) -> Kept:
        answers = {"before": cot("before", before), "after": cot("after", after)}
        return compared(score(answers, arms=ARMS, margin=margin), "accuracy/step_by_step").kept

    assert kept(20, 20, 0.10) is Kept.KEPT
    # Forty items cannot show that there is no loss of more than 2 points.
    assert kept(20, 20, 0.02) is Kept.UNCLEAR
    assert kept(30, 10, 0.05) is Kept.LOST


def test_asking_the_student_before_again_shows_the_noise() -> None:
    first = cot("before", 20)
    again = [
        msgspec.structs.replace(row, correct=1.0 - row.correct)
        if row.item_id in ("item-0", "item-39", "item-38")
        and row.variant == "step_by_step"
        else row
        for row in first
    ]  # fmt: skip
    found = score({"before": first, "before_again": again}, arms=["before"])
    (noise,) = found.noise
    assert (noise.metric, noise.differing, noise.n) == ("accuracy/step_by_step", 3, 40)
    assert noise.difference == pytest.approx(1 / 40)
    assert noise.low < 0 < noise.high


@pytest.mark.slow
def test_two_evaluations_of_one_model_give_no_verdict_beyond_the_declared_5_percent() -> None:
    # 100 times the same student, asked twice at random: each item has its own chance to be right.
    # Four comparisons a run; Holm keeps the share of runs with any verdict at 5 %.
    draw = random.Random(5)
    chances = [draw.betavariate(0.6, 0.9) for _ in range(64)]
    found = 0
    for _ in range(100):
        answers = {}
        for arm in ("before", "after"):
            some = []
            for ability, variant in (
                ("chain_of_thought", "step_by_step"),
                ("in_context", "task k=8"),
                ("instruction_following", "unseen_types"),
                ("instruction_following", "seen_types"),
            ):
                some += rows(arm, ability, variant, [int(draw.random() < p) for p in chances])
            answers[arm] = some
        verdicts = {c.verdict for c in score(answers, arms=["before", "after"]).comparisons}
        found += verdicts != {Finding.INCONCLUSIVE}
    assert found <= 10  # binomial(100, 0.05): more in 1.2 % of cases, and the tests are exact
