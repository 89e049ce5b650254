"""Is this an answer at all? Finish reason, emptiness, length, loops, refusals."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence

from pipeline.records import Finish, Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep

# Only at the start of an answer: a story in which somebody says sorry is no refusal.
_REFUSALS = re.compile(
    r"""^\W*(
        (i['’]?m|i\ am|we['’]?re|we\ are)\ (very\ |so\ |really\ )?(sorry|afraid)\b[^.!?\n]{0,60}
            \b(can(['’]?t|not)|unable|not\ able|won['’]?t|don['’]?t)
      | (sorry|apologies|unfortunately)\b[^.!?\n]{0,40}
            \b(i|we)\b[^.!?\n]{0,20}\b(can(['’]?t|not)|unable|not\ able|won['’]?t)
      | i\ (can(['’]?t|not)|won['’]?t|am\ unable\ to|am\ not\ able\ to)\ (\w+\ ){0,2}
            (help|assist|comply|fulfil|fulfill|provide|answer|do\ that|create|generate|write|share)
      | as\ an?\ (ai|artificial|language|large\ language)\b
      | i['’]?m\ (just\ )?an\ ai\b
      | (很|非常|十分)?(抱歉|对不起|遗憾)[，,。！!]?[^。！？\n]{0,20}
            (无法|不能|不可以|没有办法|没办法)
      | 我(无法|不能|没有办法|没办法)(回答|提供|帮助|协助|满足|完成|生成|为您|为你)
      | 作为(一个|一名)?(人工智能|AI|语言模型|大语言模型)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_WORDS = re.compile(r"[\u3400-\u9fff]|[^\W_]+(?:['’-][^\W_]+)*")


def words(text: str) -> list[str]:
    """Words, lower case; every Chinese character counts as one."""
    return _WORDS.findall(text.lower())


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
        if not words(row.generation.text):
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


def repetition(max_share: float = 0.5, max_lines: int = 4) -> Filter:
    """Drop loops: text that repeats itself.

    Score: the larger of the share of 4-grams of words that are repeats (Gopher's idea,
    2112.11446) and, for long texts, what zlib saves beyond ordinary prose.
    """

    def check(row: Candidate) -> Verdict:
        text = row.generation.text
        lines = Counter(line.strip() for line in text.splitlines() if len(line.strip()) > 8)
        _line, times = lines.most_common(1)[0] if lines else ("", 0)
        if times > max_lines:
            return drop("repetition", f"the same line {times} times", times)
        tokens = words(text)
        grams = [tuple(tokens[i : i + 4]) for i in range(len(tokens) - 3)]
        share = 1 - len(set(grams)) / len(grams) if len(grams) >= 8 else 0.0
        data = text.encode()
        if len(data) > 400 and len(zlib.compress(data)) / len(data) < 0.12:
            return drop("repetition", "compresses like a loop", round(share, 3))
        if share > max_share:
            return drop("repetition", "repeated 4-grams", round(share, 3))
        return keep("repetition", round(share, 3))

    return check


def refusal() -> Filter:
    """Drop answers that begin with a refusal, in English or Chinese."""

    def check(row: Candidate) -> Verdict:
        found = _REFUSALS.match(row.generation.text.lstrip()[:300])
        return drop("refusal", found.group(0).strip()[:60]) if found else keep("refusal")

    return check
