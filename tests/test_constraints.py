"""The constraint library: answers that models really give, and the edges between yes and no."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from pipeline import constraints
from pipeline.constraints import Outcome
from pipeline.errors import UserError
from pipeline.records import Constraint

# (type, params, answers that follow, answers that do not)
CASES: list[tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]]] = [
    (
        "min_words",
        {"count": 5},
        ("It's a well-known fact, really.", "我喜欢喝茶。", "1,000 ants and 3.5 bees walk."),
        ("well-known facts - - - don't", "我喜欢茶。", "* * * * * * *"),
    ),
    (
        "max_words",
        {"count": 4},
        ("Tea -- and -- hot milk.", "我喝茶。", "It's well-made, isn't it?"),
        ("One two three four five", "我喜欢喝茶。"),
    ),
    ("exact_words", {"count": 3}, ("Yes, of course!", "很好吃"), ("Yes, course!", "很好吃的")),
    (
        "min_sentences",
        {"count": 2},
        ("It is hot. Drink!", "it rains. it pours.", "天冷了。多穿衣服！", "# Tea\nIt is hot"),
        ("Dr. Smith paid 3.50 dollars, e.g. for tea.", "天冷了，多穿衣服"),
    ),
    (
        "max_sentences",
        {"count": 1},
        (
            "Mr. Lee and J. Park met at 5 p.m. in St. Ives.",
            '"Go!"',
            "Version 2.0 is out",
            "好！！！",
        ),
        ("Go. Now.", "好。走吧。", "- one\n- two", "He left...  She stayed."),
    ),
    (
        "exact_sentences",
        {"count": 2},
        (
            "First, rest. Then drink (water).",
            "Really?! Yes.",
            "He said “No.” She left.",
            "A line\nthat goes on. Another.",
            "他说：“好。”她走了。",
        ),
        ("One.", "One. Two. Three.", "One.\n\nTwo.\n\nand a third without a mark"),
    ),
    (
        "exact_paragraphs",
        {"count": 2},
        ("One.\n\nTwo.", "One\nstill one.\n \n\n\nTwo.\n"),
        ("One.\nTwo.", "One.\n\nTwo.\n\nThree."),
    ),
    ("exact_lines", {"count": 2}, ("One\nTwo", "One\n\nTwo\n"), ("One Two", "One\nTwo\nThree")),
    (
        "short_sentences",
        {"count": 4},
        ("It is hot today. Drink some water.", "天很冷。我喝茶。"),
        ("It is hot. You should drink some cold water.",),
    ),
    (
        "all_lowercase",
        {},
        ("the moon is far away, 384000 km.", "é is fine"),
        ("the Moon is far away.", "12345 67", "i think i'm here. OK"),
    ),
    (
        "all_uppercase",
        {},
        ("THE MOON IS 384,000 KM AWAY!", "ÉTÉ"),
        ("THE MOON IS 384,000 km AWAY!", "12345"),
    ),
    (
        "title_case",
        {},
        ("The Moon Is Far From the Earth.", "Bees Make Honey in 3rd Street"),
        ("The moon Is Far.", "of Mice and Men"),
    ),
    (
        "capital_words",
        {"count": 2},
        ("It is VERY, very HOT.", "NASA sent it to the ISS."),
        ("I am A fan of NASA.", "It is hot."),
    ),
    (
        "chinese",
        {},
        ("我喜欢用Python写程序，很有趣。", "好的！"),
        ("I like 茶 very much.", "Tea.", "The answer is 42. 好"),
    ),
    (
        "english",
        {},
        ("I like tea (and a café).", "It is 20 °C today."),
        ("I like 茶叶 and 咖啡.", "我喜欢茶。", "123"),
    ),
    (
        "include_words",
        {"words": ["water", "help"]},
        ("Water can HELP.", "Help! (water)"),
        ("Waterfalls helped.", "water only"),
    ),
    (
        "exclude_words",
        {"words": ["can"]},
        ("A candle and a pecan.", "It cannot."),
        ("You can go.", "CAN!", "soup-can"),
    ),
    (
        "word_frequency",
        {"word": "time", "count": 2},
        ("Time after time.", "time, TIME"),
        ("Timeless times and one time.", "some time"),
    ),
    ("forbidden_letter", {"letter": "k"}, ("No such sign.",), ("Kept.", "a duck")),
    ("letter_frequency", {"letter": "b", "count": 3}, ("Bob bakes.",), ("Bob cooks.",)),
    (
        "bullets",
        {"count": 2},
        ("- one\n- two", "Here:\n* one\n* two\nDone.", "• 一\n• 二", "- **Bold** one\n  - two"),
        (
            "- one",
            "- one\n- two\n- three",
            "**one**\n**two**",
            "-one\n-two",
            "1. one\n2. two",
            "---\n- a",
        ),
    ),
    (
        "numbered_list",
        {"count": 2},
        ("1. one\n2. two", "Sure:\n1) one\n2) two", "1、一\n2、二", "1.一\n2.二"),
        (
            "1. one\n1. two",
            "2. one\n3. two",
            "1. a\n2. b\n3. c",
            "1.5 litres\n2.5 litres",
            "- a\n- b",
        ),
    ),
    (
        "json_object",
        {"keys": ["a"]},
        ('{"a": 1}', '```json\n{"a": [1, 2], "b": null}\n```', ' {"a": "x"}\n'),
        ('Here: {"a": 1}', "{'a': 1}", '[{"a": 1}]', '{"b": 1}', '{"a": 1', "a"),
    ),
    (
        "sections",
        {"marker": "Section", "count": 2},
        ("Section 1\nTea.\nSection 2\nMilk.", "## **Section 1:** Tea\nx\n## section 2. Milk\ny"),
        (
            "Section 1\nTea.",
            "See Section 1 and Section 2.",
            "Section 2\na\nSection 1\nb",
            "Sections 1\nSections 2",
        ),
    ),
    (
        "sections",
        {"marker": "部分", "count": 2},
        ("第1部分\n茶。\n第2部分\n奶。", "**第一部分**：茶\n**第二部分**：奶"),
        ("第一部分\n茶。", "部分1\n部分2"),
    ),
    (
        "table",
        {"count": 2},
        ("| A | B |\n|---|---|\n| 1 | 2 |", "Here:\n\nA | B\n:-- | --:\n1 | 2"),
        ("| A | B |\n| 1 | 2 |", "|A|B|C|\n|---|---|---|\n|1|2|3|", "|A|B|\n|---|---|"),
    ),
    (
        "parts",
        {"count": 2},
        ("One.\n***\nTwo.",),
        ("One.\n\nTwo.", "One.\n***", "a\n***\nb\n***\nc"),
    ),
    (
        "headings",
        {"count": 1},
        ("# Tea\nHot.", "Text\n### More"),
        ("#tea is hot", "Tea # hot", "# \nx"),
    ),
    (
        "title",
        {},
        ("<<Tea>>\nIt is hot.", "**<<On Tea>>** It is hot."),
        ("<Tea>\nIt is hot.", "<<>> tea", "<<Tea", "<< \n >> tea", "《茶》很好"),
    ),
    (
        "quotation",
        {},
        ('"Tea is hot."', "“茶很烫。”", '  "He said "no" to me."\n'),
        ('"Tea" is hot', "'Tea is hot.'", '"Tea is hot.', '"'),
    ),
    (
        "highlights",
        {"count": 2},
        ("*Tea* and **milk**.", "* item with *one* and *two words*", "这是*重点*和*要点*"),
        ("*Tea* and milk.", "2*3*4 and 5*6", "* one\n* two", "**** ****tea"),
    ),
    (
        "placeholders",
        {"count": 2},
        ("Dear [name], see you in [city].", "[姓名] [日期]"),
        ("Dear [name], hello.", "[x](http://a.b) [link](c)", "[ ] [ ] tea", "[[]] []"),
    ),
    (
        "start_phrase",
        {"phrase": "In short,"},
        ("In short, yes.", "  in  short, YES"),
        ("Well. In short, yes.", '"In short, yes."', "In shortage"),
    ),
    ("start_phrase", {"phrase": "I"}, ("I am.",), ("It is.", "In it.")),
    (
        "end_phrase",
        {"phrase": "That is all."},
        (
            "Tea. That is all.",
            "Tea. that is all.\n",
            '"Tea. That is all."',
            "Tea. **That is all.**",
        ),
        ("That is all. Bye.", "Tea.", "Tea. That is all"),
    ),
    (
        "postscript",
        {"marker": "P.S."},
        ("Tea.\nP.S. Drink it.", "Tea.\n\n**P.S.** More"),
        ("Tea. P.S. Drink it.", "Tea.\nP.S.", "Tea.\nPS: Drink it."),
    ),
    (
        "end_question",
        {},
        ("Tea is hot. Or not?", '"Is it?"', "好吗？", "**Is it?**\n"),
        ("Is it? Yes.", "Is it", "好。"),
    ),
    ("start_letter", {"letter": "T"}, ("Tea.", '"the end', "- tea"), ("A tea.", "1 tea")),
    ("no_comma", {}, ("Tea and milk.", "茶、奶。"), ("Tea, milk.", "茶，奶。", "1,000 teas")),
    ("no_full_stop", {}, ("Tea!", "Tea and milk"), ("Tea.", "茶。", "3.5 teas!")),
    ("no_question_mark", {}, ("Tea.",), ("Tea?", "茶？")),
    ("exclamations", {"count": 2}, ("Tea! Milk!", "茶！！"), ("Tea!", "Tea")),
    (
        "every_sentence_exclaims",
        {},
        ("Tea! Milk!", '"Tea!" Milk!', "- Tea!\n- Milk!", "茶！奶！"),
        ("Tea. Milk!", "Tea! Milk", "- Tea\n- Milk!"),
    ),
    ("no_digits", {}, ("Three teas.",), ("3 teas.", "H2O", "３ teas")),
    ("numbers", {"count": 2}, ("3 teas and 1,000.5 milks.", "2 + 2"), ("1,000.5 teas", "two teas")),
    (
        "parentheses",
        {"count": 1},
        ("Tea (hot).", "茶（热）"),
        ("Tea () hot.", "Tea :) hot", "Tea (hot"),
    ),
]


def constraint(name: str, params: dict[str, Any] | None = None) -> Constraint:
    return Constraint(name, params or {})


@pytest.mark.parametrize(
    ("name", "params", "text"), [(n, p, t) for n, p, yes, _ in CASES for t in yes]
)
def test_an_answer_that_does_as_asked_follows(name: str, params: dict[str, Any], text: str) -> None:
    found = constraints.check(constraint(name, params), text)
    assert found.outcome is Outcome.FOLLOWED, found.reason


@pytest.mark.parametrize(
    ("name", "params", "text"), [(n, p, t) for n, p, _, no in CASES for t in no]
)
def test_an_answer_that_does_not_is_broken(name: str, params: dict[str, Any], text: str) -> None:
    assert constraints.check(constraint(name, params), text).outcome is Outcome.BROKEN


def test_every_type_has_answers_of_both_outcomes_here() -> None:
    assert {name for name, _, yes, no in CASES if yes and no} == set(constraints.types())


@pytest.mark.parametrize("name", constraints.types())
@pytest.mark.parametrize("text", ["", " \n\t", "...", "***", "！", "\u200b"])
def test_an_answer_without_a_word_follows_nothing(name: str, text: str) -> None:
    asked = constraints.draw(name, random.Random(0), "en")
    assert constraints.check(asked, text).outcome is Outcome.BROKEN
    assert constraints.check_loose(asked, text).outcome is Outcome.BROKEN


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("bullet", {"count": 2}),
        ("bullets", {}),
        ("bullets", {"count": 0}),
        ("bullets", {"count": "2"}),
        ("bullets", {"count": True}),
        ("bullets", {"count": 2, "colour": "red"}),
        ("start_phrase", {"phrase": "  "}),
        ("include_words", {"words": []}),
        ("include_words", {"words": "water"}),
        ("forbidden_letter", {"letter": "ab"}),
        ("forbidden_letter", {"letter": ""}),
        ("no_comma", {"count": 1}),
    ],
)
def test_a_wrong_type_or_parameter_is_refused_by_name(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=name):
        constraints.check(constraint(name, params), "Tea.")


def test_loose_forgives_a_wrapper_line_and_stars_and_nothing_else() -> None:
    lower = constraint("all_lowercase")
    wrapped = "Sure! Here it is:\nthe moon is far.\nLet me know!"
    assert constraints.follows_strict([lower], wrapped).outcome is Outcome.BROKEN
    assert constraints.follows_loose([lower], wrapped).outcome is Outcome.FOLLOWED
    end = constraint("end_phrase", {"phrase": "That is all."})
    assert constraints.follows_loose([end], "Tea. That is **all.**").outcome is Outcome.FOLLOWED
    assert constraints.follows_loose([lower], "The Moon\nis Far\nAway").outcome is Outcome.BROKEN


@pytest.mark.parametrize("text", ["a", "a\nb", "a\nb\nc\nd", "*a*\n\n**b**", "\n\n", ""])
def test_the_text_itself_is_the_first_variant(text: str) -> None:
    variants = constraints.loose_variants(text)
    assert variants[0] == text or not text.strip()
    assert len(variants) <= 8


def test_all_constraints_have_to_be_followed() -> None:
    both = [constraint("no_comma"), constraint("max_words", {"count": 3})]
    assert constraints.follows_strict(both, "Hot tea now").outcome is Outcome.FOLLOWED
    found = constraints.follows_strict(both, "Hot tea right now")
    assert found.outcome is Outcome.BROKEN
    assert "4" in found.reason


@pytest.mark.parametrize("name", constraints.types())
def test_what_is_drawn_can_be_checked_and_said(name: str) -> None:
    for language in constraints.languages(name):
        for seed in range(20):
            asked = constraints.draw(name, random.Random(seed), language)
            assert asked == constraints.draw(name, random.Random(seed), language)
            sentence = constraints.describe(asked, language, str(seed))
            assert "{" not in sentence and "}" not in sentence
            for value in asked.params.values():
                for part in value if isinstance(value, list) else [value]:
                    assert str(part) in sentence
            constraints.check(asked, "A first answer.")


def test_wordings_vary_with_the_salt_and_not_from_call_to_call() -> None:
    asked = constraint("all_lowercase")
    said = [constraints.describe(asked, "en", str(i)) for i in range(40)]
    assert said == [constraints.describe(asked, "en", str(i)) for i in range(40)]
    assert len(set(said)) > 1


def test_numbers_and_lists_read_well() -> None:
    one = constraint("bullets", {"count": 1})
    assert "1 bullet point" in constraints.describe(one)
    assert "points" not in constraints.describe(one)
    two = constraint("include_words", {"words": ["a", "{b}"]})
    assert 'words "a" and "{b}"' in constraints.describe(two)


def test_a_type_that_a_language_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="all_lowercase"):
        constraints.draw("all_lowercase", random.Random(0), "zh")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (constraint("all_lowercase"), constraint("all_uppercase")),
        (constraint("min_words", {"count": 50}), constraint("max_words", {"count": 20})),
        (constraint("bullets", {"count": 2}), constraint("numbered_list", {"count": 2})),
        (
            constraint("include_words", {"words": ["tea"]}),
            constraint("exclude_words", {"words": ["Tea"]}),
        ),
        (constraint("start_phrase", {"phrase": "Well, yes"}), constraint("no_comma")),
        (constraint("end_phrase", {"phrase": "The end."}), constraint("all_lowercase")),
        (
            constraint("word_frequency", {"word": "king", "count": 2}),
            constraint("forbidden_letter", {"letter": "k"}),
        ),
        (constraint("end_question"), constraint("no_question_mark")),
        (constraint("numbered_list", {"count": 3}), constraint("no_full_stop")),
        (constraint("json_object", {"keys": ["a"]}), constraint("end_question")),
        (constraint("chinese"), constraint("start_phrase", {"phrase": "In short,"})),
        (constraint("no_comma"), constraint("no_comma")),
    ],
)
def test_constraints_that_contradict_each_other_conflict_both_ways(
    first: Constraint, second: Constraint
) -> None:
    assert constraints.conflict(first, second)
    assert constraints.conflict(second, first)


def test_constraints_that_go_together_do_not_conflict() -> None:
    start = constraint("start_phrase", {"phrase": "I think"})
    assert constraints.conflict(start, constraint("no_comma")) is None
    assert constraints.conflict(start, constraint("end_question")) is None
    assert constraints.conflict(start, constraint("bullets", {"count": 3})) is None


HOSTILE = {
    "one word": "a" * 300_000,
    "dots": "." * 299_999 + "a",
    "hyphens": "a-" * 150_000,
    "stars": "*a" * 150_000,
    "angle brackets": "<<a" * 100_000,
    "square brackets": "[a" * 150_000,
    "curly brackets": '{"a":' * 60_000,
    "blank lines": "a\n\n" * 100_000,
    "initials": "A. " * 100_000,
    "pipes": "|-" * 150_000 + "\n" + "|-" * 500,
    "spaces": " " * 299_999 + "a",
    "commas": "1," * 150_000 + "a",
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_no_check_takes_long_on_hostile_text(shape: str) -> None:
    text = HOSTILE[shape]
    slowest = 0.0
    for name in constraints.types():
        asked = constraints.draw(name, random.Random(1), "en")
        began = time.process_time()
        constraints.check(asked, text)
        slowest = max(slowest, time.process_time() - began)
    assert slowest < 5.0  # 0.3 MB; a quadratic check takes a minute
