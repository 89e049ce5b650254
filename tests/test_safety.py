"""What a command must not take away, count as wrong, or charge to the wrong account."""

from __future__ import annotations

import json
import time

import pytest

from tests.project import Project, write_seeds

FAILS_ON_BASKET_FOR = """
import re
from pipeline.records import ErrorKind, Finish, Generation

def answer(request):
    text = request.messages[-1].content
    a, b = map(int, re.findall(r"\\d+", text)[:2])
    if (a, b) == {numbers} and {broken}:
        kind = ErrorKind.{kind}
        return Generation(request.id, "", Finish.ERROR, error="no luck", error_kind=kind)
    return f"The answer is {{a + b}}."
"""


def teacher(project: Project, kind: str, broken: bool) -> None:
    """Fails on the first evaluation item, (1 figs, 22 pears), for now or for good."""
    item = json.loads((project.folder / "eval.jsonl").read_text().splitlines()[0])
    numbers = tuple(int(word) for word in item["question"].split() if word.isdigit())
    (project.folder / "teacher.py").write_text(
        FAILS_ON_BASKET_FOR.format(numbers=numbers, broken=broken, kind=kind)
    )


def only_the_teacher_is_tested(project: Project) -> None:
    project.edit(evaluate__arms=["teacher"], budget={"min_acceptance": 0})


def test_an_item_that_failed_for_now_is_asked_again_and_not_scored_as_wrong(
    project: Project,
) -> None:
    only_the_teacher_is_tested(project)
    teacher(project, "TRANSIENT", broken=True)
    stopped = project.call("evaluate", "config.yaml")
    assert stopped.returncode == 75 and "no luck" in stopped.stderr
    teacher(project, "TRANSIENT", broken=False)
    assert project.call("evaluate", "config.yaml").returncode == 0
    path = project.run / "5_answers" / "teacher" / "chain_of_thought.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 12 and all(row["correct"] == 1.0 for row in rows)


def test_an_item_that_failed_for_good_is_left_out_of_the_scores_and_named(
    project: Project,
) -> None:
    only_the_teacher_is_tested(project)
    teacher(project, "FINAL", broken=True)
    done = project.call("evaluate", "config.yaml")
    assert done.returncode == 1 and "no luck" in done.stderr
    scores = json.loads((project.run / "6_scores.json").read_text())["scores"]
    found = {score["metric"]: score for score in scores}["accuracy/step_by_step"]
    assert (found["value"], found["n"]) == (1.0, 5)


def test_what_a_student_writes_is_not_charged_to_the_budget(project: Project) -> None:
    project.edit(evaluate__arms=["before"], budget={"max_tokens": 5, "max_usd": 0.000001})
    done = project.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr


def test_a_budget_holds_over_the_steps_of_a_run(project: Project) -> None:
    only_the_teacher_is_tested(project)
    assert project.call("generate", "config.yaml").returncode == 0
    record = json.loads((project.run / "steps.jsonl").read_text())
    used = record["tokens"]["input"] + record["tokens"]["output"]
    project.edit(budget={"max_tokens": used + 30})
    stopped = project.call("evaluate", "config.yaml")
    assert stopped.returncode == 75 and "max_tokens" in stopped.stderr


def test_a_mistake_in_redo_takes_nothing_away(project: Project) -> None:
    student = project.run / "4_student"
    student.mkdir(parents=True)
    (student / "model.safetensors").write_text("paid for in hours")
    wrong = "train.sft.learning_ratee=1"
    done = project.call("train", "config.yaml", "--redo", "train", "--set", wrong)
    assert done.returncode == 2 and "learning_rate" in done.stderr
    assert (student / "model.safetensors").is_file()


def test_a_refused_command_does_not_change_what_the_run_says_it_is(project: Project) -> None:
    assert project.call("generate", "config.yaml").returncode == 0
    assert project.call("curate", "config.yaml").returncode == 0
    before = (project.run / "config.yaml").read_bytes()
    refused = project.call("curate", "config.yaml", "--set", "curate.validation_share=0.5")
    assert refused.returncode == 2 and "validation_share" in refused.stderr
    assert (project.run / "config.yaml").read_bytes() == before


@pytest.mark.slow
def test_after_kill_9_of_a_run_the_same_command_goes_on_at_once(project: Project) -> None:
    write_seeds(project.folder / "seeds.jsonl", 30)
    project.edit(evaluate={"abilities": []})
    killed = project.start("run", "config.yaml", "--until", "generate", TEACHER_SECONDS="0.05")
    while not project.asked():
        time.sleep(0.05)
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    ended = project.distill("run", "config.yaml", "--until", "generate")
    assert ended.returncode == 0, ended.stderr
    assert len(project.rows("1_generations.jsonl")) == 90
    assert len(project.asked()) <= 90 + 1  # what was in flight


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evaluate__chain_of_thought__items": "nope.jsonl"}, "no such seed file"),
        ({"evaluate__chain_of_thought__items": "bare.jsonl"}, "has no answer"),
        (
            {
                "evaluate__abilities": ["in_context"],
                "evaluate__in_context": {"tasks": [{"name": "t", "items": "eval.jsonl"}]},
            },
            "balanced shots beside the item can be 0",
        ),
        ({"tasks__0__student_prompt": "needs.yaml"}, "needs.yaml uses foo"),
        ({"train__sft__output_dir": "elsewhere"}, "leave it out"),
        ({"student__model": "gone/"}, "gone"),
    ],
    ids=[
        "no items",
        "no answers",
        "labels of one text each",
        "student prompt",
        "output_dir",
        "student",
    ],
)
def test_mistakes_that_would_show_late_are_found_before_anything_is_paid(
    project: Project, change: dict[str, object], said: str
) -> None:
    (project.folder / "bare.jsonl").write_text('{"question": "12 + 7 = ?"}\n')
    (project.folder / "needs.yaml").write_text('user: "{{ question }} {{ foo }}"\n')
    project.edit(**change)
    done = project.distill("run", "config.yaml")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert project.asked() == []


def test_printed_commands_hold_the_redo(project: Project) -> None:
    done = project.call("run", "config.yaml", "--on", "print", "--redo", "curate")
    lines = done.stdout.splitlines()
    assert [line for line in lines if "--redo curate" in line] == [
        "distill curate config.yaml --redo curate"
    ]
