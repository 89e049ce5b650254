"""What must not be learned by heart: `secrets` and `personal_data`. Both are off by default.

Keys and tokens: the patterns of detect-secrets, those of its detectors that know a token by its
form (the ones for high entropy find every hash and id), and newer forms beside them. Personal data:
phonenumbers, python-stdnum. Both have `mask`, so that 2_dropped.jsonl never holds what was found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

from pipeline.records import Verdict
from pipeline.stage1_generate.curate import Candidate, Filter, drop, keep
from pipeline.stage1_generate.curate.validity import taught

Personal = Literal["email", "phone", "card", "iban", "id"]
PERSONAL: tuple[Personal, ...] = ("email", "phone", "card", "iban", "id")


class Span(NamedTuple):
    start: int
    end: int
    kind: str


_FORMS = {  # newer than the detectors of the library
    "Anthropic Key": r"sk-ant-[A-Za-z0-9_-]{24,}",
    "OpenAI Key": r"sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{24,}",
    "Google API Key": r"AIza[0-9A-Za-z_-]{35}",
    "Google OAuth Secret": r"GOCSPX-[0-9A-Za-z_-]{28}",
    "GitHub Token": r"github_pat_[0-9A-Za-z_]{40,}",
    "Hugging Face Token": r"hf_[A-Za-z]{34}",
    "GitLab Token": r"glpat-[0-9A-Za-z_-]{20,}",
    "Slack Token": r"xox[abprs]-[0-9A-Za-z-]{10,}",
    "Connection with Password": r"[a-z][a-z0-9+]{2,15}://[^\s:/@]{1,60}:[^\s:/@]{6,80}@[\w.-]+",
    "Password": r"(?i:\b(?:password|passwd|secret_?key|api_?key|access_?token|auth_?token)\b"
    r"[\"']?\s*(?:[:=]|\bis\b)\s*[\"']?)(?=[^\s\"']*\d)(?=[^\s\"']*[A-Za-z])[^\s\"'<>{}]{12,}",
}
# What these find is mostly no secret; private keys are found whole below.
_NOT_BY_FORM = {
    "Base64 High Entropy String",
    "Hex High Entropy String",
    "Public IP (ipv4)",
    "Private Key",
    "Secret Keyword",
}
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r".*?(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_OWN = re.compile("|".join(f"(?P<f{i}>{form})" for i, form in enumerate(_FORMS.values())))
# Documentation shows such on purpose.
_EXAMPLE = re.compile(
    r"example|your[-_]|placeholder|dummy|changeme|redacted|xxxx|\*{4}|\.\.\.|0123456789|abcdef0123",
    re.I,
)


def secrets() -> Filter:
    """Drop answers with a key, a token, a private key or a password of some strength.

    The reason is the kind alone. The prompt that the student sees is looked at as well.
    """
    return Secrets()


def personal_data(
    kinds: Sequence[Personal] = PERSONAL, regions: Sequence[str] = ("US", "CN")
) -> Filter:
    """Drop answers with personal data of the given kinds.

    Phone numbers are read as written in `regions` (ISO 3166 codes) or with an international prefix;
    cards, IBANs and the identity numbers of China and the USA count where their check digits are
    right. Reserved examples (example.com, 555-01xx) and what the question itself gives are no find.
    """
    return PersonalData(kinds, regions)


class Secrets:
    """The filter `secrets`, and a mask for what it finds."""

    def __call__(self, row: Candidate) -> Verdict:
        found = next(secrets_in(_all(row)), None)
        return drop("secrets", found.kind) if found else keep("secrets")

    def mask(self, text: str) -> str:
        return masked(text, secrets_in(text))


class PersonalData:
    """The filter `personal_data`, and a mask for what it finds."""

    def __init__(self, kinds: Sequence[Personal], regions: Sequence[str]) -> None:
        import phonenumbers

        if not kinds:
            raise ValueError(f"kinds is at least one of {', '.join(PERSONAL)}")
        unknown = [r for r in regions if r not in phonenumbers.SUPPORTED_REGIONS]
        if unknown:
            raise ValueError(f"regions: {unknown[0]!r} is no ISO 3166 code, as US, CN, GB")
        self._kinds, self._regions = frozenset(kinds), tuple(regions)

    def __call__(self, row: Candidate) -> Verdict:
        asked = "\n".join(m.content for m in row.example.prompt)
        text = taught(row)
        for span in self._find(text):
            if text[span.start : span.end] not in asked:
                return drop("personal_data", span.kind)
        return keep("personal_data")

    def mask(self, text: str) -> str:
        return masked(text, self._find(text))

    def _find(self, text: str) -> Iterator[Span]:
        if "email" in self._kinds and "@" in text:
            yield from _emails(text)
        if _DIGITS.search(text) is None:
            return
        taken: list[Span] = []
        for kind, find in (("id", _ids), ("iban", _ibans), ("card", _cards)):
            if kind in self._kinds:
                taken += find(text)
        yield from taken
        if "phone" in self._kinds:
            phones = _phones(text, self._regions)
            yield from (
                p for p in phones if not any(t.start < p.end > p.start < t.end for t in taken)
            )


def _all(row: Candidate) -> str:
    examples = row.examples or (row.example,)
    return "\n".join(m.content for e in examples for m in (*e.prompt, *e.completion))


def masked(text: str, spans: Iterator[Span]) -> str:
    """`text` with each find replaced by its kind: "[OpenAI Key]"."""
    out, place = [], 0
    for span in sorted(spans):
        if span.end <= place:
            continue
        out += [text[place : max(place, span.start)], f"[{span.kind}]"]
        place = span.end
    return "".join([*out, text[place:]])


def secrets_in(text: str) -> Iterator[Span]:
    """Every key, token, private key or password in `text`."""
    for key in _PRIVATE_KEY.finditer(text):
        yield Span(key.start(), key.end(), "Private Key")
    for found in _OWN.finditer(text):
        if not _EXAMPLE.search(found[0]):
            yield Span(found.start(), found.end(), list(_FORMS)[int((found.lastgroup or "f0")[1:])])
    for kind, patterns in _detectors():
        for pattern in patterns:
            for found in pattern.finditer(text):
                if not _EXAMPLE.search(found[0]):
                    yield Span(found.start(), found.end(), kind)


@cache
def _detectors() -> tuple[tuple[str, tuple[re.Pattern[str], ...]], ...]:
    """The library's detectors of tokens that are known by their form."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    found: dict[str, Any] = get_mapping_from_secret_type_to_class()
    kept = {kind: plugin for kind, plugin in found.items() if kind not in _NOT_BY_FORM}
    return tuple((kind, tuple(plugin.denylist)) for kind, plugin in kept.items())


