"""The student's own answers as rejected ones: which pairs are made, and what DPO learns of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import msgspec
import pyarrow.parquet
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline import stopping
from pipeline.config import load_config
from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.models import model_identity
from pipeline.models.fake import FakeModel
from pipeline.records import Example, Message, read_jsonl
from pipeline.stage1_generate.used import RUNS
from pipeline.stage2_train import pairs, sft
from pipeline.stage2_train.pair_trainer import PairTrainer
from pipeline.stage2_train.preference import dpo_arguments
from pipeline.stage3_evaluate import report_view
from pipeline.stage3_evaluate.arms import arm_model
from pipeline.stage3_evaluate.report_data import LogPoint, read_run
from tests.project import Project
from tests.test_report import make_run
from tests.tiny import make_tiny_model

DPO = {"max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 1e-3}

# What the student before says: right, wrong, nothing or the teacher's very words.
STUDENT = """
import re
asked = []

def answer(request):
    asked.append(request.id)
    question = request.messages[-1].content
    a, b = map(int, re.findall(r"\\d+", question)[:2])
    match question.split()[1][0]:  # the basket's letter
        case "A" | "B":
            return f"The answer is {a + b}."
        case "C":
            return "  "
        case "D":
            return f"{a} and  {b} make {a + b}. The answer is {a + b}.\\n"
        case _:
            return "The answer is 7."
"""


@pytest.fixture
def curated(project: Project) -> Project:
    project.edit(train={"sft": {"max_steps": 2}, "preference": {"dpo": DPO}})
    project.edit(train__preference__sampling={"max_tokens": 16})
    return curate(project)


def curate(project: Project) -> Project:
    for command in ("generate", "curate"):
        done = project.call(command, "config.yaml")
        assert done.returncode == 0, done.stderr
    return project


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The student before is a script: at the model door alone."""
    script = tmp_path / "student.py"
    script.write_text(STUDENT)

    def opened(config: Any, _place: str) -> FakeModel:
        return FakeModel(model_identity(config), str(script))

    monkeypatch.setattr(pairs, "open_model", opened)
    return script


def make(project: Project, **preference: Any) -> dict[str, Any]:
    """The report of the pairs of a project."""
    for key, value in preference.items():
        project.edit(**{f"train__preference__{key}": value})
    config = load_config(project.config)
    pairs.make_pairs(config)
    found: dict[str, Any] = json.loads((project.run / "3_preference" / "pairs.json").read_text())
    return found


def rows(project: Project) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((project.run / "3_preference").glob("*.parquet")):
        found += pyarrow.parquet.read_table(path).to_pylist()
    return found


def letter(row: dict[str, Any]) -> str:
    return str(row["prompt"][-1]["content"].split()[1][0])


def test_right_empty_and_equal_answers_are_not_rejected(curated: Project, student: Path) -> None:
    report = make(curated)
    # 12 questions: two each of A and B, one of every other letter up to J.
    assert report["left_out"] == {"empty": 1, "same as the teacher's": 1, "right": 4}
    assert sum(report["pairs"].values()) == 6
    assert {letter(row) for row in rows(curated)} == set("EFGHIJ")
    for row in rows(curated):
        assert [m["content"] for m in row["rejected"]] == ["The answer is 7."]
        assert "make" in row["chosen"][0]["content"]
        assert row["ended"]


def test_any_answer_can_be_rejected_but_never_one_that_is_chosen(
    curated: Project, student: Path
) -> None:
    report = make(curated, rejected="any")
    assert report["left_out"] == {"empty": 1, "same as the teacher's": 1}
    assert {letter(row) for row in rows(curated)} == set("ABEFGHIJ")


def test_a_pair_leads_back_to_both_requests(curated: Project, student: Path) -> None:
    make(curated)
    config = load_config(curated.config)
    kept = {row.source: row for row in read_jsonl(curated.run / "2_kept.jsonl", Example)}
    with Ledger(RUNS, model_identity(arm_model(config, "before"))) as ledger:
        for row in rows(curated):
            example = kept[tuple(row["source"])]
            assert example.prompt == tuple(Message(**m) for m in row["prompt"])
            assert example.completion == tuple(Message(**m) for m in row["chosen"])
            stored = ledger.get(row["rejected_source"])
            assert stored is not None
            assert stored.request.messages == example.prompt
            assert stored.generation.text == row["rejected"][0]["content"]


