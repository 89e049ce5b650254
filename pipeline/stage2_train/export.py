"""A finished student in another format, opened again and compared, under 4_exports/FORMAT/.

What a run has made is kept: the same student and format is not made twice.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config, ModelConfig, Serving
from pipeline.errors import UserError
from pipeline.models.locate import UNPACKED, identity_of, unpack
from pipeline.stage2_train.export_compare import Agreement, Opened, compare, refuse_another
from pipeline.stage2_train.export_formats import Format
from pipeline.stage2_train.export_gguf import write_gguf
from pipeline.stage2_train.export_onnx import check_onnx, copy_beside, write_int8, write_onnx

TEXTS = 8  # that both models read; validation rows first, which the student never saw


class Export(msgspec.Struct, frozen=True):
    """4_exports/FORMAT.json."""

    format: Format
    student: str  # identity
    bytes: int  # of all files
    student_bytes: int  # of the student's weights
    agreement: Agreement


def student_of(config: Config) -> Path:
    folder = config.run_dir / "4_student"
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not there yet; `distill train {config.run_dir / 'config.yaml'}` makes it"
        )
    return folder


def export_folder(config: Config, kind: Format) -> Path:
    return config.run_dir / "4_exports" / kind


def model_of(config: Config, kind: Format) -> ModelConfig:
    """How the pipeline asks an exported student: ONNX by the transformers backend alone."""
    folder = export_folder(config, kind)
    files = sorted(folder.glob("*.gguf"))
    onnx = kind in (Format.ONNX, Format.INT8)
    backend = config.student.backend
    return ModelConfig(
        backend="transformers" if onnx or backend not in ("vllm", "transformers") else backend,
        model=str(files[0] if files else folder),
        serving=config.student.serving,
    )


def made(config: Config, kind: Format) -> Export | None:
    """The record of an export of the student as it is now."""
    path = export_folder(config, kind).with_name(f"{kind}.json")
    if not path.is_file() or not export_folder(config, kind).is_dir():
        return None
    found = msgspec.json.decode(path.read_bytes(), type=Export)
    return found if found.student == identity_of(str(student_of(config))) else None


def make(config: Config, kind: Format, texts: list[str]) -> Export:
    """Write, open again, compare, keep. `texts` are what both models read."""
    if (known := made(config, kind)) is not None:
        return known
    student, folder = student_of(config), export_folder(config, kind)
    partial = folder.with_name(f"{kind}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    print(f"{kind}: writing", flush=True)
    _write(config, kind, student, partial)
    print(f"{kind}: opening it again, comparing", flush=True)
    agreement = _compare(config.student.serving, student, partial, texts)
    refuse_another(kind, agreement)
    export = Export(
        format=kind,
        student=identity_of(str(student)),
        bytes=sum(path.stat().st_size for path in partial.rglob("*")),
        student_bytes=sum(path.stat().st_size for path in student.glob("*.safetensors")),
        agreement=agreement,
    )
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    folder.with_name(f"{kind}.json").write_bytes(msgspec.json.encode(export))
    return export


def _write(config: Config, kind: Format, student: Path, folder: Path) -> None:
    if kind is Format.SAFETENSORS:
        for path in student.glob("*.safetensors*"):
            shutil.copy2(path, folder / path.name)
        copy_beside(student, folder)
    elif kind is Format.BF16:
        _write_bf16(config, student, folder)
    elif kind in (Format.GGUF_F16, Format.GGUF_Q8):
        suffix = kind.removeprefix("gguf-")
        write_gguf(student, folder / f"{config.name}-{suffix}.gguf", kind, config.name)
    else:
        check_onnx()
        whole = export_folder(config, Format.ONNX)
        if kind is Format.ONNX or made(config, Format.ONNX) is None:
            whole = folder if kind is Format.ONNX else folder.with_name("onnx-whole.partial")
            write_onnx(student, whole)
        if kind is Format.INT8:
            write_int8(whole, folder)
            shutil.rmtree(folder.with_name("onnx-whole.partial"), ignore_errors=True)


def _write_bf16(config: Config, student: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        student, dtype=torch.bfloat16, use_safetensors=True, **_options(config.student.serving)
    )
    copy_beside(student, folder)
    model.save_pretrained(folder)  # last: its config.json says bfloat16


def _compare(serving: Serving, student: Path, folder: Path, texts: list[str]) -> Agreement:
    files = sorted(folder.glob("*.gguf"))
    checkpoint = unpack(str(files[0] if files else folder))
    try:
        both = [Opened(c, _options(serving)) for c in (unpack(str(student)), checkpoint)]
        return compare(both[0], both[1], texts)
    finally:
        forget_unpacked(checkpoint.source)


def forget_unpacked(source: str) -> None:
    """A GGUF is opened by way of float32 safetensors: large, and made again when needed."""
    if UNPACKED in Path(source).parents:
        shutil.rmtree(source, ignore_errors=True)


def _options(serving: Serving) -> dict[str, Any]:
    return {"trust_remote_code": serving.trust_remote_code}


def dataset_texts(config: Config, tokenizer: Any) -> Iterator[str]:
    """Rows of the dataset as the student saw them: chat template and completion."""
    import pyarrow.parquet

    folder = config.run_dir / "3_dataset"
    splits = [sorted(folder.glob(f"{split}-*.parquet")) for split in ("validation", "train")]
    for path in splits[0] + splits[1]:
        file = pyarrow.parquet.ParquetFile(path)
        for batch in file.iter_batches(TEXTS, columns=["prompt", "completion"]):
            for row in batch.to_pylist():
                yield str(
                    tokenizer.apply_chat_template(
                        [*row["prompt"], *row["completion"]], tokenize=False
                    )
                )
