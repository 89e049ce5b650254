"""A finished student in other formats: opened again, it is the same model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.config import ModelConfig
from pipeline.errors import RunFatal, UserError
from pipeline.models import open_model
from pipeline.models.locate import Checkpoint, unpack
from pipeline.records import Generation, Message, PromptRef, Request, Sampling, request_id
from pipeline.stage2_train.export import Export
from pipeline.stage2_train.export_compare import Agreement, Opened, compare, refuse_another
from pipeline.stage2_train.export_formats import Format
from pipeline.stage2_train.export_gguf import check_architecture, splitter_name, write_gguf
from tests.project import Project, make_project
from tests.test_export import RecordingHub
from tests.tiny import make_tiny_model

TEXTS = [f"<|im_start|>user\nAdd {n} and {n * 7}, then the rest.<|im_end|>\n" for n in range(4)]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sharp_student(tmp_path_factory.mktemp("student") / "llama", "llama")


def sharp_student(folder: Path, kind: str, **more: Any) -> Path:
    """A tiny model of some architecture with weights large enough to have opinions."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    make_tiny_model(folder, merges=[("t", "h"), ("a", "d"), ("Ġ", "th")])
    config = AutoConfig.from_pretrained(folder).to_dict() | more
    config = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "dtype")}
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 0.3 if weight.ndim > 1 else 0.1
            # Numbers that float16 holds: nothing but the format can change an answer.
            weight.copy_((torch.randn_like(weight) * scale + ("norm" in name)).half())
    model.save_pretrained(folder)
    return folder


def opened(source: Path) -> Opened:
    return Opened(unpack(str(source)), {})


def read_back(student: Path, export: Path) -> Agreement:
    return compare(opened(student), opened(export), TEXTS)


