"""A student as it is before training, where it is not simply a model as it was published.

It may have a chat template of its own, more tokens, or a smaller shape. It is made once, as a local
checkpoint in runs/models/, so that counting, training and every backend open the same files.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.config_models import Changes, Serving
from pipeline.errors import UserError
from pipeline.models.locate import Checkpoint, made_folder, making
from pipeline.models.shrink import shrunk
from pipeline.models.turns import default_template, faults, turn_end

MADE_OF = "made_of.json"  # in such a folder: what was done, in sentences
RULES = 1  # raise it when the same changes make other files

# All that a tokenizer and a config are stored in; weights are safetensors, never pickles.
_SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")


def changed(
    source: Checkpoint, model: str, identity: str, changes: Changes, serving: Serving
) -> Checkpoint:
    """The checkpoint of a student: `source` itself, or what was made of it under `identity`.

    Without any `changes` too something may have to be made: a model without a chat template gets
    the default one, and one that does not stop where its template ends a turn learns to.
    """
    trust = {"trust_remote_code": serving.trust_remote_code}
    try:
        if changes == Changes() and _is_ready(source, trust):
            return source
        folder = made_folder(f"{identity}+student {RULES}")
        if not folder.is_dir():
            with making(folder) as partial:
                notes = _make(source, changes, trust, partial)
                text = json.dumps({"made_of": identity, "notes": notes}, ensure_ascii=False)
                (partial / MADE_OF).write_text(text + "\n", encoding="utf-8")
            for note in notes:
                print(f"student.model {model!r}: {note}", file=sys.stderr, flush=True)
    except (OSError, ValueError) as error:
        raise UserError(f"student.model {model!r} cannot be opened: {error}") from None
    return Checkpoint(str(folder), None, source.remote_code)


def notes_of(checkpoint: Checkpoint) -> list[str]:
    """What was done to make this checkpoint; nothing for a model as it was published."""
    path = Path(checkpoint.source) / MADE_OF
    return list(json.loads(path.read_text(encoding="utf-8"))["notes"]) if path.is_file() else []


def _is_ready(source: Checkpoint, trust: dict[str, Any]) -> bool:
    """Has it a chat template whose last token generation stops at?"""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.source, revision=source.revision, **trust)
    if tokenizer.chat_template is None:
        return False
    end = _own_turn_end(tokenizer)
    return end is None or end in _stops(source.source, source.revision, tokenizer, trust)


def _make(source: Checkpoint, changes: Changes, trust: dict[str, Any], folder: Path) -> list[str]:
    from transformers import AutoTokenizer

    base = _local_folder(source)
    folder.mkdir(parents=True)
    tokenizer = AutoTokenizer.from_pretrained(base, **trust)
    stops = _stops(str(base), None, tokenizer, trust)
    new = [token for token in changes.add_tokens if token not in tokenizer.get_vocab()]
    had = len(tokenizer)
    tokenizer.add_tokens(changes.add_tokens, special_tokens=True)
    notes = _set_template(tokenizer, changes.chat_template)
    end = _own_turn_end(tokenizer)
    if end is not None and end not in stops:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
        stops = [end, *stops]
        notes.append(f"generation now also stops at {tokenizer.eos_token}, which ends a turn")
    if new or changes.shrink:
        if source.remote_code:
            raise UserError(
                "student.add_tokens and student.shrink are for architectures of transformers "
                "itself; this model brings its own code"
            )
        notes += _save_changed_weights(base, changes, had, tokenizer, folder)
    else:
        _link_weights(base, folder)
    tokenizer.save_pretrained(folder)
    _write_stops(base, stops, folder)
    if new or changes.shrink:
        _try_out(folder)
    return notes


def _set_template(tokenizer: Any, text: str | None) -> list[str]:
    if text is not None:
        instead = "" if tokenizer.chat_template is None else ", instead of the model's own"
        tokenizer.chat_template = text
        if (problem := faults(tokenizer)) is not None:
            raise UserError(f"student.chat_template: {problem}")
        return [f"it has the chat template of student.chat_template{instead}"]
    if tokenizer.chat_template is not None:
        return []
    text = default_template(tokenizer)
    if text is None:
        raise UserError(
            "student.model has neither a chat template nor an end token; name a template's file in "
            "student.chat_template, and the token that ends a turn in student.add_tokens"
        )
    tokenizer.chat_template = text
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": "..."}], tokenize=False, add_generation_prompt=True
    )
    return [
        "IT HAS NO CHAT TEMPLATE (a base model?) and gets a default one, which is saved with the "
        f"student: {shown!r}. Give another one in student.chat_template"
    ]


def _own_turn_end(tokenizer: Any) -> int | None:
    try:
        return turn_end(tokenizer)
    except Exception:  # a published template may refuse such a conversation; it stays as it is
        return None


def _stops(source: str, revision: str | None, tokenizer: Any, trust: dict[str, Any]) -> list[int]:
    """Ids that every backend stops at: of generation_config.json, and the tokenizer's own."""
    from transformers import AutoConfig, GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(source, revision=revision).eos_token_id
    except OSError:  # no such file: transformers then takes config.json
        found = AutoConfig.from_pretrained(source, revision=revision, **trust).eos_token_id
    listed: Iterable[Any] = found if isinstance(found, list) else [found]
    return list(dict.fromkeys(t for t in (*listed, tokenizer.eos_token_id) if t is not None))


