"""What curation came to, as tables: yields, judges, contamination, labels against gold ones."""

from __future__ import annotations

import msgspec

from pipeline.stage1_generate.curate.funnel import Funnel, Yield
from pipeline.stage1_generate.curate.label_quality import ClassQuality, LabelQuality
from pipeline.stage1_generate.lengths import Lengths
from pipeline.stage1_generate.tokens import MAX_LENGTH
from pipeline.stage3_evaluate.charts import percent
from pipeline.stage3_evaluate.report_data import RunFiles
from pipeline.stage3_evaluate.report_samples import safe


class CurationTable(msgspec.Struct, frozen=True):
    title: str
    columns: tuple[str, ...]  # the first one names the rows
    rows: list[tuple[str, ...]]


def curation_tables(run: RunFiles) -> list[CurationTable]:
    """Tables that have something to say; of a run without a funnel none."""
    if run.funnel is None:
        return []
    tables = [_yields("task", run.funnel.by_task)]
    if len(run.funnel.by_teacher) > 1:
        tables.append(_yields("teacher", run.funnel.by_teacher))
    if run.funnel.judges:
        tables.append(_judges(run.funnel))
    if run.funnel.contamination:
        tables.append(_overlaps(run.funnel))
    tables += [_labels(found) for found in run.labels]
    if run.lengths is not None:
        tables.append(_lengths(run, run.lengths))
    return [table for table in tables if table.rows]


def _lengths(run: RunFiles, found: Lengths) -> CurationTable:
    """The histogram, and what of it is longer than training reads."""
    sft = (run.config.get("train") or {}).get("sft") or {}
    limit = sft.get("max_length", MAX_LENGTH)
    counted = len(found.counted)
    rows: list[tuple[str, ...]] = [
        (f"up to {edge:,}", f"{n:,}", percent(n / counted)) for edge, n in found.histogram
    ]
    if isinstance(limit, int):
        longer = found.longer_than(limit)
        rows.append((f"longer than the {limit:,} read in training", f"{longer:,}", "–"))
    of = "" if counted == found.rows else f" (a random {counted:,} of {found.rows:,} rows)"
    return CurationTable(
        f"Length of training rows in the student's tokens{of}", ("tokens", "rows", "share"), rows
    )


def _yields(kind: str, found: dict[str, Yield]) -> CurationTable:
    columns: tuple[str, ...] = (
        kind,
        "asked",
        "answered",
        "kept",
        "share",
        "tokens a kept row",
        "USD a kept row",
    )
    rows = [(name, *_yield(counts)) for name, counts in found.items()]
    if any(counts.alone for counts in found.values()):
        columns += ("seeds only it answered",)
        rows = [
            (*row, f"{counts.alone:,}") for row, counts in zip(rows, found.values(), strict=True)
        ]
    return CurationTable(f"Yield and cost of each {kind}", columns, rows)


def _yield(counts: Yield) -> tuple[str, ...]:
    kept = counts.kept
    return (
        f"{counts.asked:,}",
        f"{counts.answered:,}",
        f"{kept:,}",
        percent(kept / counts.asked) if counts.asked else "–",
        f"{counts.tokens / kept:,.0f}" if kept and counts.tokens else "–",
        f"{counts.usd / kept:.6f}" if kept and counts.usd else "–",
    )


def _judges(funnel: Funnel) -> CurationTable:
    columns = (
        "judge",
        "judged",
        "unreadable",
        "truth known",
        "agrees with it",
        "AUC",
        "same in both orders",
    )
    rows: list[tuple[str, ...]] = [
        (
            name,
            f"{found.judged:,}",
            f"{found.unreadable:,}",
            f"{found.known:,}",
            percent(found.agree) if found.agree is not None else "–",
            f"{found.auc:.2f}" if found.auc is not None else "–",
            percent(found.same_in_both_orders) if found.same_in_both_orders is not None else "–",
        )
        for name, found in funnel.judges.items()
    ]
    return CurationTable("How far each judge agrees with the known truth", columns, rows)


def _labels(found: LabelQuality) -> CurationTable:
    """Accuracy and each class over all answers and over the kept ones."""
    names = ("precision", "recall", "F1", "gold items")
    columns = ("class", *names, *(f"{name}, kept" for name in names))
    accuracy = (percent(found.all.accuracy), "", "", f"{found.all.answers:,}")
    kept = (percent(found.kept.accuracy), "", "", f"{found.kept.answers:,}")
    rows: list[tuple[str, ...]] = [("right answers, of", *accuracy, *kept)]
    of_kept = {one.name: one for one in found.kept.classes}
    for one in found.all.classes:
        rows.append((one.name, *_class(one), *_class(of_kept.get(one.name))))
    title = (
        f"Answers of {found.task} beside the gold ones: {found.seeds_kept:,} of {found.seeds:,} "
        "seeds have a kept one"
    )
    return CurationTable(title, columns, rows)


def _class(one: ClassQuality | None) -> tuple[str, ...]:
    if one is None:
        return ("–", "–", "–", "0")
    return (percent(one.precision), percent(one.recall), percent(one.f1), f"{one.support:,}")


def _overlaps(funnel: Funnel) -> CurationTable:
    stage = next((s for s in funnel.stages if s.filter == "contamination"), None)
    shown = len(funnel.contamination)
    every = stage.dropped if stage else shown
    some = f", the first {shown} of {every:,}" if every > shown else ""
    rows = [
        tuple(
            safe(text, (), size)
            for text, size in (
                (found.request_id[:12], 12),
                (f"{found.task} {found.seed_id}", 60),
                (found.item, 60),
                (found.kind, 40),
                (found.span, 240),
            )
        )
        for found in funnel.contamination
    ]
    columns = ("row", "seed", "evaluation item", "what is the same", "matched words of the row")
    return CurationTable(
        f"Rows dropped because they overlap with the evaluation{some}", columns, rows
    )
