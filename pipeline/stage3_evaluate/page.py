"""A record and a template -> one HTML file, or a Markdown file, whole or not there.

The page is one file without any reference to the outside. Every text of a model, a seed or a
config is escaped, and a Content-Security-Policy lets no script run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline.stage3_evaluate import charts


def page_html(template: str, page: msgspec.Struct) -> str:
    """The template filled in; it knows the record as `page`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_hash"] = _script_hash
    environment.globals["arm_class"] = charts.arm_class
    return environment.get_template(template).render(page=page)


def _script_hash(script: str) -> str:
    found = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"sha256-{found}"


def write_text(path: Path, text: str, secrets: Sequence[str]) -> Path:
    """Write without the secrets; a text that is there is whole."""
    for secret in secrets:
        text = text.replace(secret, "***")
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(text.encode("utf-8", "replace"))
    os.replace(partial, path)
    return path
