"""For vLLM's server (`--middleware`): nothing is answered without the key.

vLLM's own check covers paths under /v1 and a few others; /invocations, which can do the same as
these, is open to everybody who reaches the port.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Any

OPEN = ("/health", "/metrics")  # say nothing of what is asked

App = Callable[[Any, Any, Any], Awaitable[None]]


class Guard:
    """ASGI middleware: 401 for a request without the key of the variable VLLM_API_KEY."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._digest = _digest(f"Bearer {os.environ['VLLM_API_KEY']}".encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket") or self._may(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error": "no key, or a wrong one"}'})

    def _may(self, scope: Any) -> bool:
        if scope["path"] in OPEN:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(_digest(given), self._digest)


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