def test_each_prompt_has_one_pair_and_is_asked_once(
    project: Project, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = project.folder / "teacher.py"
    text = teacher.read_text().replace('return f"{a}', 'return f"{request.sample_index}: {a}')
    teacher.write_text(text)
    project.edit(train={"preference": {}}, tasks__0__samples=2)
    curate(project)
    report = make(project, rejected="any")
    prompts = [json.dumps(row["prompt"]) for row in rows(project)]
    assert len(prompts) == len(set(prompts)) == sum(report["pairs"].values())
    assert report["left_out"]["further answers"] == 12  # two right answers to each of 12
    monkeypatch.setattr(pairs, "open_model", lambda *_: pytest.fail("a model was opened"))
    again = pairs.make_pairs(load_config(project.config))
    assert again.counts["new"] == 0


def test_a_run_without_pairs_says_why(curated: Project, student: Path) -> None:
    student.write_text(STUDENT.replace('"The answer is 7."', 'f"The answer is {a + b}."'))
    with pytest.raises(UserError, match=r"makes a pair \(.*10 right.*rejected: any"):
        make(curated)
    assert not (curated.run / "3_preference").exists()


def test_a_cut_off_rejected_answer_has_no_end(
    tiny_model: Path, project: Project, tmp_path: Path
) -> None:
    project.edit(train={"preference": {"dpo": {"report_to": "none"}}})
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    prompt = [{"role": "user", "content": "Hi"}]
    said = {"chosen": "Good day", "rejected": "I think that I"}
    table = [
        {"prompt": prompt, "ended": ended}
        | {key: [{"role": "assistant", "content": text}] for key, text in said.items()}
        for ended in (True, False)
    ]
    trainer = PairTrainer(
        model=AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "m", layers=1)),
        ref_model=AutoModelForCausalLM.from_pretrained(tmp_path / "m"),
        args=dpo_arguments(load_config(project.config), tmp_path / "out"),
        train_dataset=datasets.Dataset.from_list(table),
        processing_class=tokenizer,
    )
    whole, cut = trainer.train_dataset
    asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    for row in (whole, cut):
        assert row["prompt_ids"] == asked  # the template was applied once, and the turn begun
        assert tokenizer.decode(row["chosen_ids"]) == "Good day<|im_end|>\n"
    assert tokenizer.decode(whole["rejected_ids"]) == "I think that I<|im_end|>\n"
    assert tokenizer.decode(cut["rejected_ids"]) == "I think that I"
    batch = trainer.data_collator([whole, cut])
    for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True):
        assert not mask[: len(asked)].any()
        assert tokenizer.decode(ids[mask.bool()]).startswith(("Good", "I think"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bta": 0.1}, r"train.preference.dpo: DPOConfig has no field 'bta'; did you mean beta"),
        ({"loss_type": ["sigmoyd"]}, r"train.preference.dpo: Unknown loss type: sigmoyd"),
        ({"loss_type": ["exo_pair"]}, r"Label smoothing must be greater than 0"),
        ({"sync_ref_model": True, "precompute_ref_log_probs": True}, r"sync_ref_model=True"),
        ({"model_init_kwargs": {}}, r"put them there"),
    ],
)
def test_what_trl_refuses_is_found_before_anything_is_asked(
    project: Project, settings: dict[str, Any], message: str
) -> None:
    project.edit(train={"preference": {"dpo": settings}})
    with pytest.raises(UserError, match=message):
        sft.check(load_config(project.config))


def test_an_adapter_on_the_head_is_refused_for_preferences(project: Project) -> None:
    lora = {"r": 2, "target_modules": ["q_proj", "lm_head"]}
    project.edit(train={"lora": lora, "preference": {}})
    with pytest.raises(UserError, match="lm_head"):
        sft.check(load_config(project.config))
    project.edit(train={"lora": lora | {"target_modules": ["q_proj"]}, "preference": {}})
    sft.check(load_config(project.config))


def test_the_best_checkpoint_of_preferences_passes_the_check(project: Project) -> None:
    best = {"max_steps": 2, "load_best_model_at_end": True}
    project.edit(train={"sft": {}, "preference": {"dpo": best}}, curate__validation_share=0.2)
    sft.check(load_config(project.config))


def test_what_belongs_to_sft_is_refused_without_it(project: Project) -> None:
    project.edit(train={"preference": {"after": "nothing"}, "soft_targets": {}})
    with pytest.raises(UserError, match="soft_targets belongs to SFT"):
        load_config(project.config)


def test_the_report_draws_each_kind_of_loss_apart(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "r"))
    mixed = [
        LogPoint(1, 2.5, False),
        LogPoint(2, 0.69, False, "dpo"),
        LogPoint(3, 0.1, True, "dpo"),
    ]
    figures = report_view.loss_charts(msgspec.structs.replace(run, log=mixed))
    assert [figure.caption.split()[0:3] for figure in figures] == [
        ["Loss", "on", "the"],
        ["Loss", "on", "pairs"],
    ]
    assert "2.50" not in figures[1].chart and "validation, step 3" in figures[1].chart


def log(project: Project) -> list[dict[str, Any]]:
    lines = (project.run / "4_student" / "training_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def margin(project: Project, student: Path) -> float:
    """Mean over the pairs: log-probability of the chosen answer less that of the rejected one."""

    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(project.model)

    def logprob(prompt: list[dict[str, str]], answer: list[dict[str, str]]) -> float:
        start = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"])
        ids = tokenizer.apply_chat_template([*prompt, *answer])["input_ids"]
        with torch.no_grad():
            scores = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(scores[i - 1, ids[i]]) for i in range(start, len(ids)))

    each = [
        logprob(r["prompt"], r["chosen"]) - logprob(r["prompt"], r["rejected"])
        for r in rows(project)
    ]
    return sum(each) / len(each)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"r": 4, "target_modules": "all-linear"}])
