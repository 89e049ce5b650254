"""Sentences and stories for planted.py: plain, endless, no two paragraphs alike."""

from __future__ import annotations

import random


def listed(words: str) -> list[str]:
    return words.split()


NAMES = listed(
    "Ann Boris Carla Dmitri Elena Farid Greta Hugo Ines Jonas Kira Leo Mina Noor Omar Petra Quinn "
    "Rosa Samir Tove Uma Viktor Wanda Xenia Yusuf Zoe Amir Birgit Caleb Dora Emil Freya Gita Hana"
)
NAMES_ZH = listed("小明 小红 小刚 小丽 小华 小芳 小军 小梅 阿强 阿珍 李雷 韩梅 王磊 张敏 刘洋 陈静")
THINGS = listed(
    "apples pears stamps marbles books pencils shells coins buttons candles postcards lemons "
    "oranges ribbons stickers tiles cups plates bottles baskets balloons flowers kites badges"
)
THINGS_ZH = listed("苹果 梨 橘子 铅笔 本子 贴纸 气球 糖果 鸡蛋 贝壳 邮票 徽章")
PLACES = listed(
    "harbour village market library station garden museum bakery valley castle island school "
    "theatre workshop orchard bridge lighthouse monastery farm square"
)
ADJECTIVES = listed(
    "quiet bright narrow patient curious heavy gentle ancient clever busy lonely generous crooked "
    "cheerful careful distant hidden slow warm brave"
)
TOPICS = listed(
    "bees rivers bridges glaciers clocks bicycles volcanoes owls bread violins lighthouses "
    "mushrooms tides maps whales comets kites canals deserts windmills salt paper glass wool "
    "honey coral lanterns railways gardens foxes"
)

_FRAMES = (
    "People in the {a} {p} have known {t} for about {n} years",
    "It takes roughly {n} days before {t} change in a way that one can measure",
    "A {a} teacher from the {p} once compared {t} with a {b} conversation",
    "Without {t}, the {p} would lose something that no machine can replace",
    "{N} keeps notes on {t} and reads them aloud in the {p} every {m}",
    "The first thing to notice about {t} is how {a} they seem at dawn",
    "In {m}, children walk to the {p} and draw {t} on {b} paper",
    "Scientists measured {t} near the {p} and found {n} small differences",
    "Older books describe {t} as {a}, while newer ones prefer the word {b}",
    "Many visitors come to the {p} only because of {t} and leave with a {a} smile",
    "When the weather turns {a}, {t} need more care than usual",
    "{N} and {O} argued about {t} for {n} minutes and then laughed",
    "There is a {b} museum beyond the {p} where {t} fill {n} rooms",
    "A simple way to understand {t} is to watch them from the {p} at noon",
    "Farmers say that {t} bring luck to a {a} {p}",
    "The word for {t} in the old dialect of the {p} also means {b}",
    "Whoever studies {t} learns to be {a} and a little {b}",
    "After the storm, {N} repaired the {p} and planted {n} trees",
    "Both {t} and the {p} depend on a {a} balance of light and water",
    "{O} wrote a {b} letter about {t} to the people of the {p}",
    "Some {t} travel further than the {p}, others stay within {n} metres of home",
    "It is a {a} mistake to believe that {t} are all the same",
)
_FRAMES_ZH = (
    "{p}里的人们认识{t}已经有{n}年了",
    "要想了解{t}，最好的办法是在{m}去{p}看一看",
    "{N}每天都会在{p}记录{t}的变化，已经坚持了{n}天",
    "很多书上说{t}是{a}的，其实并不完全是这样",
    "如果没有{t}，{p}的生活会变得{a}许多",
    "科学家在{p}附近测量了{t}，发现了{n}处细小的差别",
    "孩子们喜欢在{m}画{t}，老师总是夸他们{a}",
    "研究{t}的人需要耐心，也需要{a}的眼光",
    "{N}和{O}为{t}争论了{n}分钟，最后都笑了起来",
    "下雨以后，{p}的{t}看起来格外{a}",
    "到了{m}，从各地来的客人都会到{p}欣赏{t}",
    "老人们常说，{t}给{p}带来了好运",
    "一个{a}的工匠花了{n}个月，才把{p}修好",
    "{t}和{p}一样，都离不开阳光与水",
)
TOPICS_ZH = listed(
    "蜜蜂 河流 古桥 冰川 钟表 火山 猫头鹰 面包 灯塔 蘑菇 潮汐 地图 鲸鱼 风车 丝绸 茶叶"
)
PLACES_ZH = listed("村庄 港口 图书馆 车站 花园 山谷 学校 岛屿 集市 果园 小镇 博物馆")
ADJECTIVES_ZH = listed("安静 明亮 古老 聪明 温和 遥远 神秘 热闹 细致 勇敢 美丽 缓慢")
_MONTHS = listed("January February March April May June July August September October")
_MONTHS_ZH = listed("春天 夏天 秋天 冬天 清晨 傍晚 周末 节日")


