"""A causal model to call, from safetensors or from the ONNX that `distill export` writes.

Both take the same arguments and fill the same key-value cache, so one decoding loop asks both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import Serving
from pipeline.errors import UserError
from pipeline.models.locate import ONNX_FILE, Checkpoint

MOST_LOGITS = 1 << 28  # values that one call of an ONNX graph may give: 1 GB of float32


def device_of(serving: Serving) -> str:
    """Where torch computes: as configured, or on a GPU if there is one."""
    import torch

    return serving.device or ("cuda" if torch.cuda.is_available() else "cpu")


def open_weights(checkpoint: Checkpoint, device: str, options: dict[str, Any]) -> Any:
    """The model: float32 on a CPU, bfloat16 elsewhere; ONNX through onnxruntime, on the CPU.

    `options` go to `from_pretrained`, whose errors (OSError, ValueError) pass through.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if checkpoint.onnx:
        return OnnxWeights(Path(checkpoint.source))
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint.source,
        dtype=torch.float32 if device == "cpu" else torch.bfloat16,
        use_safetensors=True,
        **options,
    )
    return model.to(device).eval()


class _Output(NamedTuple):
    logits: Any


class OnnxWeights:
    """model.onnx with the inputs and outputs that Optimum's decoders have, called like a model.

    Inputs: input_ids, attention_mask, position_ids, past_key_values.N.{key,value}; outputs: logits
    [rows, tokens, vocabulary], present.N.{key,value} [rows, heads, tokens, width].
    """

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoConfig, GenerationConfig

        onnxruntime = import_onnxruntime()
        self._torch = torch
        self.config: Any = AutoConfig.from_pretrained(folder)
        self.generation_config: Any = GenerationConfig.from_pretrained(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            str(folder / ONNX_FILE), options, providers=["CPUExecutionProvider"]
        )
        shapes = {i.name: i.shape for i in self._session.get_inputs()}
        self._inputs = frozenset(shapes)
        # [rows, heads, tokens, width] of each layer's keys; heads and width are fixed.
        layers = self.config.num_hidden_layers
        self._heads = [shapes[f"past_key_values.{n}.key"] for n in range(layers)]

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any,
        position_ids: Any,
        past_key_values: Any,
        use_cache: bool = True,
        logits_to_keep: int = 0,
    ) -> _Output:
        """Logits of the last `logits_to_keep` positions (0: of all); the cache grows in place."""
        rows, width = input_ids.shape
        at_once = max(1, MOST_LOGITS // (width * self.config.vocab_size))
        parts = []
        for begin in range(0, rows, at_once):
            some = slice(begin, begin + at_once)
            ids, mask, positions = input_ids[some], attention_mask[some], position_ids[some]
            feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
            feeds |= self._past(past_key_values, some, len(ids))
            out = self._session.run(
                None, {n: t.contiguous().numpy() for n, t in feeds.items() if n in self._inputs}
            )
            parts.append([out[0][:, -logits_to_keep:], *out[1:]])
        logits, *present = (self._joined(part) for part in zip(*parts, strict=True))
        if use_cache:
            for n, layer in enumerate(past_key_values.layers):
                if not layer.is_initialized:
                    layer.lazy_initialization(present[2 * n], present[2 * n + 1])
                layer.keys, layer.values = present[2 * n], present[2 * n + 1]
        return _Output(logits)

    def _past(self, cache: Any, some: slice, rows: int) -> dict[str, Any]:
        found = {}
        for n, (layer, shape) in enumerate(zip(cache.layers, self._heads, strict=True)):
            empty = self._torch.zeros(rows, shape[1], 0, shape[3])
            filled = layer.is_initialized and layer.keys.numel()
            found[f"past_key_values.{n}.key"] = layer.keys[some] if filled else empty
            found[f"past_key_values.{n}.value"] = layer.values[some] if filled else empty
        return found

    def _joined(self, arrays: Any) -> Any:
        tensors = [self._torch.from_numpy(array) for array in arrays]
        return tensors[0] if len(tensors) == 1 else self._torch.cat(tensors)


def import_onnxruntime() -> Any:
    """The module; a `UserError` that says what to type where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            "ONNX needs libraries that are not here: type `pip install 'blackbox-distill[export]'`"
        ) from None
    return onnxruntime
