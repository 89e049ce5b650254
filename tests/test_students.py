"""Base models, chat templates, and one student for all stages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.config import load_config
from pipeline.models import open_model, student_checkpoint, student_identity
from pipeline.models.changes import notes_of
from pipeline.records import Finish, Message, PromptRef, Request, Sampling, request_id
from pipeline.stage2_train import sft
from pipeline.stage2_train.student import open_student
from pipeline.stage3_evaluate.arms import arm_model
from tests.project import Project
from tests.students import CONVERSATION, opened, rendered, student
from tests.tiny import TEMPLATE, make_tiny_model


def test_a_chat_model_is_opened_as_it_is(project: Project) -> None:
    config = load_config(project.config, [])
    assert student_checkpoint(config).source == str(project.model)
    assert not (project.folder / "runs" / "models").exists()


def test_a_base_model_gets_a_template_in_ordinary_text_and_its_own_end_token(
    project: Project, base_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = opened(student(project, model=str(base_model)))
    assert rendered(tokenizer) == (
        "<|user|>\none and one?<|endoftext|>\n<|assistant|>\ntwo<|endoftext|>\n"
    )
    assert len(tokenizer) == model.get_input_embeddings().weight.shape[0]
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id]
    said = capsys.readouterr().err
    assert "NO CHAT TEMPLATE" in said and "student.chat_template" in said


def test_what_was_made_is_said_once_and_made_once(
    project: Project, base_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = student(project, model=str(base_model))
    first = student_checkpoint(config)
    capsys.readouterr()
    assert student_checkpoint(config) == first
    assert capsys.readouterr().err == ""
    assert "NO CHAT TEMPLATE" in notes_of(first)[0]


def test_a_base_model_with_chat_tokens_gets_chatml(project: Project, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "unchatty")
    (folder / "chat_template.jinja").unlink()
    end_with(folder, "<|endoftext|>", 0)
    model, tokenizer = opened(student(project, model=str(folder)))
    assert rendered(tokenizer) == "".join(
        f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in CONVERSATION
    )
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_token_id in model.generation_config.eos_token_id


def test_the_default_template_begins_as_the_tokenizer_begins_every_text(
    project: Project, base_model: Path, tmp_path: Path
) -> None:
    from tokenizers.processors import TemplateProcessing

    folder = tmp_path / "begins"
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    begin = ("<s>", tokenizer.bos_token_id)
    tokenizer._tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[begin])
    model = AutoModelForCausalLM.from_pretrained(base_model)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _, changed = opened(student(project, model=str(folder)))
    assert rendered(changed).startswith("<s><|user|>")


def test_the_token_that_ends_a_turn_of_the_default_template_is_trained(
    project: Project, base_model: Path
) -> None:
    from trl import SFTConfig, SFTTrainer

    _, tokenizer = opened(student(project, model=str(base_model)))
    import datasets

    rows = datasets.Dataset.from_list(
        [{"prompt": CONVERSATION[:1], "completion": CONVERSATION[1:]}]
    )
    for settings in ({"completion_only_loss": True}, {"assistant_only_loss": True}):
        arguments = SFTConfig(
            output_dir=str(project.folder / "out"), use_cpu=True, bf16=False, **settings
        )
        model = AutoModelForCausalLM.from_pretrained(base_model)
        trainer = SFTTrainer(
            model=model, args=arguments, train_dataset=rows, processing_class=tokenizer
        )
        taught = [t for t in trainer.train_dataset[0]["labels"] if t != -100]
        assert tokenizer.decode(taught).rstrip("\n") == "two<|endoftext|>"


def test_a_base_model_whose_template_ends_turns_with_another_token_than_it_stops_at(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the base form of Qwen2.5: a ChatML template, and <|endoftext|> as the only end."""
    folder = make_tiny_model(tmp_path / "talks-on")
    end_with(folder, "<|endoftext|>", 0)
    model, tokenizer = opened(student(project, model=str(folder)))
    assert tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == [tokenizer.eos_token_id, 0]
    assert tokenizer.chat_template == TEMPLATE
    assert "also stops at <|im_end|>" in capsys.readouterr().err


