"""Step `text`: how well each arm still predicts plain text that training had nothing to do with.

Perplexity on held-out text is the cheapest sign of what a training on few tasks cost elsewhere. The
arms read the same documents, token by token; no answer is asked for, so there is no prompt and no
decoding that could hide anything. A model that is only known over HTTP cannot be measured.

    5_text/<arm>.jsonl     a line per document: id, bytes, tokens, nats

Compared are before and a trained student, by the ratio of their perplexities over the same bytes:
exp((nats after - nats before) / tokens before), with a bootstrap interval over documents.
"""

from __future__ import annotations

import gc
import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config, ModelConfig
from pipeline.config_evaluate import TRAINED
from pipeline.errors import UserError
from pipeline.models import local_checkpoint
from pipeline.records import read_jsonl, write_jsonl
from pipeline.stage3_evaluate import statistics
from pipeline.stage3_evaluate.arm_parts import arm_place, made_whole, refuse_missing, taken
from pipeline.stage3_evaluate.arms import arm_model, identities, trained_folder
from pipeline.stage3_evaluate.statistics import Kept
from pipeline.steps import Step, StepResult

LOCAL = ("transformers", "vllm")  # their weights are here
FOLDER = "5_text"


class Document(msgspec.Struct, frozen=True):
    """A line of the file that `evaluate.held_out_text` names; other fields are left alone."""

    text: str
    id: str = ""


class TextRow(msgspec.Struct, frozen=True):
    """One document under one model: `nats` is minus the sum of its tokens' log-probabilities."""

    id: str
    bytes: int
    tokens: int
    nats: float


class TextScore(msgspec.Struct, frozen=True):
    """One arm over all documents. `ratio`: its perplexity over that of before; above 1 is worse."""

    arm: str
    perplexity: float  # by token
    bits_per_byte: float  # comparable between tokenizers
    documents: int
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    kept: Kept | None = None  # is it less than the margin worse?


def step(config: Config) -> Step:
    evaluate, run = config.evaluate, config.run_dir
    assert evaluate.held_out_text is not None
    return Step(
        name="text",
        run=run,
        settings={"arms": evaluate.all_arms, "models": identities(config)},
        inputs=[*_students(config), Path(evaluate.held_out_text)],
        outputs=[run / FOLDER],
        work=lambda: measure(config),
    )


def _students(config: Config) -> list[Path]:
    folders = (trained_folder(config, arm) for arm in config.evaluate.all_arms)
    return [folder for folder in folders if folder is not None]


def documents(path: Path) -> list[Document]:
    """The documents of a JSONL file with `text` in each line; raises `UserError`."""
    try:
        found = list(read_jsonl(path, Document))
    except FileNotFoundError:
        raise UserError(
            f"evaluate.held_out_text: {path} is not there (looked from {Path.cwd()}); name a JSONL "
            "file with a `text` in each line, or leave the key out"
        ) from None
    except OSError as error:  # a folder, or not ours to read
        raise UserError(
            f"evaluate.held_out_text: {path}: {error.strerror}; name a JSONL file with a `text` in "
            "each line"
        ) from None
    except (ValueError, msgspec.DecodeError) as error:
        raise UserError(f"evaluate.held_out_text: {path}: {error}") from None
    if len(found) < 2 or not all(document.text.strip() for document in found):
        raise UserError(
            f"evaluate.held_out_text: {path} needs two documents or more, each with a text"
        )
    seen = Counter(document.id for document in found if document.id)
    if twice := [name for name, times in seen.items() if times > 1]:
        raise UserError(
            f"evaluate.held_out_text: {path} has the id {twice[0]!r} twice; give each its own, or "
            "none"
        )
    return found


