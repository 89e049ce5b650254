"""`distill export RUN --what student --format ... --to hub|folder`: hand the student to others.

Each format is made under 4_exports/, opened again, compared with the student and tested with the
run's evaluation; a table says what each costs and saves. Without `--yes` nothing leaves.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import msgspec

from pipeline.commands import run_config, run_folder
from pipeline.commands.export import Target, push_folder, token, verb
from pipeline.commands.hand_over import copy_folder, refuse_taken
from pipeline.config import Config
from pipeline.errors import DONE
from pipeline.stage2_train.export import (
    TEXTS,
    Export,
    dataset_texts,
    export_folder,
    forget_unpacked,
    make,
    model_of,
    student_of,
)
from pipeline.stage2_train.export_formats import Format
from pipeline.stage3_evaluate.exported import Change, changes

OPENING = {
    Format.SAFETENSORS: "`AutoModelForCausalLM.from_pretrained(folder)` of transformers, or vLLM",
    Format.BF16: "`AutoModelForCausalLM.from_pretrained(folder)` of transformers, or vLLM",
    Format.GGUF_F16: "llama.cpp and what is built on it; also `student.model: FILE.gguf` here",
    Format.GGUF_Q8: "llama.cpp and what is built on it; also `student.model: FILE.gguf` here",
    Format.ONNX: "onnxruntime, with the names of Optimum's decoders; also `model: FOLDER` here",
    Format.INT8: "onnxruntime, with the names of Optimum's decoders; also `model: FOLDER` here",
}


def export_student(
    name: str, formats: list[Format], target: Target, *, yes: bool, scores: bool
) -> int:
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    run = run_folder(name)
    config = run_config(run)
    student = student_of(config)
    formats = list(dict.fromkeys(formats))
    if target.kind == "folder":
        for kind in formats:
            refuse_taken(_place(target, kind, formats), replace=target.replace)
    elif yes:
        token()  # before minutes of work
    tokenizer = AutoTokenizer.from_pretrained(str(student))
    texts = list(islice(dataset_texts(config, tokenizer), TEXTS))
    made = [make(config, kind, texts) for kind in formats]
    tested = {export.format: _test(config, export) if scores else None for export in made}
    lines = table(made, tested)
    for export in made:
        _write_card(config, export, table([export], tested))
    print("\n" + "\n".join(lines) + "\n")
    for export in made:
        _print_files(export_folder(config, export.format))
    if not yes:
        print(
            f"\nmade under {config.run_dir / '4_exports'}; nothing else was written and nothing "
            f"has left this machine: this was a dry run; add --yes to {verb(target)}"
        )
        return DONE
    _hand_over(config, made, target)
    return DONE


def _test(config: Config, export: Export) -> list[Change] | None:
    path = export_folder(config, export.format).with_name(f"{export.format}.scores.json")
    print(f"{export.format}: testing with the run's evaluation", flush=True)
    chosen = model_of(config, export.format)
    try:
        found = changes(config, chosen)
    finally:
        if chosen.model.endswith(".gguf"):
            from pipeline.models.locate import unpacked_folder

            forget_unpacked(str(unpacked_folder(chosen.model)))
    if found is not None:
        path.write_bytes(msgspec.json.encode(found))
    return found


def table(made: list[Export], tested: dict[Format, list[Change] | None]) -> list[str]:
    """Markdown: a line for each format, then one for each format and metric."""
    lines = [
        "| format | bytes | of the student | same next token | mean KL, nats | largest change of a "
        "logit |",
        "|---|---|---|---|---|---|",
    ]
    for e in made:
        a = e.agreement
        lines.append(
            f"| {e.format} | {e.bytes:,} | {e.bytes / e.student_bytes:.0%} | {a.same_token:.1%} | "
            f"{a.kl:.2g} | {a.largest_change:.2g} |"
        )
    lines += [
        "",
        "| format | ability, metric | student | export | change, points (95%) | better, worse | "
        "items |",
        "|---|---|---|---|---|---|---|",
    ]
    for e in made:
        found = tested.get(e.format)
        if not found:
            lines.append(f"| {e.format} | not tested | | | | | |")
        for c in found or []:
            lines.append(
                f"| {e.format} | {c.ability}, {c.metric} | {c.student:.1%} | {c.export:.1%} | "
                f"{100 * c.difference:+.1f} ({100 * c.low:+.1f} to {100 * c.high:+.1f}) | "
                f"{c.gained}, {c.lost} | {c.n} |"
            )
    return lines


def _write_card(config: Config, export: Export, lines: list[str]) -> None:
    student = student_of(config)
    card = student / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# {config.name}\n"
    a = export.agreement
    folder = export_folder(config, export.format)
    (folder / "README.md").write_text(
        f"{text}\n## This export\n\nFormat `{export.format}`: {OPENING[export.format]}. Compared "
        f"with the student on {a.tokens:,} tokens of {a.texts} texts, and by the run's evaluation, "
        "item by item:\n\n" + "\n".join(lines) + "\n",
        encoding="utf-8",
    )


def _print_files(folder: Path) -> None:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        print(f"  {folder.name}/{path.relative_to(folder)!s:<32} {path.stat().st_size:>14,} bytes")


def _place(target: Target, kind: Format, formats: list[Format]) -> str:
    """Several formats have a folder each."""
    return f"{target.place.rstrip('/')}/{kind}" if len(formats) > 1 else target.place


def _hand_over(config: Config, made: list[Export], target: Target) -> None:
    for export in made:
        folder = export_folder(config, export.format)
        inner = export.format if len(made) > 1 else ""
        if target.kind == "folder":
            place = _place(target, export.format, [one.format for one in made])
            copy_folder(folder, place, replace=target.replace)
            print(f"copied to {place}")
        else:
            print(f"pushed: {push_folder(folder, target, kind='model', inner=inner)}")
