"""Rows that overlap with an evaluation item are found, in each way a copy can differ from it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from pipeline.errors import UserError
from pipeline.flow import checked_config
from pipeline.records import Decision, Example, Message, Seed
from pipeline.stage1_generate.curate.against import contaminated_rows, file_items
from pipeline.stage1_generate.curate.contamination import Contamination, Hit, Match
from pipeline.stage3_evaluate.report import write_report
from tests.project import Project
from tests.test_filters import row


def find(check: Contamination, question: str, answer: str = "Yes.") -> Hit | None:
    example = Example((Message("user", question),), (Message("assistant", answer),), 1.0, ("r",))
    return check.find(Seed("s", "t", {"question": question}), (example,))


def kind(check: Contamination, question: str, answer: str = "Yes.") -> Match | None:
    hit = find(check, question, answer)
    return hit.kind if hit else None


def item(key: str, question: str, **fields: Any) -> Seed:
    return Seed(key, "evaluation", {"question": question, **fields})


ITEM = (
    "Natalia sold clips to forty eight of her friends in April, and then she sold half as many "
    "clips in May. How many clips did she sell altogether in April and May?"
)


@pytest.mark.parametrize(
    ("question", "answer", "decision"),
    [
        (ITEM, "72", Decision.DROP),
        (ITEM.upper().replace(",", " ;"), "72", Decision.DROP),
        ("A friend asked me this. " + ITEM, "72", Decision.DROP),
        ("Write a word problem.", "Here is one: " + ITEM, Decision.DROP),
        (ITEM.replace("altogether", "in all"), "72", Decision.DROP),
        ("Natalia sold clips. How many clips did she sell?", "72", Decision.KEEP),
        ("Bees visit flowers to collect nectar, which they carry home.", "Yes.", Decision.KEEP),
        ("小明有五个苹果，又买了三个苹果，现在他一共有多少个苹果？", "8", Decision.DROP),
        ("小红有七本书，借给同学两本，现在她还剩多少本书？", "5", Decision.KEEP),
    ],
)
def test_overlap_with_an_evaluation_item_is_found(
    question: str, answer: str, decision: Decision
) -> None:
    chinese = "小明有五个苹果，又买了三个苹果，现在他一共有多少个苹果？"
    check = Contamination([item("item-1", ITEM), item("item-2", chinese), item("i3", "Say hello.")])
    assert check(row(answer, question=question)).decision is decision


def test_a_contamination_verdict_shows_the_matched_words() -> None:
    verdict = Contamination([item("item-1", ITEM)])(row("72", question=ITEM))
    assert "item-1" in verdict.reason and "natalia sold clips" in verdict.reason


def test_the_score_of_contamination_is_the_share_of_the_items_n_grams_in_the_row() -> None:
    check = Contamination([item("item-1", ITEM)])
    half = check(row("72", question=" ".join(ITEM.split()[:18])))
    assert check(row("72", question=ITEM)).score == 1.0
    assert half.decision is Decision.DROP and half.score is not None and 0 < half.score < 0.5


@pytest.mark.parametrize(
    ("question", "decision"),
    [
        ("say  hello!", Decision.DROP),
        ("Say hello to bees.", Decision.KEEP),
        ("12 + 5 = ?", Decision.DROP),
        ("12 - 5 = ?", Decision.KEEP),
        ("plum", Decision.KEEP),
    ],
)
def test_a_short_item_counts_where_it_is_the_whole_question(
    question: str, decision: Decision
) -> None:
    items = [item("i1", "Say hello."), item("i2", "12+5=?"), item("i3", "plum", shots=SHOTS)]
    assert Contamination(items)(row("Yes.", question=question)).decision is decision


SHOTS = [{"text": text, "label": label} for text, label in (
    ("fig", "zop"), ("lynx", "kib"), ("pear", "zop"), ("crow", "kib"),
    ("lime", "zop"), ("mole", "kib"), ("kiwi", "zop"), ("newt", "kib"),
)]  # fmt: skip
OTHERS = [{"text": text, "label": "zop"} for text in ("elm", "oak", "ash", "yew")]


@pytest.mark.parametrize(
    ("query", "shots", "decision"),
    [
        ("plum", SHOTS, Decision.DROP),
        ("Plum", SHOTS[::-1], Decision.DROP),
        ("plum", SHOTS[:2], Decision.DROP),  # as the evaluation shows it with two shots
        ("plum", [*SHOTS[:2], *OTHERS], Decision.KEEP),
        ("plum", OTHERS, Decision.KEEP),
        ("sloe", SHOTS[:2], Decision.KEEP),
        ("sloe", SHOTS, Decision.DROP),  # a run of thirteen words of the item's shots
    ],
)
def test_an_in_context_row_is_known_by_its_shots_and_its_query(
    query: str, shots: list[dict[str, str]], decision: Decision
) -> None:
    shown = "\n\n".join(f"Input: {s['text']}\nLabel: {s['label']}" for s in shots)
    found = row("zop", question=query, shots=shots)
    prompt = (Message("user", f"{shown}\n\nInput: {query}\nLabel:"),)
    found = structs.replace(found, example=structs.replace(found.example, prompt=prompt))
    check = Contamination([item("item-1", "plum", shots=SHOTS)])
    assert check(found).decision is decision


def test_a_student_that_sees_the_first_shots_of_an_item_is_found() -> None:
    check = Contamination([item("item-1", "plum", shots=SHOTS[:2])])
    seen = row("zop", question="plum", shots=[*SHOTS[:2], *OTHERS], student_shots=2)
    assert check(seen).decision is Decision.DROP


PROBLEM = (
    "Lena keeps 12 hens in her garden, and each of them lays 5 eggs a week. She eats three of the "
    "eggs on Sunday and gives the rest to Oskar. How many eggs does Oskar get in 4 weeks?"
)
OTHER = (
    "A baker fills 40 trays with rolls before sunrise. Every tray has room for 18 rolls, but two "
    "trays stay empty. How many rolls are in the bakery when the first customer comes in?"
)
WISH = "Write a short poem about the old lighthouse keeper on Sylt."
ITEMS = [item("hens", PROBLEM), item("rolls", OTHER), item("poem", WISH)]
FILLER = "The river rose in the night. Nobody in the village had seen it so high. " * 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROBLEM, Match.EXACT),
        (PROBLEM.upper().replace("?", "!"), Match.EXACT),
        (" ".join(PROBLEM.split()[3:20]), Match.NGRAM),
        (PROBLEM.replace("12", "70").replace("three", "eleven").replace("5", "1,200"), Match.NGRAM),
        (WISH.replace("old", "young"), Match.NEAR),
        (WISH.replace("a short", "one long"), None),  # two of eleven words
        ("What do hens eat in a garden in winter, and how many eggs does each of them lay?", None),
    ],
)
def test_the_way_in_which_a_row_is_the_same_is_named(text: str, expected: Match | None) -> None:
    check = Contamination(ITEMS)
    assert kind(check, text) is expected
    assert kind(check, f"{FILLER}\n{text}\n{FILLER}") is expected
    assert kind(check, "Think of a task.", f"{FILLER} {text} {FILLER}") is expected


@pytest.mark.parametrize("at", range(len(PROBLEM.split())))
def test_one_changed_word_is_found_wherever_it_stands(at: int) -> None:
    words = PROBLEM.split()
    words[at] = "quince"
    assert kind(Contamination(ITEMS), " ".join(words)) is not None


@pytest.mark.parametrize("at", range(len(WISH.split())))
def test_one_changed_word_is_found_in_a_short_item(at: int) -> None:
    words = WISH.split()
    words[at] = "quince"
    assert kind(Contamination(ITEMS), " ".join(words)) is not None


@pytest.mark.parametrize("names", [("Priya", "Goran"), ("Will", "Mark"), ("Anna Maria", "Rose")])
def test_a_problem_with_other_numbers_and_names_is_found(names: tuple[str, str]) -> None:
    words = item("words", "You will mark a rose with anna and maria in lower case, she said then.")
    copy = PROBLEM.replace("Lena", names[0]).replace("Oskar", names[1])
    for old, new in (("12 ", "3,480 "), ("5 ", "nine "), ("three", "2"), ("4 ", "17 ")):
        copy = copy.replace(old, new)
    check = Contamination([*ITEMS, words])
    assert kind(check, copy) is Match.MASKED
    assert kind(check, f"{FILLER} {copy} {FILLER}") is Match.MASKED
    assert kind(Contamination(ITEMS, alike=False), copy) is None


def test_chinese_copies_are_found_with_other_numbers_and_names() -> None:
    question = "小明有十五个苹果，他每天吃两个，又送给小红三个。四天以后小明还剩几个苹果？"
    other = "图书馆上午借出三十本故事书，下午还回来十二本，现在书架上一共少了多少本故事书？"
    check = Contamination([item("apples", question), item("books", other)])
    renamed = "小刚有八十个苹果，他每天吃七个，又送给小芳九个。六天以后小刚还剩几个苹果？"
    assert kind(check, question) is Match.EXACT
    assert kind(check, question.replace("每天", "每周")) in (Match.NGRAM, Match.NEAR, Match.EIGHTS)
    assert kind(check, renamed) is Match.MASKED
    assert kind(check, "小明的苹果又大又红，他每天带两个去学校，同学们都很喜欢。") is None


def test_a_short_item_with_another_word_is_another_item() -> None:
    check = Contamination([item("capital", "What is the capital of France?")])
    assert kind(check, "What is the capital of Spain?") is None
    assert kind(check, "Geography. What is the capital of France?") is Match.EXACT
    assert kind(check, "What is the capital of France and of Spain?") is None


def test_a_formula_is_the_same_with_the_same_brackets() -> None:
    check = Contamination([item("logic", "not ( True and False ) and True is")])
    assert kind(check, "Work it out:\nnot (True and False) and True is") is Match.EXACT
    assert kind(check, "Work it out:\nnot True and ( False and True ) is") is None


def test_a_common_phrase_of_eight_words_is_no_overlap() -> None:
    text = OTHER.split()[17:25]
    assert kind(Contamination(ITEMS), f"Look at it. {' '.join(text)} is hot.") is None
    most = " ".join(WISH.split()[:10])
    assert kind(Contamination(ITEMS), f"{most} a farm.") is Match.EIGHTS


PLACES = ("north", "south", "east", "west", "up", "down")


def walk(seed: int) -> str:
    rng = random.Random(seed)
    steps = " ".join(f"Take {rng.randint(1, 9)} steps {rng.choice(PLACES)}." for _ in range(6))
    return (
        "If you follow all of these instructions exactly as they are written here, do you come "
        f"back to the place where you started? {steps}"
    )


def test_items_made_by_a_pattern_do_not_drop_other_problems_of_the_pattern() -> None:
    """All share a beginning of 22 words, and differ from one another as rows differ from them."""
    check = Contamination([item(f"walk-{n}", walk(n)) for n in range(40)])
    assert kind(check, walk(7)) is Match.EXACT
    assert kind(check, f"{FILLER}\n{walk(7)}\n{FILLER}") is Match.EXACT
    dropped = [n for n in range(1000, 1200) if kind(check, walk(n))]
    assert len(dropped) < 10
    alone = Contamination([item("walk-7", walk(7))])
    assert kind(alone, walk(1000)) is Match.NGRAM


def test_a_generator_that_is_named_is_a_pattern_however_few_its_items() -> None:
    items = [structs.replace(item("w", PROBLEM), task="made"), item("p", OTHER)]
    check = Contamination(items, made=frozenset({"made"}))
    assert kind(check, PROBLEM.replace("12", "13").replace("5 ", "6 ").replace("4", "3")) is None
    assert kind(check, OTHER.replace("40", "41").replace("18", "30").replace("two", "six"))
    assert kind(check, PROBLEM) is Match.EXACT


def test_every_run_of_thirteen_words_is_found() -> None:
    rng = random.Random(4)
    pool = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("ar", "el", "in", "ot", "ump")]
    texts = [" ".join(rng.choices(pool, k=rng.randint(13, 60))) for _ in range(80)]
    check = Contamination([item(f"i{n}", text) for n, text in enumerate(texts)], alike=False)
    for _ in range(300):
        words = rng.choice(texts).split()
        size = rng.randint(11, min(16, len(words)))
        at = rng.randint(0, len(words) - size)
        text = " ".join(
            [*rng.choices(pool, k=40), *words[at : at + size], *rng.choices(pool, k=40)]
        )
        grams = {tuple(t.split()[i : i + 13]) for t in texts for i in range(len(t.split()) - 12)}
        split = text.split()
        held = any(tuple(split[i : i + 13]) in grams for i in range(len(split) - 12))
        assert held == (kind(check, text) in (Match.NGRAM, Match.EXACT)) or size < 13


def test_all_rows_of_an_answer_are_looked_at() -> None:
    first = Example((Message("user", "Hi"),), (Message("assistant", "Hello."),), 1.0, ("r",))
    second = Example((Message("user", PROBLEM),), (Message("assistant", "1."),), 1.0, ("r",))
    candidate = structs.replace(row("Hello."), example=first, examples=(first, second))
    assert Contamination(ITEMS)(candidate).decision is Decision.DROP


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", json.dumps({"prompt": PROBLEM, "key": 7})),
        ("a.jsonl", json.dumps({"problem": PROBLEM}) + "\n\n"),
        ("a.jsonl", json.dumps({"messages": [{"role": "user", "content": PROBLEM}]})),
        ("a.jsonl", json.dumps({"instruction": PROBLEM[:70], "input": PROBLEM[70:]})),
        ("a.json", json.dumps({"canary": "x", "examples": [{"input": PROBLEM, "target": "1"}]})),
        ("a.json", json.dumps([{"text": PROBLEM}])),
    ],
)
def test_a_file_to_compare_with_may_have_any_common_form(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    assert kind(Contamination(file_items(tmp_path / name)), PROBLEM) is Match.EXACT


@pytest.mark.parametrize(
    ("text", "says"),
    [('{"answer": "1"}', "row 1"), ("nothing", "not JSON"), ("[1]", "one list"), (None, "no such")],
)
def test_a_file_that_cannot_be_compared_with_is_named(
    tmp_path: Path, text: str | None, says: str
) -> None:
    path = tmp_path / "items.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=says):
        list(file_items(path))


def with_a_copy(project: Project) -> None:
    """A seed that is an item of a further file but for its numbers."""
    (project.folder / "more.jsonl").write_text(json.dumps({"id": "hens", "prompt": PROBLEM}))
    copy = PROBLEM.replace("12", "5").replace("lays 5", "lays 6")
    copy = copy.replace("three", "two").replace("Oskar", "Jan")
    seeds = project.folder / "seeds.jsonl"
    line = {"id": "copy", "question": copy, "answer": "11"}
    seeds.write_text(seeds.read_text() + json.dumps(line) + "\n")


def curate(project: Project) -> None:
    for step in ("generate", "curate"):
        ended = project.call(step, "config.yaml")
        assert ended.returncode == 0, ended.stderr


def test_the_funnel_and_the_report_show_the_matched_words(project: Project) -> None:
    with_a_copy(project)
    project.edit(curate__contamination={"files": ["more.jsonl"]})
    curate(project)
    funnel = json.loads((project.run / "2_funnel.json").read_text())
    shown = funnel["contamination"]
    assert {(o["seed_id"], o["item"], o["kind"]) for o in shown} == {
        ("copy", "more.jsonl hens", "numbers or names changed")
    }
    assert "lena keeps 5 hens" in shown[0]["span"]
    stage = next(s for s in funnel["stages"] if s["filter"] == "contamination")
    assert stage["reasons"] == {"numbers or names changed": len(shown)}
    for page in write_report(project.run):
        text = page.read_text()
        assert "more.jsonl hens" in text and "lena keeps 5 hens" in text


def test_a_finished_dataset_is_compared_with_what_is_evaluated_now(project: Project) -> None:
    with_a_copy(project)
    project.edit(curate__contamination={"against": "nothing"})
    curate(project)
    config = checked_config(project.config, [])
    assert list(contaminated_rows(config)) == []
    (project.folder / "eval.jsonl").write_text(
        json.dumps({"id": "hens", "question": PROBLEM, "answer": "1"}) + "\n"
    )
    found = list(contaminated_rows(config))
    assert {(hit.seed_id, hit.hit.item) for hit in found} == {("copy", "hens")}
    assert all(hit.hit.kind is Match.MASKED and hit.source for hit in found)
