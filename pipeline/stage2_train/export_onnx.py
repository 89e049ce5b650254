"""A student's folder -> ONNX by transformers' own exporter, and its 8-bit form by onnxruntime.

The graph takes a key-value cache and has the names of Optimum's decoders (input_ids,
attention_mask, position_ids, past_key_values.N.key -> logits, present.N.key): others know it, too.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.models.locate import ONNX_FILE

STEPS = "docs/exporting.md has the steps with other tools"
WHOLE = 1_900_000_000  # bytes of weights that one ONNX file holds; more stand beside it


def check_onnx() -> None:
    """`UserError` where a library is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs libraries that are not here ({error.name}): type "
            "`pip install 'blackbox-distill[export]'`"
        ) from None


def write_onnx(student: Path, folder: Path) -> None:
    """model.onnx in float32, with the configuration and tokenizer beside it."""
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache
    from transformers.cache_utils import DynamicLayer
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    model = AutoModelForCausalLM.from_pretrained(
        student, dtype=torch.float32, use_safetensors=True
    ).eval()
    cache: Any = DynamicCache(config=model.config)
    if not all(type(layer) is DynamicLayer for layer in cache.layers):
        raise UserError(
            f"this student ({model.config.model_type}) keeps more than a plain key-value cache, "
            f"which is not written to ONNX here. {STEPS}"
        )
    rows, past, width = 2, 3, 4  # any sizes: these axes are free in the graph
    with torch.no_grad():
        model(torch.ones(rows, past, dtype=torch.long), past_key_values=cache, use_cache=True)
    inputs = {
        "input_ids": torch.ones(rows, width, dtype=torch.long),
        "attention_mask": torch.ones(rows, past + width, dtype=torch.long),
        "position_ids": torch.arange(past, past + width).repeat(rows, 1),
        "past_key_values": cache,
        "use_cache": True,
    }
    free = torch.export.Dim.AUTO
    shapes = {name: {0: free, 1: free} for name in ("input_ids", "attention_mask", "position_ids")}
    layers = [{0: free, 2: free} for _ in range(2 * len(cache.layers))]
    with _quiet():
        program = OnnxExporter().export(
            model, inputs, OnnxConfig(dynamic_shapes={**shapes, "past_key_values": layers})
        )
    _rename(program.model.graph, len(cache.layers))
    folder.mkdir(parents=True, exist_ok=True)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    program.save(str(folder / ONNX_FILE), external_data=weights > WHOLE)
    copy_beside(student, folder)


def write_int8(onnx: Path, folder: Path) -> None:
    """The folder of `write_onnx` with 8-bit weights, one scale a column (dynamic quantisation)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder.mkdir(parents=True, exist_ok=True)
    with _quiet():
        quantize_dynamic(
            onnx / ONNX_FILE,
            folder / ONNX_FILE,
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=any(onnx.glob(f"{ONNX_FILE}.data")),
        )
    copy_beside(onnx, folder)


def copy_beside(source: Path, folder: Path) -> None:
    """What belongs to the weights: configuration, tokenizer, chat template."""
    for pattern in ("*.json", "*.jinja"):
        for path in source.glob(pattern):
            if path.name != "model.safetensors.index.json":
                shutil.copy2(path, folder / path.name)


def _rename(graph: Any, layers: int) -> None:
    # The exporter numbers the cache's tensors; other runtimes look for these names.
    pairs = [f"{n}.{part}" for n in range(layers) for part in ("key", "value")]
    for value, pair in zip(graph.inputs[-len(pairs) :], pairs, strict=True):
        value.name = f"past_key_values.{pair}"
    for value, pair in zip(graph.outputs[-len(pairs) :], pairs, strict=True):
        value.name = f"present.{pair}"


class _quiet(warnings.catch_warnings):
    """The exporters' pages of notes on every operator are for who works on them."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        self._printed = contextlib.redirect_stdout(io.StringIO())
        self._printed.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._printed.__exit__(*error)
        logging.disable(self._level)
        super().__exit__(*error)
