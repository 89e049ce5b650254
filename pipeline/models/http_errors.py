"""What a failed HTTP call means for the row, the endpoint and the run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

ERROR_TEXT = 500  # characters of a server's text that are kept

_RETRIED = frozenset({408, 409, 425})
_OVERLOAD = frozenset({429, 503, 529})


class Fate(Enum):
    RETRY = "retry"  # ask again; the endpoint may be ill
    BUSY = "busy"  # ask again, and ask less
    TIMEOUT = "timeout"  # both of these
    UNREACHABLE = "unreachable"  # no connection: the row is not to blame, it waits
    ROW = "row"  # this row will never be taken
    RUN = "run"  # no row will ever be taken


class Failure(msgspec.Struct):
    fate: Fate
    kind: str  # a class for counting: "429", "timeout", ...
    message: str
    retry_after: float | None = None  # seconds


def printable(text: str, secret: str | None = None) -> str:
    """Foreign text made safe to show: no control characters, no key, at most ERROR_TEXT long."""
    if secret:
        text = text.replace(secret, "[key]")
    text = "".join(c if c.isprintable() else " " for c in text[: 4 * ERROR_TEXT])
    return " ".join(text.split())[:ERROR_TEXT]


def public_url(url: str) -> str:
    """The URL without user, password and query, where people put keys."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait: `retry-after-ms`, or Retry-After in seconds or as a date."""
    try:
        if (ms := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(ms) / 1000)
    except ValueError:
        pass
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def error_text(body: bytes) -> str:
    """The server's own words: the message inside an error object, or the body as it is."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body[: 8 * ERROR_TEXT].decode("utf-8", "replace")
    error = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(error, dict):
        words = [str(error[key]) for key in ("message", "detail", "code") if error.get(key)]
        if words:
            return " ".join(words)
    return str(error)


def judge_status(status: int, headers: Mapping[str, str], body: bytes, proven: bool) -> Failure:
    """Classify an answer that is not 200. `proven`: this endpoint has answered a row before."""
    said = error_text(body)
    lower = said.lower()
    kind = str(status)

    def failure(fate: Fate) -> Failure:
        return Failure(fate, kind, f"HTTP {status}: {said}", retry_after(headers))

    if status == 402 or "insufficient_quota" in lower or b"insufficient_quota" in body:
        return failure(Fate.RUN)
    if status in _OVERLOAD:
        return failure(Fate.BUSY)
    if status in _RETRIED or status >= 500:
        return failure(Fate.RETRY)
    if status == 403 and ("moderation" in lower or "flagged" in lower):
        return failure(Fate.ROW)  # OpenRouter: this text was refused, not this key
    if status in (401, 403):
        return failure(Fate.RUN)
    if status in (404, 405):
        gone = "model" in lower or not proven
        return failure(Fate.RUN if gone else Fate.RETRY)  # a proxy whose backend restarts
    if 300 <= status < 400:
        return failure(Fate.RUN)
    return failure(Fate.ROW)


def judge_inner_error(error: Any) -> Failure:
    """A 200 with an error object in it: by its code, if that is an HTTP status, else retried."""
    body = msgspec.json.encode({"error": error})
    code = error.get("code") if isinstance(error, dict) else None
    try:
        status = int(code)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        status = 0
    if 400 <= status < 600:
        return judge_status(status, {}, body, proven=True)
    return Failure(Fate.RETRY, "error in 200", f"HTTP 200 with an error: {error_text(body)}")
