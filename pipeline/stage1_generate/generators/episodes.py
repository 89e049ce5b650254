"""In-context episodes: k labelled examples and a query.

The shots of an episode are nested and balanced: every block of as many shots as there are classes
holds each class once, so the first 2, 4, 8 ... of them are balanced (two classes) and a k-shot
curve is measured on the same examples. The query is never among the shots.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.records import digest
from pipeline.stage1_generate.generators import vocabulary
from pipeline.stage1_generate.generators.options import choice, read_rows, whole

Episode = dict[str, Any]


def symbol_mapping(
    n: int,
    seed: int,
    language: str = "en",
    classes: int = 2,
    shots: int = 8,
    split: str = "train",
) -> Iterator[Episode]:
    """Words of some categories, with a nonsense label for each category.

    Which label means which category is drawn anew for every episode, so that zero-shot accuracy
    is 1/`classes` by construction and all above it was read from the shots. The splits train and
    eval have no category, no word and no label in common. Source of the idea: symbol tuning,
    arXiv 2305.08298. Rows {id, text, answer, labels, shots: [{text, label}], categories}.
    """
    side = choice("split", split, ("train", "eval"))
    categories = vocabulary.CATEGORIES[language][side]
    labels = vocabulary.LABELS[side]
    count = whole("classes", classes, 2, len(categories))
    most = whole("shots", shots, 0, count * (min(map(len, categories.values())) - 1))
    rng = random.Random(f"symbol_mapping {seed}")
    seen: set[str] = set()
    while len(seen) < n:
        chosen = rng.sample(sorted(categories), count)
        names = _unlike(labels, count, rng)
        pools = {name: categories[category] for name, category in zip(names, chosen, strict=True)}
        episode = _episode(pools, most, rng) | {"categories": chosen, "language": language}
        identity = digest(episode, 12)
        if identity not in seen:
            seen.add(identity)
            yield {"id": f"symbols-{identity}"} | episode


def classification(
    n: int,
    seed: int,
    language: str = "en",
    file: str = "",
    shots: int = 8,
    labels: str = "natural",
) -> Iterator[Episode]:
    """Episodes from a JSONL file of {text, label}.

    `labels`: natural; flipped (every label stands for the next one: does the model follow the
    shots or what it knows?); symbols (nonsense words). Queries go round the file, so that n = its
    length asks each text once.
    """
    how = choice("labels", labels, ("natural", "flipped", "symbols"))
    rows = read_rows("file", file, ("text", "label"), language)
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(str(row["label"]), []).append(str(row["text"]))
    names = sorted(texts)
    smallest = min(map(len, texts.values()))
    if len(names) < 2 or smallest < 2:
        raise UserError(f"{file}: needs two labels or more, and two texts or more of each")
    most = whole("shots", shots, 0, len(names) * (smallest - 1))
    rng = random.Random(f"classification {seed}")
    order: list[tuple[str, str]] = []
    seen: set[str] = set()
    while len(seen) < n:
        if not order:
            order = [(name, text) for name in names for text in texts[name]]
            rng.shuffle(order)
        name, text = order.pop()
        shown = dict(zip(names, _shown_labels(names, how, rng), strict=True))
        pools = {shown[label]: texts[label] for label in names}
        episode = _episode(pools, most, rng, (shown[name], text))
        episode |= {"categories": names, "language": language}
        identity = digest(episode, 12)
        if identity in seen and most == 0:
            raise UserError(f"{file}: only {len(seen)} different episodes without shots; lower n")
        if identity not in seen:
            seen.add(identity)
            yield {"id": f"classification-{identity}"} | episode


def episodes_of(
    rows: Sequence[tuple[str, str]], shots: int, ids: Sequence[str], place: str
) -> Iterator[Episode]:
    """An episode for each (text, label): that text is the query, others of the rows its shots.

    An episode hangs on its row's id and the rows alone, so that the order of rows does not matter.
    """
    texts: dict[str, list[str]] = {}
    for text, label in sorted(set(rows)):
        texts.setdefault(label, []).append(text)
    smallest = min(map(len, texts.values()), default=0)
    most = len(texts) * (smallest - 1)
    if len(texts) < 2 or most < 1:
        have = ", ".join(f"{label}: {len(found)}" for label, found in sorted(texts.items()))
        raise UserError(
            f"{place}: episodes need two labels or more, and two texts or more of each; have {have}"
        )
    if shots > most:
        raise UserError(
            f"{place}: {shots} shots; the rarest label has {smallest} texts, so that at most "
            f"{most} balanced shots can be drawn beside the query"
        )
    for (text, label), identity in zip(rows, ids, strict=True):
        rng = random.Random(f"episode {identity}")
        yield _episode(texts, shots, rng, (label, text))


def remapped(
    labels: Sequence[str], how: str, salt: str, split: Literal["train", "eval"] = "train"
) -> dict[str, str]:
    """Every label and what it is called in one episode: `how` is symbols or flipped.

    The symbols of the splits differ: what an evaluation asks about stays unseen.
    """
    names = sorted(labels)
    if how == "flipped":
        return dict(zip(names, _shown_labels(names, how, random.Random()), strict=True))
    rng = random.Random(f"{how} {salt}")
    pool = [symbol for symbol in vocabulary.LABELS[split] if symbol not in names]
    if len(names) > len(pool):
        raise UserError(
            f"option labels: {len(names)} labels, and there are {len(pool)} symbols; leave symbols "
            "out for this task"
        )
    chosen = _unlike(pool, len(names), rng)
    spare = [symbol for symbol in rng.sample(pool, len(pool)) if symbol not in chosen]
    return dict(zip(names, [*chosen, *spare][: len(names)], strict=True))


def _episode(
    pools: Mapping[str, Sequence[str]],
    most: int,
    rng: random.Random,
    query: tuple[str, str] | None = None,
) -> Episode:
    """One episode over {label: texts}; the query is drawn unless it is given."""
    names = sorted(pools)
    label, text = query or (lambda name: (name, rng.choice(pools[name])))(rng.choice(names))
    per_class = -(-most // len(names))
    drawn = {
        name: rng.sample([other for other in pools[name] if other != text], per_class)
        for name in names
    }
    examples = []
    for block in range(per_class):
        # The order inside a block is drawn, so that neither class is always the last one seen.
        examples += [
            {"text": drawn[name][block], "label": name} for name in rng.sample(names, len(names))
        ]
    return {"text": text, "answer": label, "labels": names, "shots": examples[:most]}


def _shown_labels(names: list[str], how: str, rng: random.Random) -> list[str]:
    if how == "natural":
        return names
    if how == "flipped":
        return [*names[1:], names[0]]
    return _unlike(vocabulary.LABELS["train"] + vocabulary.LABELS["eval"], len(names), rng)


def _unlike(labels: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Labels that begin with different letters: a slip of one token is then a wrong answer."""
    chosen: list[str] = []
    for label in rng.sample(labels, len(labels)):
        if label[0] not in {other[0] for other in chosen}:
            chosen.append(label)
        if len(chosen) == count:
            break
    return chosen
