"""An answer without its wrapping: thinking blocks, template tokens, Markdown, unusual Unicode."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_READ = 60_000  # characters at each end of a text; what lies between cannot be the answer

_PUNCTUATION = str.maketrans(
    {
        "−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-", "，": ", ", "。": "。", "、": ", ",
        "：": ":", "；": ";", "！": "!", "？": "?", "（": "(", "）": ")", "％": "%", "＝": "=",
        "￥": "¥", "＄": "$", "＋": "+", "－": "-", "／": "/", "．": ".", "＃": "#",
        "⁄": "/", "\u200b": "", "\u2060": "", "\ufeff": "",
    }
)  # fmt: skip
_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_OPEN_THINKING = re.compile(r"<think(?:ing)?>.*\Z", re.DOTALL | re.IGNORECASE)
_TEMPLATE = re.compile(r"<\|[^|<>]{1,40}\|>|</?(?:s|think|answer|b|strong|br|p)\s*/?>", re.I)
_CALCULATOR = re.compile(r"<<[^<>]*>>")


def strip_markup(text: str, *, cut: bool) -> str:
    """Take off thinking blocks, template tokens, Markdown emphasis and unusual Unicode forms.

    With `cut`, a thinking block that was never closed is dropped too: its numbers are drafts.
    """
    if len(text) > 2 * _READ:
        text = text[:_READ] + "\n" + text[-_READ:]
    text = _THINKING.sub("\n", text) if "</think" in text else text
    if cut:
        text = _OPEN_THINKING.sub("", text)
    text = _CALCULATOR.sub("", _TEMPLATE.sub(" ", text))
    text = _unicode_numbers(text.translate(_PUNCTUATION))
    text = re.sub(r"~~[^~\n]{1,80}~~", " ", text)  # struck out: the model took it back
    text = re.sub(r"\*\*|__|`+|~~", "", text)
    text = re.sub(r"(?<![\w*\d])\*(?=\S)([^*\n]{1,80}?)(?<=\S)\*(?![\w*])", r"\1", text)
    return re.sub(r"^[ \t]*>+[ \t]?", "", text, flags=re.MULTILINE)


def _unicode_numbers(text: str) -> str:
    """ASCII for digits of every script, "1/2" for "½", "5^2" for "5²"; "m²" loses its "²"."""
    if text.isascii():
        return text
    out: list[str] = []
    previous, power = "", False
    for character in text:
        raised = unicodedata.decomposition(character).startswith("<super>")
        power = raised and (power or previous.isdecimal())
        if power:
            caret = "" if out[-1][0] == "^" or not previous.isdecimal() else "^"
            out.append(f"{caret}{unicodedata.normalize('NFKC', character)}")
            previous = character
            continue
        previous = character
        category = unicodedata.category(character)
        if category == "Nd":
            out.append(str(unicodedata.digit(character)))
        elif category == "No" and "VULGAR FRACTION" in unicodedata.name(character, ""):
            glue = " " if out and out[-1][-1:].isdigit() else ""
            exact = Fraction(unicodedata.numeric(character)).limit_denominator(100)
            out.append(f"{glue}{exact.numerator}/{exact.denominator}")
        elif category == "No":
            continue
        elif 0xFF21 <= ord(character) <= 0xFF5A:
            out.append(chr(ord(character) - 0xFEE0))
        else:
            out.append(character)
    return "".join(out)
