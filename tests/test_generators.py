"""Generated seeds: the same from the same seed, disjoint where they say so, right answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from pipeline import constraints
from pipeline.errors import UserError
from pipeline.records import Constraint, Extraction, Finish
from pipeline.stage1_generate.generators import generate
from pipeline.stage1_generate.seeds import seed_of_row
from pipeline.stage3_evaluate.answers import expected_of, is_right, read_answer

TOPICS = "data/seeds/topics.jsonl"
HEADLINES = "data/eval/headlines.jsonl"
EXAMPLES = "data/seeds/constraint_examples.jsonl"

# The answer of every story from the numbers in the order of its text, worked out apart from the
# generator's own formulas.
ANSWERS: dict[str, Callable[..., float]] = {
    "gift": lambda a, b: a + b,
    "give_away": lambda a, b: a - b,
    "boxes": lambda a, b: a * b,
    "share": lambda a, b: a / b,
    "together": lambda a, b: a + b,
    "more_than": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "tickets": lambda a, b: a * b,
    "bus_stop": lambda a, b: a + b,
    "daily_pages": lambda a, b: a * b,
    "age": lambda a, b: a + b,
    "teams": lambda a, b: a / b,
    "lost": lambda a, b: a - b,
    "book_price": lambda a, b: a - b,
    "buy_and_give": lambda a, b, c: a + b - c,
    "bags_given": lambda a, b, c: a * b - c,
    "both_have": lambda a, b: 2 * a + b,
    "pens_and_bag": lambda a, b, c: a * b + c,
    "two_colours": lambda a, b, c: (a + b) / c,
    "off_and_on": lambda a, b, c: a - b + c,
    "wages": lambda a, b, c: a * b - c,
    "twice_pages": lambda a: 3 * a,
    "shop_day": lambda a, b, c: a - (b + c),
    "baked": lambda a, b, c: (a - b) / c,
    "times_more": lambda a, b: a * (b - 1),
    "chairs": lambda a, b, c: a * b + c,
    "two_ages": lambda a, b, c: a + b + c,
    "packed": lambda a, b, c: a / b - c,
    "packs_lost": lambda a, b, c, d: a * b - (c + d),
    "fruit_bill": lambda a, b, c, d: a * b + c * d,
    "three_people": lambda a, b, c: (a + b) * (1 + c),
    "two_stops": lambda a, b, c, d: a - b + c + d,
    "half_rest": lambda a, b, c: (a * b - c) / 2,
    "library": lambda a, b, c, d: a * b - c + d,
    "three_days": lambda a, b, c: 2 * a + b + c,
    "three_colours": lambda a, b, c, d: (a + b + c) / d,
    "boxes_and_bags": lambda a, b, c, d, e: a * b + c * d - e,
    "up_and_down": lambda a, b, c, d, e: a + b - c + d - e,
    "envelopes": lambda a, b, c, d, e: ((a + b) * c - d) / e,
    "twice_sold": lambda a, b, c: a * b - 3 * c,
    "three_stops": lambda a, b, c, d, e: a + b - c + d - e,
    "birds": lambda a, b: a + b,
    "plate": lambda a, b: a - b,
    "garden_rows": lambda a, b: a * b,
    "rope": lambda a, b: a / b,
    "fewer": lambda a, b: a - b,
    "savings": lambda a, b: a * b,
    "apple_tree": lambda a, b, c: (a - b) / c,
    "walks": lambda a, b, c: (a + b) * c,
    "finder": lambda a, b, c: a + b + c,
    "hens": lambda a, b, c: a * b - c,
    "cinema": lambda a, b, c: a - b * c,
    "rows_of_seats": lambda a, b, c: (a + b) / c,
    "fewer_both": lambda a, b: 2 * a - b,
    "rolls": lambda a, b, c, d: (a * b - c) / d,
    "notebooks": lambda a, b, c, d: a - b * c + d,
    "groups": lambda a, b, c, d: (a + b - c) / d,
    "sport_week": lambda a, b, c, d: a * b + c * d,
    "harvest": lambda a, b, c, d, e: (a * b + c * d) / e,
    "drinks": lambda a, b, c, d, e: a - b * c - d * e,
    "car_trip": lambda a, b, c, d, e: (a + b - c) / d * e,
    "zh_gift": lambda a, b: a + b,
    "zh_give_away": lambda a, b: a - b,
    "zh_boxes": lambda a, b: a * b,
    "zh_share": lambda a, b: a / b,
    "zh_more_than": lambda a, b: a + b,
    "zh_difference": lambda a, b: a - b,
    "zh_tickets": lambda a, b: a * b,
    "zh_buy_and_give": lambda a, b, c: a + b - c,
    "zh_bags": lambda a, b, c: a * b - c,
    "zh_both": lambda a, b: 2 * a + b,
    "zh_bill": lambda a, b, c: a * b + c,
    "zh_bus": lambda a, b, c: a - b + c,
    "zh_two_colours": lambda a, b, c: (a + b) / c,
    "zh_library": lambda a, b, c, d: a * b - c + d,
    "zh_fruit": lambda a, b, c, d: a * b + c * d,
    "zh_boxes_bags": lambda a, b, c, d, e: a * b + c * d - e,
    "zh_birds": lambda a, b: a + b,
    "zh_plate": lambda a, b: a - b,
    "zh_rows": lambda a, b: a * b,
    "zh_rope": lambda a, b: a / b,
    "zh_hens": lambda a, b, c: a * b - c,
    "zh_walk": lambda a, b, c: (a + b) * c,
    "zh_tree": lambda a, b, c: (a - b) / c,
    "zh_rolls": lambda a, b, c, d: (a * b - c) / d,
    "zh_trip": lambda a, b, c, d, e: (a + b - c) / d * e,
}


def rows(name: str, n: int, seed: int = 1, language: str = "en", **options: Any) -> list[Any]:
    return list(generate(name, n, seed, language, **options))


def problems(n: int, language: str = "en", **options: Any) -> list[Any]:
    return rows("word_problems", n, language=language, steps=[1, 2, 3, 4], **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("word_problems", {"steps": [1, 2]}),
        ("coin_flips", {"steps": [2, 4]}),
        ("last_letters", {"steps": [2, 4]}),
        ("object_tracking", {"steps": [2, 4]}),
        ("symbolic", {"steps": [2, 4]}),
        ("symbol_mapping", {}),
        ("classification", {"file": HEADLINES}),
        ("constrained_instructions", {"topics": TOPICS, "combine": [1, 2, 3]}),
    ],
)
def test_a_seed_gives_the_same_rows_and_another_seed_gives_others(
    name: str, options: dict[str, Any]
) -> None:
    first = rows(name, 40, 1, **options)
    assert first == rows(name, 40, 1, **options)
    assert first[:10] == rows(name, 40, 1, **options)[:10]
    assert first != rows(name, 40, 2, **options)
    assert len({row["id"] for row in first}) == 40


@pytest.mark.parametrize("largest", [9, 40])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_answers_of_word_problems_are_right(language: str, largest: int) -> None:
    made = problems(1200, language, largest=largest)
    for row in made:
        numbers = [int(number) for number in re.findall(r"\d+", row["question"])]
        assert max(numbers) <= largest and min(numbers) >= 2
        assert float(row["answer"]) == ANSWERS[row["template"]](*numbers), row
        assert int(row["answer"]) > 0
        assert "{" not in row["question"]
    assert {row["steps"] for row in made} == {1, 2, 3, 4}


def test_every_story_is_told_and_known_to_this_test() -> None:
    told = {r["template"] for lang in ("en", "zh") for r in problems(1500, lang, largest=60)}
    assert told == set(ANSWERS)


def test_no_two_word_problems_of_a_call_are_the_same() -> None:
    made = rows("word_problems", 500, steps=1, largest=9)
    assert len({row["question"] for row in made}) == 500


def test_templates_for_training_and_evaluation_are_disjoint() -> None:
    for language in ("en", "zh"):
        used = [
            {row["template"] for row in problems(400, language, largest=40, templates=group)}
            for group in ("train", "eval")
        ]
        assert not used[0] & used[1]


def test_splits_of_word_problems_share_no_name_and_no_question() -> None:
    train, held_out = (problems(600, largest=20, split=split) for split in ("train", "eval"))
    names = [
        {word for row in part for word in re.findall(r"\b[A-Z][a-z]+\b", row["question"])}
        for part in (train, held_out)
    ]
    people = {"Tom", "Anna", "Ben", "Noah", "Ines", "Clara", "Felix", "Zoe"}
    assert not names[0] & names[1] & people
    assert names[0] & people and names[1] & people
    forms = [
        {(r["template"], *re.findall(r"\d+", r["question"])) for r in part}
        for part in (train, held_out)
    ]
    assert not forms[0] & forms[1]


def test_asking_for_more_problems_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="different problems"):
        rows("word_problems", 5000, steps=4, largest=3, templates="eval")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("classes", [2, 3])
def test_shots_are_nested_balanced_and_labelled_as_the_query_is(
    language: str, classes: int
) -> None:
    for split in ("train", "eval"):
        most = 4 * classes
        for row in rows(
            "symbol_mapping", 60, language=language, classes=classes, shots=most, split=split
        ):
            shots = row["shots"]
            assert len(shots) == most
            for k in range(classes, most + 1, classes):
                counts = Counter(shot["label"] for shot in shots[:k])
                assert set(counts.values()) == {k // classes} and set(counts) == set(row["labels"])
            texts = [shot["text"] for shot in shots]
            assert len(set(texts)) == most and row["text"] not in texts
            assert row["answer"] in row["labels"]


def test_symbols_mean_nothing_before_the_shots() -> None:
    made = rows("symbol_mapping", 800, split="eval")
    assert 0.4 < sum(row["answer"] == row["labels"][0] for row in made) / 800 < 0.6
    meanings: dict[str, set[str]] = {}
    for row in made:
        category = row["categories"][row["labels"].index(row["answer"])]
        meanings.setdefault(row["answer"], set()).add(category)
        meanings.setdefault(row["answer"], set()).update(row["categories"])
    assert min(len(seen) for seen in meanings.values()) > 2


def test_splits_of_symbols_share_no_word_no_category_and_no_label() -> None:
    for language in ("en", "zh"):
        train, held_out = (
            rows("symbol_mapping", 400, language=language, split=split)
            for split in ("train", "eval")
        )
        for read in (
            lambda row: row["labels"],
            lambda row: row["categories"],
            lambda row: [row["text"], *(shot["text"] for shot in row["shots"])],
        ):
            assert not {x for row in train for x in read(row)} & {
                x for row in held_out for x in read(row)
            }


def test_the_label_of_a_shot_stands_for_one_category() -> None:
    from pipeline.stage1_generate.generators.vocabulary import CATEGORIES

    for split, categories in CATEGORIES["en"].items():
        words = [word for pool in categories.values() for word in pool]
        assert len(set(words)) == len(words)
        assert all(len(pool) >= 20 for pool in categories.values())
        for row in rows("symbol_mapping", 50, split=split):
            pairs = [(s["text"], s["label"]) for s in row["shots"]] + [(row["text"], row["answer"])]
            found = {
                label: {
                    c for t, one in pairs if one == label for c in categories if t in categories[c]
                }
                for label in row["labels"]
            }
            assert all(len(seen) == 1 for seen in found.values())


def test_classification_asks_each_text_once_and_never_shows_it() -> None:
    made = rows("classification", 40, file=HEADLINES, shots=8)
    assert len({row["text"] for row in made}) == 40
    for row in made:
        assert row["text"] not in [shot["text"] for shot in row["shots"]]
        assert Counter(shot["label"] for shot in row["shots"]) == dict.fromkeys(row["labels"], 2)


def test_flipped_labels_are_all_wrong_and_symbols_are_none_of_them() -> None:
    natural = {r["text"]: r["answer"] for r in rows("classification", 40, file=HEADLINES)}
    for row in rows("classification", 40, file=HEADLINES, labels="flipped"):
        assert row["answer"] != natural[row["text"]]
        assert all(shot["label"] != natural[shot["text"]] for shot in row["shots"])
    for row in rows("classification", 40, file=HEADLINES, labels="symbols"):
        assert not set(row["labels"]) & set(natural.values())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_constrained_instructions_say_what_they_record(language: str) -> None:
    made = rows(
        "constrained_instructions", 120, language=language, topics=TOPICS, combine=[1, 2, 3]
    )
    for i, row in enumerate(made):
        asked = [Constraint(**one) for one in row["constraints"]]
        assert len(asked) == i % 3 + 1
        assert row["instruction"].startswith(row["base"])
        assert len(row["instruction"]) > len(row["base"]) + 4 * len(asked)
        for one in asked:
            for value in one.params.values():
                for part in value if isinstance(value, list) else [value]:
                    assert str(part) in row["instruction"]
        for place, one in enumerate(asked):
            assert all(constraints.conflict(one, other) is None for other in asked[:place])
    assert len({row["instruction"] for row in made}) == 120


def test_types_and_topics_are_used_equally_often() -> None:
    types = ["bullets", "no_comma", "all_lowercase", "end_question"]
    made = rows("constrained_instructions", 128, topics=TOPICS, types=types)
    assert max(Counter(row["topic"] for row in made).values()) == 2
    counted = Counter(row["constraints"][0]["type"] for row in made)
    assert set(counted) == set(types) and max(counted.values()) - min(counted.values()) <= 8


def test_a_topic_meets_another_type_each_time() -> None:
    types = ["bullets", "no_comma", "all_lowercase", "end_question"]
    met: dict[str, list[str]] = {}
    for row in rows("constrained_instructions", 260, topics=TOPICS, types=types):
        met.setdefault(row["topic"], []).append(row["constraints"][0]["type"])
    assert sum(len(set(seen)) == len(seen) for seen in met.values()) > len(met) * 0.8


def test_worked_examples_are_of_the_types_asked_for() -> None:
    types = ["bullets", "all_lowercase"]
    for row in rows("constrained_instructions", 40, topics=TOPICS, types=types, examples=EXAMPLES):
        assert len(row["examples"]) >= 2
        one = row["constraints"][0]["type"]
        for shot in row["examples"]:
            assert set(shot) == {"user", "assistant"}
            assert shot["assistant"].startswith("- ") == (one == "bullets")
            assert row["topic"] not in shot["user"]


def test_conflicting_types_alone_cannot_be_combined() -> None:
    with pytest.raises(UserError, match="go together"):
        rows(
            "constrained_instructions",
            4,
            topics=TOPICS,
            types=["all_lowercase", "all_uppercase"],
            combine=2,
        )


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("word_problem", {}, "word_problems"),
        ("word_problems", {"step": 2}, "steps"),
        ("word_problems", {"steps": 9}, "1 to 4"),
        ("word_problems", {"templates": "test"}, "train, eval, all"),
        ("word_problems", {"n": 0}, "whole number"),
        ("word_problems", {"language": "fr"}, "en or zh"),
        ("symbol_mapping", {"shots": 400}, "shots"),
        ("classification", {}, "JSONL"),
        ("classification", {"file": "data/none.jsonl"}, "none.jsonl"),
        ("constrained_instructions", {"topics": TOPICS, "types": ["rhyme"]}, "rhyme"),
        ("constrained_instructions", {"topics": TOPICS, "per_topic": 1, "n": 1000}, "per_topic"),
        ("constrained_instructions", {"topics": TOPICS, "combine": 4}, "combine"),
    ],
)
def test_a_wrong_option_is_refused_and_the_right_ones_are_named(
    name: str, options: dict[str, Any], told: str
) -> None:
    given: dict[str, Any] = {"n": 5, "seed": 1} | options
    with pytest.raises(UserError, match=told):
        list(islice(generate(name, **given), 1))


def symbolic(name: str, n: int, **options: Any) -> list[Any]:
    return rows(name, n, **options)


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_a_coin_shows_heads_after_an_even_number_of_flips_and_half_the_answers_are_yes(
    steps: int,
) -> None:
    made = symbolic("coin_flips", 60, steps=steps)
    for row in made:
        acts = row["question"].split(". ")[1:-1]
        flips = sum(re.search(r"flips|turns", act) is not None for act in acts)
        assert len(acts) == steps == row["steps"]
        assert row["answer"] == ("no" if flips % 2 else "yes")
    assert Counter(row["answer"] for row in made) == {"yes": 30, "no": 30}


def test_last_letters_are_those_of_the_names_in_order() -> None:
    for row in symbolic("last_letters", 80, steps=[1, 2, 5]):
        words = re.findall(r'"(.*)"', row["question"])[0].split()
        assert len(words) == row["steps"]
        assert row["answer"] == "".join(word[-1] for word in words)


@pytest.mark.parametrize("letters", [False, True])
def test_objects_are_where_the_swaps_leave_them_and_every_place_is_right_equally_often(
    letters: bool,
) -> None:
    made = symbolic("object_tracking", 90, steps=[2, 5], objects=3, letters=letters)
    places = Counter()
    for row in made:
        begins = dict(re.findall(r"(\w+) has the (\w+) one", row["question"]))
        swaps = re.findall(r"(?:First|Then) (\w+) and (\w+) swap", row["question"])
        for one, two in swaps:
            begins[one], begins[two] = begins[two], begins[one]
        (asked,) = re.findall(r"does (\w+) hold in the end", row["question"])
        right = row["choices"].index(begins[asked])
        assert row["answer"] == (f"({'ABC'[right]})" if letters else begins[asked])
        assert (f"(B) {row['choices'][1]}" in row["question"]) is letters
        assert len(swaps) == row["steps"]
        places[right] += 1
    assert set(places.values()) == {30}


@pytest.mark.parametrize("name", ["coin_flips", "last_letters", "object_tracking", "symbolic"])
def test_symbolic_splits_share_no_name_and_no_thing(name: str) -> None:
    words = {
        side: {
            word
            for row in symbolic(name, 300, steps=[3, 4], split=side)
            for word in re.findall(r"\b[A-Z][a-z]+\b", row["question"])
        }
        for side in ("train", "eval")
    }
    assert words["train"] & words["eval"] <= {"Is", "Join", "First", "Then", "Which"}
    things = {
        side: {
            kind for row in symbolic("object_tracking", 100, split=side) for kind in row["choices"]
        }
        for side in ("train", "eval")
    }
    assert not things["train"] & things["eval"]


def test_symbolic_problems_take_the_three_kinds_in_turn() -> None:
    kinds = Counter(row["answer_kind"] for row in symbolic("symbolic", 30, steps=2))
    assert kinds == {"yes_no": 10, "letters": 10, "option": 10}
    some = symbolic("symbolic", 10, problems=["coin_flips", "last_letters"])
    assert Counter(row["answer_kind"] for row in some) == {"yes_no": 5, "letters": 5}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("coin_flips", {"steps": 0}, "option steps is 0"),
        ("coin_flips", {"language": "zh"}, "no 'zh' form"),
        ("last_letters", {"steps": 1, "split": "eval"}, "only 30 different problems"),
        ("object_tracking", {"objects": 9}, "from 2 to 8"),
        ("object_tracking", {"letters": "yes"}, "write true or false"),
        ("symbolic", {"problems": ["dice"]}, "'dice'; write one of coin_flips"),
        ("symbolic", {"problems": []}, "write a list of coin_flips"),
    ],
)
def test_a_mistake_in_a_symbolic_generator_is_named(
    name: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        symbolic(name, 100, **options)


def test_the_answer_filter_reads_what_symbolic_problems_ask() -> None:
    texts = {
        "yes_no": "It is flipped twice, so yes. So the answer is {}.",
        "letters": 'The letters joined are "{}".',
        "option": "After the swaps the answer is the {} one.",
    }
    for row in symbolic("symbolic", 30, steps=3):
        seed = seed_of_row(row, "t", "here")
        expected = expected_of(seed)
        text = texts[row["answer_kind"]].format(row["answer"])
        found, value = read_answer(text, expected, Finish.STOP)
        assert found is Extraction.VALUE and value is not None
        assert is_right(value, row["answer"], expected)