def _write_stops(base: Path, stops: list[int], folder: Path) -> None:
    # As JSON: transformers refuses to save some of the generation configs that it reads.
    name = "generation_config.json"
    found = json.loads((base / name).read_text()) if (base / name).is_file() else {}
    (folder / name).write_text(json.dumps(found | {"eos_token_id": stops}, indent=2) + "\n")


def _save_changed_weights(
    base: Path, changes: Changes, had: int, tokenizer: Any, folder: Path
) -> list[str]:
    """`had`: tokens before some were added."""
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    notes = []
    if changes.shrink:
        model, note = shrunk(str(base), changes.shrink, changes.seed)
        notes.append(note)
    else:
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True)
    if len(tokenizer) > had:
        notes.append(_resize(model, had, len(tokenizer)))
    model.generation_config = GenerationConfig()  # written by itself, see _write_stops
    model.save_pretrained(folder)
    return notes


def _resize(model: Any, had: int, wanted: int) -> str:
    """Rows for new tokens, with the mean of the old ones (and a billionth of their spread)."""
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Rows that no token had are untrained, and would be the new tokens'.
        model.resize_token_embeddings(min(had, rows))
        model.resize_token_embeddings(wanted, pad_to_multiple_of=64 if rows % 64 == 0 else None)
    now = model.get_input_embeddings().weight.shape[0]
    return (
        f"{wanted - had} tokens are new; their embeddings begin as the mean of the old ones "
        f"(rows: {rows:,} -> {now:,})"
    )


def _try_out(folder: Path) -> None:
    """Open what was made, as everything after this will: each weight in its place, no new ones."""
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", use_safetensors=True, output_loading_info=True
    )
    wrong = {key: sorted(map(str, value)) for key, value in info.items() if value}
    if wrong:
        raise UserError(f"student.shrink: the changed model does not open whole: {wrong}")
    try:
        with torch.inference_mode():
            model(input_ids=torch.arange(4)[None])
    except Exception as error:  # each architecture refuses in its own way
        raise UserError(f"student.shrink: a model of this shape cannot compute: {error}") from None


def _local_folder(source: Checkpoint) -> Path:
    """The files of a checkpoint; a hub's are those of its cache."""
    if Path(source.source).is_dir():
        return Path(source.source)
    from huggingface_hub import snapshot_download

    patterns = [*_SMALL, "*.safetensors"]
    return Path(snapshot_download(source.source, revision=source.revision, allow_patterns=patterns))


def _link_weights(base: Path, folder: Path) -> None:
    """The same weights without a second copy where the disk allows it; small files are copied.

    A hard link, not a symbolic one: it cannot come to point at another model's weights.
    """
    weights = sorted(base.glob("*.safetensors"))
    if not weights:
        raise UserError(
            f"{base}: no .safetensors (pickled weights are not opened: they can run code)"
        )
    for path in weights:
        try:
            os.link(path.resolve(), folder / path.name)
        except OSError:  # another filesystem, or one without links
            shutil.copy2(path, folder / path.name)
    for pattern in _SMALL:
        for path in base.glob(pattern):
            shutil.copyfile(path, folder / path.name)
