"""The base URL and the key of an endpoint, checked before anything is sent."""

from __future__ import annotations

from urllib.parse import urlsplit

from pipeline.errors import UserError
from pipeline.models.http_errors import public_url


def health_url(base_url: str) -> str:
    """Beside the API, not under it, with vLLM, SGLang and llama.cpp alike."""
    return base_url.removesuffix("/v1") + "/health"


def checked_url(url: str) -> str:
    base = url.strip().rstrip("/").removesuffix("/chat/completions")
    try:
        parts = urlsplit(base)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise UserError(
            f"serving.base_url: {public_url(url)!r} is no http or https URL; "
            "write it like http://127.0.0.1:8000/v1"
        )
    return base


def checked_key(key: str | None, variable: str | None) -> str | None:
    """The key without the line end that `export` from a file leaves; never part of a message."""
    key = (key or "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise UserError(
            f"the key in {variable or 'serving.api_key'} holds characters that cannot "
            "be sent in a header; set the variable again, without quotes or line breaks"
        )
    return key or None
