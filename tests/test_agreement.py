"""Filters that look at all the answers to a seed, label sets, and how right the labels were."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from msgspec import structs

from pipeline.errors import UserError
from pipeline.records import Decision, Finish, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, make_filter
from pipeline.stage1_generate.curate.label_quality import Measuring
from tests.test_filters import row

LABELS = ["negative", "positive"]


def of_seed(text: str, seed_id: str = "s", index: int = 0, **more: Any) -> Candidate:
    made = row(text, **more)
    return structs.replace(
        made,
        seed=structs.replace(made.seed, id=seed_id),
        request=structs.replace(made.request, id=f"{seed_id}-{index}", sample_index=index),
    )


def verdicts(name: str, rows: list[Candidate], **settings: Any) -> list[Verdict]:
    """As curation does: all rows are seen, those that are gathered judged."""
    check: Any = make_filter(name, settings, "test")
    for one in rows:
        if hasattr(check, "saw"):
            check.saw(one)
    passed = [one for one in rows if one.generation.finish is Finish.STOP]
    for one in passed:
        check.gather(one)
    return [check(one) for one in passed]


def samples(*texts: str, **more: Any) -> list[Candidate]:
    return [of_seed(text, index=i, **more) for i, text in enumerate(texts)]


def kept(found: list[Verdict]) -> list[bool]:
    return [verdict.decision is Decision.KEEP for verdict in found]


def test_answers_that_agree_with_most_are_kept_with_their_agreement() -> None:
    found = verdicts("vote", samples("It is 8.", "so 8", "9", "The answer is 8.0."))
    assert kept(found) == [True, True, False, True]
    assert {verdict.score for verdict in found} == {0.75}
    assert found[2].reason == "not what most answers say"


def test_a_tie_is_dropped() -> None:
    found = verdicts("vote", samples("8", "8", "9", "9"), min_agreement=0.5)
    assert kept(found) == [False] * 4
    assert {verdict.reason for verdict in found} == {"tie"}


def test_agreement_below_the_threshold_is_dropped() -> None:
    found = verdicts("vote", samples("8", "8", "9", "7", "6"), min_agreement=0.5)
    assert found[0].reason == "agreement below 0.5"
    assert found[0].score == 0.4


def test_answers_without_a_value_have_no_vote_and_count_all_the_same() -> None:
    found = verdicts("vote", samples("8", "8", "I do not know.", "who knows"), min_agreement=0.6)
    assert kept(found) == [False] * 4
    assert found[2].reason == "no readable answer"
    half = verdicts("vote", samples("8", "8", "no", "no"), min_agreement=0.5)
    assert kept(half) == [True, True, False, False]


def test_answers_dropped_before_the_vote_count_unless_they_were_cut_off() -> None:
    check: Any = make_filter("vote", {"min_agreement": 0.6}, "test")
    rows = samples("8", "8", "loop loop", "loop loop")
    for one in rows:
        check.saw(one)
    for one in rows[:2]:
        check.gather(one)
    assert check(rows[0]).score == 0.5
    cut = [*samples("8", "8"), of_seed("It is", finish=Finish.LENGTH, index=2)]
    assert [v.score for v in verdicts("vote", cut)] == [1.0, 1.0]


def test_one_answer_alone_is_no_majority() -> None:
    (found,) = verdicts("vote", samples("8"))
    assert found.reason == "fewer than 2 votes for one answer"
    assert kept(verdicts("vote", samples("8"), min_votes=1)) == [True]


def test_seeds_vote_apart() -> None:
    rows = samples("8", "8") + [of_seed("9", "other", i) for i in range(2)]
    assert kept(verdicts("vote", rows)) == [True] * 4


def test_many_seeds_at_once_come_out_as_each_alone() -> None:
    rng = random.Random(5)
    seeds = {
        f"s{i}": [rng.choice(["1", "2", "3", "?"]) for _ in range(rng.randint(1, 6))]
        for i in range(60)
    }
    rows = [of_seed(t, name, i) for name, texts in seeds.items() for i, t in enumerate(texts)]
    together = {
        one.request.id: (found.decision, found.reason, found.score)
        for one, found in zip(rows, verdicts("vote", rows, min_agreement=0.5), strict=True)
    }
    for name, texts in seeds.items():
        votes = Counter(text for text in texts if text != "?").most_common()
        for i, text in enumerate(texts):
            decision, reason, score = together[f"{name}-{i}"]
            tie = len(votes) > 1 and votes[0][1] == votes[1][1]
            wins = not tie and votes and text == votes[0][0]
            enough = bool(votes) and votes[0][1] >= 2 and votes[0][1] / len(texts) >= 0.5
            assert (decision is Decision.KEEP) == bool(wins and enough), (texts, text, reason)
            assert score is None or score == round(votes[0][1] / len(texts), 3)


@pytest.mark.parametrize(
    ("texts", "settings", "fields"),
    [
        (("Positive", "label: positive", "negative"), {}, {"labels": LABELS}),
        (('{"a": 1, "b": 2}', '{"b":2,"a":1}', '{"a": 2}'), {"kind": "json"}, {}),
        (("A long  Story", "a long story", "another"), {"kind": "exact"}, {}),
        (("1/2", "0.5", "0.6"), {"kind": "number"}, {}),
        (('{"a": 1}', '{ "a":1 }', '{"a": 2}'), {}, {"schema": {"type": "object"}}),
        (("The answer is (B).", "B", "Answer: A"), {}, {"choices": ["4", "5"]}),
    ],
)
def test_votes_are_compared_by_kind(
    texts: tuple[str, ...], settings: dict[str, Any], fields: dict[str, Any]
) -> None:
    found = verdicts("vote", samples(*texts, **fields), **settings)
    assert kept(found) == [True, True, False]


@pytest.mark.parametrize("settings", [{"min_agreement": 0}, {"min_votes": 0}, {"kind": "vibes"}])
def test_a_vote_with_wrong_settings_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"test\.vote"):
        make_filter("vote", settings, "test")


# diverse_rationales


def test_a_rationale_with_the_equations_of_an_earlier_one_is_dropped() -> None:
    found = verdicts(
        "diverse_rationales",
        samples(
            "She has 4 * 6 = 24 cups, then 24 - 9 = 15. The answer is 15.",
            "First 4 big cups/jug × 6 jugs = 24.0 cups. After that 24 − 9 = 15, so it is 15.",
            "6 + 6 + 6 + 6 = 24 and 24 - 9 = 15. The answer is 15.",
        ),
    )
    assert kept(found) == [True, False, True]
    assert found[1].reason == "the equations of an earlier rationale"


def test_a_seed_keeps_at_most_so_many_rationales() -> None:
    texts = [f"{n} + 1 = {n + 1}" for n in range(6)]
    found = verdicts("diverse_rationales", samples(*texts), at_most=2)
    assert kept(found) == [True, True, False, False, False, False]
    assert found[2].reason == "the seed has 2 different rationales"


def test_rationales_without_equations_are_compared_by_their_words() -> None:
    found = verdicts(
        "diverse_rationales",
        samples(
            "Whales breathe air and feed milk, so a whale is a mammal.",
            "Whales breathe air and feed milk; so a whale is a mammal!",
            "Fish have gills. Whales have lungs and warm blood, hence they are mammals.",
        ),
    )
    assert kept(found) == [True, False, True]


def test_other_seeds_may_have_the_same_equations() -> None:
    rows = [of_seed("1 + 1 = 2", "a"), of_seed("1 + 1 = 2", "b")]
    assert kept(verdicts("diverse_rationales", rows)) == [True, True]


# label_set

TEXT = "Marie Curie moved to Paris."


@pytest.mark.parametrize(
    ("text", "fields", "reason"),
    [
        ("positive", {"labels": LABELS}, None),
        ("positive or negative", {"labels": LABELS}, "no label of the set, or several"),
        ('[{"text": "Paris", "type": "place"}]', {"entity_types": ["place"]}, None),
        ("[]", {"entity_types": ["place"]}, None),
        (
            '[{"text": "London", "type": "place"}]',
            {"entity_types": ["place"]},
            "a span that is not in the text: London",
        ),
        (
            '[{"text": "Paris", "type": "city"}]',
            {"entity_types": ["place"]},
            "a type that is not in the set: city",
        ),
        ("Paris is a place", {"entity_types": ["place"]}, "not a JSON list of {text, type}"),
        ('{"who": "Marie"}', {"schema": {"required": ["who"]}}, None),
        ('{"where": "Paris"}', {"schema": {"required": ["who"]}}, "breaks the schema: $"),
        ("Marie", {"schema": {"required": ["who"]}}, "not JSON"),
    ],
)
def test_answers_outside_the_label_set_are_dropped(
    text: str, fields: dict[str, Any], reason: str | None
) -> None:
    check: Filter = make_filter("label_set", {}, "test")
    found = check(with_text(text, fields))
    assert (found.decision is Decision.KEEP) == (reason is None)
    assert found.reason == (reason or "")


def with_text(answer: str, fields: dict[str, Any]) -> Candidate:
    made = row(answer)
    seed = structs.replace(made.seed, fields={"question": TEXT, "text": TEXT} | fields)
    return structs.replace(made, seed=seed)


# label quality


def test_label_quality_is_scikit_learns_on_all_and_on_kept_answers() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    gold = ["positive", "positive", "negative", "negative", "negative", "positive"]
    told = ["positive", "negative", "negative", "positive", "negative", "positive"]
    keep = [True, False, True, True, True, False]
    measuring = Measuring("t", labels=True)
    for i, (right, answer, is_kept) in enumerate(zip(gold, told, keep, strict=True)):
        one = of_seed(answer, f"s{i}", reference=right, labels=LABELS)
        measuring.add(one, is_kept)
    found = measuring.result()
    assert found is not None
    assert (found.seeds, found.seeds_kept) == (6, 4)
    assert (found.all.right, found.kept.right, found.kept.accuracy) == (4, 3, 0.75)
    pairs = list(zip(gold, told, keep, strict=True))
    for side, rows in ((found.all, pairs), (found.kept, [p for p in pairs if p[2]])):
        wanted = precision_recall_fscore_support(
            [r[0] for r in rows], [r[1] for r in rows], labels=LABELS, zero_division=0
        )
        for number, name in enumerate(LABELS):
            one_class = next(c for c in side.classes if c.name == name)
            expected = [round(float(column[number]), 4) for column in wanted]
            have = [one_class.precision, one_class.recall, one_class.f1, one_class.support]
            assert have == expected


def test_answers_without_a_label_count_as_missed() -> None:
    measuring = Measuring("t", labels=True)
    measuring.add(of_seed("hm", reference="positive", labels=LABELS), True)
    found = measuring.result()
    assert found is not None
    assert (found.all.classes[0].recall, found.all.classes[0].support) == (0.0, 1)


def test_entities_are_right_by_span_and_type() -> None:
    measuring = Measuring("t", labels=True)
    made = with_text('[{"text": "Paris", "type": "person"}]', {"entity_types": ["person", "place"]})
    gold = '[{"text": "Paris", "type": "place"}, {"text": "Marie Curie", "type": "person"}]'
    seed = structs.replace(made.seed, reference=gold)
    measuring.add(structs.replace(made, seed=seed), True)
    found = measuring.result()
    assert found is not None
    by_name = {c.name: (c.precision, c.recall, c.support) for c in found.all.classes}
    assert by_name == {"person": (0.0, 0.0, 1), "place": (0.0, 0.0, 1)}


def test_seeds_without_a_gold_answer_give_no_table() -> None:
    measuring = Measuring("t", labels=False)
    measuring.add(of_seed("8"), True)
    assert measuring.result() is None
