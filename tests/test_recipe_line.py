"""The recipes in whole runs: from seeds to what the student would be trained on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.project import Project

LABELLER = """
import re

def answer(request):
    text = request.messages[-1].content
    if "Rewrite" in request.messages[0].content:
        count = re.search(r"\\d+(?= words)", text)
        if request.seed_id.endswith(("0", "1", "2", "3")):
            return "Please tell me something."
        topic = re.search(r"about (\\w+)", text)[1]
        return f"What is {topic}, in no more than {count[0]} words?" if count else "Hm?"
    if "words" in text:
        return "Short and good."
    kind = "good" if "fine" in text else "bad"
    if "murky" in text:
        return ("good", "bad", "well")[request.sample_index % 3]
    if "odd" in text and request.sample_index == 0:
        return "good" if kind == "bad" else "bad"
    return f"Label: {kind}"
"""


def _task(name: str, seeds: Any, recipe: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "recipe": recipe,
        "seeds": seeds,
        "teacher_prompt": "ask.yaml",
        "student_prompt": "show.yaml",
    } | more


def _label(project: Project, **more: Any) -> dict[str, Any]:
    (project.folder / "teacher.py").write_text(LABELLER)
    kinds = ("fine", "poor", "fine odd", "poor odd")
    lines = ["body,stars"] + [f"film {i} was {kinds[i % 4]},{5 - i % 2 * 4}" for i in range(16)]
    lines += ["film x was murky,5", "film y was poor,5"]
    (project.folder / "films.csv").write_text("\n".join(lines) + "\n")
    seeds = {
        "path": "films.csv",
        "columns": {"text": "body", "answer": "stars"},
        "answers": {1: "bad", 5: "good"},
    }
    options = {"labels": ["bad", "good"]}
    filters = [{"vote": {"min_agreement": 0.6}}]
    return _task("films", seeds, "label", options=options, filters=filters, samples=3) | more


def test_labels_are_voted_on_and_measured_beside_the_gold_ones(project: Project) -> None:
    project.edit(tasks=[_label(project)])
    done = project.call("curate", "config.yaml")
    assert done.returncode == 2, "nothing is generated yet"
    assert project.call("generate", "config.yaml").returncode == 0
    assert project.call("curate", "config.yaml").returncode == 0
    kept = project.rows("2_kept.jsonl")
    assert len(kept) == 17  # every text once, but the murky one
    assert {row["completion"][0]["content"] for row in kept} == {"good", "bad"}
    assert {row["meta"]["agreement"] for row in kept} == {1.0, 0.667}
    funnel = json.loads((project.run / "2_funnel.json").read_text())
    stages = {stage["filter"]: stage for stage in funnel["stages"]}
    assert stages["label_set"]["dropped"] == 1
    assert stages["vote"]["reasons"] == {"tie": 2, "not what most answers say": 8}
    (table,) = json.loads((project.run / "2_label_quality.json").read_text())
    assert (table["seeds"], table["seeds_kept"]) == (18, 17)
    assert (table["all"]["answers"], table["all"]["right"]) == (54, 41)
    assert (table["kept"]["answers"], table["kept"]["right"]) == (17, 16)
    bad = next(one for one in table["kept"]["classes"] if one["name"] == "bad")
    assert (bad["precision"], bad["recall"], bad["support"]) == (round(8 / 9, 4), 1.0, 8)


def test_what_the_teacher_labelled_becomes_in_context_episodes(project: Project) -> None:
    (project.folder / "shots.yaml").write_text(
        "user: '{% for s in shots %}{{ s.text }}={{ s.label }};{% endfor %}{{ text }}='\n"
    )
    episodes = _task(
        "episodes",
        {"from": "films"},
        "in_context",
        teacher_prompt="ask.yaml",
        student_prompt="shots.yaml",
        options={"episodes": 4, "shots": [2, 4], "labels": {"natural": 0.5, "symbols": 0.5}},
        filters=[{"answer": {}}],
    )
    project.edit(tasks=[_label(project, train=False), episodes])
    assert project.call("generate", "config.yaml").returncode == 0
    done = project.call("curate", "config.yaml")
    assert done.returncode == 0, done.stderr
    rows = project.rows("2_kept.jsonl")
    assert {row["meta"]["task"] for row in rows} == {"episodes"}
    symbols = 0
    for row in rows:
        *shots, _ = row["prompt"][0]["content"].split(";")
        assert len(shots) in (2, 4)
        named = {shot.split("=")[0]: shot.split("=")[1] for shot in shots}
        answer = row["completion"][0]["content"]
        assert answer in named.values()
        symbols += answer not in ("good", "bad")
    assert 0 < symbols < len(rows)


def test_both_views_of_an_answer_are_rows_whose_weights_share_the_loss(project: Project) -> None:
    (project.folder / "view.yaml").write_text("user: '[{{ view }}] {{ question }}'\n")
    task = _task(
        "views",
        "seeds.jsonl",
        "step_by_step",
        student_prompt="view.yaml",
        options={"alpha": 0.25},
        filters=[{"answer": {}}],
        weight=1.0,
    )
    project.edit(tasks=[task])
    assert project.call("generate", "config.yaml").returncode == 0
    assert project.call("curate", "config.yaml").returncode == 0
    rows = project.rows("2_kept.jsonl")
    weights = {(row["meta"]["view"], row["weight"]) for row in rows}
    assert weights == {("rationale", 1.5), ("label", 0.5)}
    label = next(row for row in rows if row["meta"]["view"] == "label")
    assert label["prompt"][0]["content"].startswith("[label] ")
    assert label["completion"][0]["content"].isdecimal()


def test_without_gold_answers_the_majority_is_kept(project: Project) -> None:
    task = _task("sums", "seeds.jsonl", "self_consistency", samples=3)
    project.edit(tasks=[task])
    assert project.call("generate", "config.yaml").returncode == 0
    assert project.call("curate", "config.yaml").returncode == 0
    rows = project.rows("2_kept.jsonl")
    assert len(rows) == 12 and {row["meta"]["agreement"] for row in rows} == {0.667}
    (table,) = json.loads((project.run / "2_label_quality.json").read_text())
    assert (table["all"]["accuracy"], table["kept"]["accuracy"]) == (0.6667, 1.0)


def test_the_teacher_words_constrained_instructions_and_then_follows_them(
    project: Project,
) -> None:
    (project.folder / "teacher.py").write_text(LABELLER)
    (project.folder / "rewrite.yaml").write_text("system: Rewrite it.\nuser: '{{ question }}'\n")
    topics = [{"topic": f"t{i}", "instruction": f"Tell me about t{i}."} for i in range(20)]
    (project.folder / "topics.jsonl").write_text("\n".join(map(json.dumps, topics)))
    seeds = {
        "generator": "constrained_instructions",
        "topics": "topics.jsonl",
        "types": ["max_words"],
        "n": 20,
    }
    project.edit(
        tasks=[
            _task("words", seeds, "phrase", teacher_prompt="rewrite.yaml"),
            _task("kept", {"from": "words"}, "constraints", filters=[{"constraints": {}}]),
        ]
    )
    done = project.call("generate", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert project.call("curate", "config.yaml").returncode == 0
    derived = project.rows("steps.jsonl")[0]["notes"]["derived_seeds"]["kept"]
    assert derived["seeds"] > 0
    lost = derived["lost"]["no longer says what max_words is about"]
    assert derived["seeds"] + lost == 20
    rows = project.rows("2_kept.jsonl")
    assert len(rows) == derived["seeds"]
    assert all("in no more than" in row["prompt"][0]["content"] for row in rows)


def test_a_vote_over_one_sample_a_seed_says_how_to_get_more(project: Project) -> None:
    project.edit(tasks=[_task("sums", "seeds.jsonl", "self_consistency", samples=1)])
    done = project.call("generate", "config.yaml")
    assert done.returncode == 2
    assert "samples" in done.stderr and "min_votes" in done.stderr


@pytest.mark.parametrize("types", [["max_words", "bullets"], None])
def test_unseen_constraint_types_that_are_trained_on_are_refused(
    project: Project, types: list[str] | None
) -> None:
    topics = [{"topic": f"t{i}", "instruction": f"Tell me about t{i}."} for i in range(4)]
    (project.folder / "topics.jsonl").write_text("\n".join(map(json.dumps, topics)))
    source = {"generator": "constrained_instructions", "topics": "topics.jsonl", "n": 4}
    trained = source | ({"types": types} if types else {})
    table = {
        "seen_types": source | {"types": ["bullets"]},
        "unseen_types": source | {"types": ["title", "max_words"]},
        "prompt": "show.yaml",
    }
    project.edit(
        tasks=[_task("rules", trained, "constraints")],
        evaluate={"abilities": ["instruction_following"], "instruction_following": table},
    )
    done = project.call("generate", "config.yaml")
    assert done.returncode == 2
    assert "unseen_types: max_words" in done.stderr or "unseen_types: title" in done.stderr
    assert "task rules" in done.stderr


def test_the_report_shows_each_class_beside_the_gold_labels(project: Project) -> None:
    from pipeline.stage3_evaluate.report import write_report

    project.edit(tasks=[_label(project)])
    assert project.call("generate", "config.yaml").returncode == 0
    assert project.call("curate", "config.yaml").returncode == 0
    html, plain = (path.read_text() for path in write_report(project.run))
    for text in (html, plain):
        assert "Answers of films beside the gold ones: 17 of 18 seeds have a kept one" in text
    assert "| right answers, of | 76% |" in plain and "| bad | " in plain
