"""Instructions that a teacher wrote: taken out of its answers, and kept where they are new.

For the recipes whose answers are seeds of other tasks: self_instruct, evolve, magpie and
hard_examples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from rapidfuzz import process
from rapidfuzz.distance import Indel

from pipeline.errors import UserError
from pipeline.stage1_generate.curate.minhash import (
    Array,
    By,
    band_keys,
    bands_for,
    signatures,
)
from pipeline.stage1_generate.curate.validity import words
from pipeline.stage1_generate.recipes import Lost

# "1.", "2)", "**3.**", "Task 4:", "## 5、"
_NUMBER = re.compile(
    r"^[ \t#*_]*(?:(?:task|instruction|question|problem|任务|指令|问题|题目)[ \t]*)?"
    r"\#?\d{1,3}[ \t]*(?:[.)、．:：](?!\d)|\*\*)[*_ \t]*",
    re.I | re.M,
)
_BULLET = re.compile(r"^[ \t]*[-*•·–][ \t]+", re.M)
# What stands before the one instruction that was asked for.
_SURE = re.compile(
    r"^\s*(?:sure|certainly|of course|okay|ok|absolutely|好的|当然)(?: thing)?[,，!！.。:：]\s*",
    re.I,
)
_HERE = re.compile(
    r"^\s*(?:here(?:'s| is| are)|this is|以下是|下面是|这是)[^\n:：]{0,80}?"
    r"(?:task|instruction|question|problem|prompt|version|任务|指令|问题|题目)"
    r"[^\n:：]{0,80}[:：]\s*",
    re.I,
)
_TITLE = re.compile(
    r"^[\s#*_>\"“]*(?:(?:the|a|my)\s+)?(?:(?:new|next|re-?written|harder|revised|similar|created|新)"
    r"(?:的)?[ \t]*)*(?:task|instruction|question|problem|prompt|任务|指令|问题|题目)"
    r"[#*_ \t]*[:：][#*_\s]*",
    re.I,
)
_AFTERWORD = re.compile(
    r"\n\s*[#*_]*(?:explanation|note|reason|解释|说明|注)[*_ ]*[:：].*", re.I | re.S
)
# A teacher that loses its place speaks as what it is.
_ASSISTANT = re.compile(
    r"(?:sure|certainly|of course|absolutely)[,!. ]|.{0,40}\bas an ai\b|"
    r".{0,60}\bi(?:'m| am) (?:sorry|(?:happy|here|glad|ready) to (?:help|assist))|"
    r".{0,30}\b(?:helpful|ai) (?:ai )?assistant (?:named|called)|"
    r"how (?:can|may) i (?:help|assist) you|"
    r"(?:当然|好的)[，,！!]|.{0,20}作为(?:一个|一名)?(?:AI|人工智能)",
    re.I | re.S,
)
_QUOTES = {'"': '"', "“": "”", "'": "'", "「": "」", "`": "`", "**": "**", "*": "*"}
SHINGLE = 3  # characters
_FIRST_SURROGATE, _AFTER_SURROGATES = 0xD800, 0xE000


class Pool:
    """Texts so far, and whether a new one is too close to any of them.

    Close is ROUGE-L, the F measure of the longest common subsequence of words, as Self-Instruct
    (2212.10560) has it; `most_alike` is the least value that is too close. Memory: 4 bytes a word.
    Time: some 50 ns for each text of the pool and each new one.
    """

    def __init__(self, texts: Iterable[str] = (), most_alike: float = 0.7) -> None:
        self._most = most_alike
        self._letters: dict[str, str] = {}
        self._pool: list[str] = []
        self._known: list[str] = []
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._pool)

    def add(self, text: str) -> None:
        self._pool.append(self._encoded(text))
        self._known.append(text)

    def closest(self, text: str) -> tuple[float, str] | None:
        """(ROUGE-L, text) of the closest one, where that is too close; else None."""
        found = process.extractOne(
            self._encoded(text),
            self._pool,
            scorer=Indel.normalized_similarity,  # 2 LCS / (n + m): the F measure
            score_cutoff=self._most,
        )
        return (round(found[1], 3), self._known[found[2]]) if found else None

    def _encoded(self, text: str) -> str:
        """One character a word: the library is fastest on strings."""
        return "".join(self._letter(word) for word in words(text))

    def _letter(self, word: str) -> str:
        if word not in self._letters:
            code = len(self._letters) + 1
            if code >= _FIRST_SURROGATE:
                code += _AFTER_SURROGATES - _FIRST_SURROGATE
            self._letters[word] = chr(code)
        return self._letters[word]


class HashedPool:
    """The same for large pools: close is an estimated Jaccard similarity of shingles (MinHash).

    A shingle is three characters. Each text costs the same however large the pool is; one that is
    right at `most_alike` is missed in at most 5 % of cases. Memory: 0.5 KB a text.
    """

    def __init__(self, texts: Iterable[str] = (), most_alike: float = 0.7) -> None:
        self._most = most_alike
        self._bands, self._rows = bands_for(most_alike)
        self._index: dict[tuple[int, int], list[int]] = {}
        self._slots: list[Array] = []
        self._known: list[str] = []
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, text: str) -> None:
        slots, keys = self._signed(text)
        for key in keys:
            self._index.setdefault(key, []).append(len(self._known))
        self._slots.append(slots)
        self._known.append(text)

    def closest(self, text: str) -> tuple[float, str] | None:
        """(similarity, text) of the closest one, where that is too close; else None."""
        slots, keys = self._signed(text)
        found = {number for key in keys for number in self._index.get(key, ())}
        shares = [(float((self._slots[n] == slots).mean()), n) for n in sorted(found)]
        share, number = max(shares, default=(0.0, 0))
        return (round(share, 3), self._known[number]) if share >= self._most else None

    def _signed(self, text: str) -> tuple[Array, list[tuple[int, int]]]:
        slots, counts = signatures([text], SHINGLE, By.CHARACTERS)
        if not counts[0]:
            return slots[0], []
        keys = band_keys(slots, self._bands, self._rows)[:, 0]
        return slots[0], [(band, int(key)) for band, key in enumerate(keys)]


def pool_of(novelty: str, texts: Iterable[str], most_alike: float) -> Pool | HashedPool:
    """The pool that a recipe's options `novelty` and `most_alike` ask for."""
    kinds: dict[str, Callable[[Iterable[str], float], Pool | HashedPool]]
    kinds = {"rouge": Pool, "minhash": HashedPool}
    if novelty not in kinds:
        raise UserError(f"options.novelty: one of {', '.join(kinds)}; seen: {novelty!r}")
    if isinstance(most_alike, bool) or not 0 < most_alike <= 1:
        raise UserError(f"options.most_alike: above 0 and up to 1; seen: {most_alike!r}")
    return kinds[novelty](texts, most_alike)