def answers(model: Path) -> list[Generation]:
    """What the pipeline's own backend answers, greedily, in a batch with a shared prefix."""
    sampling = Sampling(temperature=0.0, max_tokens=12)
    chats = [(Message("user", f"Add {n} and 7, please, and say it."),) for n in (1, 22, 333)]
    requests = [
        Request(
            id=request_id("m", chat, sampling, 0), seed_id="s", recipe="r",
            prompt=PromptRef("p", "0"), messages=chat, sampling=sampling, sample_index=0, model="m",
        )
        for chat in chats
    ]  # fmt: skip
    backend = open_model(ModelConfig(backend="transformers", model=str(model)))
    found = sorted(
        backend.generate(requests), key=lambda g: [r.id for r in requests].index(g.request_id)
    )
    backend.close()
    return found


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": False, "num_key_value_heads": 2}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 128}),
    ],
)
def test_a_gguf_in_f16_is_read_back_as_the_student(
    kind: str, more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    student = sharp_student(tmp_path / "student", kind, **more)
    write_gguf(student, Path("s.gguf"), Format.GGUF_F16, "s")
    agreement = read_back(student, Path("s.gguf"))
    print(kind, agreement)
    assert agreement.same_token > 0.98 and agreement.kl < 1e-3, agreement


def test_a_gguf_in_8_bits_is_half_as_large_and_nearly_the_student(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in (Format.GGUF_F16, Format.GGUF_Q8):
        write_gguf(student, Path(f"{kind}.gguf"), kind, "s")
    sixteen, eight = (Path(f"{k}.gguf").stat().st_size for k in (Format.GGUF_F16, Format.GGUF_Q8))
    print("bytes: f16", sixteen, "q8_0", eight)
    assert eight < 0.65 * sixteen
    agreement = read_back(student, Path("gguf-q8_0.gguf"))
    assert 1e-7 < agreement.kl < 0.02, agreement  # it was rounded, and not more


def test_a_gguf_answers_through_the_door_as_the_student_does(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gguf(student, Path("s.gguf"), Format.GGUF_F16, "s")
    assert [a.text for a in answers(Path("s.gguf"))] == [a.text for a in answers(student)]


def test_onnx_answers_through_the_door_as_the_student_does(student: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from pipeline.stage2_train.export_onnx import write_int8, write_onnx

    write_onnx(student, tmp_path / "onnx")
    agreement = read_back(student, tmp_path / "onnx")
    assert agreement.kl < 1e-6 and agreement.largest_change < 1e-2, agreement
    before, after = answers(student), answers(tmp_path / "onnx")
    assert [a.text for a in before] == [a.text for a in after]
    assert [a.usage for a in before] == [a.usage for a in after]
    write_int8(tmp_path / "onnx", tmp_path / "int8")
    whole, eight = ((tmp_path / f / "model.onnx").stat().st_size for f in ("onnx", "int8"))
    print("bytes: onnx", whole, "int8", eight)
    assert eight < whole
    assert read_back(student, tmp_path / "int8").same_token > 0.6


def test_onnx_can_be_asked_but_not_trained_or_given_to_another_backend(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="exported to ONNX"):
        open_model(ModelConfig(backend="vllm", model=str(tmp_path)))
    assert unpack(str(tmp_path)) == Checkpoint(str(tmp_path), None, onnx=True)


def test_a_file_that_is_another_model_is_not_kept(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.stage2_train.export_gguf._interleaved", lambda rows, heads: rows)
    write_gguf(student, Path("s.gguf"), Format.GGUF_F16, "s")
    agreement = read_back(student, Path("s.gguf"))
    with pytest.raises(RunFatal, match="it is not the student"):
        refuse_another(Format.GGUF_F16, agreement)


def test_a_file_that_cuts_texts_in_another_way_is_not_kept(student: Path, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other")  # without the student's merges
    with pytest.raises(RunFatal, match="another tokenizer"):
        compare(opened(student), opened(other), TEXTS)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gemma2"}, "architecture is gemma2"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope is yarn"),
        ({"attention_bias": True}, "attention has biases"),
        ({"hidden_act": "gelu"}, "activation is gelu"),
    ],
)
def test_what_a_gguf_cannot_say_is_refused_with_a_way_out(
    student: Path, change: dict[str, Any], named: str
) -> None:
    from types import SimpleNamespace

    from transformers import AutoConfig

    config = SimpleNamespace(**(AutoConfig.from_pretrained(student).to_dict() | change))
    with pytest.raises(UserError, match=named) as refused:
        check_architecture(config)
    assert "docs/exporting.md" in str(refused.value)


def test_an_unknown_cut_of_texts_is_refused(student: Path) -> None:
    tokenizer = msgspec.json.decode((student / "tokenizer.json").read_bytes())
    assert splitter_name(tokenizer) == "gpt-2"
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    with pytest.raises(UserError, match="byte-level BPE"):
        splitter_name(tokenizer)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, student: Path) -> Project:
    """A run with a student and its answers, as if it had been trained."""
    project = make_project(tmp_path_factory.mktemp("finished"), student)
    project.edit(evaluate__arms=["after"])
    for command in ("generate", "curate"):
        assert project.call(command, "config.yaml").returncode == 0
    shutil.copytree(student, project.run / "4_student")
    ended = project.call("evaluate", "config.yaml")
    assert ended.returncode == 0, ended.stderr
    return project


def test_the_export_of_a_run_is_compared_tested_and_then_handed_over(finished: Project) -> None:
    words = ("export", "small", "--what", "student", "--format", "safetensors", "gguf-q8_0")
    out = finished.folder / "out"
    dry = finished.call(*words, "--to", "folder", "out")
    assert dry.returncode == 0, dry.stderr
    assert "dry run" in dry.stdout and not out.exists()
    made = finished.run / "4_exports"
    record = msgspec.json.decode((made / "gguf-q8_0.json").read_bytes(), type=Export)
    size = (made / "gguf-q8_0" / "small-q8_0.gguf").stat().st_size
    assert record.bytes == size and record.agreement.tokens > 100
    assert f"| gguf-q8_0 | {size:,} |" in dry.stdout
    assert "| gguf-q8_0 | chain_of_thought, accuracy/step_by_step |" in dry.stdout
    again = finished.call(*words, "--to", "folder", "out", "--yes")
    assert again.returncode == 0 and "writing" not in again.stdout, again.stderr
    assert sorted(p.name for p in out.iterdir()) == ["gguf-q8_0", "safetensors"]
    assert "| gguf-q8_0 |" in (out / "gguf-q8_0" / "README.md").read_text()
    assert not list((finished.folder / "runs" / "models").glob("gguf-*"))


def test_an_untested_export_says_so(finished: Project, tmp_path: Path) -> None:
    copy = Project(tmp_path / "copy", finished.model)
    shutil.copytree(finished.folder, copy.folder)
    shutil.rmtree(copy.run / "5_answers")
    words = ("--what", "student", "--format", "safetensors-bf16", "--to", "folder", "else")
    ended = copy.call("export", "small", *words)
    assert "| safetensors-bf16 | not tested |" in ended.stdout, ended.stderr
    config = (copy.run / "4_exports" / "safetensors-bf16" / "config.json").read_bytes()
    assert msgspec.json.decode(config)["dtype"] == "bfloat16"


def test_a_student_is_pushed_as_a_model(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", RecordingHub)
    monkeypatch.setattr(RecordingHub, "calls", [])
    monkeypatch.setenv("HF_TOKEN", "hf_test_token_of_nobody")
    words = ("--what", "student", "--no-scores", "--to", "hub", "--repo", "me/sums")
    assert finished.call("export", "small", *words).returncode == 0
    assert not RecordingHub.calls
    ended = finished.call("export", "small", *words, "--yes")
    assert ended.returncode == 0 and "hub.example" in ended.stdout, ended.stderr
    assert RecordingHub.calls[1][1]["repo_type"] == "model"
    upload = RecordingHub.calls[2][1]
    assert Path(upload["folder_path"]).name == "safetensors" and upload["path_in_repo"] is None


def test_options_of_the_student_are_not_taken_for_the_dataset(project: Project) -> None:
    for words in (("--format", "onnx"), ("--what", "student", "--with-secrets")):
        ended = project.call("export", "small", "--to", "folder", "out", *words)
        assert ended.returncode == 2 and "about" in ended.stderr
