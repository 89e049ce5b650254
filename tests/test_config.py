"""A mistake in a config is one message that names the place, what was seen and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ModelConfig, load_config, save_config
from pipeline.errors import UserError
from pipeline.flow import checked_config
from pipeline.models import http_serving, open_model
from pipeline.models.vllm_engine import VLLMModel
from pipeline.prompts import load_prompt, render
from tests.project import Project


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"teacher__sampling": {"temprature": 1}},
            ["teacher.sampling", "temprature", "temperature"],
        ),
        ({"tasks__0__samples": "many"}, ["tasks.0.samples", "'many'", "integer"]),
        ({"tasks__0__recepie": "x"}, ["tasks.0.recepie", "recipe"]),
        ({"tasks__0__recipe": "attention_maps"}, ["attention maps", "chain_of_thought"]),
        ({"tasks__0__recipe": "chain"}, ["chain", "chain_of_thought"]),
        ({"tasks__0__teacher_prompt": "gone.yaml"}, ["gone.yaml", "no such prompt"]),
        ({"tasks__0__filters": [{"lenght": {}}]}, ["tasks.sums.filters", "lenght", "length"]),
        ({"curate__filters": [{"length": {"max": 3}}]}, ["length", "'max'", "max_tokens"]),
        ({"curate__filters": [{"length": 5}]}, ["curate.filters.0", "length", "table", "5"]),
        (
            {"curate__filters": [{"length": {"max_tokens": "lots"}}]},
            ["curate.filters.length.max_tokens", "int", "'lots'"],
        ),
        (
            {"tasks__0__filters": [{"repetition": {"max_share": "a"}}]},
            ["tasks.sums.filters.repetition.max_share", "float", "'a'"],
        ),
        ({"curate__filters": [{"finish": {"allow": 3}}]}, ["finish.allow", "seen: 3"]),
        ({"evaluate__arms": ["teacher", "during"]}, ["evaluate.arms.1", "during", "after"]),
        ({"evaluate__abilities": ["in_context"]}, ["in_context", "quickstart.yaml"]),
        ({"execution": {"shards": 0}}, ["execution.shards", "0"]),
        ({"student": {}}, ["student.model", "missing"]),
        ({"name": "ledger"}, ["name", "runs/ledger", "another name"]),
        ({"name": "models"}, ["name", "runs/models", "another name"]),
        ({"teacher__sampling": {"temperature": -0.1}}, ["teacher.sampling", "temperature", "-0.1"]),
        ({"teacher__sampling": {"temperature": float("nan")}}, ["temperature", "nan"]),
        ({"teacher__sampling": {"top_p": 0}}, ["teacher.sampling", "top_p", "above 0"]),
        ({"teacher__sampling": {"top_p": 1.5}}, ["teacher.sampling", "top_p", "1.5"]),
        ({"tasks__0__sampling": {"max_tokens": 0}}, ["tasks.0.sampling", "max_tokens", "from 1"]),
        ({"teacher__sampling": {"logprobs": -1}}, ["teacher.sampling", "logprobs", "from 0"]),
        ({"evaluate__sampling": {"top_k": 0}}, ["evaluate.sampling", "top_k", "-1 for all"]),
        ({"name": "../up"}, ["name", "../up"]),
        (
            {"teacher__backend": "openai", "teacher__serving": {"api_key_env": "NO_SUCH_KEY"}},
            ["NO_SUCH_KEY", "export"],
        ),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    project: Project, change: dict[str, Any], said: list[str]
) -> None:
    project.edit(**change)
    ended = project.call("run", "config.yaml")
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert all(word in ended.stderr for word in said), ended.stderr
    assert project.asked() == []


def test_the_line_of_the_mistake_is_named(project: Project) -> None:
    text = project.config.read_text().replace("samples:", "smaples:")
    project.config.write_text(text)
    line = text[: text.index("smaples")].count("\n") + 1
    with pytest.raises(UserError, match=f"line {line}: tasks.0.smaples.*did you mean 'samples'"):
        load_config(project.config)


def test_an_override_reaches_lists_by_number_and_by_name(project: Project) -> None:
    config = load_config(
        project.config,
        ["tasks.sums.samples=5", "train.sft.learning_rate=1e-4", "tasks.0.weight=2.5"],
    )
    assert config.tasks[0].samples == 5
    assert config.tasks[0].weight == 2.5
    assert config.train.sft["learning_rate"] == 1e-4


@pytest.mark.parametrize("wrong", ["tasks.other.samples=5", "name", "name.x=1"])
def test_an_override_that_fits_nowhere_is_refused(project: Project, wrong: str) -> None:
    with pytest.raises(UserError, match="--set"):
        load_config(project.config, [wrong])


@pytest.mark.parametrize("wrong", ["teacher.sampling={temperature", "name=2024-13-45", "name=[a"])
def test_an_override_that_is_no_yaml_is_shown_with_one_that_is(
    project: Project, wrong: str
) -> None:
    ended = project.call("plan", "config.yaml", "--set", wrong)
    assert ended.returncode == 2
    assert wrong in ended.stderr and "--set 'teacher.sampling=" in ended.stderr


def test_yaml_reads_exponents_as_numbers_and_on_as_a_key(project: Project) -> None:
    project.config.write_text(
        project.config.read_text() + "\nexecution: {on: local}\nbudget: {max_usd: 1e-2}\n"
    )
    assert load_config(project.config).budget.max_usd == 0.01


def test_a_key_given_twice_is_refused(project: Project) -> None:
    project.config.write_text(project.config.read_text() + "\nseed: 4\n")
    with pytest.raises(UserError, match="seed"):
        load_config(project.config)


def test_the_saved_config_gives_the_same_config_again(project: Project) -> None:
    config = load_config(project.config)
    save_config(config, Path("again.yaml"))
    assert load_config(Path("again.yaml")) == config


def test_the_engines_own_size_decides_also_after_the_config_was_saved(
    project: Project, tmp_path: Path
) -> None:
    project.edit(student__backend="vllm")
    for chosen in (None, 7):
        if chosen is not None:
            project.edit(student__serving={"concurrency": chosen})
        save_config(load_config(project.config), tmp_path / "saved.yaml")
        student = load_config(tmp_path / "saved.yaml").student
        config = ModelConfig(backend="vllm", model=str(project.model), serving=student.serving)
        opened = open_model(config, "student")
        assert isinstance(opened, VLLMModel)
        assert opened._serving.concurrency == chosen
    hosted = ModelConfig(backend="openai", model="m")
    assert http_serving(hosted, "teacher").concurrency == 64


def test_a_key_never_reaches_the_saved_config(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "very-secret-value")
    project.edit(teacher__backend="openai", teacher__serving={"api_key_env": "TEACHER_KEY"})
    save_config(checked_config(project.config, []), Path("saved.yaml"))
    saved = Path("saved.yaml").read_text()
    assert "very-secret-value" not in saved and "TEACHER_KEY" in saved


@pytest.mark.parametrize(
    ("serving", "said"),
    [
        ({"base_url": "http://me:hidden-word@host/v1"}, "base_url"),
        ({"base_url": ["http://host/v1", "https://hidden-word@host:8000"]}, "base_url"),
        ({"base_url": "me:hidden-word@host/v1"}, "base_url"),
        ({"api_key_env": "sk-hidden-word"}, "api_key_env"),
        ({"api_key_env": "hidden-word\n"}, "api_key_env"),
    ],
)
def test_a_secret_in_the_config_is_refused_and_never_shown(
    project: Project, serving: dict[str, Any], said: str
) -> None:
    project.edit(teacher__backend="openai", teacher__serving=serving)
    ended = project.call("run", "config.yaml")
    assert ended.returncode == 2 and f"teacher.serving: {said}" in ended.stderr, ended.stderr
    assert "hidden" not in ended.stderr + ended.stdout
    assert not project.run.exists()


def seeds_file(*lines: str) -> Callable[[Project], None]:
    return lambda project: (project.folder / "seeds.jsonl").write_text("\n".join(lines))  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"id": "a", "question": "x"}', '{"id": "a", "question": "y"}'], ":2"),
        (['{"id": "a", "question": "x"}', "{not json"], ":2"),
        (['{"id": "a", "title": "x"}'], "question"),
        (["[1, 2]"], ":1"),
        ([""], "no seeds"),
        (
            ['{"question": "x"}', '{"question": "y", "constraints": [{"type": "no_coma"}]}'],
            ":2: constraint type 'no_coma' is unknown",
        ),
        (
            ['{"question": "x", "constraints": [{"type": "max_words", "params": {"count": 0}}]}'],
            ":1: constraint 'max_words': count: 0",
        ),
    ],
)
def test_a_broken_seed_file_names_its_line(project: Project, lines: list[str], said: str) -> None:
    seeds_file(*lines)(project)
    ended = project.call("generate", "config.yaml")
    assert ended.returncode == 2, ended.stderr
    assert "seeds.jsonl" in ended.stderr and said in ended.stderr


def test_a_prompt_that_uses_what_seeds_lack_says_what_they_have(project: Project) -> None:
    (project.folder / "ask.yaml").write_text("user: '{{ question }} {{ topic }}'\n")
    ended = project.call("generate", "config.yaml")
    assert ended.returncode == 2
    assert "topic" in ended.stderr and "question" in ended.stderr


@pytest.mark.parametrize(
    "template",
    [
        "{{ question.foo.bar }}",
        "{{ question + 1 }}",
        "{{ 1 / (question | int) }}",
        "{{ question.__class__.mro() }}",
    ],
)
def test_an_expression_that_fails_on_a_seed_names_the_prompt_its_line_and_the_fields(
    project: Project, template: str
) -> None:
    (project.folder / "ask.yaml").write_text(f"user: |\n  Work it out.\n  {template}\n")
    ended = project.call("generate", "config.yaml")
    assert ended.returncode == 2, ended.stderr
    for said in ("ask.yaml", "line 2 of `user`", "this seed has: ", "question"):
        assert said in ended.stderr


def test_a_template_with_an_unknown_filter_is_refused_before_anything_is_asked(
    project: Project,
) -> None:
    (project.folder / "show.yaml").write_text("user: '{{ question | shout }}'\n")
    ended = project.call("generate", "config.yaml")
    assert ended.returncode == 2 and "show.yaml" in ended.stderr and "shout" in ended.stderr
    assert project.asked() == []


@pytest.mark.parametrize("shots", [[], ["two"], [-1], 3])
def test_shots_to_show_are_a_list_of_whole_numbers(project: Project, shots: Any) -> None:
    project.edit(tasks__0__recipe="in_context", tasks__0__options={"shots": shots})
    ended = project.call("generate", "config.yaml")
    assert ended.returncode == 2, ended.stderr
    assert "tasks.sums.options.shots" in ended.stderr and repr(shots) in ended.stderr


@pytest.mark.parametrize("code", ["x = 1\ndef answer(:", "x = 1\n1 / 0", "x = 1\nimport nowhere"])
def test_a_script_that_does_not_run_is_named_with_its_line(project: Project, code: str) -> None:
    (project.folder / "teacher.py").write_text(code)
    ended = project.call("generate", "config.yaml")
    assert ended.returncode == 2, ended.stderr
    assert "teacher.py:2" in ended.stderr


def test_help_answers_in_under_a_second_and_loads_no_heavy_library(project: Project) -> None:
    import subprocess
    import sys

    watch = (
        "import sys, runpy, contextlib\n"
        "sys.argv = ['distill', '--help']\n"
        "with contextlib.suppress(SystemExit):\n"
        "    runpy.run_module('pipeline', run_name='__main__')\n"
        "heavy = {'torch', 'transformers', 'trl', 'vllm', 'datasets', 'pandas', 'scipy'}\n"
        "sys.exit(len(heavy & set(sys.modules)))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", watch], env=project.environment(), capture_output=True, timeout=20
    )
    assert ended.returncode == 0


def test_labelled_shots_of_an_episode_become_turns(tmp_path: Path) -> None:
    path = tmp_path / "turns.yaml"
    path.write_text('shots_from: shots\nuser: "{{ text }}"\n')
    fields = {"text": "owl", "shots": [{"text": "oak", "label": "a"}, {"text": "cat", "label": 1}]}
    turns = [(m.role, m.content) for m in render(load_prompt(str(path)), fields)]
    assert turns == [
        ("user", "oak"), ("assistant", "a"), ("user", "cat"), ("assistant", "1"), ("user", "owl"),
    ]  # fmt: skip


@pytest.mark.parametrize("shots", ["none", [{"text": "oak"}], [{"label": "a"}], [3]])
def test_shots_of_another_form_are_named(shots: Any, tmp_path: Path) -> None:
    path = tmp_path / "turns.yaml"
    path.write_text('shots_from: shots\nuser: "{{ text }}"\n')
    with pytest.raises(UserError, match="shots_from names `shots`"):
        render(load_prompt(str(path)), {"text": "owl", "shots": shots})


def test_a_task_may_repeat_another_by_a_merge_key(tmp_path: Path) -> None:
    from pipeline.config_file import load_yaml

    path = tmp_path / "c.yaml"
    path.write_text("a: &one\n  x: 1\n  y: 2\nb:\n  <<: *one\n  y: 3\n")
    raw, lines = load_yaml(path)
    assert raw["b"] == {"x": 1, "y": 3}
    assert lines["b", "y"] == 6 and lines["b", "x"] in (4, 5)