def admit(pool: Pool | HashedPool, text: str, fault: str | None) -> Lost | None:
    """Take a text into the pool, unless it has a fault or is too close to one that is in it."""
    if fault is None and (near := pool.closest(text)):
        fault = "too close to another"
        text += f" [{near[0]} to: {near[1]}]"
    if fault is not None:
        return Lost(fault, text)
    pool.add(text)
    return None


def alike(left: str, right: str) -> float:
    """ROUGE-L of two texts, 0 to 1."""
    return float(Indel.normalized_similarity(words(left), words(right)))


def listed(text: str) -> list[str]:
    """The items of a numbered list in an answer, else of one with bullets; none without a list.

    Plain lines are no items: of a teacher that makes no list they are mostly talk about the task.
    """
    marker = next((m for m in (_NUMBER, _BULLET) if m.search(text)), None)
    if marker is None:
        return []
    starts = [(m.start(), m.end()) for m in marker.finditer(text)]
    ends = [start for start, _ in starts[1:]] + [len(text)]
    pieces = [text[begin:end] for (_, begin), end in zip(starts, ends, strict=True)]
    return [item for piece in pieces if (item := unwrapped(_asked(piece)))]


def _asked(piece: str) -> str:
    """An item without its answer, which some teachers put below it at once."""
    first, _, rest = piece.strip().partition("\n\n")
    if rest and not first.rstrip().endswith((":", "：")):
        piece = first
    line, _, below = piece.strip().partition("\n")
    answered = line.rstrip().endswith(("?", "？")) and below[:1].isalnum()
    return line if answered else piece


def single(text: str) -> str:
    """The one instruction that an answer holds, without what introduces it."""
    for lead in (_SURE, _HERE, _TITLE):
        text = lead.sub("", text.strip(), count=1)
    return unwrapped(_AFTERWORD.sub("", text))


def unwrapped(text: str) -> str:
    """Without quotation marks or emphasis around the whole."""
    text = text.strip()
    if text.count("**") % 2:  # the other one stood before the number or the title
        text = text.replace("**", "", 1).strip()
    for opening, closing in _QUOTES.items():
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inner.strip():
            if opening in inner or closing in inner:
                continue
            text = inner.strip()
    return text


def size_fault(text: str, fewest_words: int, most_words: int) -> str | None:
    """Why a text is too short or too long for an instruction, or None."""
    size = len(words(text))
    if size < fewest_words:
        return f"under {fewest_words} words"
    return f"over {most_words} words" if size > most_words else None


def speaker_fault(text: str) -> str | None:
    """Does the teacher speak of itself, or announce something, instead of asking? Else None."""
    if _ASSISTANT.match(text.strip()):
        return "speaks as an assistant"
    return "announces something" if text.rstrip().endswith((":", "：")) else None


def form_fault(text: str, blacklist: Sequence[str]) -> str | None:
    """Self-Instruct's other rules: things a text model cannot see or make, and odd beginnings."""
    for word in blacklist:
        pattern = rf"\b{re.escape(word)}\b" if word.isascii() else re.escape(word)
        if re.search(pattern, text, re.I):
            return f"names {word!r}"
    first = text[0]
    if not first.isalnum() and first not in "\"'“‘「《":
        return "begins with punctuation"
    letters = sum(c.isalpha() for c in text)
    return "hardly any letters" if letters < len("".join(text.split())) / 2 else None
