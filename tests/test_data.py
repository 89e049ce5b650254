"""The files that ship under data/ and prompts/: whole, as the README says, and kept apart."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import jsonlines
import pytest

from pipeline import constraints
from pipeline.prompts import load_prompt, render
from pipeline.records import Constraint

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data"
FILES = sorted(DATA.glob("*/*.jsonl"))
PROMPTS = sorted((ROOT / "prompts").glob("*/*.yaml"))
NAMES = [str(path.relative_to(DATA)) for path in FILES]


def rows(name: str) -> list[dict[str, Any]]:
    with jsonlines.open(DATA / name) as reader:
        return list(reader.iter(type=dict))


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_whole_and_their_ids_unique(name: str) -> None:
    found = rows(name)
    assert len({row["id"] for row in found}) == len(found) > 0
    for row in found:
        assert row["language"] in ("en", "zh")
        for value in row.values():
            if isinstance(value, str):
                assert value == value.strip() and value and "\ufffd" not in value
        asked = row.get("instruction") or row.get("question") or row.get("text") or ""
        assert bool(re.search("[\u4e00-\u9fff]", asked)) == (row["language"] == "zh"), row


def test_ids_are_unique_over_all_files() -> None:
    ids = [row["id"] for name in NAMES for row in rows(name)]
    assert len(set(ids)) == len(ids)


def test_the_readme_lists_every_file_with_its_rows_and_hash() -> None:
    table = re.findall(
        r"^\| `(\S+\.jsonl)` \| (\d+) \|.*\| `([0-9a-f]{64})` \|$",
        (DATA / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    listed = {name: (int(count), digest) for name, count, digest in table}
    there = {
        name: (len(rows(name)), hashlib.sha256((DATA / name).read_bytes()).hexdigest())
        for name in NAMES
    }
    assert listed == there


def plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def test_nothing_that_is_evaluated_is_among_the_seeds() -> None:
    asked: dict[str, set[str]] = {"seeds": set(), "eval": set()}
    topics: dict[str, set[str]] = {"seeds": set(), "eval": set()}
    for name in NAMES:
        folder = name.split("/")[0]
        for row in rows(name):
            text = row.get("instruction") or row.get("question") or row.get("text") or ""
            asked[folder].add(plain(text))
            if name.endswith("topics.jsonl"):
                topics[folder].add(plain(row["topic"]))
    assert not asked["seeds"] & asked["eval"]
    assert not topics["seeds"] & topics["eval"]


def test_there_is_enough_for_a_first_real_run() -> None:
    def count(name: str, language: str) -> int:
        return sum(row["language"] == language for row in rows(name))

    assert count("seeds/instructions_en.jsonl", "en") >= 400
    assert count("seeds/instructions_zh.jsonl", "zh") >= 150
    assert count("seeds/topics.jsonl", "en") >= 60
    assert count("eval/topics.jsonl", "en") >= 40
    instructions = [plain(r["instruction"]) for r in rows("seeds/instructions_en.jsonl")]
    assert len(set(instructions)) == len(instructions)


@pytest.mark.parametrize("task", ["sentiment", "headlines"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_labelled_sentences_are_balanced(task: str, language: str) -> None:
    for folder in ("seeds", "eval"):
        labels = [r["label"] for r in rows(f"{folder}/{task}.jsonl") if r["language"] == language]
        assert len({labels.count(label) for label in labels}) == 1
        assert len(labels) >= 20


def test_worked_examples_do_as_they_are_asked_on_subjects_of_their_own() -> None:
    topics = [plain(row["topic"]) for name in NAMES if "topics" in name for row in rows(name)]
    for row in rows("seeds/constraint_examples.jsonl"):
        found = constraints.check(Constraint(row["type"], row["params"]), row["answer"])
        assert found.outcome is constraints.Outcome.FOLLOWED, row
        asked = f" {plain(row['instruction'])} "
        assert not [topic for topic in topics if f" {topic} " in asked]


def test_every_sample_problem_has_a_number_for_an_answer() -> None:
    for row in rows("seeds/word_problems_sample.jsonl"):
        assert int(row["answer"]) > 0


FIELDS = {
    "question": "Who?",
    "text": "plum",
    "shots": [{"text": "fig", "label": "zop"}, {"text": "lynx", "label": "kib"}],
    "labels": ["kib", "zop"],
    "examples": [{"user": "Do.", "assistant": "Done."}],
    "view": "label",
    "entity_types": ["person"],
    "schema": {"type": "object"},
    "delimiter": "#1#",
    "response": "Me.",
    "first": "You.",
    "second": "Me.",
    "way": "deepen",
    "classification": False,
    "instructions": ["Who?"],
    "per_request": 4,
}
# These ask about `text`.
BY_TEXT = ("in_context", "label", "entities", "extraction", "back_translation")


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_prompt_says_why_it_is_so_and_ends_with_the_question(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
    messages = render(load_prompt(str(path)), FIELDS)
    assert messages[-1].role == "user"
    if path.stem == "magpie":  # its teacher writes the question
        return
    asked = "plum" if path.stem.startswith(BY_TEXT) else "Who?"
    assert asked in messages[-1].content
    assert all(message.content.strip() for message in messages)


def test_worked_chains_of_thought_are_right_and_end_alike() -> None:
    for name, mark in (("", r"The answer is (\d+)\.$"), ("_zh", r"答案是(\d+)。$")):
        prompt = load_prompt(str(ROOT / f"prompts/teacher/chain_of_thought{name}.yaml"))
        for shot in prompt.text.shots:
            sums = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", shot.assistant)
            for left, sign, right, result in sums:
                one, two = int(left), int(right)
                known = {"+": one + two, "-": one - two, "*": one * two, "/": one / two}
                assert known[sign] == int(result)
            end = re.search(mark, shot.assistant)
            assert end and end.group(1) == sums[-1][3]


def test_worked_constraint_examples_in_prompts_follow_some_type() -> None:
    # Each answer must hold under the constraint that its question names.
    shown = {
        "commas": Constraint("no_comma"),
        "3 bullet points": Constraint("bullets", {"count": 3}),
        "lowercase": Constraint("all_lowercase"),
        "In short,": Constraint("start_phrase", {"phrase": "In short,"}),
        "Stay dry!": Constraint("end_phrase", {"phrase": "Stay dry!"}),
        "capital letters": Constraint("all_uppercase"),
        "quotation marks": Constraint("quotation"),
        "15 words": Constraint("max_words", {"count": 15}),
        "with a question": Constraint("end_question"),
        "3个要点": Constraint("bullets", {"count": 3}),
        "以“简单来说，”开头": Constraint("start_phrase", {"phrase": "简单来说，"}),
        "以“谢谢阅读。”结尾": Constraint("end_phrase", {"phrase": "谢谢阅读。"}),
        "20个字": Constraint("max_words", {"count": 20}),
        "2句话": Constraint("exact_sentences", {"count": 2}),
        "问句": Constraint("end_question"),
    }
    for name in ("constraints", "constraints_zh"):
        for shot in load_prompt(str(ROOT / f"prompts/teacher/{name}.yaml")).text.shots:
            asked = [one for words, one in shown.items() if words in shot.user]
            assert len(asked) == 1, shot.user
            found = constraints.check(asked[0], shot.assistant)
            assert found.outcome is constraints.Outcome.FOLLOWED, found.reason


def test_no_shots_leave_only_the_query() -> None:
    prompt = load_prompt(str(ROOT / "prompts/student/in_context.yaml"))
    (message,) = render(prompt, FIELDS | {"shots": []})
    assert message.content == "Input: plum\nLabel:"
    (message,) = render(prompt, FIELDS)
    assert message.content == (
        "Input: fig\nLabel: zop\n\nInput: lynx\nLabel: kib\n\nInput: plum\nLabel:"
    )
