"""In-context evaluation: draws of shots, changed labels, labelled files, and numbers from them."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from pipeline.config import Config, load_config
from pipeline.errors import UserError
from pipeline.records import Answer, Extraction, Finish
from pipeline.stage3_evaluate.evaluate import check_items
from pipeline.stage3_evaluate.in_context import questions
from pipeline.stage3_evaluate.questions import Question
from pipeline.stage3_evaluate.score import Scores, score
from tests.project import Project

LABELS = ("negative", "positive", "mixed")
SHOTS_PROMPT = (
    'user: "{% for s in shots %}{{ s.text }} => {{ s.label }}\\n{% endfor %}{{ text }} =>"\n'
)


def write_reviews(path: Path, per_label: int = 12, labels: tuple[str, ...] = LABELS[:2]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stars", "body"])
        for number in range(per_label):
            for place, _ in enumerate(labels):
                writer.writerow([place, f"review {number} of kind {place}"])


REVIEWS = {
    "path": "reviews.csv",
    "columns": {"text": "body", "answer": "stars"},
    "answers": {0: "negative", 1: "positive"},
}


def evaluated(project: Project, items: Any = REVIEWS, **task: Any) -> Config:
    (project.folder / "icl.yaml").write_text(SHOTS_PROMPT)
    table = {key: task.pop(key) for key in ("shots", "draws", "orders") if key in task}
    project.edit(
        evaluate__abilities=["in_context"],
        evaluate__in_context={
            "shots": [0, 1, 2, 4, 8],
            "prompt": "icl.yaml",
            "tasks": [{"name": "reviews", "items": items} | task],
        }
        | table,
    )
    return load_config(project.config, [])


def shots_of(question: Question) -> list[tuple[str, str]]:
    return re.findall(r"^(.*) => (\S+)$", question.messages[-1].content, re.M)


def asked(config: Config) -> dict[tuple[str, str, int, int], Question]:
    found = {(q.variant, q.item.id, q.draw, q.order): q for q in questions(config, "before")}
    assert len(found) == len(list(questions(config, "before")))
    return found


def test_draws_are_nested_balanced_and_the_same_for_all_items(project: Project) -> None:
    write_reviews(project.folder / "reviews.csv")
    found = asked(evaluated(project, REVIEWS | {"n": 6}, draws=5))
    items = {item for _, item, _, _ in found}
    assert len(items) == 6 and len(found) == 6 * (1 + 4 * 5)
    for item in items:
        for draw in range(5):
            eight = shots_of(found["reviews k=8", item, draw, 0])
            for k in (1, 2, 4):
                assert shots_of(found[f"reviews k={k}", item, draw, 0]) == eight[:k]
            for k in (2, 4, 8):
                assert set(Counter(label for _, label in eight[:k]).values()) == {k // 2}
    of_draw = [
        {tuple(shots_of(found["reviews k=8", item, d, 0])) for item in items} for d in range(5)
    ]
    # The rows that are not asked suffice, so that no item stands among its own shots.
    assert all(len(shots) == 1 for shots in of_draw) and len(set.union(*of_draw)) == 5
    assert len({shots.pop()[0][1] for shots in of_draw}) == 2  # who comes first varies


def test_more_draws_and_more_shots_ask_nothing_again(project: Project) -> None:
    write_reviews(project.folder / "reviews.csv", 30)
    items = REVIEWS | {"n": 4}
    few = {q.request("m").id for q in asked(evaluated(project, items, draws=2)).values()}
    more = asked(evaluated(project, items, draws=3, shots=[0, 1, 2, 4, 8, 16]))
    assert few < {q.request("m").id for q in more.values()}


def test_an_item_and_its_duplicates_are_never_its_own_shots(project: Project) -> None:
    texts = [(f"Film {n}!", n % 2) for n in range(12)]
    texts += [(f"film  {n}", n % 2) for n in range(12)] + texts[:4]
    lines = [f"{label} {text}" for text, label in texts]
    (project.folder / "films.txt").write_text("\n".join(lines))
    items = {"path": "films.txt", "columns": {"answer": 0, "text": 1}}
    found = asked(evaluated(project, items, draws=6))
    assert len({item for _, item, _, _ in found}) == 24  # a row that is there twice is one item
    dealt = Counter[tuple[str, ...]]()
    for (variant, _, draw, _), question in found.items():
        own = re.findall(r"\d+", str(question.item.fields["text"]))
        shown = [re.findall(r"\d+", text) for text, _ in shots_of(question)]
        assert own not in shown and len(set(map(tuple, shown))) == len(shown)
        if variant == "reviews k=8" and draw == 0:
            dealt[tuple(text for text, _ in shots_of(question))] += 1
    # All 24 are asked, 16 of them texts of a shot or its duplicate: another stands in for them.
    assert sorted(dealt.values()) == [*[2] * 8, 8]


def test_orders_hold_the_same_shots(project: Project) -> None:
    write_reviews(project.folder / "reviews.csv")
    found = asked(evaluated(project, REVIEWS | {"n": 2}, draws=2, orders=3))
    count = Counter((variant, draw) for variant, _, draw, _ in found)
    assert count["reviews k=0", 0] == count["reviews k=1", 1] == 2  # one order there is
    assert count["reviews k=2", 0] == 4 and count["reviews k=8", 1] == 6
    for (variant, item, draw, order), question in found.items():
        first = shots_of(found[variant, item, draw, 0])
        assert sorted(shots_of(question)) == sorted(first)
        assert order == 0 or shots_of(question) != first


def test_one_draw_asks_an_episode_with_its_own_shots_as_they_come(project: Project) -> None:
    items = {"generator": "symbol_mapping", "n": 4, "shots": 8, "split": "eval"}
    one, five = asked(evaluated(project, items)), asked(evaluated(project, items, draws=5))
    assert {q.request("m").id for q in one.values()} < {q.request("m").id for q in five.values()}
    for (variant, item, draw, _), question in five.items():
        own = [(shot["text"], shot["label"]) for shot in question.item.fields["shots"]]
        k = int(variant.partition("=")[2])
        if draw == 0:
            assert shots_of(question) == own[:k]
        assert set(shots_of(question)) <= set(own)
        if k % 2 == 0 and k:
            assert set(Counter(label for _, label in shots_of(question)).values()) == {k // 2}
        assert shots_of(five["reviews k=8", item, draw, 0])[:k] == shots_of(question)


def test_every_condition_changes_the_labels_as_it_says(project: Project) -> None:
    write_reviews(project.folder / "reviews.csv")
    how = ["natural", "random", "flipped", "arbitrary"]
    found = asked(evaluated(project, REVIEWS | {"n": 4}, draws=6, labels=how))
    other = {"negative": "positive", "positive": "negative"}
    random_labels, symbols = Counter[str](), set()
    for (variant, item, draw, _), natural in found.items():
        if "/" in variant:
            continue
        k = variant.partition(" ")[2]
        shots = shots_of(natural)
        flipped = found[f"reviews/flipped {k}", item, draw, 0]
        assert shots_of(flipped) == [(text, other[label]) for text, label in shots]
        assert flipped.item.reference == other[natural.item.reference or ""]
        dealt = found[f"reviews/random {k}", item, draw, 0]
        assert [text for text, _ in shots_of(dealt)] == [text for text, _ in shots]
        assert dealt.item.reference == natural.item.reference
        said = shots_of(dealt)
        random_labels.update(a == b for (_, a), (_, b) in zip(shots, said, strict=True))
        assert shots_of(found["reviews/random k=8", item, draw, 0])[: len(shots)] == said
        symbol = found[f"reviews/arbitrary {k}", item, draw, 0]
        names = {
            (label, sign) for (_, label), (_, sign) in zip(shots, shots_of(symbol), strict=True)
        }
        assert len(names) == len(dict(names)) <= 2
        if len(names) == 2:
            assert dict(names)[natural.item.reference or ""] == symbol.item.reference
        assert symbol.item.reference in symbol.item.fields["labels"]
        symbols |= set(symbol.item.fields["labels"])
    assert 0.35 < random_labels[True] / random_labels.total() < 0.65
    assert len(symbols) > 4 and not symbols & set(LABELS)  # other ones in each draw


def test_flipped_labels_of_three_are_a_derangement(project: Project) -> None:
    write_reviews(project.folder / "reviews.csv", labels=LABELS)
    items = REVIEWS | {"answers": dict(enumerate(LABELS)), "n": 6}
    found = asked(evaluated(project, items, labels=["natural", "flipped"]))
    pairs = {
        (q.item.reference, found[f"reviews/flipped k={k}", item, 0, 0].item.reference)
        for (variant, item, _, _), q in found.items()
        if "/" not in variant and (k := variant.partition("=")[2])
    }
    assert pairs == {("negative", "positive"), ("positive", "mixed"), ("mixed", "negative")}


def test_shots_come_from_the_pool_that_is_named(project: Project) -> None:
    write_reviews(project.folder / "reviews.csv", 3)
    lines = [f"{n % 2}\ttrain {n}" for n in range(20)]
    (project.folder / "train.tsv").write_text("\n".join(["label\tsentence", *lines]))
    pool = {
        "path": "train.tsv",
        "columns": {"text": "sentence", "answer": "label"},
        "answers": REVIEWS["answers"],
    }
    for question in asked(evaluated(project, pool=pool, draws=2)).values():
        assert all(text.startswith("train") for text, _ in shots_of(question))


# Public files in their own forms: where they are is in the variable.
PUBLIC = Path(os.environ.get("DISTILL_PUBLIC_DATA", "none"))
SST2 = {"columns": {"answer": 0, "text": 1}, "answers": {0: "negative", 1: "positive"}}
NEWS = {
    "columns": {"text": ["Title", "Description"], "answer": "Class Index"},
    "answers": {1: "world", 2: "sports", 3: "business", 4: "technology"},
}


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="needs DISTILL_PUBLIC_DATA")
@pytest.mark.parametrize(
    ("file", "form", "labels"),
    [("sst2/test.txt", SST2, 2), ("agnews/test-2000.csv", NEWS, 4)],
)
def test_a_public_file_is_asked_evenly(
    project: Project, file: str, form: dict[str, Any], labels: int
) -> None:
    found = asked(evaluated(project, {"path": str(PUBLIC / file), "n": 40} | form, draws=5))
    items = {item: q.item.reference for (_, item, _, _), q in found.items()}
    assert set(Counter(items.values()).values()) == {40 // labels}
    for (variant, _, _, _), question in found.items():
        if variant == "reviews k=8":
            assert question.messages[-1].content.count(" => ") == 8


@pytest.mark.parametrize(
    ("items", "task", "told"),
    [
        ({"path": "reviews.csv"}, {}, r"no text; seen: body, stars.*columns"),
        ({"path": "reviews.csv", "columns": {"text": "body"}}, {}, "no label"),
        (REVIEWS | {"columns": {"text": "words", "answer": "stars"}}, {}, "no column 'words'"),
        (REVIEWS | {"answers": {0: "good", 1: "good"}}, {}, "two labels or more.*good: 24"),
        (REVIEWS | {"answers": {0: "good", 1: "Good"}}, {}, "Good, good differ in case alone"),
        (REVIEWS, {"shots": [0, 24]}, "asks for 24.*can be 22 at most.*negative: 12"),
        (REVIEWS | {"n": 30}, {}, "there are 24 different rows"),
        (REVIEWS, {"pool": REVIEWS | {"where": {"stars": 1}}}, None),
        ({"generator": "list_functions", "n": 2}, {"labels": ["natural", "random"]}, "no labels"),
        ({"generator": "word_problems", "n": 2}, {}, "has 0 shots"),
        ({"generator": "symbol_mapping", "n": 2, "shots": 4}, {}, "has 4 shots.*asks for 8"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is(
    project: Project, items: Any, task: dict[str, Any], told: str | None
) -> None:
    write_reviews(project.folder / "reviews.csv")
    if told is None:
        told = "negative is the label of an item and of no text in the pool"
    config = evaluated(project, items, **task)
    with pytest.raises(UserError, match=told):
        check_items(config)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"answer": "fig"}, r"item e \(own.jsonl:1\) has the answer 'fig'.*: zop, kib"),
        ({"answer": "Zop"}, "none of its labels"),
        ({"labels": "zop"}, "a list of texts.*seen: 'zop'"),
        ({"labels": [1, 2], "answer": "1"}, "a list of texts"),
        ({"labels": [], "answer_kind": "list"}, "answer 'zop'; write a list of whole numbers"),
    ],
)
def test_an_episode_whose_answer_can_never_be_right_is_refused(
    project: Project, changes: dict[str, Any], told: str
) -> None:
    shots = [{"text": f"fig {n}", "label": ("zop", "kib")[n % 2]} for n in range(8)]
    row = {"id": "e", "text": "lynx", "answer": "zop", "labels": ["zop", "kib"], "shots": shots}
    (project.folder / "own.jsonl").write_text(json.dumps(row | changes) + "\n")
    with pytest.raises(UserError, match=told):
        check_items(evaluated(project, {"path": "own.jsonl"}))


@pytest.mark.parametrize("place", ["items", "pool"])
@pytest.mark.parametrize(("name", "content"), [("none.jsonl", ""), ("none.csv", "text,label\n")])
def test_a_file_without_rows_is_one_message(
    project: Project, name: str, content: str, place: str
) -> None:
    write_reviews(project.folder / "reviews.csv")
    (project.folder / name).write_text(content)
    sources = {"items": REVIEWS} | {place: {"path": name}}
    with pytest.raises(UserError, match=rf"tasks.reviews: {name} holds no rows"):
        check_items(evaluated(project, **sources))


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ({"labels": ["flipped"]}, "natural among them"),
        ({"labels": ["natural", "wrong"]}, "arbitrary"),
        ({"draws": 0}, "draws"),
        ({"shots": [0, -1]}, "shots"),
        ({"name": "mean"}, "stands for all"),
        ({"name": "a/b"}, "name"),
    ],
)
def test_a_wrong_setting_of_a_task_is_refused(
    project: Project, task: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        evaluated(project, **task)


def scores_of(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.run / "6_scores.json").read_text())
    return found


# A model that follows the shots: it gives the label of the last shot whose kind the query shares.
FOLLOWER = """
import re