_DIGITS = re.compile(r"\d(?:[\s().-]{0,2}\d){6}")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,4}[A-Za-z]{2,24}\b")
_RESERVED = re.compile(
    r"@(?:[\w-]+\.)*(?:example(?:\.\w+)?|test|invalid|localhost|domain\.com)$", re.I
)
_CARD = re.compile(
    r"(?<![\d.])[3-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{1,7}(?![\d.]*\d)"
    r"|(?<!\d)3[47]\d{2}[ -]\d{6}[ -]\d{5}(?!\d)"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CHINESE_ID = re.compile(r"(?<!\d)[1-9]\d{16}[\dXx](?!\d)")
_SSN = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")


def _emails(text: str) -> Iterator[Span]:
    for found in _EMAIL.finditer(text):
        if not _RESERVED.search(found[0]):
            yield Span(found.start(), found.end(), "email")


def _ids(text: str) -> list[Span]:
    from stdnum.cn import ric
    from stdnum.us import ssn

    found = [m for m in _CHINESE_ID.finditer(text) if ric.is_valid(m[0])]
    found += [m for m in _SSN.finditer(text) if ssn.is_valid(m[0])]
    return [Span(m.start(), m.end(), "id") for m in found]


def _ibans(text: str) -> list[Span]:
    from stdnum import iban

    return [Span(m.start(), m.end(), "iban") for m in _IBAN.finditer(text) if iban.is_valid(m[0])]


def _cards(text: str) -> list[Span]:
    from stdnum import luhn

    found = [(m, re.sub(r"\D", "", m[0])) for m in _CARD.finditer(text)]
    return [
        Span(m.start(), m.end(), "card")
        for m, digits in found
        if 13 <= len(digits) <= 19 and luhn.is_valid(digits) and len(set(digits)) > 3
    ]


def _phones(text: str, regions: tuple[str, ...]) -> Iterator[Span]:
    from phonenumbers import Leniency, PhoneNumberMatcher

    seen: set[int] = set()
    for region in regions or (None,):
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING):
            national = str(match.number.national_number)
            written = match.raw_string
            # Digits alone, or a decimal, are as likely a number of arithmetic; a Chinese mobile
            # number is written just so.
            bare = re.fullmatch(r"\d+[.,]?\d*", written) and not (
                region == "CN" and re.fullmatch(r"1[3-9]\d{9}", written)
            )
            fictional = match.number.country_code == 1 and national[3:8] == "55501"
            if match.start not in seen and not bare and not fictional:
                seen.add(match.start)
                yield Span(match.start, match.end, "phone")
