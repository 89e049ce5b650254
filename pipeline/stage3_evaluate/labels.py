"""Which label an answer names; part of the frozen extractor (`answers.py`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.records import Extraction, Finish
from pipeline.stage3_evaluate.markup import strip_markup

_LABEL_PREFIX = re.compile(
    r"^\W*(?:(?:the|my|final|correct)\s+)*(?:label|answer|category|class|output|sentiment|topic"
    r"|type|prediction|标签|答案|类别|分类|输出|情感)\s*(?:is|are|would be|[:=是为]|->|→)+\s*",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"(?:\bnot|n't|\bnever|不是|并非|非)\s*(?:an?\s+|the\s+)?[\"'“‘]?$")


def extract_label(
    text: str, labels: Sequence[str], finish: Finish
) -> tuple[Extraction, str | None]:
    """Which of `labels` an answer names, spelled as in `labels`.

    The first line, or its first sentence, that is one label after "Label:" and punctuation are
    taken off; else the only label that the text mentions. Two different labels are NO_ANSWER, a
    cut text without an exact label is TRUNCATED. Case is ignored. Raises ValueError when
    `labels` is empty.
    """
    if not labels:
        raise ValueError("extract_label needs at least one label")
    if finish is Finish.ERROR:
        return Extraction.NO_ANSWER, None
    clean = strip_markup(text, cut=finish is Finish.LENGTH).strip()
    folded = {label.casefold(): label for label in labels}
    line = clean.splitlines()[0] if clean else ""
    body = _LABEL_PREFIX.sub("", line, count=1)
    candidates = (line, body, re.split(r"[.!?;,()]|\s-\s", body.lstrip("("))[0])
    for candidate in candidates:
        bare = re.sub(r"^[\W_]+|[\W_]+$", "", candidate).casefold()
        label = folded.get(candidate.strip().casefold()) or folded.get(bare)
        if label is None:
            continue
        longer = [other for other in folded if other != bare and other.startswith(bare)]
        if finish is Finish.LENGTH and candidate.strip() == clean and longer:
            return Extraction.TRUNCATED, None
        return Extraction.VALUE, label
    if finish is Finish.LENGTH:
        return Extraction.TRUNCATED, None
    mentioned = _mentions(clean.casefold(), folded)
    if len(mentioned) == 1:
        return Extraction.VALUE, folded[mentioned.pop()]
    return Extraction.NO_ANSWER, None


def _mentions(text: str, folded: dict[str, str]) -> set[str]:
    """Labels that stand in `text` as whole words and are not denied ("not positive")."""
    found: set[str] = set()
    for label in sorted(folded, key=len, reverse=True):  # "not spam" before "spam"
        left = r"(?<![a-z0-9_])" if label[:1].isascii() and label[:1].isalnum() else ""
        right = r"(?![a-z0-9_])" if label[-1:].isascii() and label[-1:].isalnum() else ""
        pattern = re.compile(left + re.escape(label) + right)
        for match in pattern.finditer(text):
            if not _NEGATED.search(text[max(0, match.start() - 16) : match.start()]):
                found.add(label)
        text = pattern.sub(lambda match: "\0" * len(match.group()), text)
    return found
