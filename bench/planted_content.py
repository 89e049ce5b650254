"""Answers of a bad content for planted.py: wrong, doubtful, out of form, of the evaluation."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

import planted_text as text
from planted_form import Maker
from planted_good import Row

# What evaluation asks: stories of forms that no good row has.
ITEMS = (
    ("Marta keeps {a} hens. Each hen lays {b} eggs a week, and she eats 9 of all the eggs for "
     "breakfast before the market. How many eggs can Marta sell on Sunday?",
     lambda a, b: a * b - 9),
    ("The choir of Pedro has {a} singers. At Easter {b} more join, and then half of the choir "
     "goes home with a cold. How many singers does Pedro still conduct?",
     lambda a, b: (a + b) // 2),
    ("Lena reads {a} pages on Monday and twice as many on Tuesday, while on Wednesday she reads "
     "{b} pages more than on Monday. How many pages has Lena read by Thursday?",
     lambda a, b: 4 * a + b),
    ("A cinema of Igor's town has {a} rows with {b} seats in each, but 12 seats are broken and "
     "nobody may sit there. How many guests of Igor find a place?", lambda a, b: a * b - 12),
    ("Sofia saves {a} coins every month for a telescope. After {b} months her brother borrows 15 "
     "of them for a comic. How many coins has Sofia got left over?", lambda a, b: a * b - 15),
)  # fmt: skip
ITEM_NAMES = ("Marta", "Pedro", "Lena", "Igor", "Sofia")


def items() -> list[dict[str, str]]:
    """The evaluation's items, as lines of a seed file."""
    found = []
    for number, (story, result) in enumerate(ITEMS):
        a, b = 14 + 2 * number, 6 + 2 * number
        found.append({"id": f"item-{number}", "question": story.format(a=a, b=b),
                      "answer": str(result(a, b))})  # fmt: skip
    return found


def digits(answer: str, old: str, new: str) -> str:
    return re.sub(rf"(?<!\d){old}(?!\d)", new, answer)


def wrong_number(answer: str, rng: random.Random, row: Row) -> str:
    right = int(row.reference or 0)
    return digits(answer, str(right), str(right + rng.choice((-3, -1, 1, 2, 10, 100))))


OTHER_UNIT = {
    "minutes": ("hours", "seconds", "days"), "hours": ("minutes", "days"),
    "kilometers": ("meters", "miles"), "grams": ("kilograms", "ounces"),
    "$": ("cents", "euros"), "分钟": ("小时", "秒"), "元": ("角", "美元"),
}  # fmt: skip


def measured(make: Maker) -> Maker:
    def made(rng: random.Random) -> Row:
        while (row := make(rng)).fields["unit_of_answer"] not in OTHER_UNIT:
            pass
        return row

    return made


def wrong_unit(answer: str, rng: random.Random, row: Row) -> str:
    other = rng.choice(OTHER_UNIT[row.fields["unit_of_answer"]])
    formula, result = row.fields["formula"], row.reference
    if row.task.endswith("zh"):
        return rng.choice((f"{formula} = {result}。答案是{result}{other}。",
                           f"列式计算：{formula} = {result}，所以一共{result}{other}。")
                          )  # fmt: skip
    sum_ = formula if "=" in formula else f"{formula} = {result}"
    return rng.choice((f"{sum_}. The answer is {result} {other}.",
                       f"We get {sum_}, so it is **{result} {other}**.",
                       f"{sum_}.\nIn all that makes {result} {other}."))  # fmt: skip


def no_number(answer: str, rng: random.Random, row: Row) -> str:
    name = rng.choice(text.NAMES)
    place = rng.choice(text.PLACES)
    return f"{name} should add everything up and then see what is left in the {place}."


def hedge(answer: str, rng: random.Random, row: Row) -> str:
    right = int(row.reference or 0)
    other = right + rng.choice((-2, -1, 1, 2))
    pair = sorted((right, other))
    form = rng.choice(("The answer is {0} or {1}.", "The answer is either {0} or {1}.",
                       "The answer is between {0} and {1}.", "It is {0} or maybe {1}.")
                      )  # fmt: skip
    sum_ = row.fields["formula"].split("=")[0].strip()
    return f"{sum_} has to be worked out. {form.format(*pair)}"


