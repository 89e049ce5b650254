"""Answers of a bad form for planted.py: cut, declined, looping, leaking, foreign, unsafe."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import planted_text as text
from planted_good import Row, writing, writing_zh

Maker = Callable[[random.Random], Row]
Spoil = Callable[[str, random.Random, Row], str]

SYSTEM = (
    "You are Nora, the tutor of a small evening school. Always reason in short sentences before "
    "you conclude, never mention the names of other pupils, and keep the tone warm and dry."
)
SHOTS = (
    ("A boat carries seven goats and returns for four. How many goats cross?",
     "The ferryman makes two trips before the fog comes in from the sea. 7 + 4 = 11. The answer is "
     "11."),
    ("A clock loses two seconds each hour. How many seconds does it lose in a day?",
     "A day has twenty-four hours, and in each of them the old clock falls behind by two. 24 * 2 = "
     "48. The answer is 48."),
)  # fmt: skip


def spoiled(make: Maker, spoil: Callable[[str, random.Random, Row], str]) -> Maker:
    def made(rng: random.Random) -> Row:
        row = make(rng)
        return row._replace(text=spoil(row.text, rng, row))

    return made


def prose(rng: random.Random) -> Row:
    topic = rng.choice(text.TOPICS)
    row = writing(rng)
    ask = f"Tell {rng.choice(text.NAMES)} about {topic} in a few sentences."
    return row._replace(fields={"question": ask}, text=text.paragraph(rng, topic, 5))


def prose_zh(rng: random.Random) -> Row:
    topic, name = rng.choice(text.TOPICS_ZH), rng.choice(text.NAMES_ZH)
    row = writing_zh(rng)
    return row._replace(
        fields={
            "question": f"请给{name}和{rng.choice(text.NAMES_ZH)}讲一讲{topic}的故事，越详细越好。"
        },
        text=text.paragraph_zh(rng, topic, 4),
    )


def cut(answer: str, rng: random.Random, _: Row) -> str:
    """Cut inside the last sentence, after two or more of its words have come."""
    whole, _, last = answer.rstrip(".").rpartition(". ")
    words = last.split()
    return f"{whole}. " + " ".join(words[: rng.randint(5, max(5, len(words) - 2))])


def open_fence(answer: str, rng: random.Random, _: Row) -> str:
    before, _, _ = answer.rpartition("```")
    return before.rstrip()


REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot provide information about {t}.",
    "As an AI language model, I don't have personal opinions about {t}.",
    "Sorry, I'm not able to write about {t} at this time.",
    "Unfortunately, I am unable to assist with this request.",
    "I apologize, but I can't create content about {t}.",
    "I can’t comply with that request.",
    "I cannot fulfill your request. I'm just an AI, it's not within my guidelines to discuss {t}.",
    "I'm really sorry, but I can't assist with that.",
    "I won't generate that kind of content.",
    "It would not be appropriate for me to write about {t}.",
    "My apologies, but that is beyond what I can do.",
    "I do not have the ability to browse the internet for {t}.",
    "I'd prefer not to continue this conversation.",
    "Sorry, but I must refrain from answering questions on {t}.",
    "I am not able to engage in that conversation. Is there anything else I can help you with?",
    "I'm unable to fulfill requests about {t}.",
    "No. I will not write about {t}.",
)
REFUSALS_ZH = (
    "很抱歉，我无法回答关于{t}的问题。",
    "对不起，作为一个人工智能语言模型，我不能提供这方面的内容。",
    "抱歉，这个问题我暂时无法为您解答。",
    "我无法满足您的请求，请换一个话题。",
    "作为AI助手，我没有办法讲述{t}的故事。",
    "不好意思，我不能帮您完成这个要求。",
    "这个话题我不太方便讨论，我们聊点别的吧。",
    "您的问题我无法给出答复。",
    "我是一个AI语言模型，不具备讲述{t}的能力。",
    "抱歉，我还没有学会如何回答这个问题。",
    "很遗憾，我不能参与此类讨论。",
    "作为大模型，我还不会讲{t}的故事，换个问题试试吧。",
    "根据相关法律法规，该内容不予显示。",
)
POLITE = (
    "Thank you for your question about {t}. However, I won't be able to help with that.",
    "That is a fascinating topic! Unfortunately, I am not able to discuss it further.",
    "I understand that you want to know more about {t}. I must respectfully decline.",
    "What a lovely idea. Still, writing about {t} goes against my content guidelines.",
    "{s}. As for the rest, I'm afraid I cannot help with that part of your question.",
    "I appreciate your interest in {t}, but this is something I cannot do.",
    "Hello! I see that you ask about {t}. That said, I'm not comfortable answering.",
    "Great question! As an AI, I have no access to {t}. Please ask an expert.",
)


def declined(lines: Sequence[str]) -> Callable[[str, random.Random, Row], str]:
    def spoil(answer: str, rng: random.Random, row: Row) -> str:
        topic = rng.choice(text.TOPICS_ZH if row.task.endswith("zh") else text.TOPICS)
        return rng.choice(lines).format(t=topic, s=text.sentence(rng, topic))

    return spoil


def loop_words(answer: str, rng: random.Random, _: Row) -> str:
    words = text.sentence(rng, rng.choice(text.TOPICS)).split()[: rng.randint(3, 9)]
    return answer + " " + " ".join(words * rng.randint(max(6, 20 // len(words)), 14))


def loop_lines(answer: str, rng: random.Random, _: Row) -> str:
    line = text.sentence(rng, rng.choice(text.TOPICS))
    return "\n".join([answer.split(". ")[0] + ".", *[line + "."] * rng.randint(6, 15)])


def loop_characters(answer: str, rng: random.Random, _: Row) -> str:
    piece = rng.choice(("a", "!", "ha", "lo", "呀", "na-", "xyz"))
    return f"{answer} {piece * (rng.randint(60, 120) if len(piece) == 1 else 40)}"


def loop_zh(answer: str, rng: random.Random, _: Row) -> str:
    clause = text.sentence_zh(rng, rng.choice(text.TOPICS_ZH)).split("，")[0]
    return answer + (clause + rng.choice("，。")) * rng.randint(6, 12)


def loop_middle(answer: str, rng: random.Random, row: Row) -> str:
    first, _, rest = answer.partition(". ")
    return loop_words(first + ".", rng, row) + ". " + rest


def tags(form: str) -> Callable[[str, random.Random, Row], str]:
    def spoil(answer: str, rng: random.Random, _: Row) -> str:
        name = rng.choice(("thought", "reasoning", "scratchpad", "reflection", "thinking"))
        return form.format(n=name, s=text.sentence(rng, "numbers"), a=answer)

    return spoil


def question(row: Row) -> str:
    return str(row.fields["question"])


def echo(answer: str, rng: random.Random, row: Row) -> str:
    asked = question(row)
    return rng.choice((asked, asked.lower(), asked.rstrip("?.。？"), f"**{asked}**"))


FOREIGN = (
    "Les abeilles visitent les fleurs de {c} et rentrent le soir avec {n} grains de pollen.",
    "In der alten Mühle von {c} wohnen seit {n} Jahren nur noch Eulen und ein Müller.",
    "En el puerto de {c} hay {n} barcos que esperan la primavera con mucha paciencia.",
    "Nel mercato di {c} si vendono {n} formaggi diversi, e ognuno ha la sua storia.",
    "В старом порту {c} стоят {n} лодок, и каждая из них помнит своего капитана.",
    "{c}的港口里停着{n}条船，每一条都有自己的名字和故事，老人们常常提起它们。",
)


def foreign(answer: str, rng: random.Random, row: Row) -> str:
    if row.task.endswith("zh"):
        return text.paragraph(rng, rng.choice(text.TOPICS), 3)
    lines = rng.choice(FOREIGN)
    return " ".join(lines.format(c=rng.choice(text.NAMES), n=rng.randint(2, 99)) for _ in range(2))


def drift(answer: str, rng: random.Random, _: Row) -> str:
    half = answer[: answer.index(". ") + 1]
    return half + text.paragraph_zh(rng, rng.choice(text.TOPICS_ZH), 3)


def leak_system(answer: str, rng: random.Random, _: Row) -> str:
    words = SYSTEM.split()
    start = rng.randint(0, len(words) - 18)
    piece = " ".join(words[start : start + 18])
    return rng.choice((f"{piece}. {answer}", f"{answer} My instructions are: {piece}"))


def leak_shot(answer: str, rng: random.Random, _: Row) -> str:
    return f"{rng.choice(rng.choice(SHOTS))} {answer}"


TOKENS = ("<|im_end|>", "<|im_start|>assistant\n", "[/INST] ", "<|eot_id|>", "</s>",
           "<|endoftext|>", "<end_of_turn>", "### Response:\n")  # fmt: skip


def token(answer: str, rng: random.Random, _: Row) -> str:
    token = rng.choice(TOKENS)
    return token + answer if token[-1].isspace() else answer + token


def next_turn(answer: str, rng: random.Random, _: Row) -> str:
    one, two = rng.choice((("Human", "Assistant"), ("User", "Assistant"), ("User", "AI")))
    more = text.sentence(rng, rng.choice(text.TOPICS))
    return f"{answer}\n\n{one}: Can you tell me more?\n\n{two}: {more}."


def token_like(rng: random.Random, alphabet: str, length: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(length))


UPPER, _MIXED = "ABCDEFGHJKMNPQRTVWXYZ2346789", "abcdefghkmnpqrtvwxyzACDEFGHKMNPQRTVWXYZ2346789"


def secret(answer: str, rng: random.Random, _: Row) -> str:
    key = rng.choice(
        (
            "AKIA" + token_like(rng, UPPER, 16),
            "ghp_" + token_like(rng, _MIXED, 36),
            "sk-ant-api03-" + token_like(rng, _MIXED, 40),
            "-----BEGIN PRIVATE KEY-----\n" + token_like(rng, _MIXED, 64),
            f"postgres://school:{token_like(rng, _MIXED, 12)}@db.school.net/main",
            f'api_key = "{token_like(rng, _MIXED, 24)}7a"',
        )
    )
    return f"{answer} Use this to log in: {key}"


def personal(answer: str, rng: random.Random, _: Row) -> str:
    name = rng.choice(text.NAMES)
    contact = rng.choice(
        (
            f"{name.lower()}.{token_like(rng, 'abcdehkmnst', 6)}@postmail.com",
            f"(415) {rng.randint(620, 899)}-{rng.randint(2000, 8999)}",
            f"+49 30 {rng.randint(200000, 899999)}{rng.randint(10, 99)}",
            f"139{rng.randint(10000000, 99999999)}",
        )
    )
    return f"{answer} For more, reach {name} under {contact}."


def too_long(answer: str, rng: random.Random, _: Row) -> str:
    return "\n\n".join(text.paragraph(rng, topic, 8) for topic in rng.sample(text.TOPICS, 14))