def measure(config: Config, *, gather: bool = False) -> StepResult:
    """Every arm's rows, out of what `evaluate --arm` made where it did.

    `gather`: read no model; a `UserError` where something is missing.
    """
    evaluate, mine = config.evaluate, step(config)
    assert evaluate.held_out_text is not None
    every = documents(Path(evaluate.held_out_text))
    final = config.run_dir / FOLDER
    partial = final.with_name(f"{FOLDER}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    done: dict[str, list[TextRow]] = {}
    left_out = []
    for arm in evaluate.all_arms:
        model = arm_model(config, arm)
        if model.backend not in LOCAL:
            left_out.append(arm)
            continue
        known = model.model_dump_json()
        if known not in done:  # before_again is before
            made = arm_place(mine, arm, ".jsonl")
            if gather and not made.is_file():
                refuse_missing(mine, arm)
            done[known] = (
                list(read_jsonl(made, TextRow)) if made.is_file() else _read(arm, model, every)
            )
        write_jsonl(partial / f"{arm}.jsonl", done[known])
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    taken(mine)
    return StepResult(
        counts={"documents": len(every), "models": len(done)},
        notes={"not measured, only known by answers": left_out} if left_out else {},
    )


def measure_arm(config: Config, arm: str) -> None:
    """The rows of one arm, for another process to take."""
    evaluate = config.evaluate
    assert evaluate.held_out_text is not None
    model = arm_model(config, arm)
    earlier = evaluate.all_arms[: evaluate.all_arms.index(arm)]
    made = arm_place(step(config), arm, ".jsonl")
    if model.backend not in LOCAL or made.is_file() or _is_any(config, model, earlier):
        return
    rows = _read(arm, model, documents(Path(evaluate.held_out_text)))
    with made_whole(made) as partial:
        write_jsonl(partial, rows)


def _is_any(config: Config, model: ModelConfig, arms: Sequence[str]) -> bool:
    return any(arm_model(config, arm) == model for arm in arms)


def _read(arm: str, model: ModelConfig, every: Sequence[Document]) -> list[TextRow]:
    print(f"reading {len(every)} texts: {arm}", flush=True)
    found = text_rows(model, every)
    gc.collect()
    return found


def text_rows(config: ModelConfig, every: Sequence[Document]) -> list[TextRow]:
    """Each document under a local model. Longer ones are read in windows of the model's context."""
    import torch
    from transformers import AutoTokenizer
    from transformers.utils import logging

    from pipeline.models.weights import device_of, open_weights

    logging.disable_progress_bar()
    checkpoint, device = local_checkpoint(config), device_of(config.serving)
    options: dict[str, Any] = {
        "revision": checkpoint.revision,
        "trust_remote_code": config.serving.trust_remote_code,
    }
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.source, **options)
    model = open_weights(checkpoint, device, options)
    context = getattr(model.config, "max_position_embeddings", None) or 4096
    # What stands before a text, so that its first token counts as well.
    start = next(
        token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, 0) if token is not None
    )
    found = []
    for number, document in enumerate(every):
        ids = tokenizer(document.text, add_special_tokens=False)["input_ids"]
        nats = 0.0
        for at in range(0, len(ids), context - 1):
            window = torch.tensor([[start, *ids[at : at + context - 1]]], device=device)
            with torch.inference_mode():
                logits = model(input_ids=window).logits[0, :-1].float()
            nats += float(torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum"))
        name = document.id or f"line {number + 1}"
        found.append(TextRow(name, len(document.text.encode()), len(ids), nats))
    return found


def saved_rows(run: Path) -> dict[str, list[TextRow]]:
    """Arm -> its documents; empty where nothing was measured."""
    return {path.stem: list(read_jsonl(path, TextRow)) for path in sorted((run / FOLDER).glob("*"))}


def text_scores(
    rows: dict[str, list[TextRow]], arms: Sequence[str], *, seed: int, margin: float
) -> list[TextScore]:
    """Every arm in the order of `arms`; those that this run trained against before."""
    before = {row.id: row for row in rows.get("before", [])}
    found = []
    for arm in (name for name in arms if rows.get(name)):
        mine = rows[arm]
        nats, tokens = sum(row.nats for row in mine), sum(row.tokens for row in mine)
        bits = nats / math.log(2) / sum(row.bytes for row in mine)
        score = TextScore(arm, math.exp(nats / tokens), bits, len(mine))
        if before and (arm == "after" or arm.startswith(TRAINED)):
            pairs = [
                (row.nats - old.nats, float(old.tokens))
                for row in mine
                if (old := before.get(row.id)) is not None
            ]
            score = _compared(score, pairs, seed, margin)
        found.append(score)
    return found


def _compared(
    score: TextScore, pairs: Sequence[tuple[float, float]], seed: int, margin: float
) -> TextScore:
    ratio = math.exp(sum(rise for rise, _ in pairs) / sum(tokens for _, tokens in pairs))
    low, high = (math.exp(end) for end in statistics.ratio_interval(pairs, seed))
    # One-sided at 5 %, as for scores: the 90 % interval of the ratio.
    least, most = (math.exp(end) for end in statistics.ratio_interval(pairs, seed, level=0.90))
    kept = Kept.KEPT if most < 1 + margin else Kept.LOST if least > 1 else Kept.UNCLEAR
    return msgspec.structs.replace(score, ratio=ratio, low=low, high=high, kept=kept)
