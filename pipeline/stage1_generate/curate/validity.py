"""Is this an answer at all? Finish reason, emptiness, length, an end in mid-sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.records import Finish, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep

_WORDS = re.compile(r"[\u3400-\u9fff]|[^\W_]+(?:['’-][^\W_]+)*")


def words(text: str) -> list[str]:
    """Words, lower case; every Chinese character counts as one."""
    return _WORDS.findall(text.lower())


def taught(row: Candidate) -> str:
    """What the student would learn to write of this answer."""
    return "\n\n".join(message.content for message in row.example.completion)


def finish(allow: Sequence[str] = ("stop",)) -> Filter:
    """Keep only answers that ended by themselves: a cut-off answer teaches to stop anywhere."""
    unknown = [value for value in allow if value not in set(Finish)]
    if unknown:
        raise ValueError(f"allow: {unknown[0]!r} is not one of {', '.join(Finish)}")
    allowed = {Finish(value) for value in allow}

    def check(row: Candidate) -> Verdict:
        got = row.generation.finish
        reason = row.generation.error or f"ended by {got.value}"
        return keep("finish") if got in allowed else drop("finish", reason)

    return check


def empty() -> Filter:
    """Drop answers without a letter or digit, and reasoning without an answer."""

    def check(row: Candidate) -> Verdict:
        if not _WORDS.search(row.generation.text):
            only = "only reasoning, no answer" if row.generation.reasoning else "no words"
            return drop("empty", only)
        return keep("empty")

    return check


def length(min_tokens: int = 1, max_tokens: int = 2048) -> Filter:
    """Length in the teacher's tokens, as reported; in words where it reports none."""

    def check(row: Candidate) -> Verdict:
        size = row.generation.usage.output or len(words(row.generation.text))
        if size < min_tokens:
            return drop("length", f"shorter than {min_tokens} tokens", size)
        if size > max_tokens:
            return drop("length", f"longer than {max_tokens} tokens", size)
        return keep("length", size)

    return check


_DANGLING = re.compile(
    r"(?:\b(?:the|a|an|of|and|or|to|with|is|are|was|were|in|on|at|by|for|from|that|which|because|than"
    r"|into|as|if|but|its|their|his|her|your|my|our)|[,，、;；(（\[{]|[一-鿿][的和与在把被从对将向])$",
    re.IGNORECASE,
)
# No key, address or formula, which end as they like.
_LAST_WORD = re.compile(r"(?:(?:^|[\s\"“(])[^\W\d_]+(?:['’-][^\W\d_]+)*|[一-鿿])$")
_AMOUNT = re.compile(r"\d\W*(?:[^\W\d]+\W*){0,2}$")  # "Answer: 35 minutes"
_STATES = re.compile(
    r"[=:：]|\b(?:answer|total|is|are|makes?|gives?|leaves?|costs?|needs?|has|have)\b|答|共|是|有",
    re.IGNORECASE,
)
_ENDS = re.compile(r"[.!?。！？…:：)\]}）】」』\"”'’*_`~|>$]$")
_NO_PROSE = re.compile(r"^\s*(?:[-*+•#>|]|\d+[.)、]|[A-Za-z][.)])\s?|^\s{4}|^\s*[$\\]")


def unfinished() -> Filter:
    """Drop answers that stop in the middle, though their finish reason is stop.

    Servers report a cut as `stop` when a stop string or their own limit ended it. Certain: a code
    fence or LaTeX box that is never closed, a last word that cannot end a sentence ("... of the").
    Likely: prose of whole sentences whose last one has no end; not looked at where the seed has
    constraints, which may ask for just that. Lists, labels, verse and code may end as they like.
    """

    def check(row: Candidate) -> Verdict:
        text = row.generation.text.rstrip()
        if text.count("```") % 2:
            return drop("unfinished", "a code fence is never closed")
        box = text.rfind("\\boxed{")
        if box >= 0 and text.count("}", box) < text.count("{", box):
            return drop("unfinished", "a \\boxed is never closed")
        last = text.rpartition("\n")[2]
        if text.endswith("```") or row.seed.constraints:
            return keep("unfinished")
        if _DANGLING.search(last[-12:]) and not _NO_PROSE.match(last) and len(words(text)) > 8:
            return drop("unfinished", "ends in mid-sentence")
        if _cut_prose(text, last):
            return drop("unfinished", "the last sentence has no end")
        return keep("unfinished")

    return check


def _cut_prose(text: str, last: str) -> bool:
    """Whether sentences with ends come before a last one of some length that has none."""
    if not _LAST_WORD.search(last[-24:]) or _NO_PROSE.match(last):
        return False
    sentences = re.split(r"(?<=[.!?])\s+|(?<=[。！？])", last)
    if _AMOUNT.search(last[-48:]) and _STATES.search(sentences[-1]):
        return False
    whole = [part for part in re.split(r"(?<=[.!?])\s+|(?<=[。！？])|\n", text) if part.strip()][
        :-1
    ]
    ended = sum(1 for part in whole if _ENDS.search(part.rstrip()))
    # A line of its own may be a signature or a title; verse has lines without ends throughout.
    own_line = len(sentences) == 1 and "\n" in text
    long_enough = len(words(sentences[-1])) >= (8 if own_line else 5)
    return len(whole) >= 1 + own_line and ended >= 0.8 * len(whole) and long_enough