def answer(request):
    *shots, query = request.messages[-1].content.split("\\n")
    kind = query.split()[-2]
    found = [s.split(" => ")[1] for s in shots if s.split(" => ")[0].split()[-1] == kind]
    return found[-1] if found else "cannot know"
"""


def test_a_model_that_follows_its_shots_is_seen_to_do_so(project: Project) -> None:
    write_reviews(project.folder / "reviews.csv")
    (project.folder / "teacher.py").write_text(FOLLOWER)
    how = ["natural", "random", "flipped", "arbitrary"]
    evaluated(project, REVIEWS | {"n": 8}, draws=5, labels=how)
    project.edit(evaluate__arms=["teacher"])
    done = project.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    found = {s["metric"]: s for s in scores_of(project)["scores"]}
    for condition in ("", "/flipped", "/arbitrary"):
        assert found[f"accuracy/reviews{condition}/k=2"]["value"] == 1
        assert found[f"accuracy/reviews{condition}/k=0"]["value"] == 0
        assert found[f"invalid/reviews{condition}/k=0"]["value"] == 1
        assert found[f"gain/mean{condition}"]["value"] == 1
        assert found[f"gain/mean{condition}"]["n"] == 8  # items, not draws
    assert 0.1 < found["accuracy/reviews/random/k=8"]["value"] < 0.9
    assert found["gain_over_random/mean"]["value"] > 0.1
    assert found["chance/reviews"]["value"] == 0.5
    spread = {(s["labels"], s["k"]): s for s in scores_of(project)["spread"]}
    assert len(spread["natural", 1]["draws"]) == 5
    # With one shot, of one label: right where the query has that one, in every draw the half.
    assert set(spread["natural", 1]["draws"]) == {0.5}
    assert spread["random", 8]["sd"] > 0


def answer(item: str, variant: str, draw: int, order: int, right: float) -> Answer:
    return Answer(
        model="before",
        ability="in_context",
        variant=variant,
        item_id=item,
        text="",
        finish=Finish.STOP,
        extraction=Extraction.VALUE,
        extracted="",
        correct=right,
        draw=draw,
        order=order,
        chance=0.25,
    )


def scored(rows: list[Answer]) -> Scores:
    return score({"before": rows}, arms=["before"])


def test_the_spread_is_over_draws_and_within_them_over_orders() -> None:
    table = {
        0: [(1, 1), (1, 0)],
        1: [(1, 0), (0, 0)],
        2: [(1, 1), (1, 1)],
    }  # draw -> order -> items
    rows = [
        answer(f"i{item}", "map k=4", draw, order, right)
        for draw, orders in table.items()
        for order, values in enumerate(orders)
        for item, right in enumerate(values)
    ]
    (one,) = scored(rows).spread
    assert one.draws == [0.75, 0.25, 1.0] and (one.low, one.high) == (0.25, 1.0)
    assert one.sd == pytest.approx(stdev([0.75, 0.25, 1.0]))
    assert one.orders_sd == pytest.approx(((0.125 + 0.125 + 0) / 3) ** 0.5)
    found = {s.metric: s for s in scored(rows).scores}
    assert found["accuracy/map/k=4"].n == 2
    assert found["accuracy/map/k=4"].value == pytest.approx(2 / 3)
    assert found["chance/map"].value == 0.25
    assert scored([row for row in rows if (row.draw, row.order) == (0, 0)]).spread == []


def test_the_mean_of_tasks_has_a_spread_where_all_have_as_many_draws() -> None:
    def rows(task: str, values: list[float]) -> list[Answer]:
        return [
            answer(f"{task}{item}", f"{task} k=2", draw, 0, float(item < 10 * value))
            for draw, value in enumerate(values)
            for item in range(10)
        ]

    both = [*rows("a", [0.2, 0.4, 0.6]), *rows("b", [0.6, 0.4, 0.8])]
    (mean,) = [one for one in scored(both).spread if one.task == "mean"]
    assert mean.draws == pytest.approx([0.4, 0.4, 0.7])
    assert mean.sd == pytest.approx(stdev([0.4, 0.4, 0.7]))
    for other in (rows("b", [0.6]), rows("b", [0.6, 0.4])):
        found = scored([*rows("a", [0.2, 0.4, 0.6]), *other]).spread
        assert "mean" not in {one.task for one in found}


def test_the_primary_number_is_of_natural_labels_alone() -> None:
    def rows(natural: float, flipped: float) -> list[Answer]:
        return [
            answer(f"i{item}", f"map{condition} k=8", 0, 0, right)
            for item in range(40)
            for condition, right in (("", natural), ("/flipped", flipped))
        ]

    found = score({"before": rows(0, 1), "after": rows(1, 0)}, arms=["before", "after"])
    (one,) = found.comparisons
    assert (one.metric, one.n, one.difference) == ("accuracy/mean/k=8", 40, 1.0)
