"""List functions need their shots and are settled by them; lists are read in common forms."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.prompts import load_prompt
from pipeline.records import Extraction, Finish, Generation, Usage
from pipeline.stage1_generate.curate.correctness import answer
from pipeline.stage1_generate.generators import generate
from pipeline.stage1_generate.generators.list_rules import every_rule, families
from pipeline.stage1_generate.recipes import in_context
from pipeline.stage1_generate.seeds import seed_of_row
from pipeline.stage3_evaluate.lists import extract_list, same_list

ROOT = Path(__file__).parent.parent


def rows(n: int, **options: Any) -> list[dict[str, Any]]:
    return list(generate("list_functions", n=n, **{"seed": 7} | options))


def numbers(text: str) -> tuple[int, ...]:
    return tuple(json.loads(text))


# What a rule does, worked out apart from the generator's own formulas.
DOES = {
    "sort from the smallest": lambda x: sorted(x),
    "move the last to the front": lambda x: [x[-1], *x[:-1]],
    "drop what was there before": lambda x: [n for i, n in enumerate(x) if n not in x[:i]],
    "the smallest number": lambda x: [sorted(x)[0]],
    "multiply each by 3": lambda x: [n + n + n for n in x],
    "reverse the list": lambda x: list(reversed(x)),
    "sort from the largest": lambda x: sorted(x)[::-1],
    "keep the even numbers": lambda x: [n for n in x if n in (0, 2, 4, 6, 8)],
    "the list twice": lambda x: [*x, *x],
    "the first 2": lambda x: [n for i, n in enumerate(x) if i < 2],
}


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_pair_of_an_episode_follows_its_rule(split: str) -> None:
    checked = set()
    for row in rows(80, split=split):
        pairs = [(s["text"], s["label"]) for s in row["shots"]] + [(row["text"], row["answer"])]
        if row["rule"] in DOES:
            checked.add(row["rule"])
            for given, result in pairs:
                assert DOES[row["rule"]](list(numbers(given))) == list(numbers(result)), row
    assert len(checked) >= 4


@pytest.mark.parametrize("steps", [1, 2])
def test_one_shot_leaves_several_answers_and_all_shots_just_one(steps: int) -> None:
    for row in rows(24, steps=steps, split="eval"):
        query = numbers(row["text"])
        shots = [(numbers(shot["text"]), numbers(shot["label"])) for shot in row["shots"]]
        fitting = [rule for rules in every_rule() for rule in rules]
        left = []
        for given, result in shots:
            fitting = [rule for rule in fitting if rule.apply(given) == result]
            left.append({rule.apply(query) for rule in fitting})
        assert len(left[0]) > 1 and left[-1] == {numbers(row["answer"])}
        assert [len(answers) for answers in left] == row["answers_left"]


def test_the_query_is_no_shot_and_its_answer_is_not_itself() -> None:
    for row in rows(60, split="train"):
        given = [shot["text"] for shot in row["shots"]]
        assert len(set(given)) == 8 and row["text"] not in given
        assert row["answer"] not in (row["text"], "[]")


def test_splits_share_no_rule_and_the_families_take_turns() -> None:
    train, held_out = rows(48, split="train"), rows(48, split="eval")
    assert not {row["rule"] for row in train} & {row["rule"] for row in held_out}
    assert not set(families("train")) & set(families("eval"))
    inputs = [{s["text"] for row in part for s in row["shots"]} for part in (train, held_out)]
    long = [{text for text in found if len(numbers(text)) == 6} for found in inputs]
    assert not long[0] & long[1]  # not even by the same random numbers
    seen = Counter(row["rule"] for row in held_out)
    assert max(seen.values()) <= 48 // len(families("eval"))


def test_the_same_seed_gives_the_same_lists() -> None:
    assert rows(20) == rows(20) and rows(20)[:5] == rows(5)
    assert rows(20) != rows(20, seed=8)
    assert len({row["id"] for row in rows(200)}) == 200


@pytest.mark.parametrize(
    ("options", "told"),
    [({"steps": 3}, "1 to 2"), ({"shots": 2}, "4 to 64"), ({"split": "test"}, "train, eval")],
)
def test_a_wrong_option_of_list_functions_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        list(islice(generate("list_functions", n=3, seed=1, **options), 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[3, 1]", "[3, 1]"),
        ("3, 1", "[3, 1]"),
        ("3 1", "[3, 1]"),
        ("[3 1]", "[3, 1]"),
        ("(3, 1)", "[3, 1]"),
        ("3 and 1", "[3, 1]"),
        ("7", "[7]"),
        ("-3, 1.", "[-3, 1]"),
        ("[3.0, 1.0]", "[3, 1]"),
        ("Output: [3,1]", "[3, 1]"),
        ("Output:\n[3, 1]", "[3, 1]"),
        ("**[3, 1]**", "[3, 1]"),
        ("```\n[3, 1]\n```", "[3, 1]"),
        ("- [3, 1]", "[3, 1]"),
        ("\\boxed{[3, 1]}", "[3, 1]"),
        ("The answer is 3, 1.", "[3, 1]"),
        ("The output has 2 elements: [3, 1]", "[3, 1]"),
        ("[1, 3] -> [3, 1]", "[3, 1]"),
        ("The input [1, 3] becomes [3, 1].", "[3, 1]"),
        ("Input: [1, 3] Output: [3, 1]", "[3, 1]"),
        ("Input: [1, 3]\nOutput: [3, 1]", "[3, 1]"),
        ("First [1, 3], then [3, 1].\nThe answer is [3, 1].", "[3, 1]"),
        ("Answer: [1, 3]\nActually, the answer is [3, 1]", "[3, 1]"),
        ("输出：[3，1]", "[3, 1]"),
        ("[]", "[]"),
        ("Output: empty list", "[]"),
        # The model goes on with an example of its own.
        ("[3, 1]\n\nInput: [4, 4]\nOutput: [4]", "[3, 1]"),
        ("[1, 3] or [3, 1]", None),
        ("[3, 1, ...]", None),
        ("The result is 3 elements.", None),
        ("I do not know.", None),
        ("", None),
    ],
)
def test_a_list_is_read_in_the_forms_that_models_use(text: str, expected: str | None) -> None:
    found, value = extract_list(text, Finish.STOP)
    assert value == expected
    assert found is (Extraction.NO_ANSWER if expected is None else Extraction.VALUE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[3, 1", None),
        ("3, 1", None),  # another number may have come
        ("We have 3, 1 and", None),
        ("[3, 1]", "[3, 1]"),
        ("[3, 1]\nInput: [4", "[3, 1]"),
        ("Output: [3, 1]\n\nThe rule is", "[3, 1]"),
    ],
)
def test_a_cut_list_counts_only_where_it_is_closed(text: str, expected: str | None) -> None:
    found, value = extract_list(text, Finish.LENGTH)
    assert value == expected
    assert found is (Extraction.TRUNCATED if expected is None else Extraction.VALUE)


def test_lists_are_equal_element_by_element_and_in_order() -> None:
    assert same_list("[3,1]", "3, 1") and same_list("[]", "[ ]")
    assert not same_list("[3, 1]", "[1, 3]") and not same_list("[3]", "[3, 3]")
    assert not same_list("none", "none")


def generation(text: str) -> Generation:
    return Generation("r", text, Finish.STOP, usage=Usage(1, 1))


@pytest.mark.parametrize(
    ("said", "completion"), [("Output: [2,1]", "[2, 1]"), ("who knows", "who knows")]
)
def test_list_functions_are_seeds_of_the_recipe_in_context(said: str, completion: str) -> None:
    (row,) = rows(1, split="train")
    seed = in_context.prepare(seed_of_row(row, "lists", "here"), 0, shots=[4])
    showing = load_prompt(str(ROOT / "prompts/student/in_context_list.yaml"))
    asked, answered = in_context.example(seed, generation(said), showing)
    assert asked[-1].content.count("Output:") == 5
    assert answered[0].content == completion
    with pytest.raises(UserError, match="no labels"):
        in_context.prepare(seed, 0, labels={"symbols": 1.0})


def test_the_filter_answer_reads_lists() -> None:
    (row,) = rows(1, split="train")
    seed = seed_of_row(row, "lists", "here")
    check = answer()

    def kept(text: str) -> str:
        from types import SimpleNamespace

        found: Any = SimpleNamespace(seed=seed, generation=generation(text))
        return check(found).decision.value

    assert kept(f"Output: {row['answer'].replace(' ', '')}") == "keep"
    assert kept(row["text"]) == "drop" and kept("no list") == "drop"
