"""2_label_quality.json: how right the teacher's answers are where the seeds know the truth.

For tasks of the recipe `label` and for tasks with the filter `vote`. Two columns: all answers but
failed requests, and those that were kept. Per class precision, recall and F1 (scikit-learn) of
labels, of entities (type and span must be equal) and of the fields of extracted JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from pipeline.records import Decision, Finish
from pipeline.stage1_generate.curate import Candidate
from pipeline.stage1_generate.curate.correctness import Kind, answer
from pipeline.stage1_generate.labelling import read

_NONE = "\0none"  # not a label: an item that only the teacher, or only the gold answer, has


class ClassQuality(msgspec.Struct, frozen=True):
    """`support`: how many gold items of the class there are among these answers."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


class Side(msgspec.Struct, frozen=True):
    """`right`: answers equal to the gold one. `macro_f1`: the mean over the classes."""

    answers: int
    right: int
    accuracy: float
    macro_f1: float | None = None
    classes: list[ClassQuality] = []


class LabelQuality(msgspec.Struct, frozen=True):
    """One task: seeds with a gold answer, how many of them have a kept row, and the two columns."""

    task: str
    seeds: int
    seeds_kept: int
    all: Side
    kept: Side


class Measuring:
    """Counts one task's answers. Memory: some dozen bytes a seed."""

    def __init__(self, task: str, *, labels: bool, kind: Kind = "auto") -> None:
        self._task = task
        self._labels = labels
        self._is_right = answer(kind)
        self._seeds: dict[bool, set[str]] = {False: set(), True: set()}
        self._answers: Counter[bool] = Counter()
        self._right: Counter[bool] = Counter()
        self._pairs: dict[bool, Counter[tuple[str, str]]] = {False: Counter(), True: Counter()}

    def add(self, row: Candidate, kept: bool) -> None:
        if row.seed.reference is None or row.generation.finish is Finish.ERROR:
            return
        pairs: list[tuple[str, str]] = []
        if self._labels:
            gold = read(row.seed, row.seed.reference)
            said = read(row.seed, row.generation.text, row.generation.finish)
            right = gold.canonical is not None and gold.canonical == said.canonical
            for name, item in gold.items | said.items:
                in_gold, in_said = (name, item) in gold.items, (name, item) in said.items
                pairs.append((name if in_gold else _NONE, name if in_said else _NONE))
        else:
            right = self._is_right(row).decision is Decision.KEEP
        for side in (False, True) if kept else (False,):
            self._seeds[side].add(row.seed.id)
            self._answers[side] += 1
            self._right[side] += right
            self._pairs[side].update(pairs)

    def result(self) -> LabelQuality | None:
        """None where no seed has a gold answer."""
        if not self._answers[False]:
            return None
        return LabelQuality(
            self._task,
            len(self._seeds[False]),
            len(self._seeds[True]),
            self._side(False),
            self._side(True),
        )

    def _side(self, kept: bool) -> Side:
        answers, right = self._answers[kept], self._right[kept]
        classes = _classes(self._pairs[kept]) if self._pairs[kept] else []
        macro = round(sum(c.f1 for c in classes) / len(classes), 4) if classes else None
        return Side(answers, right, round(right / answers, 4) if answers else 0.0, macro, classes)


def _classes(pairs: Counter[tuple[str, str]]) -> list[ClassQuality]:
    from sklearn.metrics import precision_recall_fscore_support

    names = sorted({name for pair in pairs for name in pair} - {_NONE})
    true, said = zip(*pairs, strict=True)
    precision, recall, f1, support = precision_recall_fscore_support(
        true, said, labels=names, sample_weight=list(pairs.values()), zero_division=0
    )
    columns: Iterable[tuple[str, float, float, float, float]] = zip(
        names, precision, recall, f1, support, strict=True
    )
    return [
        ClassQuality(name, round(float(p), 4), round(float(r), 4), round(float(f), 4), int(n))
        for name, p, r, f, n in columns
    ]
