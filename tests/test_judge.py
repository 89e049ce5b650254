"""Judges as one more request, the best of several answers, pools of teachers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.stage1_generate.curate.judgement import BestOf, Better, Judge, read_better, read_score
from tests.project import Project

TEACHER = """
import re

def answer(request):
    text = request.messages[-1].content
    if "Better:" in text:
        first, second = re.findall(r"make (\\\\d+)", text)
        return "Better: tie" if len(text) % 7 == 0 else "Better: A"  # prefers the place
    if "Score:" in text:
        holds = r"(\\d+) figs and (\\d+) pears.*?make (\\d+)"
        a, b, said = map(int, re.findall(holds, text, re.S)[0])
        return "It adds up. Score: 9" if a + b == said else "It does not. **Score: 2/10**"
    a, b = map(int, re.findall(r"\\\\d+", text)[:2])
    wrong = request.sample_index % 3 == 2
    return f"Sample {'abc'[request.sample_index % 3]}: {a} and {b} make {a + b + wrong}."
""".replace("\\\\", "\\")


def _judged(project: Project, judge: dict[str, Any], **options: Any) -> None:
    (project.folder / "teacher.py").write_text(TEACHER)
    (project.folder / "score.yaml").write_text(
        "user: '{{ question }} <<{{ delimiter }} {{ response }} {{ delimiter }}>> Score: n'\n"
    )
    (project.folder / "compare.yaml").write_text(
        "user: '{{ question }} A {{ first }} B {{ second }} Better: A or B'\n"
    )
    task = {
        "name": "sums",
        "recipe": "response",
        "seeds": "seeds.jsonl",
        "teacher_prompt": "ask.yaml",
        "student_prompt": "show.yaml",
        "samples": 3,
        "filters": [{"judge": judge}],
    }
    prompt = "compare.yaml" if options.get("compare") else "score.yaml"
    judging = task | {"name": "scores", "recipe": "judge", "samples": 1, "filters": []}
    judging |= {"seeds": {"from": "sums", "rows": "all"}, "teacher_prompt": prompt}
    project.edit(tasks=[task, judging | {"options": options}])


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Good. Score: 7", 7),
        ("**Score:** 8/10", 8),
        ("Score: 3\nNo: on second thoughts\nScore: 4.5", 4.5),
        ("Score: 11", None),
        ("Score: 0", None),
        ("I would give it a 7.", None),
    ],
)
def test_a_score_is_read(text: str, score: float | None) -> None:
    assert read_score(text) == score


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("Better: A", Better.FIRST),
        ("**Better: Answer B**", Better.SECOND),
        ("better - tie", Better.TIE),
        ("Better: neither", Better.TIE),
        ("Answer A is nice.", None),
    ],
)
def test_a_comparison_is_read(text: str, better: Better | None) -> None:
    assert read_better(text) == better


def test_a_judge_keeps_what_it_scored_high_and_is_itself_measured(project: Project) -> None:
    _judged(project, {"by": "scores", "at_least": 6})
    assert project.call("generate", "config.yaml").returncode == 0
    done = project.call("curate", "config.yaml")
    assert done.returncode == 0, done.stderr
    kept = project.rows("2_kept.jsonl")
    assert len(kept) == 24 and {row["meta"]["judge_score"] for row in kept} == {9.0}
    assert {row["meta"]["task"] for row in kept} == {"sums"}
    funnel = json.loads((project.run / "2_funnel.json").read_text())
    assert funnel["judges"]["scores"] == {
        "judged": 36,
        "unreadable": 0,
        "known": 36,
        "agree": 1.0,
        "auc": 1.0,
        "same_in_both_orders": None,
    }
    assert funnel["by_task"]["scores"]["asked"] == 36
    # Judging again costs nothing: the judge's answers lie in the ledger like any others.
    asked = len(project.asked())
    assert project.call("generate", "config.yaml", "--redo", "generate").returncode == 0
    assert len(project.asked()) == asked


def test_a_judge_that_prefers_a_place_is_found_out(project: Project) -> None:
    _judged(project, {"by": "scores", "best": 1}, compare=True, most=3)
    assert project.call("generate", "config.yaml").returncode == 0
    done = project.call("curate", "config.yaml")
    assert done.returncode == 0, done.stderr
    funnel = json.loads((project.run / "2_funnel.json").read_text())
    found = funnel["judges"]["scores"]
    assert found["judged"] == 12 * 6  # every two of three answers, in both orders
    assert found["same_in_both_orders"] < 0.5
    assert 0.4 <= found["agree"] <= 0.6
    assert funnel["by_task"]["sums"]["kept"] == 12


def test_a_judge_that_judges_another_task_is_refused(project: Project) -> None:
    _judged(project, {"by": "absent", "at_least": 6})
    done = project.call("generate", "config.yaml")
    assert done.returncode == 2 and "these do: scores" in done.stderr


def test_foreign_text_stands_between_delimiters_it_cannot_know(project: Project) -> None:
    _judged(project, {"by": "scores", "at_least": 6})
    project.call("generate", "config.yaml")
    seeds = [s for s in project.rows("0_seeds.jsonl") if s["task"] == "scores"]
    marks = {seed["fields"]["delimiter"] for seed in seeds}
    assert len(marks) == len(seeds)
    assert not any(s["fields"]["delimiter"] in s["fields"]["response"] for s in seeds)


def test_best_of_keeps_the_shortest_that_passed(project: Project) -> None:
    project.edit(tasks__0__filters=[{"answer": {}}, {"best_of": {"n": 1, "by": "shortest"}}])
    project.call("generate", "config.yaml")
    assert project.call("curate", "config.yaml").returncode == 0
    kept = project.rows("2_kept.jsonl")
    assert len(kept) == len({row["meta"]["seed_id"] for row in kept}) == 12


@pytest.mark.parametrize("settings", [{"by": "x"}, {"n": 0}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        BestOf(**settings)


def test_a_judge_needs_to_know_what_to_keep() -> None:
    with pytest.raises(ValueError, match="at_least"):
        Judge("scores")


def test_a_pool_needs_two_teachers(project: Project) -> None:
    project.edit(tasks__0__recipe="multi_teacher")
    done = project.call("generate", "config.yaml")
    assert done.returncode == 2 and "needs `teachers: [NAME, NAME, ...]`" in done.stderr


def test_a_pool_counts_the_seeds_that_one_teacher_alone_could_answer(project: Project) -> None:
    (project.folder / "weak.py").write_text(
        "import re\n"
        "def answer(request):\n"
        "    a, b = map(int, re.findall(r'\\d+', request.messages[-1].content)[:2])\n"
        "    return f'So it is {a + b + (a % 2)}.'\n"
    )
    strong = (
        load_config(project.config)
        .all_teachers["teacher"]
        .model_dump(mode="json", exclude_none=True)
    )
    weak = strong | {"model": "weak", "serving": {"script": "weak.py"}}
    project.edit(
        teacher=None,
        teachers={"weak": weak, "strong": strong},
        tasks__0__recipe="multi_teacher",
        tasks__0__teachers=["weak", "strong"],
        tasks__0__samples=1,
        evaluate__teacher="strong",
    )
    assert project.call("generate", "config.yaml").returncode == 0
    assert project.call("curate", "config.yaml").returncode == 0
    funnel = json.loads((project.run / "2_funnel.json").read_text())
    odd = sum(
        1 for s in project.rows("0_seeds.jsonl") if int(s["fields"]["question"].split()[3]) % 2
    )
    assert 0 < odd < 12
    assert funnel["by_teacher"]["strong"]["alone"] == odd
    assert funnel["by_teacher"]["weak"]["alone"] == 0
    assert {row["meta"]["teacher"] for row in project.rows("2_kept.jsonl")} == {"weak", "strong"}
