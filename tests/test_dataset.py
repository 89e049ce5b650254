"""The dataset: shards, split, lengths, card, mixtures. Rows are written as curation leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, load_config
from pipeline.config_file import load_yaml
from pipeline.errors import UserError
from pipeline.records import Example, Message, Seed, digest, write_jsonl
from pipeline.stage1_generate.curate.funnel import Funnel, Yield
from pipeline.stage1_generate.curate.judge import Stage
from pipeline.stage1_generate.dataset import read_mixture, write_dataset
from pipeline.stage1_generate.lengths import read_lengths
from tests.project import Project

Rows = dict[str, list[dict[str, Any]]]


def example(task: str, seed_id: str, text: str = "It is 5.", **meta: Any) -> Example:
    recipe = meta.pop("recipe", "chain_of_thought")
    fixed = {
        "task": task,
        "recipe": recipe,
        "view": "",
        "seed_id": seed_id,
        "sample_index": 0,
        "teacher": "teacher",
        "characters": len(text),
    }
    source = digest([task, seed_id, text, sorted(meta)])
    asked = Message("user", f"What of {seed_id}?")
    return Example((asked,), (Message("assistant", text),), 1.0, (source,), fixed | meta)


def configured(project: Project, **curate: Any) -> Config:
    raw, _ = load_yaml(project.config)
    sums = raw["tasks"][0]
    others = [{**sums, "name": "other"}, {**sums, "name": "episodes", "recipe": "in_context"}]
    project.edit(
        tasks=[sums, *others], **{f"curate__{key}": value for key, value in curate.items()}
    )
    return load_config(project.config)


def made(config: Config, examples: list[Example], seeds: list[str] | None = None) -> Rows:
    """Write the dataset of these rows and read it as a user does."""
    from datasets import load_dataset

    ids = seeds or sorted({e.meta["seed_id"] for e in examples})
    write_jsonl(config.run_dir / "0_seeds.jsonl", [Seed(i, "sums", {}) for i in ids])
    write_jsonl(config.run_dir / "2_kept.jsonl", examples)
    tasks = {e.meta["task"]: Yield(10, 10, 5, 1000, 0.5) for e in examples}
    funnel = Funnel(10, 9, [Stage("finish", 10, 1, {"cut off": 1})], len(examples), tasks)
    write_dataset(config, funnel)
    data = load_dataset(str(config.run_dir / "3_dataset"))
    return {side: list(rows) for side, rows in data.items()}


def many(n: int, task: str = "sums", **meta: Any) -> list[Example]:
    return [example(task, f"{task}-{i}", f"Row {i} says {i}.", **meta) for i in range(n)]


def card(config: Config) -> str:
    return (config.run_dir / "3_dataset" / "README.md").read_text()


def test_large_datasets_are_several_shards_that_load_as_one(project: Project) -> None:
    config = configured(project, dataset={"shard_megabytes": 0.05}, validation_share=0.0)
    rows = made(config, many(3000))
    names = sorted(p.name for p in (config.run_dir / "3_dataset").glob("*.parquet"))
    assert names == [f"train-{i:05d}-of-00002.parquet" for i in range(2)]
    assert [r["completion"][0]["content"] for r in rows["train"]] == [
        f"Row {i} says {i}." for i in range(3000)
    ]


def test_a_seed_and_what_was_derived_from_it_are_on_one_side_in_every_task(
    project: Project,
) -> None:
    config = configured(project, validation_share=0.3)
    parents = [f"q{i}" for i in range(60)]
    examples = [
        example(task, name)
        for p in parents
        for task, name in (("sums", p), ("other", p), ("sums", f"{p}/ab12"), ("other", f"{p}/a/b"))
    ]
    rows = made(config, examples, parents)
    sides = {side: {r["seed_id"].split("/")[0] for r in found} for side, found in rows.items()}
    assert 5 < len(sides["validation"]) < 30
    assert not sides["train"] & sides["validation"]


def test_a_slash_in_the_ids_of_a_file_makes_no_group(project: Project) -> None:
    config = configured(project, validation_share=0.3)
    rows = made(config, [example("sums", f"file/{i}") for i in range(60)])
    assert 5 < len(rows["validation"]) < 30


def test_more_rows_move_no_row_to_the_other_side(project: Project) -> None:
    config = configured(project, validation_share=0.2)
    few, more = made(config, many(50)), made(config, many(200))
    for side in few:
        assert {r["seed_id"] for r in few[side]} <= {r["seed_id"] for r in more[side]}


def test_columns_hold_scores_that_only_some_rows_have(project: Project) -> None:
    config = configured(project, validation_share=0.0)
    rows = made(config, [*many(3), *many(2, "votes", agreement=1)])
    assert [r["agreement"] for r in rows["train"]] == [None, None, None, 1, 1]


def test_lengths_are_those_of_the_students_template_and_long_rows_are_said(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    project.edit(train__sft={"max_length": 120})
    config = configured(project, validation_share=0.0)
    rows = [*many(9), example("sums", "long", "very " * 50)]
    made(config, rows)
    lengths = read_lengths(config.run_dir / "3_dataset")
    tokenizer = AutoTokenizer.from_pretrained(config.student.model)
    asked = [{"role": "user", "content": "What of long?"}]
    answered = [{"role": "assistant", "content": "very " * 50}]
    text = tokenizer.apply_chat_template(asked + answered, tokenize=False)
    assert lengths is not None
    assert lengths.counted[-1] == len(tokenizer(text)["input_ids"]) > 120 > lengths.counted[-2]
    assert sum(n for _, n in lengths.histogram) == 10
    warning = "1 of 10 rows are longer than the 120 tokens"
    assert warning in capsys.readouterr().err and warning in card(config)


def test_the_card_has_what_a_reader_must_know(project: Project) -> None:
    from huggingface_hub import DatasetCard

    teacher = project.folder / "teacher-model"
    teacher.mkdir()
    (teacher / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    project.edit(teacher__model="teacher-model", teacher__sampling={"temperature": 0.3})
    config = configured(project)
    made(config, many(20))
    text = card(config)
    head = DatasetCard(text).data
    assert head.license == "apache-2.0" and head.configs[0]["config_name"] == "default"
    for needed in (
        "Work it out: {{ question }}",  # prompts, whole
        "teacher-model states its licence as: apache-2.0",
        "'temperature': 0.3",
        "| sums | 10 | 5 | 1,000 | 0.5000 | 200 | 0.100000 |",
        "| finish | 10 | 1 | cut off (1) |",
        "no contamination check",
        "up to",
        "load_dataset(",
    ):
        assert needed in text, needed


def test_a_teacher_without_a_card_is_said_to_have_no_stated_licence(project: Project) -> None:
    config = configured(project)
    made(config, many(5))
    assert "No local model card states the licence of fake-teacher" in card(config)


def tokens(rows: list[dict[str, Any]], config: Config) -> int:
    from pipeline.stage1_generate.tokens import student_tokenizer

    tokenizer = student_tokenizer(config)
    texts = [
        tokenizer.apply_chat_template(r["prompt"] + r["completion"], tokenize=False) for r in rows
    ]
    return sum(len(ids) for ids in tokenizer(texts)["input_ids"])


def test_a_mixture_takes_its_shares_of_the_budget_and_the_same_rows_again(project: Project) -> None:
    mixture = {"tokens": 6000, "weights": {"sums": 3, "in_context": 1}}
    config = configured(project, mixture=mixture, validation_share=0.1)
    examples = [*many(200), *many(200, "episodes", recipe="in_context")]
    rows = made(config, examples)
    by_task = {
        task: tokens([r for r in rows["train"] if r["task"] == task], config)
        for task in ("sums", "episodes")
    }
    assert 4400 < by_task["sums"] <= 4500 and 1400 < by_task["episodes"] <= 1500
    report = read_mixture(config.run_dir / "3_dataset")
    assert report is not None and report.parts["in_context"].tokens == by_task["episodes"]
    assert report.left_out == 400 - sum(map(len, rows.values()))
    # Held-back rows are thinned to the same mixture.
    assert len(rows["validation"]) < 30
    again = made(config, examples)
    assert again == rows


def test_a_part_with_too_few_rows_is_said(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    mixture = {"tokens": 100_000, "weights": {"sums": 1, "other": 1}}
    config = configured(project, mixture=mixture)
    made(config, [*many(30), *many(30, "other")])
    assert "sums has" in capsys.readouterr().err


def test_weights_alone_take_as_much_as_can_be_had(project: Project) -> None:
    mixture = {"weights": {"sums": 1, "other": 1}}
    config = configured(project, mixture=mixture, validation_share=0.0)
    rows = made(config, [*many(40), *many(200, "other")])
    counts = [sum(r["task"] == task for r in rows["train"]) for task in ("sums", "other")]
    assert counts[0] == 40 and 36 <= counts[1] <= 44


@pytest.mark.parametrize(
    ("weights", "said"),
    [({"sum": 1}, "'sum' is no task and no recipe"), ({"sums": 1}, "no share for other")],
)
def test_wrong_weights_are_named(project: Project, weights: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        config = configured(project, mixture={"weights": weights})
        made(config, [*many(5), *many(5, "other", recipe="response")])


def test_orders_are_kept_in_the_file(project: Project) -> None:
    def order(kind: str, examples: list[Example]) -> list[str]:
        config = configured(project, mixture={"order": kind}, validation_share=0.0)
        return [r["seed_id"] for r in made(config, examples)["train"]]

    lengths = [example("sums", f"q{i}", "x" * n) for i, n in enumerate((30, 10, 20))]
    assert order("short_to_long", lengths) == ["q1", "q2", "q0"]
    ease = [example("sums", f"q{i}", pass_rate=p) for i, p in enumerate((0.2, 0.9, 0.5))]
    assert order("easy_to_hard", ease) == ["q1", "q2", "q0"]
    assert sorted(order("shuffled", many(50))) == sorted(f"sums-{i}" for i in range(50))
    assert order("shuffled", many(50)) != [f"sums-{i}" for i in range(50)]
    with pytest.raises(UserError, match="rows of sums have no pass_rate or agreement"):
        order("easy_to_hard", lengths)


def test_k_shot_rows_have_other_training_rows_of_their_task_before_them(project: Project) -> None:
    mixture = {"k_shot": {"share": 0.5, "k": [1, 3]}}
    config = configured(project, mixture=mixture, validation_share=0.2)
    rows = made(config, [*many(100), *many(100, "other")])
    asked = {r["prompt"][-1]["content"] for r in rows["train"]}
    with_shots = [r for r in rows["train"] if r["shots"]]
    assert 50 < len(with_shots) < 110 and {r["shots"] for r in with_shots} == {1, 2, 3}
    for row in with_shots:
        questions = [m["content"] for m in row["prompt"] if m["role"] == "user"]
        assert len(questions) == row["shots"] + 1 == len(set(questions))
        assert set(questions) <= asked  # nothing of the validation rows
        assert all(row["task"] in question for question in questions)
        assert [m["role"] for m in row["prompt"][:2]] == ["user", "assistant"]
    assert all(len(r["prompt"]) == 1 for r in rows["validation"])
    report = json.loads((config.run_dir / "3_dataset" / "mixture.json").read_text())
    assert sum(report["shots"].values()) == len(with_shots)


def test_shots_never_make_a_row_longer_than_training_reads(project: Project) -> None:
    project.edit(train__sft={"max_length": 150})
    mixture = {"k_shot": {"share": 1.0, "k": [4, 4]}}
    config = configured(project, mixture=mixture, validation_share=0.0)
    rows = made(config, many(40))
    assert {r["shots"] for r in rows["train"]} <= {1, 2}
    assert max(tokens([r], config) for r in rows["train"]) <= 150


def test_the_seed_of_a_row_is_never_its_own_shot(project: Project) -> None:
    config = configured(project, mixture={"k_shot": {"share": 1.0}}, validation_share=0.0)
    samples = [example("sums", f"q{i % 3}", f"Answer {i}.") for i in range(30)]
    for row in made(config, samples)["train"]:
        questions = [m["content"] for m in row["prompt"] if m["role"] == "user"]
        assert len(set(questions)) == len(questions)


def test_training_keeps_the_order_and_refuses_what_would_undo_it(project: Project) -> None:
    from pipeline.stage2_train.settings import sft_arguments

    config = configured(project, mixture={"order": "short_to_long"})
    assert sft_arguments(config, Path("x")).train_sampling_strategy == "sequential"
    project.edit(train__sft={"packing": True})
    with pytest.raises(UserError, match=r"train\.sft\.packing True would undo"):
        sft_arguments(load_config(project.config), Path("x"))


def test_datasets_of_two_runs_are_two_datasets_to_the_librarys_cache(project: Project) -> None:
    config = configured(project, validation_share=0.0)
    one = made(config, many(5))
    project.edit(name="other")
    other = made(load_config(project.config), many(5, "other"))
    assert {r["task"] for r in one["train"]} == {"sums"}
    assert {r["task"] for r in other["train"]} == {"other"}
