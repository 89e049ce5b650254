"""`distill show RUN --tokens`: what the trainer makes of a row, before any training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.stage2_train.tokenised import token_rows
from tests.project import Project, make_project
from tests.tiny import TEMPLATE, make_tiny_model
from tests.trainers import ROWS, dataset, make_trainer


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    project = make_project(tmp_path_factory.mktemp("tokens"), tiny_model)
    for command in ("generate", "curate"):
        ended = project.call(command, "config.yaml")
        assert ended.returncode == 0, ended.stderr
    return project


def shown(project: Project, *words: str) -> str:
    ended = project.call("show", "small", *words, "--tokens")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_each_token_has_a_mark_where_the_loss_is(curated: Project) -> None:
    text = shown(curated, "train:0")
    row = text.partition("--- train:0 (request ")[2]
    marked = "".join(re.findall(r"\[(.|\\n|<\|im_end\|>)\]", row))
    answer = re.search(r"\d+ and \d+ make \d+. The answer is \d+.", marked)
    assert answer and marked == f"{answer[0]}<|im_end|>\\n"
    assert "<|im_start|>|u|s|e|r|\\n|" in row and "warning" not in row
    assert f"loss on {len(answer[0]) + 2}" in row and "weight 1)" in row


def test_some_rows_of_all_the_dataset_are_shown(curated: Project) -> None:
    text = shown(curated, "--n", "4")
    first, second, third, fourth = (int(n) for n in re.findall(r"--- train:(\d+)", text))
    steps = {second - first, third - second, fourth - third}
    assert first == 0 and min(steps) > 1 and max(steps) - min(steps) <= 1


def test_what_max_length_cuts_off_is_marked(project: Project) -> None:
    _curate(project, train__sft={"max_length": 90})
    text = shown(project)
    assert "cut off by max_length 90" in text and "~<|im_end|>~" in text
    assert "warning: the end of the turn is not taught (<|im_end|>: it is cut off)" in text


def test_a_row_without_any_loss_is_warned_of(project: Project) -> None:
    _curate(project, train__sft={"max_length": 20})
    text = shown(project)
    assert "warning: no loss at all: max_length leaves none of its answer" in text


def test_a_template_that_never_ends_the_turn_is_warned_of(project: Project) -> None:
    _with_template(project, TEMPLATE.replace("<|im_end|>", "."))
    _curate(project)
    assert "(<|im_end|>: the chat template does not end the turn with it)" in shown(project)


def test_a_prompt_that_is_no_prefix_is_warned_of(project: Project) -> None:
    thinking = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
    _with_template(project, TEMPLATE.partition("{% if add")[0] + thinking)
    _curate(project)
    text = shown(project)
    assert "warning: the prompt's end" in text and "<think>" in text


def test_a_weight_is_shown_and_nothing_before_the_dataset(project: Project) -> None:
    project.edit(tasks__0__weight=0.25)
    ended = project.call("show", "small", "--tokens")
    assert ended.returncode == 2
    _curate(project)
    assert "weight 0.25)" in shown(project)
    ended = project.call("show", "small", "q1", "--tokens")
    assert ended.returncode == 2 and "as train:12" in ended.stderr


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_length": 60}, {"max_length": 60, "truncation_mode": "keep_end"}],
)
def test_it_is_what_a_trainer_of_the_student_makes_of_them(
    project: Project, settings: dict[str, Any]
) -> None:
    project.edit(train__sft=settings)
    rows = dataset()
    found = token_rows(load_config(project.config), rows.to_list()).rows
    trained = make_trainer(project.folder / "out", project.model, rows, **settings).train_dataset
    tokenizer = make_trainer(project.folder / "out", project.model, rows).processing_class
    kept = [row for row in found if row.kept[1] and any(row.taught[slice(*row.kept)])]
    assert len(kept) == len(trained) and len(found) == len(ROWS)
    for row, expected in zip(kept, trained, strict=True):
        part = slice(*row.kept)
        assert "".join(row.tokens[part]) == tokenizer.decode(expected["input_ids"])
        assert row.taught[part] == [label != -100 for label in expected["labels"]]


def _with_template(project: Project, template: str) -> None:
    model = make_tiny_model(project.folder / "student")
    path = model / "chat_template.jinja"
    assert path.is_file()
    path.write_text(template)
    project.edit(student__model=str(model))


def _curate(project: Project, **changes: Any) -> None:
    project.edit(**changes)
    for command in ("generate", "curate"):
        ended = project.call(command, "config.yaml")
        assert ended.returncode == 0, ended.stderr
