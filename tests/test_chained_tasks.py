"""Tasks that live on other tasks' answers, pools of teachers, a user's own recipe."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.records import (
    Decision,
    Example,
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    Seed,
    Verdict,
)
from pipeline.stage1_generate.curate import Candidate
from pipeline.stage1_generate.curate.judge import judged
from pipeline.stage1_generate.task_seeds import seeds_of, waves
from tests.project import Project

OWN = """
from pipeline.prompts import render
from pipeline.records import Message
from pipeline.stage1_generate.recipes import Lost, Row

def rows(seed, generation, showing, alpha=0.5):
    prompt = render(showing, seed.fields)
    label = generation.text.split()[-1].strip(".")
    return [
        Row(prompt, (Message("assistant", generation.text),), 1 - alpha, "rationale"),
        Row(prompt, (Message("assistant", label),), alpha, "label"),
    ]

def harvest(answers, most=99):
    for number, (seed, request, generation) in enumerate(answers):
        if number >= most:
            yield Lost("more than enough", generation.text)
        else:
            yield {"question": "Again: " + seed.fields["question"], "answer": seed.reference}
"""


def _task(name: str, seeds: Any, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "recipe": "chain_of_thought",
        "seeds": seeds,
        "teacher_prompt": "ask.yaml",
        "student_prompt": "show.yaml",
        "filters": [{"answer": {}}],
    } | more


def test_a_task_asks_about_what_another_tasks_answers_hold(project: Project) -> None:
    (project.folder / "own.py").write_text(OWN)
    first = _task("first", "seeds.jsonl", recipe="own.py", options={"most": 5, "alpha": 0.25})
    project.edit(tasks=[first, _task("second", {"from": "first"})])
    assert project.call("generate", "config.yaml").returncode == 0
    seeds = project.rows("0_seeds.jsonl")
    again = [seed for seed in seeds if seed["task"] == "second"]
    assert len(again) == 5 and all(s["fields"]["question"].startswith("Again: ") for s in again)
    step = project.rows("steps.jsonl")[-1]
    assert step["notes"]["derived_seeds"]["second"]["lost"] == {"more than enough": 7}
    asked = len(project.asked())
    assert asked == 12 + 5
    # A second start, from nothing but the ledger, comes to the same bytes and asks nothing.
    files = ("0_seeds.jsonl", "1_generations.jsonl")
    before = [(project.run / name).read_bytes() for name in files]
    assert project.call("generate", "config.yaml", "--redo", "generate").returncode == 0
    assert [(project.run / name).read_bytes() for name in files] == before
    assert len(project.asked()) == asked


def test_an_answer_can_become_several_weighted_rows(project: Project) -> None:
    (project.folder / "own.py").write_text(OWN)
    project.edit(tasks=[_task("sums", "seeds.jsonl", recipe="own.py", options={"alpha": 0.25})])
    project.call("generate", "config.yaml")
    assert project.call("curate", "config.yaml").returncode == 0
    rows = project.rows("2_kept.jsonl")
    assert len(rows) == 24
    assert {(r["meta"]["view"], r["weight"]) for r in rows} == {
        ("rationale", 0.75),
        ("label", 0.25),
    }


def test_a_changed_recipe_file_is_seen(project: Project) -> None:
    (project.folder / "own.py").write_text(OWN)
    project.edit(tasks=[_task("sums", "seeds.jsonl", recipe="own.py")])
    project.call("generate", "config.yaml")
    (project.folder / "own.py").write_text(OWN + "\n# other\n")
    done = project.call("generate", "config.yaml")
    assert done.returncode == 2 and "recipe" in done.stderr


def test_an_unknown_option_is_named_with_those_there_are(project: Project) -> None:
    (project.folder / "own.py").write_text(OWN)
    project.edit(tasks=[_task("sums", "seeds.jsonl", recipe="own.py", options={"beta": 1})])
    done = project.call("generate", "config.yaml")
    assert done.returncode == 2
    assert "unknown option 'beta'; allowed: " in done.stderr and "alpha" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has none of the functions"),
        ("1 / 0", "ZeroDivisionError"),
        ("GRADE = 'B9'\ndef rows(a, b, c): ...", "GRADE is 'B9'"),
    ],
)
def test_a_recipe_file_that_is_none_is_a_clear_mistake(
    project: Project, text: str, message: str
) -> None:
    (project.folder / "own.py").write_text(text)
    project.edit(tasks=[_task("sums", "seeds.jsonl", recipe="own.py")])
    done = project.call("generate", "config.yaml")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_what_the_filters_dropped_can_be_seeds_too(project: Project) -> None:
    first = _task("first", "seeds.jsonl", samples=3)
    project.edit(tasks=[first, _task("second", {"from": "first", "rows": "dropped"})])
    assert project.call("generate", "config.yaml").returncode == 0
    again = [s for s in project.rows("0_seeds.jsonl") if s["task"] == "second"]
    assert len(again) == 12  # the fake teacher errs in every third sample
    assert {s["fields"]["source_seed"] for s in again} == {f"q{i}" for i in range(12)}
    assert all("response" in s["fields"] for s in again)


def test_a_task_that_teaches_nothing_leaves_no_training_rows(project: Project) -> None:
    first = _task("first", "seeds.jsonl", train=False)
    project.edit(tasks=[first, _task("second", {"from": "first"})])
    project.call("generate", "config.yaml")
    assert project.call("curate", "config.yaml").returncode == 0
    assert {row["meta"]["task"] for row in project.rows("2_kept.jsonl")} == {"second"}


def test_a_pool_asks_every_teacher_and_keeps_its_name(project: Project) -> None:
    raw = load_config(project.config)
    one = raw.all_teachers["teacher"].model_dump(mode="json", exclude_none=True)
    two = one | {"model": "another", "price": {"input": 5.0, "output": 5.0}}
    project.edit(
        teacher=None,
        teachers={"first": one, "second": two},
        tasks=[_task("sums", "seeds.jsonl", teachers=["first", "second"])],
        evaluate__teacher="first",
    )
    assert project.call("generate", "config.yaml").returncode == 0
    assert project.call("curate", "config.yaml").returncode == 0
    assert len(project.asked()) == 24
    kept = project.rows("2_kept.jsonl")
    assert {row["meta"]["teacher"] for row in kept} == {"first"}  # equal answers: the first stays
    funnel = json.loads((project.run / "2_funnel.json").read_text())
    assert funnel["by_teacher"]["second"]["asked"] == 12
    plan = project.call("plan", "config.yaml")
    assert "task sums to second: " in plan.stdout
    assert "task sums by second: " in project.call("status", "small").stdout


def test_held_back_seeds_of_another_run(project: Project) -> None:
    project.edit(curate__validation_share=0.4)
    project.call("generate", "config.yaml")
    project.call("curate", "config.yaml")
    dataset = project.run / "3_dataset"
    import pandas as pd

    held = set(pd.read_parquet(dataset / "validation-00000-of-00001.parquet").seed_id)
    source = {"run": "small", "task": "sums", "split": "validation"}
    project.edit(name="round-2", tasks=[_task("more", source)])
    done = project.call("generate", "config.yaml")
    assert done.returncode == 0, done.stderr
    lines = (project.folder / "runs" / "round-2" / "0_seeds.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == held and held


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ({"from": "later"}, "is not a task before this one"),
        ({"rows": "dropped", "path": "seeds.jsonl"}, "rows goes with `from`"),
        ({"run": "small", "side": "all"}, "seeds of another run take task and split"),
        ({"run": "absent"}, "has no seeds; the run absent must have been made before"),
        ({"from": "sums", "generator": "word_problems"}, "give one of"),
    ],
)
def test_a_source_that_cannot_be_is_refused(
    project: Project, seeds: dict[str, Any], message: str
) -> None:
    project.edit(tasks=[_task("sums", seeds)])
    done = project.call("generate", "config.yaml")
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_waves_come_one_after_the_other(project: Project) -> None:
    tasks = [_task("a", "seeds.jsonl"), _task("b", {"from": "a"}), _task("c", "seeds.jsonl")]
    project.edit(tasks=[*tasks, _task("d", {"from": "b"})])
    found = waves(load_config(project.config))
    assert [[task.name for task in wave] for wave in found] == [["a", "c"], ["b"], ["d"]]


def test_a_recipe_may_arrange_its_seeds(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    (project.folder / "own.py").write_text(
        "def arrange(seeds, every=1):\n"
        "    return (s for i, s in enumerate(seeds) if i % every == 0)\n"
    )
    project.edit(tasks=[_task("sums", "seeds.jsonl", recipe="own.py", options={"every": 4})])
    config = load_config(project.config)
    assert [seed.id for seed in seeds_of(config, config.tasks[0])] == ["q0", "q4", "q8"]


class Majority:
    """Keeps the rows whose text most rows of all have."""

    def __init__(self) -> None:
        self.votes: dict[str, int] = {}
        self.seen = 0

    def saw(self, row: Candidate) -> None:
        self.seen += 1

    def gather(self, row: Candidate) -> None:
        self.votes[row.generation.text] = self.votes.get(row.generation.text, 0) + 1

    def __call__(self, row: Candidate) -> Verdict:
        most = max(self.votes, key=lambda text: self.votes[text])
        kept = Decision.KEEP if row.generation.text == most else Decision.DROP
        return Verdict(kept, "vote", "", self.votes[row.generation.text] / self.seen)


def _rows(task: Any, texts: list[str]) -> list[tuple[Any, Candidate]]:
    found = []
    for text in texts:
        request = Request("0" * 32, "s", "r", PromptRef("p", "h"), (), Sampling(), 0, "m")
        example = Example((), (Message("assistant", text),), 1.0, ())
        seed = Seed("s", task.name, {})
        found.append((task, Candidate(seed, request, Generation("", text, Finish.STOP), example)))
    return found


def test_a_filter_that_gathers_has_seen_every_row_before_it_judges_one(project: Project) -> None:
    def no_c(row: Candidate) -> Verdict:
        kept = Decision.DROP if row.generation.text == "c" else Decision.KEEP
        return Verdict(kept, "first")

    project.edit(tasks=[_task("one", "seeds.jsonl"), _task("two", "seeds.jsonl")])
    one, two = load_config(project.config).tasks
    rows = _rows(one, ["c", "a", "b", "c", "b", "c"]) + _rows(two, ["c", "x"])
    vote = Majority()
    found = list(judged(lambda: rows, {"one": [no_c, vote], "two": [no_c]}))
    assert [f.row.generation.text for f in found if f.verdict.decision is Decision.KEEP] == [
        "b",
        "b",
        "x",
    ]
    assert vote.seen == 6 and vote.votes == {"a": 1, "b": 2}
    assert found[2].scores == {"agreement": pytest.approx(1 / 3)}