def test_after_dpo_the_chosen_answers_are_likelier_than_the_rejected(
    curated: Project, lora: dict[str, Any] | None
) -> None:
    curated.edit(train__lora=lora)
    done = curated.call("train", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert "pairs: done" in done.stdout and "stage 2 of 2, dpo" in done.stdout
    assert margin(curated, curated.run / "4_student") > margin(curated, curated.model) + 0.1
    entries = [e for e in log(curated) if e["method"] == "dpo" and "loss" in e]
    assert entries[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # the reference is its beginning
    assert entries[-1]["rewards/margins"] > entries[0]["rewards/margins"]
    assert {e["method"] for e in log(curated) if e["stage"] == 1} == {"sft"}
    assert "direct preference optimization" in (curated.run / "4_student/README.md").read_text()

    # Nothing is asked twice, and other settings of DPO ask nothing at all.
    curated.edit(train__preference__dpo=DPO | {"beta": 0.3})
    refused = curated.call("train", "config.yaml")
    assert refused.returncode == 2 and "preference.dpo.beta" in refused.stderr
    again = curated.call("train", "config.yaml", "--redo", "pairs")
    assert again.returncode == 0, again.stderr
    assert "0 new" in again.stdout


@pytest.mark.slow
def test_instead_of_sft_and_with_the_reference_asked_before(curated: Project) -> None:
    changed = {"after": "nothing", "dpo": DPO | {"precompute_ref_log_probs": True}}
    curated.edit(train={"preference": changed | {"sampling": {"max_tokens": 16}}})
    stopped = curated.call("run", "config.yaml", "--until", "pairs")
    assert stopped.returncode == 0, stopped.stderr
    assert (curated.run / "3_preference").is_dir() and not (curated.run / "4_student").exists()
    done = curated.call("train", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert {entry["method"] for entry in log(curated)} == {"dpo"}
    assert margin(curated, curated.run / "4_student") > margin(curated, curated.model)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_a_stopped_stage_goes_on_with_the_same_rows(
    curated: Project, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    several = DPO | {"max_steps": 6, "save_steps": 2}  # more than one epoch of them
    curated.edit(train__sft=several, train__preference__dpo=several)
    straight = curated.call("train", "config.yaml")
    assert straight.returncode == 0, straight.stderr
    wanted = [entry["loss"] for entry in log(curated) if "loss" in entry]

    real = stopping.requested
    there = curated.run / "4_student.partial" / f"stage-{stage}" / "checkpoint-4"
    monkeypatch.setattr(stopping, "requested", lambda: real() or there.is_dir())
    assert curated.call("train", "config.yaml", "--redo", "train").returncode == 75
    monkeypatch.setattr(stopping, "requested", real)
    done = curated.call("train", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert "training goes on from checkpoint-5" in done.stdout
    found = [entry["loss"] for entry in log(curated) if "loss" in entry]
    assert len(found) == 12
    assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.slow
def test_a_control_has_pairs_of_its_own(project: Project) -> None:
    preference = {"dpo": DPO, "sampling": {"max_tokens": 16}, "after": "nothing"}
    project.edit(train={"preference": preference}, curate__controls=["random"])
    curate(project)
    done = project.call("train", "config.yaml", "--control", "random")
    assert done.returncode == 0, done.stderr
    pairs_of = project.run / "3_control_preference" / "random"
    chosen = pyarrow.parquet.read_table(next(pairs_of.glob("train-*"))).to_pylist()
    taught = datasets.load_dataset(
        "parquet", data_files=str(project.run / "3_controls/random/train-*")
    )
    known = {tuple(row["source"]) for row in taught["train"]}
    assert chosen and {tuple(row["source"]) for row in chosen} <= known
    assert (project.run / "4_controls" / "random" / "model.safetensors").is_file()
    assert not (project.run / "3_preference").exists()


@pytest.mark.slow
def test_of_two_processes_one_asks_and_both_train(curated: Project) -> None:
    changed = {"after": "nothing", "dpo": DPO | {"precompute_ref_log_probs": True}}
    curated.edit(train={"preference": changed | {"sampling": {"max_tokens": 16}}})
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "-m", "pipeline", "train", "config.yaml"],
        cwd=curated.folder, capture_output=True, text=True, timeout=280,
        env=curated.environment() | {"OMP_NUM_THREADS": "1"} | {"MASTER_ADDR": "127.0.0.1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert [r["step"] for r in curated.rows("steps.jsonl")][-2:] == ["pairs", "train"]
    assert "12 new" in done.stdout
    assert margin(curated, curated.run / "4_student") > margin(curated, curated.model)