def test_a_template_of_the_config_is_saved_and_makes_another_student(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = load_config(project.config, [])
    template = TEMPLATE.replace("<|im_start|>", "<|im_start|>Mx ")
    (project.folder / "own.jinja").write_text(template)
    config = student(project, chat_template="own.jinja")
    _, tokenizer = opened(config)
    assert "<|im_start|>Mx user\n" in rendered(tokenizer)
    assert "instead of the model's own" in capsys.readouterr().err
    assert student_identity(config) != student_identity(plain)
    first = student_identity(config)
    (project.folder / "renamed.jinja").write_text(template)
    assert student_identity(student(project, chat_template="renamed.jinja")) == first
    (project.folder / "renamed.jinja").write_text(template + " ")
    assert student_identity(load_config(project.config, [])) != first


def test_changing_the_template_copies_no_weights_and_leaves_the_model_alone(
    project: Project, base_model: Path
) -> None:
    before = {path.name: path.read_bytes() for path in base_model.iterdir()}
    folder = Path(student_checkpoint(student(project, model=str(base_model))).source)
    weights = folder / "model.safetensors"
    same_disk = weights.stat().st_dev == base_model.stat().st_dev
    assert not same_disk or weights.samefile(base_model / "model.safetensors")
    assert {path.name: path.read_bytes() for path in base_model.iterdir()} == before
    assert list((project.folder / "runs" / "models").iterdir()) == [
        project.folder / "runs" / "models" / folder.name
    ]


def test_a_base_student_answers_in_the_evaluation(project: Project, base_model: Path) -> None:
    config = student(project, model=str(base_model))
    model = open_model(arm_model(config, "before"), "student")
    sampling = Sampling(temperature=0.0, max_tokens=4)
    messages = (Message("user", "one and one?"),)
    key = request_id(model.identity, messages, sampling, 0)
    ask = Request(key, "s", "r", PromptRef("p", ""), messages, sampling, 0, model.identity)
    assert [a.finish for a in model.generate([ask])] in ([Finish.STOP], [Finish.LENGTH])


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for m in messages %}", "cannot be filled in"),
        ("{{ bos_token }}hello<|im_end|>", "leaves out"),
        (TEMPLATE.replace("<|im_end|>", "END"), "one token that generation can stop at"),
        (TEMPLATE.replace("<|im_end|>\n", ""), "one token that generation can stop at"),
        (TEMPLATE.replace("assistant\n", "model\n"), "another beginning"),
    ],
)
def test_a_template_that_cannot_teach_is_refused(
    project: Project, template: str, says: str
) -> None:
    (project.folder / "own.jinja").write_text(template)
    project.edit(student__chat_template="own.jinja")
    done = project.call("train", "config.yaml", "--check")
    assert done.returncode == 2
    assert "student.chat_template" in done.stderr and says in done.stderr
    assert "<|endoftext|>" in done.stderr or "one token" not in says
    assert not any((project.folder / "runs" / "models").glob("*"))


@pytest.mark.parametrize("path", ["nowhere.jinja", "config.yaml"])
def test_a_template_that_is_no_template_file_is_refused(project: Project, path: str) -> None:
    project.edit(student__chat_template=path)
    done = project.call("train", "config.yaml", "--check")
    assert done.returncode == 2 and f"student.chat_template: '{path}'" in done.stderr


def test_the_student_before_is_another_model_than_the_unchanged_one(project: Project) -> None:
    plain = load_config(project.config, [])
    steps = sft.step(plain).settings
    config = student(project, shrink={"num_hidden_layers": 1})
    assert sft.step(config).settings["student"] != steps["student"]
    model = open_model(arm_model(config, "before"), "student")
    assert model.identity == student_identity(config) != student_identity(plain)
    weights, _ = open_student(config)
    assert weights.config.num_hidden_layers == 1


def test_a_change_of_the_student_is_drift(project: Project) -> None:
    for step in ("generate", "curate"):
        assert project.call(step, "config.yaml").returncode == 0
    project.edit(student__shrink={"num_hidden_layers": 1})
    done = project.call("curate", "config.yaml")
    assert done.returncode == 2 and 'student: "folder:' in done.stderr


def test_a_model_of_the_hub_gets_a_template_too(
    project: Project, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = project.folder / "hub" / "models--acme--base"
    shutil.copytree(base_model, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    project.edit(student__model="acme/base")
    monkeypatch.setenv("HF_HUB_CACHE", str(project.folder / "hub"))
    done = project.distill("train", "config.yaml", "--check")
    assert done.returncode == 0, done.stderr
    assert "NO CHAT TEMPLATE" in done.stderr
    assert len(list((project.folder / "runs" / "models").glob("acme-base-*"))) == 1


def test_a_hub_model_is_checked_without_its_weights(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = project.folder / "hub" / "models--acme--chat"
    snapshot = cache / "snapshots" / commit
    shutil.copytree(project.model, snapshot, ignore=shutil.ignore_patterns("*.safetensors"))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    project.edit(student__model="acme/chat", train__lora={"target_modules": "all-linear"})
    monkeypatch.setenv("HF_HUB_CACHE", str(project.folder / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = project.distill("train", "config.yaml", "--check")
    assert done.returncode == 0, done.stderr


def end_with(folder: Path, token: str, number: int) -> None:
    for name, changes in {
        "tokenizer_config.json": {"eos_token": token},
        "generation_config.json": {"eos_token_id": number},
        "config.json": {"eos_token_id": number},
    }.items():
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
