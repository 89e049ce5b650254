"""`language`: is the prose of an answer in the language that was wanted?

Detector: py3langid (BSD-3-Clause), 5 MB with its model of some 130 languages, no network. Its
probabilities fall with what there is to see, so names, numbers and one-word labels are never
certain enough to be dropped.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Literal

from pipeline.records import Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.curate.validity import taught

LEAST_LETTERS = 40  # of prose; a Chinese character counts for three, of Japanese and Korean too
LEAST_ASKED = 12  # letters of a question, counted likewise
POSSIBLE = 0.05  # probability from which a language may be the question's
FOREIGN_SHARE = 0.3  # of the letters, in a script that the wanted language does not have
MOST_CHARACTERS = 600  # of an answer that the detector reads; more makes it no surer

# Languages that the detector tells apart and a user mostly does not; a confidence is their sum.
_SAME_LANGUAGE = {
    **dict.fromkeys(("wuu", "yue", "hak", "nan", "lzh", "gan", "cdo", "zh-hant"), "zh"),
    **dict.fromkeys(("pcm", "sco", "jam"), "en"),
    **dict.fromkeys(("nb", "nn"), "no"),
    **dict.fromkeys(("bs", "hr", "sh", "srl"), "sr"),
    **dict.fromkeys(("ms", "id", "min"), "id"),
}
_NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$|\\\[.*?\\\]|\\\(.*?\\\)|\\[a-zA-Z]+"
    r"|https?://\S+|\S+@\S+|<[^<>\n]{1,80}>|^(?:[ ]{4}|\t).*$",
    re.DOTALL | re.MULTILINE,
)
_EAST_ASIAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_LETTER = re.compile(r"[^\W\d_]")
_LATIN_LETTER = re.compile(r"[A-Za-zÀ-ɏ]")
_LATIN = {
    *("en", "fr", "de", "es", "it", "pt", "nl", "sv", "da", "no", "fi", "is", "pl", "cs", "sk"),
    *("sl", "hr", "hu", "ro", "tr", "id", "vi", "ca", "et", "lv", "lt"),
}
_EAST = {"zh", "ja", "ko"}
_SIGNS_OF_CODE = re.compile(r"[{}<>=;()\[\]_#*/\\|]")
# A question that speaks of languages may want another one than its own.
_OF_LANGUAGES = re.compile(
    r"translat|\b(?:english|chinese|mandarin|cantonese|french|german|spanish|italian|japanese|korean"
    r"|russian|arabic|portuguese|dutch|latin|greek|hindi|turkish|polish|swedish|vietnamese|thai"
    r"|hebrew|ukrainian|danish|norwegian|finnish|czech|hungarian|romanian|indonesian|language)\b"
    r"|翻译|译成|译为|[英中汉法德日韩俄]语|[英中法德日韩俄]文|西班牙|阿拉伯|葡萄牙|语言",
    re.IGNORECASE,
)


def language(
    allow: Sequence[str] = (),
    same_as: Literal["prompt", "nothing"] | None = None,
    min_confidence: float = 0.8,
) -> Filter:
    """Drop answers whose prose is in another language than wanted, or half in another.

    `allow`: ISO 639-1 codes, [en, zh]. `same_as: prompt` (what holds where `allow` is not given):
    the language of the question, unless the question speaks of languages ("Translate ..."). A text
    of few letters, code and formulas are not judged. Score: the detector's confidence.
    """
    known = set(_detector().labels) | set(_SAME_LANGUAGE.values())
    if wrong := [code for code in allow if code not in known]:
        raise ValueError(f"allow: {wrong[0]!r} is no ISO 639-1 code the detector knows, as en, zh")
    if not 0 < min_confidence <= 1:
        raise ValueError(f"min_confidence is over 0 and at most 1; seen {min_confidence}")
    as_asked = (same_as or ("nothing" if allow else "prompt")) == "prompt"
    allowed = {_SAME_LANGUAGE.get(code, code) for code in allow}

    def check(row: Candidate) -> Verdict:
        text = prose(taught(row))
        east, other = _letters(text)
        if 3 * east + other < LEAST_LETTERS:
            return keep("language")
        wanted = set(allowed)
        if as_asked:
            question = str(row.seed.fields.get("question", ""))
            if _OF_LANGUAGES.search(question):
                return keep("language")
            wanted |= _languages_of(question)
        if not wanted:
            return keep("language")
        if share := _foreign(text, east, other, wanted):
            return drop("language", "much of it in the script of another language", share)
        found, confidence = detect(text)
        if found not in wanted and confidence >= min_confidence:
            return drop("language", f"{found} instead of {' or '.join(sorted(wanted))}", confidence)
        return keep("language", confidence)

    return check


def prose(text: str) -> str:
    """The words of a text, without code, formulas, addresses and tags."""
    plain = _NOT_PROSE.sub(" ", text)
    lines = [
        line for line in plain.splitlines() if len(_SIGNS_OF_CODE.findall(line)) <= len(line) / 12
    ]
    return "\n".join(lines)


def detect(text: str) -> tuple[str, float]:
    """The language of prose and the probability of it, dialects summed to their language."""
    sums = _shares(text)
    best = max(sums, key=lambda name: sums[name])
    return best, round(sums[best], 3)


def _shares(text: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for code, probability in _detector().rank(text[:MOST_CHARACTERS])[:12]:
        name = _SAME_LANGUAGE.get(code, code)
        sums[name] = sums.get(name, 0.0) + probability
    return sums


@functools.lru_cache(maxsize=4096)  # a question is asked in several samples
def _languages_of(question: str) -> frozenset[str]:
    """Every language that a question may be in: a short one may be in several."""
    text = prose(question)
    east, other = _letters(text)
    if 3 * east + other < LEAST_ASKED:
        return frozenset()
    return frozenset(name for name, share in _shares(text).items() if share >= POSSIBLE)


def _letters(text: str) -> tuple[int, int]:
    """Characters of East Asian scripts, letters of all others."""
    east = 0 if text.isascii() else len(_EAST_ASIAN.findall(text))
    return east, len(_LETTER.findall(text)) - east


def _foreign(text: str, east: int, other: int, wanted: set[str]) -> float:
    """The share of letters from a script that no wanted language uses, where it is large."""
    if text.isascii() and wanted.isdisjoint(_EAST):
        return 0.0
    latin = len(_LATIN_LETTER.findall(text))
    whole = 2 * east + other  # two letters say as much as one character, or less
    foreign = 0
    if wanted.isdisjoint(_EAST):
        foreign += 2 * east
    if wanted <= _LATIN:
        foreign += other - latin
    if wanted <= _EAST and latin > (1 - FOREIGN_SHARE) * whole:
        foreign += latin  # Chinese texts are full of names and terms in Latin letters
    return round(foreign / whole, 3) if foreign > FOREIGN_SHARE * whole else 0.0


@functools.cache
def _detector() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