def sentence(rng: random.Random, topic: str) -> str:
    names = rng.sample(NAMES, 2)
    adjectives = rng.sample(ADJECTIVES, 2)
    text = rng.choice(_FRAMES).format(
        t=topic, a=adjectives[0], b=adjectives[1], p=rng.choice(PLACES), n=rng.randint(3, 480),
        N=names[0], O=names[1], m=rng.choice(_MONTHS),
    )  # fmt: skip
    return text[0].upper() + text[1:]


def sentence_zh(rng: random.Random, topic: str) -> str:
    names = rng.sample(NAMES_ZH, 2)
    return rng.choice(_FRAMES_ZH).format(
        t=topic, a=rng.choice(ADJECTIVES_ZH), p=rng.choice(PLACES_ZH), n=rng.randint(3, 480),
        N=names[0], O=names[1], m=rng.choice(_MONTHS_ZH),
    )  # fmt: skip


def paragraph(rng: random.Random, topic: str, sentences: int) -> str:
    return ". ".join(sentence(rng, topic) for _ in range(sentences)) + "."


def paragraph_zh(rng: random.Random, topic: str, sentences: int) -> str:
    return "。".join(sentence_zh(rng, topic) for _ in range(sentences)) + "。"


def poem(rng: random.Random, topic: str) -> str:
    """Five verses, each of two lines of its own and a refrain of one or two."""
    refrain = f"And the {rng.choice(PLACES)} sleeps by the {rng.choice(ADJECTIVES)} sea"
    lines = [refrain + ",", refrain + "."] if rng.random() < 0.5 else [refrain + "."]
    verses = [
        "\n".join([sentence(rng, topic) + ",", sentence(rng, topic) + ",", *lines])
        for _ in range(5)
    ]
    return "\n\n".join(verses)


def apology(rng: random.Random, topic: str) -> str:
    """A story whose people regret and refuse, in quotation marks and without."""
    one, two = rng.sample(NAMES, 2)
    said = rng.choice(
        (
            f"“I'm sorry, I can't help you with the {topic},” said {one}.",
            f'"Sorry," {one} whispered, "I cannot answer that question."',
            f"{one} was sorry about the {topic} and could not say a word.",
            f'"I won\'t do that," said {one}. "It is against my principles."',
            f"“Unfortunately I am unable to share the {topic},” {one} wrote.",
        )
    )
    return f"{sentence(rng, topic)}. {said} {two} nodded and went to the {rng.choice(PLACES)}. " + (
        paragraph(rng, topic, 3)
    )


def letter(rng: random.Random) -> str:
    one, two = rng.sample(NAMES, 2)
    regret = rng.choice(
        (
            "I am sorry, but I cannot come to your party",
            "Unfortunately, we can't offer you the room in the old mill",
            "We regret that we are unable to lend you the boat",
            "I'm afraid I have to decline your kind invitation",
        )
    )
    reason = sentence(rng, rng.choice(TOPICS))
    return f"Dear {one},\n\n{regret} on the {rng.randint(2, 28)}th. {reason}.\n\nYours,\n{two}"


def table(rng: random.Random) -> str:
    """Cells that repeat, as they do in a timetable."""
    cell = rng.choice(("none", "open", "closed", "yes", "sunny", "0"))
    other = rng.choice(("some", "early", "late", "no", "rain", "1"))
    rows = [
        f"| {place} | {cell} | {cell if rng.random() < 0.8 else other} | {cell} |"
        for place in rng.sample(PLACES, rng.randint(5, 12))
    ]
    return "\n".join(["| place | morning | noon | evening |", "|---|---|---|---|", *rows])


def counting(rng: random.Random) -> str:
    """A count, a times table, a vector, digits that repeat: numbers that only look like loops."""
    first, factor = rng.randint(1, 400), rng.randint(3, 97)
    return rng.choice(
        (
            ", ".join(str(first + i) for i in range(rng.randint(20, 60))),
            "\n".join(f"{factor} x {i} = {factor * i}" for i in range(1, 13)),
            "\n".join(f"{i}. {name}" for i, name in enumerate(rng.sample(NAMES, 20), first)),
            f"{first} / 7 = {first / 7:.10f}...: 142857 comes again and again, "
            + "142857" * rng.randint(3, 6),
            "[" + ", ".join(["0"] * rng.randint(20, 48)) + f", {factor}]",
        )
    )