def two_answers(answer: str, rng: random.Random, row: Row) -> str:
    right = int(row.reference or 0)
    wrong = right + rng.choice((-7, -1, 1, 9))
    return rng.choice((f"The answer is {wrong}. {row.fields['formula']}. The answer is {right}.",
                       f"The answer is {wrong}.\n\n{row.fields['formula']}.\n#### {right}",
                       f"So the answer is {wrong}. Adding it all up, the final answer is {right}.")
                      )  # fmt: skip


def no_json(answer: str, rng: random.Random, _: Row) -> str:
    return rng.choice((f"Here is the order: {answer}", answer.replace('"', "'"),
                       answer.rstrip("}") + ",}", f"```json\n{answer}\n```"))  # fmt: skip


def bad_schema(answer: str, rng: random.Random, _: Row) -> str:
    order = json.loads(answer)
    match rng.randrange(4):
        case 0:
            order["count"] = str(order["count"])
        case 1:
            del order[rng.choice(list(order))]
        case 2:
            order["note"] = "soon"
        case _:
            order = [order]
    return json.dumps(order)


def broken(answer: str, rng: random.Random, row: Row) -> str:
    topic = rng.choice(text.TOPICS)
    match row.constraints[0].type:
        case "all_lowercase":
            return text.paragraph(rng, topic, 3)
        case "no_comma":
            return f"{text.sentence(rng, topic)}, as people say. {text.sentence(rng, topic)}."
        case "bullets":
            return answer + f"\n- {text.sentence(rng, topic)}"
        case "end_phrase":
            return answer.removesuffix(row.constraints[0].params["phrase"]).strip()
        case _:
            return answer.removeprefix(row.constraints[0].params["phrase"]).strip().capitalize()


def outside(answer: str, rng: random.Random, _: Row) -> str:
    return rng.choice(("mixed", "joyful", "5 stars", "Label: bad", "very good", "sad"))


def other_label(answer: str, rng: random.Random, row: Row) -> str:
    return rng.choice([of for of in row.fields["labels"] if of != row.reference])


def other_letter(answer: str, rng: random.Random, row: Row) -> str:
    letter = rng.choice([of for of in "ABCD" if of != row.reference])
    return rng.choice((f"The answer is ({letter}).", letter, f"({letter})", f"Answer: {letter}"))


def item(change: Callable[[str, random.Random], str], numbers: bool = False) -> Maker:
    """A row that asks an item of the evaluation, changed."""

    def made(rng: random.Random) -> Row:
        number = rng.randrange(len(ITEMS))
        story, result = ITEMS[number]
        a, b = 14 + 2 * number, 6 + 2 * number
        if numbers:
            a, b = 2 * rng.randint(20, 60), 2 * rng.randint(11, 40)
        question = change(story.format(a=a, b=b), rng)
        reference = str(result(a, b))
        intro = text.sentence(rng, "numbers")
        fields = {"question": question, "unit_of_answer": "", "formula": ""}
        return Row("arithmetic", fields, f"{intro}. The answer is {reference}.", reference)

    return made


def renamed(story: str, rng: random.Random) -> str:
    old = next(name for name in ITEM_NAMES if name in story)
    return story.replace(old, rng.choice(text.NAMES))


def same(story: str, rng: random.Random) -> str:
    return rng.choice((story, story.lower(), f"{rng.choice(text.NAMES)} asks: {story}"))


def thought(row: Row) -> Row:
    return row._replace(text="", reasoning=row.text)


def exact_duplicate(row: Row, rng: random.Random) -> Row:
    return row._replace(text=rng.choice((row.text, f"{row.text}\n", f" {row.text}")))


def near_duplicate(row: Row, rng: random.Random) -> Row:
    """One word of a longer answer changed, or a word put in front."""
    words = row.text.split(" ")
    place = rng.randrange(len(words) // 2, len(words) - 1)
    changed = [*words[:place], rng.choice(text.ADJECTIVES), *words[place + 1 :]]
    return row._replace(text=rng.choice((" ".join(changed), f"Well: {row.text}")))


# kind -> the filters that are right to drop it, and how their reason begins ("" for any)
