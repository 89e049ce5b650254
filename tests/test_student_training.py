"""How a student is opened for training, and what LoRA and QLoRA leave."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.config import load_config
from pipeline.models import student_checkpoint
from pipeline.stage2_train.student import open_student
from tests.project import Project
from tests.students import rendered


def init(**kwargs: Any) -> dict[str, Any]:
    return {"sft": {"model_init_kwargs": kwargs}}


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (init(attn_implementation="flash_attention_2"), "flash-attn"),
        (init(attn_implementation="fast"), "attn_implementation"),
        (init(dtype="bf16"), "model_init_kwargs"),
        (init(dtipe="float32"), "dtipe"),
        (init(quantization_config={"load_in_4bit": True}), "add `train.lora"),
        (init(quantization_config={"load_in_5bit": True}) | {"lora": {}}, "quantization_config"),
        ({"lora": {"target_modules": ["nothing"]}}, "train.lora: Target modules"),
        ({"sft": {"assistant_only_loss": True}}, "{% generation %}"),
    ],
)
def test_what_cannot_be_opened_or_trained_is_refused_in_one_message(
    project: Project, train: dict[str, Any], says: str
) -> None:
    project.edit(train=train)
    done = project.call("train", "config.yaml", "--check")
    assert done.returncode == 2, done.stderr
    assert "train." in done.stderr and says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("package", "train"),
    [
        ("liger_kernel", {"sft": {"use_liger_kernel": True}}),
        ("bitsandbytes", init(quantization_config={"load_in_4bit": True}) | {"lora": {}}),
    ],
)
def test_a_package_that_is_missing_is_named(
    project: Project, package: str, train: dict[str, Any]
) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    project.edit(train=train)
    done = project.call("train", "config.yaml", "--check")
    assert done.returncode == 2
    assert f"pip install {package.replace('_', '-')}" in done.stderr.replace("-U ", "")


def test_model_init_kwargs_reach_the_model(project: Project) -> None:
    init = {"dtype": "bfloat16", "attn_implementation": "eager"}
    project.edit(train={"sft": {"model_init_kwargs": init}})
    model, _ = open_student(load_config(project.config, []))
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_lora_ends_as_an_adapter_and_a_merged_student_that_is_evaluated(
    project: Project, base_model: Path, tmp_path: Path, tied: bool
) -> None:
    model = base_model
    if not tied:
        model = untied(base_model, tmp_path / "untied")
    project.edit(
        student__model=str(model),
        student__add_tokens=["<|im_start|>", "<|im_end|>"],
        train={
            "sft": {
                "max_steps": 4,
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 2,
                "neftune_noise_alpha": 5,
                "assistant_only_loss": True,
                "learning_rate": 1e-2,
            },
            "lora": {"r": 4, "target_modules": "all-linear"},
        },
        evaluate__arms=["before", "after"],
    )
    done = project.distill("run", "config.yaml")
    assert done.returncode == 0, done.stderr
    config = load_config(project.config, [])
    before = load_file(Path(student_checkpoint(config).source) / "model.safetensors")
    after = load_file(project.run / "4_student" / "model.safetensors")
    assert after.keys() == before.keys()  # plain weights, no adapter in them
    query = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(after[query], before[query])
    embeddings = "model.embed_tokens.weight"
    assert not torch.allclose(after[embeddings][-2:], before[embeddings][-2:], atol=1e-3)
    if not tied:
        head = "lm_head.weight"
        assert not torch.allclose(after[head][-1], before[head][-1], atol=1e-3)
    assert (project.run / "4_student" / "adapter" / "adapter_model.safetensors").is_file()
    merged = AutoModelForCausalLM.from_pretrained(project.run / "4_student").eval()
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(student_checkpoint(config).source)
    adapted = PeftModel.from_pretrained(base, project.run / "4_student" / "adapter").eval()
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(project.run / "4_student")
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.chat_template
    assert len(project.rows("5_answers/after/chain_of_thought.jsonl")) == 12


@pytest.mark.slow
def test_a_base_student_goes_through_a_whole_run(project: Project, base_model: Path) -> None:
    project.edit(student__model=str(base_model), evaluate__arms=["before", "after"])
    done = project.distill("run", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("NO CHAT TEMPLATE") == 1
    tokenizer = AutoTokenizer.from_pretrained(project.run / "4_student")
    assert rendered(tokenizer).startswith("<|user|>\n")
    card = (project.run / "4_student" / "README.md").read_text()
    assert "NO CHAT TEMPLATE" in card


@pytest.mark.slow
def test_qlora_trains_beside_quantised_weights(project: Project) -> None:
    pytest.importorskip("bitsandbytes")
    quantised = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    project.edit(
        train={
            "sft": {
                "max_steps": 2,
                "per_device_train_batch_size": 4,
                "model_init_kwargs": {"quantization_config": quantised},
            },
            "lora": {"r": 4, "target_modules": "all-linear"},
        },
        evaluate__arms=["before", "after"],
    )
    done = project.distill("run", "config.yaml")
    assert done.returncode == 0, done.stderr
    config = json.loads((project.run / "4_student" / "config.json").read_text())
    assert "quantization_config" not in config
    before = load_file(project.model / "model.safetensors")
    after = load_file(project.run / "4_student" / "model.safetensors")
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed and all("_proj" in key for key in changed)


def untied(model: Path, folder: Path) -> Path:
    loaded = AutoModelForCausalLM.from_pretrained(model)
    head = loaded.get_input_embeddings().weight.detach().clone()
    loaded.config.tie_word_embeddings = False
    loaded.lm_head.weight = torch.nn.Parameter(head)
    loaded.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder
