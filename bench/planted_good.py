"""Good answers of nine kinds for planted.py, full of what a filter may trip over."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import planted_text as text
from planted_text import NAMES, NAMES_ZH, PLACES, THINGS, THINGS_ZH, TOPICS, TOPICS_ZH

from pipeline.constraints import describe, draw
from pipeline.records import Constraint

SENTIMENTS = ("positive", "negative", "neutral")
CITIES = text.listed("Oslo Lima Kyoto Porto Accra Quito Turin Bergen Hanoi Tunis Cork Leeds")
ORDER_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "city": {"type": "string"},
        "count": {"type": "integer", "minimum": 1},
        "thing": {"type": "string"},
    },
    "required": ["name", "city", "count", "thing"],
    "additionalProperties": False,
}


class Row(NamedTuple):
    """A seed and an answer to it; `fault` is "" for a good one."""

    task: str
    fields: dict[str, Any]
    text: str
    reference: str | None = None
    constraints: tuple[Constraint, ...] = ()
    finish: str = "stop"
    reasoning: str | None = None
    fault: str = ""


# question, unit of the answer; a and b are drawn, the answer is formula(a, b)
_STORIES: tuple[tuple[str, str, str, Callable[[int, int], int]], ...] = (
    ("{N} has {a} {t} and finds {b} more near the {p}. How many {t} does {N} have now?", "{t}",
     "{a} + {b} = {r}", lambda a, b: a + b),
    ("A train from the {p} needs {a} minutes to {c} and {b} minutes back. How many minutes does "
     "{N} sit in it altogether?", "minutes", "{a} + {b} = {r}", lambda a, b: a + b),
    ("One of the {t} that {N} sells at the {p} costs ${a}. How much do {b} of them cost?", "$",
     "{a} x {b} = {r}", lambda a, b: a * b),
    ("{N} walks {a} kilometers a day from {c} to the {p}. How many kilometers are that in {b} "
     "days?", "kilometers", "{a} * {b} = {r}", lambda a, b: a * b),
    ("A recipe of {N}'s aunt in {c} takes {a} grams of flour for one loaf. How many grams are "
     "needed for {b} loaves?", "grams", "{a} × {b} = {r}", lambda a, b: a * b),
    ("{O} packs {a} {t} into each of {b} boxes for the {p}. How many {t} are packed?", "{t}",
     "{a} * {b} = {r}", lambda a, b: a * b),
    ("{N} works {a} hours in the {p} and {b} hours in {c}. For how many hours does {N} work?",
     "hours", "{a} + {b} = {r}", lambda a, b: a + b),
)  # fmt: skip
_OPENINGS = (
    "Let's see.", "First we look at what is given.", "We have to combine two numbers.", "",
    "Let me work this out for {N}.", "This is one step.", "There are {a} and {b} to deal with.",
)  # fmt: skip
_CLOSINGS = (
    "The answer is {u}.", "So the answer is **{u}**.", "#### {r}", "Therefore, it is {u}.",
    "The answer is \\boxed{{{r}}}.", "So {N} gets {u} in all.\nThe answer is {r}.", "Answer: {u}",
)  # fmt: skip
_ASIDES = (
    "", "", "", "(As a check: {r} is more than {a}.)", "I think that is all we need to know.",
    "Wait, did I read {a} correctly? Yes.", "In the {p}, {b} is a number that people like.",
)  # fmt: skip


def arithmetic(rng: random.Random) -> Row:
    story, unit, formula, result = rng.choice(_STORIES)
    values: dict[str, Any] = {"a": rng.randint(12, 480), "b": rng.randint(3, 97)}
    values["r"] = result(values["a"], values["b"])
    values["N"], values["O"] = rng.sample(NAMES, 2)
    values |= {"t": rng.choice(THINGS), "p": rng.choice(PLACES), "c": rng.choice(CITIES)}
    unit = unit.format(**values)
    values["u"] = f"${values['r']}" if unit == "$" else f"{values['r']} {unit}"
    steps = [rng.choice(_OPENINGS), formula + ".", rng.choice(_ASIDES), rng.choice(_CLOSINGS)]
    answer = " ".join(step.format(**values) for step in steps if step)
    fields = {
        "question": story.format(**values),
        "unit_of_answer": unit,
        "formula": formula.format(**values),
    }
    return Row("arithmetic", fields, answer, str(values["r"]))


def arithmetic_zh(rng: random.Random) -> Row:
    a, b, name = rng.randint(12, 300), rng.randint(3, 60), rng.choice(NAMES_ZH)
    thing, place = rng.choice(THINGS_ZH), rng.choice(text.PLACES_ZH)
    question, formula, unit, r = rng.choice(
        (
            (f"{name}有{a}个{thing}，在{place}又买了{b}个，现在一共有多少个{thing}？", f"{a} + {b}",
             f"个{thing}", a + b),
            (f"{name}从家走到{place}要{a}分钟，再走到车站要{b}分钟，一共要多少分钟？",
             f"{a} + {b}", "分钟", a + b),
            (f"{place}里每排种{a}棵树，{name}数了{b}排，一共有多少棵树？", f"{a} × {b}",
             "棵树", a * b),
            (f"一盒{thing}卖{b}元，{name}在{place}卖了{a}盒，一共收了多少元？", f"{a} × {b}",
             "元", a * b),
        )
    )  # fmt: skip
    answer = rng.choice(
        (
            f"我们来算一算：{formula} = {r}。所以答案是{r}{unit}。",
            f"{name}的情况是这样的，{formula} = {r}，一共{r}{unit}。\n答案：{r}",
            f"先列式：{formula}。\n计算得到{r}。\n答：{r}{unit}。",
            f"根据题意，{formula} = {r}（{unit}）。答案是 \\boxed{{{r}}}。",
        )
    )
    fields = {"question": question, "unit_of_answer": unit, "formula": formula}
    return Row("arithmetic-zh", fields, answer, str(r))


def instruction(rng: random.Random) -> Row:
    topic = rng.choice(TOPICS)
    kind = rng.choice(("all_lowercase", "no_comma", "bullets", "end_phrase", "start_phrase"))
    asked = draw(kind, rng, "en")
    body = text.paragraph(rng, topic, rng.randint(2, 4))
    match kind:
        case "all_lowercase":
            answer = body.lower()
        case "no_comma":
            answer = body.replace(",", "")
        case "bullets":
            points = [text.sentence(rng, topic) for _ in range(asked.params["count"])]
            answer = "\n".join(f"- {point}" for point in points)
        case "end_phrase":
            answer = f"{body} {asked.params['phrase']}"
        case _:
            answer = f"{asked.params['phrase']} this is so. {body}"
    question = f"{_ask(rng, topic)} {describe(asked, 'en')}"
    return Row("instructions", {"question": question}, answer, None, (asked,))


def _ask(rng: random.Random, topic: str) -> str:
    ways = ("Tell me about {}", "What should I know about {}", "Explain {} to a friend",
            "Say something about {}", "Give a short account of {}")  # fmt: skip
    where = rng.choice(("", "in general", f"near a {rng.choice(PLACES)}", "for beginners"))
    return f"{rng.choice(ways).format(topic)} {where}".strip() + "."


def label(rng: random.Random) -> Row:
    of = rng.choice(SENTIMENTS)
    feeling = {
        "positive": ("I loved every minute", "What a joy", "A lovely surprise", "Simply superb"),
        "negative": ("I want my money back", "A waste of time", "Dull and sad", "Never again"),
        "neutral": ("It exists", "Neither good nor bad", "It was a day as any", "So-so"),
    }[of]
    review = f"{rng.choice(feeling)}. {text.sentence(rng, rng.choice(TOPICS))}."
    answer = rng.choice((of, of, of, of.capitalize(), f"Label: {of}"))
    fields = {"question": f"Review: {review}", "labels": list(SENTIMENTS)}
    return Row("labels", fields, answer, of)


def extraction(rng: random.Random) -> Row:
    name = f"{rng.choice(NAMES)} {rng.choice(NAMES)}sen"
    order = {"name": name, "city": rng.choice(CITIES), "count": rng.randint(2, 900),
             "thing": rng.choice(THINGS)}  # fmt: skip
    note = rng.choice(
        (
            "{name} from {city} would like {count} {thing} before the end of {m}",
            "Please send {count} {thing} to {city}, to the attention of {name}, {m} at the latest",
            "Order of {m}: {thing}, {count} pieces. Customer: {name}, {city}",
        )
    ).format(**order, m=rng.choice(("May", "June", "July", "August", "October")))
    answer = json.dumps(order, indent=rng.choice((None, 2)))
    fields = {"question": f"Note {rng.randint(1000, 9999)}: {note}.", "order": order}
    return Row("extraction", fields, answer)


def writing(rng: random.Random) -> Row:
    topic = rng.choice(TOPICS)
    where = f"{rng.choice(NAMES)} in the {rng.choice(text.ADJECTIVES)} {rng.choice(PLACES)}"
    question, answer = rng.choice(
        (
            (_ask(rng, topic), text.paragraph(rng, topic, rng.randint(3, 7))),
            (_ask(rng, topic), "\n\n".join(text.paragraph(rng, topic, 3) for _ in range(3))),
            (f"Write a story about {topic} for {where}.", text.apology(rng, topic)),
            (f"Write a poem with a refrain about {topic} for {where}.", text.poem(rng, topic)),
            (f"Write a polite letter from {where} that declines an invitation.", text.letter(rng)),
            (f"Make a table of opening hours for {where}.", text.table(rng)),
            (f"Write a list of numbers or names for {where}.", text.counting(rng)),
            (f"Name some {topic} that {where} has seen.",
             "\n".join(f"- {thing}" for thing in rng.sample(THINGS, 6))),
            (f"Write a dialogue with a robot about {topic} for {where}.",
             f"Human: What do you know of {topic}?\nAI: {text.sentence(rng, topic)}.\n\n"
             f"Human: And else?\nAI: {text.sentence(rng, topic)}."),
            (f"I lost my notes on {topic}, says {where}. What now?",
             f"I'm sorry to hear that. {text.paragraph(rng, topic, 3)}"),
            (f"Do {topic} sing? {where} wants to know.",
             f"Unfortunately, no: {topic} cannot sing. {text.paragraph(rng, topic, 2)}"),
            (f"Praise {topic} for {where}.",
             f"I cannot recommend {topic} highly enough. {text.paragraph(rng, topic, 2)}"),
            (f"What does a polite person say who will not talk about {topic}? For {where}.",
             f'Perhaps: "I\'m sorry, but I can\'t discuss {topic}." {text.sentence(rng, topic)}.'),
            (f"Translate into German for {where}: The {topic} are beautiful in spring.",
             f"Im Frühling sind sie in {rng.choice(CITIES)} wunderschön, sagt {where.split()[0]} "
             f"und freut sich auf {rng.randint(2, 99)} Gäste."),
        )
    )  # fmt: skip
    return Row("writing", {"question": question}, answer)


def writing_zh(rng: random.Random) -> Row:
    topic, name = rng.choice(TOPICS_ZH), rng.choice(NAMES_ZH)
    place = rng.choice(text.PLACES_ZH)
    question, answer = rng.choice(
        (
            (f"请给{name}介绍一下{topic}。", text.paragraph_zh(rng, topic, rng.randint(3, 6))),
            (f"写一个关于{topic}和{name}的小故事，发生在{place}。",
             f"{text.paragraph_zh(rng, topic, 2)}{name}低着头说：“对不起，我不能帮你了。”"
             f"{text.paragraph_zh(rng, topic, 2)}"),
            (f"{name}想了解{topic}，请列出三点，用于{place}的展览。",
             "\n".join(f"{i}. {text.sentence_zh(rng, topic)}" for i in (1, 2, 3))),
            (f"介绍一下{topic}，写给{place}的游客。",
             f"{text.paragraph_zh(rng, topic, 2)}\n\n{text.paragraph_zh(rng, topic, 2)}"),
        )
    )  # fmt: skip
    return Row("writing-zh", {"question": question}, answer)


def code(rng: random.Random) -> Row:
    verb, thing = rng.choice(("count", "sort", "filter", "join", "sum")), rng.choice(THINGS)
    name, limit = f"{verb}_{thing}", rng.randint(2, 90)
    body = {
        "count": f"    return sum(1 for item in {thing} if item > {limit})",
        "sort": f"    return sorted({thing}, key=len)[:{limit}]",
        "filter": f"    return [item for item in {thing} if item != {limit}]",
        "join": f'    return ", ".join(str(item) for item in {thing}[:{limit}])',
        "sum": f"    total = {limit}\n    for item in {thing}:\n        total += item\n"
        "    return total",
    }[verb]
    source = f"```python\ndef {name}({thing}):\n{body}\n```"
    note = rng.choice(
        (
            f"Here is a function that does it:\n\n{source}",
            f"{source}\n\nCall it with a list of {thing}; it never changes the list.",
            f"The function goes over the {thing} once.\n\n{source}\n\nThe limit is {limit}.",
        )
    )
    place = rng.choice(PLACES)
    ask = f"Write a Python function to {verb} {thing} with the limit {limit}, for the {place}."
    return Row("code", {"question": ask}, note)


def choices(rng: random.Random) -> Row:
    a, b = rng.randint(12, 99), rng.randint(12, 99)
    options = rng.sample([a + b, a + b + 10, a + b - 1, abs(a - b) + 3], 4)
    letter = "ABCD"[options.index(a + b)]
    listed = "\n".join(f"({of}) {value}" for of, value in zip("ABCD", options, strict=True))
    who = f"{rng.choice(NAMES)} at the {rng.choice(PLACES)}"
    question = f"{who} adds {a} and {b}. What comes out?\n{listed}"
    answer = rng.choice(
        (f"{a} + {b} = {a + b}. The answer is ({letter}).", f"{letter}", f"({letter}) {a + b}",
         f"The sum is {a + b}, so the answer is {letter}.")
    )  # fmt: skip
    fields = {"question": question, "choices": [str(value) for value in options]}
    return Row("choices", fields, answer, letter)


SHARES: tuple[tuple[Callable[[random.Random], Row], float], ...] = (
    (arithmetic, 0.28), (arithmetic_zh, 0.1), (instruction, 0.13), (label, 0.1),
    (extraction, 0.08), (writing, 0.16), (writing_zh, 0.07), (code, 0.04), (choices, 0.04),
)  # fmt: skip


def good_rows(n: int, rng: random.Random) -> list[Row]:
    """`n` rows in random order; no question is there twice."""
    rows: list[Row] = []
    seen: set[str] = set()
    for make, share in SHARES:
        wanted = len(rows) + round(n * share)
        while len(rows) < wanted:
            row = make(rng)
            if row.fields["question"] not in seen:
                seen.add(row.fields["question"])
                rows.append(row)
    rng.shuffle(rows)
    return rows
