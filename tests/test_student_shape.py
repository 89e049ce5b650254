"""Students with more tokens, fewer layers, or another width."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.config import load_config
from pipeline.errors import UserError
from pipeline.models import student_checkpoint, student_identity
from pipeline.models.shrink import kept_layers
from tests.project import Project
from tests.students import opened, rendered, student
from tests.tiny import TEMPLATE, make_tiny_model


def test_added_tokens_begin_as_the_mean_and_leave_the_others(
    project: Project, base_model: Path
) -> None:
    template = TEMPLATE.replace("<|im_end|>", "<|turn|>").replace("<|im_start|>", "<|role|>")
    (project.folder / "own.jinja").write_text(template)
    config = student(
        project,
        model=str(base_model),
        chat_template="own.jinja",
        add_tokens=["<|role|>", "<|turn|>"],
    )
    model, tokenizer = opened(config)
    old = AutoModelForCausalLM.from_pretrained(base_model).get_input_embeddings().weight
    new = model.get_input_embeddings().weight
    assert new.shape[0] == old.shape[0] + 2 == len(tokenizer)
    assert torch.equal(new[:-2], old)
    assert torch.allclose(new[-2:], old.mean(0).expand(2, -1), atol=1e-4)
    assert len(tokenizer("<|turn|>", add_special_tokens=False)["input_ids"]) == 1
    assert tokenizer.eos_token == "<|turn|>"
    assert tokenizer.eos_token_id in model.generation_config.eos_token_id


def test_rows_that_no_token_had_are_not_what_new_tokens_begin_as(
    project: Project, base_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "padded"
    model = AutoModelForCausalLM.from_pretrained(base_model)
    used = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(used, pad_to_multiple_of=64, mean_resizing=False)
    model.get_input_embeddings().weight.data[used:] = 100.0
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base_model).save_pretrained(folder)
    changed, tokenizer = opened(student(project, model=str(folder), add_tokens=["<|new|>"]))
    weight = changed.get_input_embeddings().weight
    assert weight.shape[0] % 64 == 0
    row = weight[tokenizer.convert_tokens_to_ids("<|new|>")]
    assert torch.allclose(row, weight[:used].mean(0), atol=1e-3)


def test_tokens_that_are_there_already_need_no_rows(project: Project) -> None:
    config = student(project, add_tokens=["<|im_start|>"])
    folder = Path(student_checkpoint(config).source)
    ours, theirs = (load_file(f / "model.safetensors") for f in (folder, project.model))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("tokens", [[" a"], [""], ["<a>", "<a>"]])
def test_a_token_that_cannot_be_one_is_refused(project: Project, tokens: list[str]) -> None:
    with pytest.raises(UserError, match="add_tokens"):
        student(project, add_tokens=tokens)


# smaller students


def test_kept_layers_are_evenly_spaced_with_the_first_and_the_last() -> None:
    assert kept_layers(12, 6) == [0, 2, 4, 7, 9, 11]
    assert kept_layers(30, 2) == [0, 29]
    assert kept_layers(5, 1) == [0]
    for had in range(1, 40):
        for wanted in range(2, had + 1):
            kept = kept_layers(had, wanted)
            assert len(set(kept)) == wanted and kept[0] == 0 and kept[-1] == had - 1
            gaps = {b - a for a, b in itertools.pairwise(kept)}
            assert max(gaps) - min(gaps) <= 1


def test_fewer_layers_keep_their_weights(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    big = make_tiny_model(tmp_path / "big", layers=4)
    config = student(project, model=str(big), shrink={"num_hidden_layers": 3})
    folder = Path(student_checkpoint(config).source)
    ours, theirs = (load_file(f / "model.safetensors") for f in (folder, big))
    for now, before in ((0, 0), (1, 2), (2, 3)):
        for name in theirs:
            if name.startswith(f"model.layers.{before}."):
                mine = name.replace(f"layers.{before}.", f"layers.{now}.")
                assert torch.equal(ours[mine], theirs[name])
    assert torch.equal(ours["model.embed_tokens.weight"], theirs["model.embed_tokens.weight"])
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 3
    assert "3 of 4 layers are left, with their weights: 0, 2, 3" in capsys.readouterr().err


def test_another_width_is_new_weights_of_the_seed_and_says_so(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}

    def weights(seed: int) -> torch.Tensor:
        project.edit(seed=seed)
        config = student(project, shrink=shape)
        shutil.rmtree(student_checkpoint(config).source)
        model, _ = opened(config)
        assert model.config.hidden_size == 32 and model.config.head_dim == 16
        return model.get_input_embeddings().weight.detach()

    first = weights(1)
    assert torch.equal(weights(1), first)
    assert not torch.equal(weights(2), first)
    assert "ALL WEIGHTS ARE NEW AND RANDOM (seed 1)" in capsys.readouterr().err


def test_the_seed_is_no_part_of_a_student_that_nothing_is_drawn_for(project: Project) -> None:
    first = student_identity(student(project, shrink={"num_hidden_layers": 1}))
    project.edit(seed=99)
    assert student_identity(load_config(project.config, [])) == first
    wide = student_identity(student(project, shrink={"hidden_size": 32}))
    project.edit(seed=100)
    assert student_identity(load_config(project.config, [])) != wide


def other_architecture(name: str) -> Any:
    import transformers as t

    small = {
        "vocab_size": 270,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    more = small | {"intermediate_size": 48, "num_key_value_heads": 1, "head_dim": 16}
    if name == "gpt2":
        config = t.GPT2Config(**small)
    elif name == "qwen3":
        config = t.Qwen3Config(**more)
    elif name == "gemma3":
        kinds = ["sliding_attention", "full_attention"] * 2
        config = t.Gemma3TextConfig(**more, layer_types=kinds, sliding_window=8)
    else:
        # As many experts as layers: two lists of the same length.
        config = t.MixtralConfig(**more, num_local_experts=4)
    torch.manual_seed(0)
    return t.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gemma3", "mixtral"])
def test_layers_of_any_architecture_can_be_left_out(
    project: Project, base_model: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    other_architecture(name).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base_model).save_pretrained(folder)
    model, _ = opened(student(project, model=str(folder), shrink={"num_hidden_layers": 3}))
    assert model.config.num_hidden_layers == 3
    kinds = getattr(model.config, "layer_types", None)
    if name == "gemma3":
        assert kinds == ["sliding_attention", "sliding_attention", "full_attention"]
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 270)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ({"num_hidden_layers": 3}, "1 to 2 can be kept; seen: 3"),
        ({"num_hidden_layers": 0}, "a whole number, as 2 before; seen: 0"),
        ({"num_hidden_layers": "1"}, "a whole number"),
        ({"layers": 1}, "no field 'layers'; did you mean num_hidden_layers"),
        ({"hidden_size": 33}, "multiple"),
        ({"hidden_size": "wide"}, "hidden_size: a whole number"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "student.shrink"),
        ({"vocab_size": 100}, "not a matter of size"),
        ({"eos_token_id": 1}, "not a matter of size"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(
    project: Project, shape: dict[str, Any], says: str
) -> None:
    project.edit(student__shrink=shape)
    done = project.call("train", "config.yaml", "--check")
    assert done.returncode == 2, done.stderr
    assert "student.shrink" in done.stderr and says in done.stderr


def test_a_student_that_cannot_be_is_refused_before_the_teacher_is_asked(project: Project) -> None:
    project.edit(student__shrink={"num_attention_heads": 4, "num_key_value_heads": 3})
    done = project.distill("run", "config.yaml")
    assert done.returncode == 2 and "student.shrink" in done.stderr
    assert "Traceback" not in done.stderr and project.asked() == []


def test_shrinking_and_new_tokens_go_together(project: Project, base_model: Path) -> None:
    config = student(
        project,
        model=str(base_model),
        shrink={"num_hidden_layers": 1},
        add_tokens=["<|im_start|>", "<|im_end|>"],
    )
    model, tokenizer = opened(config)
    assert model.config.num_hidden_layers == 1
    assert rendered(tokenizer).startswith("<|im_start|>user\n")
    assert len(tokenizer) == model.config.vocab_size
