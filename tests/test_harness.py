"""lm-evaluation-harness on our arms, and our items as its tasks: the same answers, one score."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.stage3_evaluate.harness_scores import suite_scores
from tests.project import Project

lm_eval = pytest.importorskip("lm_eval", reason="needs the extra lm-eval")

GENERATE = """
task: own_sums
custom_dataset: !function own.items
output_type: generate_until
test_split: test
fewshot_split: train
num_fewshot: 1
doc_to_text: "Add {{a}} and {{b}}."
doc_to_target: "{{total}}"
generation_kwargs: {until: ["stop here"], max_gen_toks: 9, do_sample: false}
filter_list:
  - name: last
    filter:
      - {function: regex, regex_pattern: "(-?[0-9]+)", group_select: -1}
      - {function: take_first}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
CHOOSE = """
task: own_choice
custom_dataset: !function own.items
output_type: multiple_choice
test_split: test
doc_to_text: "{{a}} and {{b}} make"
doc_to_choice: ["{{total}}", "{{a}}"]
doc_to_target: 0
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
OWN = """
from datasets import Dataset, DatasetDict

def items(**settings):
    rows = [{"a": str(a), "b": str(a + 2), "total": str(2 * a + 2)} for a in range(1, 9)]
    return DatasetDict({"test": Dataset.from_list(rows[:6]), "train": Dataset.from_list(rows[6:])})
"""
# Right on the even ones; says more behind the stop.
TEACHER = """
import os, re

def answer(request):
    with open(os.environ["ASKED_LOG"], "a") as file:
        file.write(request.id + "\\n")
    a, b = map(int, re.findall(r"\\d+", request.messages[-1].content)[:2])
    return f"{a} and {b} make {a + b + a % 2}. stop here 0"
"""


@pytest.fixture
def suite(project: Project) -> Project:
    tasks = project.folder / "own_tasks"
    tasks.mkdir()
    (tasks / "own_sums.yaml").write_text(GENERATE)
    (tasks / "own_choice.yaml").write_text(CHOOSE)
    (tasks / "own.py").write_text(OWN)
    (project.folder / "teacher.py").write_text(TEACHER)
    project.edit(
        evaluate__arms=["teacher", "before"],
        evaluate__suite={"tasks": ["own_sums"], "include": ["own_tasks"]},
    )
    return project


def scores_of(project: Project, ability: str = "lm-eval") -> dict[tuple[str, str], Any]:
    found = json.loads((project.run / "6_scores.json").read_text())["scores"]
    return {(s["model"], s["metric"]): s for s in found if s["ability"] == ability}


def test_a_suite_asks_all_arms_through_the_ledger_and_is_in_scores_and_report(
    suite: Project,
) -> None:
    done = suite.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    found = scores_of(suite)
    assert found["teacher", "own_sums/exact_match/last"]["value"] == 0.5
    assert found["teacher", "own_sums/exact_match/last"]["n"] == 6
    assert found["before", "own_sums/exact_match/last"]["value"] == 0.0
    assert "own_sums/exact_match/last" in done.stdout
    results = json.loads((suite.run / "5_suite" / "teacher" / "results.json").read_text())
    assert results["results"]["own_sums"]["exact_match,last"] == 0.5
    samples = (suite.run / "5_suite" / "teacher" / "samples_own_sums.jsonl").read_text()
    assert "stop here" not in json.loads(samples.splitlines()[0])["resps"][0][0]

    asked = len(suite.asked())
    again = suite.call("evaluate", "config.yaml", "--redo", "suite")
    assert again.returncode == 0, again.stderr
    assert len(suite.asked()) == asked  # every answer was in the ledger
    assert scores_of(suite) == found


def test_arms_one_by_one_make_the_same_suite_and_texts_and_gathering_does_nothing_of_it(
    suite: Project,
) -> None:
    texts = [json.dumps({"text": f"The {n} sheep went home again."}) for n in range(3)]
    (suite.folder / "texts.jsonl").write_text("\n".join(texts))
    arms = ["teacher", "before", "before_again"]
    suite.edit(evaluate__arms=arms, evaluate__held_out_text="texts.jsonl")
    suite.edit(evaluate__suite__limit=3)
    names = ["5_suite/scores.jsonl", "5_text/before.jsonl", "5_text/before_again.jsonl"]
    assert suite.call("evaluate", "config.yaml").returncode == 0
    whole = {name: (suite.run / name).read_bytes() for name in names}
    asked = len(suite.asked())
    (suite.folder / "runs").rename(suite.folder / "whole")

    suite.asked_log.unlink()
    assert suite.call("evaluate", "config.yaml", "--arm", "before_again").returncode == 0
    refused = suite.call("evaluate", "config.yaml", "--gather")
    assert refused.returncode == 2 and "--arm teacher" in refused.stderr
    for arm in ("teacher", "before"):
        assert suite.call("evaluate", "config.yaml", "--arm", arm).returncode == 0
    assert len(suite.asked()) == asked
    done = suite.call("evaluate", "config.yaml", "--gather")
    assert done.returncode == 0, done.stderr
    assert len(suite.asked()) == asked and "reading" not in done.stdout
    assert {name: (suite.run / name).read_bytes() for name in names} == whole
    assert not list((suite.run / "launch" / "arms").iterdir())
    assert "done already" in suite.call("evaluate", "config.yaml", "--arm", "before").stdout


def test_given_texts_of_an_arm_by_itself_are_not_scored_again_by_gathering(suite: Project) -> None:
    suite.edit(evaluate__abilities=[], evaluate__arms=["before"])
    suite.edit(evaluate__suite__tasks=["own_choice"])
    refused = suite.call("evaluate", "config.yaml", "--gather")
    assert refused.returncode == 2 and "--arm before" in refused.stderr
    only_asked = suite.call("evaluate", "config.yaml", "--arm", "before", "--no-weights")
    assert only_asked.returncode == 0 and not list(suite.run.glob("launch/arms/suite-*/*"))
    assert suite.call("evaluate", "config.yaml", "--arm", "before").returncode == 0
    done = suite.call("evaluate", "config.yaml", "--gather")
    assert done.returncode == 0, done.stderr
    assert ("before", "own_choice/acc") in scores_of(suite)


def test_a_suite_that_was_stopped_asks_only_what_is_missing(suite: Project) -> None:
    script = suite.folder / "teacher.py"
    works = script.read_text()
    suite.edit(evaluate__abilities=[], evaluate__arms=["teacher"])
    # The fourth row fails for now, as at an endpoint that is out of reach.
    script.write_text(works.replace("    return f", "    assert a != 4, 'away'\n    return f"))
    done = suite.call("evaluate", "config.yaml")
    assert done.returncode == 75, done.stderr
    assert "away" in done.stderr and not (suite.run / "5_suite").exists()
    first = suite.asked()
    script.write_text(works)
    done = suite.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert len(first) == 6 and len(suite.asked()) == 7
    assert suite.asked()[6] in first  # the row that had failed
    assert scores_of(suite)["teacher", "own_sums/exact_match/last"]["value"] == 0.5


def test_a_suite_named_later_is_added_to_what_is_there(suite: Project) -> None:
    suite.edit(evaluate__suite=None)
    assert suite.call("evaluate", "config.yaml").returncode == 0
    words = ("evaluate", "config.yaml", "--set", "evaluate.suite.include=[own_tasks]")
    done = suite.call(*words, "--suite", "lm-eval:own_sums")
    assert done.returncode == 0, done.stderr
    assert "evaluate: done already" in done.stdout
    assert ("teacher", "own_sums/exact_match/last") in scores_of(suite)
    plain = suite.call("evaluate", "config.yaml")
    assert plain.returncode == 0, plain.stderr
    assert ("teacher", "own_sums/exact_match/last") in scores_of(suite)


def test_the_task_that_the_docs_show_works_on_a_local_file(suite: Project) -> None:
    page = Path(__file__).parent.parent / "docs" / "evaluating.md"
    (block,) = re.findall(r"```yaml\n(task: my_gsm8k\n.*?)```", page.read_text(), re.S)
    (suite.folder / "own_tasks" / "my_gsm8k.yaml").write_text(block)
    (suite.folder / "gsm8k").mkdir()
    rows = [
        {"question": f"{a} and {a + 1}?", "answer": f"So.\n#### {2 * a + 1:,}"} for a in (600, 601)
    ]
    (suite.folder / "gsm8k" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    suite.edit(evaluate__suite__tasks=["my_gsm8k"], evaluate__abilities=[])
    (suite.folder / "teacher.py").write_text(TEACHER.replace(" stop here 0", ""))
    done = suite.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert scores_of(suite)["teacher", "my_gsm8k/exact_match/last"]["value"] == 0.5


def test_the_number_of_items_and_of_examples_can_be_set(suite: Project) -> None:
    suite.edit(evaluate__suite__limit=2, evaluate__suite__num_fewshot=2, evaluate__arms=["teacher"])
    suite.edit(evaluate__abilities=[])
    done = suite.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    text = (suite.run / "5_suite" / "teacher" / "samples_own_sums.jsonl").read_text()
    samples = [json.loads(line) for line in text.splitlines()]
    turns = [json.loads(sample["arguments"][0][0]) for sample in samples]
    assert [[turn["role"] for turn in one] for one in turns] == [
        ["user", "assistant", "user", "assistant", "user"]
    ] * 2


def test_a_task_of_given_texts_is_refused_for_arms_that_cannot_score_them(suite: Project) -> None:
    suite.edit(evaluate__suite__tasks=["own_choice"])
    done = suite.call("evaluate", "config.yaml")
    assert done.returncode == 2
    assert "own_choice" in done.stderr and "teacher (fake)" in done.stderr
    assert not suite.asked()  # before anything was asked


def test_given_texts_are_scored_as_lm_evals_own_model_scores_them(suite: Project) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    suite.edit(evaluate__suite__tasks=["own_choice"], evaluate__arms=["before"])
    suite.edit(evaluate__abilities=[])
    done = suite.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    theirs = simple_evaluate(
        model=HFLM(pretrained=str(suite.model), device="cpu", dtype="float32"),
        tasks=["own_choice"],
        task_manager=TaskManager(include_path="own_tasks", include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    assert theirs is not None
    lines = (suite.run / "5_suite" / "before" / "samples_own_choice.jsonl").read_text()
    ours = [json.loads(line)["filtered_resps"] for line in lines.splitlines()]
    for mine, other in zip(ours, theirs["samples"]["own_choice"], strict=True):
        for (a, greedy), (b, also) in zip(mine, other["filtered_resps"], strict=True):
            assert float(a) == pytest.approx(float(b), abs=1e-4)
            assert str(greedy) == str(also)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_given_texts_of_an_arm_in_vllm_are_scored_by_vllm(suite: Project) -> None:
    suite.edit(
        teacher={
            "backend": "vllm",
            "model": str(suite.model),
            "serving": {
                "engine": {"max_model_len": 256, "enforce_eager": True, "dtype": "float32"}
            },
        },
        evaluate__suite__tasks=["own_choice", "own_sums"],
        evaluate__abilities=[],
    )
    done = suite.distill("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    by_arm = []
    for arm in ("teacher", "before"):
        lines = (suite.run / "5_suite" / arm / "samples_own_choice.jsonl").read_text()
        rows = [json.loads(line)["filtered_resps"] for line in lines.splitlines()]
        by_arm.append([float(value) for row in rows for value, _ in row])
    assert by_arm[0] == pytest.approx(by_arm[1], abs=1e-3)
    assert by_arm[0] != by_arm[1]  # two engines round in two ways: it was not the same one
    assert ("teacher", "own_sums/exact_match/last") in scores_of(suite)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"tasks": ["no_such_task"]}, "no_such_task"),
        ({"include": ["nowhere"]}, "nowhere"),
    ],
)
def test_a_mistake_in_a_suite_is_said_before_anything_is_asked(
    change: dict[str, Any], said: str, suite: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    plain = TaskManager.__init__  # lm-eval's own fourteen thousand tasks take ten seconds to list
    monkeypatch.setattr(
        TaskManager,
        "__init__",
        lambda self, **settings: plain(self, **(settings | {"include_defaults": False})),
    )
    suite.edit(evaluate__suite={"tasks": ["own_sums"], "include": ["own_tasks"]} | change)
    done = suite.call("evaluate", "config.yaml")
    assert done.returncode == 2 and said in done.stderr
    assert not suite.asked()


def test_a_setting_without_its_like_here_is_refused_by_its_task() -> None:
    from pipeline.stage3_evaluate.harness_model import sampling_of

    with pytest.raises(UserError, match=r"own_sums.*num_beams"):
        sampling_of({"until": [], "num_beams": 4}, "own_sums", "fake")
    found = sampling_of({"until": "a", "max_tokens": 7, "temperature": 0.5}, "t", "fake")
    assert (found.stop, found.max_tokens, found.temperature) == (("a",), 7, 0.5)
    assert len(sampling_of({"until": list("abcdef")}, "t", "openai").stop) == 4


def test_scores_take_their_intervals_from_samples_and_else_from_the_standard_error() -> None:
    rows = [
        {"filter": "none", "acc": 1.0 * (i % 2), "parts": [True, i % 2 == 0], "odd": 3}
        for i in range(8)
    ]
    numbers = {
        "acc,none": 0.5, "acc_stderr,none": "N/A", "parts,none": 0.75, "odd,none": 9.0,
        "odd_stderr,none": 1.0, "lost,none": 1.0, "lost_stderr,none": "N/A", "alias": "t",
    }  # fmt: skip
    found = {
        s.metric: s
        for s in suite_scores("a", {"samples": {"t": rows}, "results": {"t": numbers}}, 0)
    }
    assert set(found) == {"t/acc", "t/parts", "t/odd"}
    assert found["t/acc"].low < 0.5 < found["t/acc"].high
    assert found["t/parts"].low < 0.75 < found["t/parts"].high
    assert (found["t/odd"].low, found["t/odd"].high) == (9 - 1.96, 9 + 1.96)


# --- our items as its tasks


def with_all_abilities(project: Project) -> None:
    shots = [{"text": w, "label": "red"} for w in ("fig", "plum")]
    items = [
        {"id": f"i{i}", "text": t, "shots": shots, "labels": ["red", "blue"], "answer": "red"}
        for i, t in enumerate(("cherry 1 2", "sky 3 4", "rose 5 6"))
    ]
    (project.folder / "icl.jsonl").write_text("\n".join(map(json.dumps, items)))
    rules = [
        {"id": "r1", "question": "Say 1 and 2.", "constraints": [{"type": "no_comma"}]},
        {
            "id": "r2", "question": "Say 3 and 4.",
            "constraints": [{"type": "no_digits"}, {"type": "no_comma"}],
        },
    ]  # fmt: skip
    (project.folder / "rules.jsonl").write_text("\n".join(map(json.dumps, rules)))
    (project.folder / "shots.yaml").write_text(
        "system: Follow the labels.\nuser: '{% for s in shots %}{{ s.text }}: {{ s.label }}\n"
        "\n{% endfor %}{{ text }}:'\n"
    )
    (project.folder / "teacher.py").write_text(
        TEACHER.replace(
            'return f"', 'return "red" if "Follow" in request.messages[0].content else f"'
        )
    )
    project.edit(
        evaluate__arms=["teacher", "before"],
        evaluate__abilities=["in_context", "chain_of_thought", "instruction_following"],
        evaluate__in_context={
            "tasks": [{"name": "colours", "items": "icl.jsonl"}], "shots": [0, 2],
            "prompt": "shots.yaml",
        },
        evaluate__instruction_following={"seen_types": "rules.jsonl", "prompt": "show.yaml"},
        evaluate__chain_of_thought__teacher_prompt="show.yaml",
    )  # fmt: skip


def test_exported_items_give_the_same_scores_on_the_same_answers(project: Project) -> None:
    with_all_abilities(project)
    dry = project.call("export", "config.yaml", "--what", "items", "--to", "folder", "tasks")
    assert dry.returncode == 0 and not (project.folder / "tasks").exists()
    done = project.call(
        "export", "config.yaml", "--what", "items", "--to", "folder", "tasks", "--yes"
    )
    assert done.returncode == 0, done.stderr
    names = sorted(path.stem for path in (project.folder / "tasks").glob("*.yaml"))
    assert "small_in_context_colours_k_2" in names and len(names) == 5

    assert project.call("evaluate", "config.yaml").returncode == 0
    asked = project.asked()
    project.edit(evaluate__suite={"tasks": names, "include": ["tasks"]})
    done = project.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert project.asked() == asked  # the same requests: all answers came from the ledger
    suite = scores_of(project)
    pairs = {
        "small_in_context_colours_k_0/accuracy": ("in_context", "accuracy/colours/k=0"),
        "small_in_context_colours_k_2/accuracy": ("in_context", "accuracy/colours/k=2"),
        "small_chain_of_thought_direct/accuracy": ("chain_of_thought", "accuracy/direct"),
        "small_chain_of_thought_step_by_step/accuracy": (
            "chain_of_thought",
            "accuracy/step_by_step",
        ),
    } | {
        f"small_instruction_following_seen_types/{metric}": (
            "instruction_following",
            f"{metric}/seen_types",
        )
        for metric in ("strict", "loose", "strict_instructions", "truncated")
    }
    values = set()
    for task, (ability, metric) in pairs.items():
        for arm in ("teacher", "before"):
            ours, theirs = scores_of(project, ability)[arm, metric], suite[arm, task]
            assert ours["value"] == pytest.approx(theirs["value"]), (arm, task)
            assert ours["n"] == theirs["n"] or "instructions" in task
            values.add(ours["value"])
    assert len(values) > 2  # not only noughts and ones agree


def test_a_prompt_with_turns_of_its_own_is_refused(project: Project) -> None:
    (project.folder / "show.yaml").write_text(
        "shots: [{user: '1 and 1?', assistant: '2'}]\nuser: '{{ question }}'\n"
    )
    done = project.call("export", "config.yaml", "--what", "items", "--to", "folder", "tasks")
    assert done.returncode == 2
    assert "show.yaml" in done.stderr and "Put the worked examples" in done.stderr


def test_other_models_of_lm_eval_can_answer_the_exported_items(project: Project) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    project.call("export", "config.yaml", "--what", "items", "--to", "folder", "tasks", "--yes")
    found = simple_evaluate(
        model="dummy",
        tasks=["small_chain_of_thought_direct"],
        task_manager=TaskManager(include_path="tasks", include_defaults=False),
        bootstrap_iters=0,
    )
    assert found is not None
    numbers = found["results"]["small_chain_of_thought_direct"]
    assert numbers["accuracy,none"] == 0.0 and numbers["no_answer,none"] == 1.0


def test_the_suite_is_written_as_it_is_typed() -> None:
    from pipeline.stage3_evaluate.harness import tasks_of

    assert tasks_of("lm-eval:gsm8k, ifeval") == ["gsm8k", "ifeval"]
    for wrong in ("gsm8k", "lm-eval", "lm-eval:", "helm:x"):
        with pytest.raises(UserError, match="lm-eval:TASK"):
            tasks_of(wrong)
