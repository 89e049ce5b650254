"""An exported student, opened again, against the student it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pipeline.errors import RunFatal
from pipeline.models.locate import Checkpoint
from pipeline.stage2_train.export_formats import Format

# Mean KL divergence (nats a token) above which a file is not the student any more: a wrong tensor
# gives whole nats. What 8-bit arithmetic (onnx-int8) costs is measured, not refused.
MOST_KL = {
    Format.SAFETENSORS: 1e-4,
    Format.BF16: 0.05,
    Format.GGUF_F16: 0.01,
    Format.GGUF_Q8: 0.1,
    Format.ONNX: 0.001,
}


class Agreement(msgspec.Struct, frozen=True):
    """Over the tokens of texts that both read (teacher forcing)."""

    texts: int
    tokens: int
    same_token: float  # share of positions with the same likeliest next token
    kl: float  # mean over positions of KL(student || export), nats
    largest_change: float  # of a logit


class Opened:
    """A model and its tokenizer, to compare; float32 on the CPU, where rounding is the file's."""

    def __init__(self, checkpoint: Checkpoint, options: dict[str, Any]) -> None:
        from transformers import AutoTokenizer

        from pipeline.models.cpu import tune_cpu
        from pipeline.models.weights import open_weights

        tune_cpu()
        self.model = open_weights(checkpoint, "cpu", options)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.source, **options)

    def tokens(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def logits(self, tokens: Sequence[int]) -> Any:
        """float32 [tokens, vocabulary]."""
        import torch
        from transformers import DynamicCache

        ids = torch.tensor([list(tokens)])
        with torch.inference_mode():
            out = self.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                position_ids=torch.arange(ids.shape[1])[None],
                past_key_values=DynamicCache(config=self.model.config),
                use_cache=True,
                logits_to_keep=0,
            )
        return out.logits[0]


def compare(student: Opened, export: Opened, texts: Iterable[str]) -> Agreement:
    """Both read each text; `RunFatal` if they cut it into other tokens."""
    count = positions = same = 0
    kl = largest = 0.0
    for text in texts:
        tokens = student.tokens(text)
        if export.tokens(text) != tokens:
            raise RunFatal(
                "the exported file is read back with another tokenizer: it cuts a text into other "
                "tokens than the student. Nothing was kept; docs/exporting.md has other ways"
            )
        before, after = student.logits(tokens), export.logits(tokens)
        old, new = before.double().log_softmax(-1), after.double().log_softmax(-1)
        kl += float((old.exp() * (old - new)).sum())
        same += int((before.argmax(-1) == after.argmax(-1)).sum())
        largest = max(largest, float((before - after).abs().max()))
        count, positions = count + 1, positions + len(tokens)
    return Agreement(count, positions, same / positions, max(0.0, kl / positions), largest)


def refuse_another(kind: Format, agreement: Agreement) -> None:
    """`RunFatal` where the file is not the student."""
    limit = MOST_KL.get(kind)
    if limit is not None and not agreement.kl <= limit:  # a NaN, too
        raise RunFatal(
            f"{kind}: opened again, it is not the student: mean KL {agreement.kl:.3g} nats a token "
            f"(at most {limit:g}), {agreement.same_token:.1%} of tokens the same. Nothing was "
            "kept; please report it with the student's config.json"
        )
