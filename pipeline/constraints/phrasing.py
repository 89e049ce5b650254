"""Does an instruction in a person's words still ask for a constraint?

A teacher that rewrites an instruction may lose a requirement; then good answers would be thrown
away for breaking what nobody asked. Checked by what can be checked without a judge: every
parameter must stand in the text, and some word that asks for a thing of this type.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from pipeline.constraints import kind_named
from pipeline.constraints.kinds import Param
from pipeline.records import Constraint

_NUMBER_WORDS = {
    1: "one once single 一", 2: "two twice both pair 二 两", 3: "three thrice 三", 4: "four 四",
    5: "five 五", 6: "six 六", 7: "seven 七", 8: "eight 八", 9: "nine 九", 10: "ten 十",
    11: "eleven 十一", 12: "twelve dozen 十二", 15: "fifteen 十五", 20: "twenty 二十",
    30: "thirty 三十", 40: "forty 四十", 50: "fifty 五十", 100: "hundred 一百",
}  # fmt: skip


def unnamed(constraint: Constraint, text: str, language: str = "en") -> str | None:
    """What of `constraint` the text does not say, or None if it says all."""
    kind = kind_named(constraint.type)
    for name, form in kind.params.items():
        value = constraint.params[name]
        if form is Param.COUNT and not _says_number(int(value), text):
            return f"{constraint.type}: the number {value}"
        if form is Param.LETTER and not re.search(
            rf"(?<![a-z]){re.escape(str(value))}(?![a-z])", text, re.IGNORECASE
        ):
            return f"{constraint.type}: the letter {value}"
        if form in (Param.TEXT, Param.TEXTS):
            for wanted in _texts(value):
                if wanted not in text:
                    return f"{constraint.type}: the text {wanted!r:.60}"
    signs = _signs(constraint.type, language)
    if signs and not signs & _units(text, language):
        return f"{constraint.type}: the requirement itself"
    return None


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _says_number(number: int, text: str) -> bool:
    if re.search(rf"(?<!\d){number}(?!\d)", text):
        return True
    words = _NUMBER_WORDS.get(number, "").split()
    return any(
        re.search(rf"\b{word}\b", text, re.IGNORECASE) if word.isascii() else word in text
        for word in words
    )


@lru_cache(maxsize=256)
def _signs(type_name: str, language: str) -> frozenset[str]:
    """What the wordings of a type are made of, without what says little."""
    wordings = kind_named(type_name).wordings.get(language, ())
    return _units(" ".join(re.sub(r"\{\w+:?(\w*)\}", r"\1", one) for one in wordings), language)


_LITTLE = (
    "the and are for not any use how why who can you was its may yet your with that them this each "
    "only from have answer write make please about than more least most must should something into "
    "some will what which where when they tell give"
)
_COMMON = frozenset(_LITTLE.split())
_COMMON_ZH = frozenset("的了是在有和与你我请不要写用一个这那为以及到上下中人大小来去说介绍")


def _units(text: str, language: str) -> frozenset[str]:
    """Beginnings of words ("capital" is in "capitals" too), or Chinese characters."""
    if language == "zh":
        return frozenset(re.findall(r"[\u3400-\u9fff]", text)) - _COMMON_ZH
    words = re.findall(r"[a-z]+", text.lower())
    return frozenset(word[:4] for word in words if len(word) > 2 and word not in _COMMON)
