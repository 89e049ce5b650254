"""The formats that a finished student can be exported to."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    SAFETENSORS = "safetensors"  # float32, as trained; a LoRA merged
    BF16 = "safetensors-bf16"
    GGUF_F16 = "gguf-f16"
    GGUF_Q8 = "gguf-q8_0"
    ONNX = "onnx"  # float32
    INT8 = "onnx-int8"  # 8-bit weights; activations are quantised as they come (dynamic)


FORMATS = tuple(str(each) for each in Format)
