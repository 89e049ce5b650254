"""A real HTTP server with an OpenAI-compatible chat endpoint, for tests: faults on order.

    with FakeServer() as server:
        server.behave = lambda ask: Reply(status=500) if ask.seen == 1 else ask.answer()

An undisturbed answer is a function of the messages alone. Every request body is counted by hash,
so a test can say what was asked, how often, and what was asked twice.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server does. `hang`: never answers. `cut`: closes after half of the body."""

    status: int = 200
    body: bytes | dict[str, Any] = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hang: bool = False
    cut: bool = False

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Ask:
    """One request as the server sees it."""

    body: dict[str, Any]
    headers: dict[str, str]
    seen: int  # how often this body has come, this time included

    @property
    def text(self) -> str:
        return str(self.body["messages"][-1]["content"])

    def answer(
        self,
        content: str | None = None,
        *,
        message: dict[str, Any] | None = None,
        finish: str | None = "stop",
        choice: dict[str, Any] | None = None,
        usage: dict[str, int] | None = None,
        delay: float = 0.0,
    ) -> Reply:
        """A well-formed completion; `message` and `choice` add to those objects."""
        content = answer_to(self.body["messages"]) if content is None else content
        said = {"role": "assistant", "content": content} | (message or {})
        body: dict[str, Any] = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": said, "finish_reason": finish} | (choice or {})],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3} if usage is None else usage,
        }
        return Reply(body=body, delay=delay)


def answer_to(messages: list[dict[str, str]]) -> str:
    """The undisturbed answer to these messages."""
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()


class FakeServer:
    """Serves on a free port of the loop-back device from a thread; use it as a context."""

    def __init__(self, port: int = 0, latency: float = 0.0) -> None:
        self.behave: Callable[[Ask], Reply] = lambda ask: ask.answer(delay=latency)
        self.bodies: Counter[str] = Counter()
        self.asks: list[Ask] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server = _Listener(("127.0.0.1", port), _handler(self))
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.drop_connections()

    @property
    def requests(self) -> int:
        return sum(self.bodies.values())

    def take(self, raw: bytes, headers: dict[str, str]) -> Reply:
        with self._lock:
            key = hashlib.sha256(raw).hexdigest()
            self.bodies[key] += 1
            ask = Ask(json.loads(raw), headers, self.bodies[key])
            self.asks.append(ask)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            reply = self.behave(ask)
        if reply.hang:
            self._released.wait()
        elif reply.delay:
            time.sleep(reply.delay)
        with self._lock:
            self.in_flight -= 1
        return reply


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, *args: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away is what some tests are about

    def drop_connections(self) -> None:
        """A dead server's kept-alive connections die with it."""
        for connection in self.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def _handler(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.reply(Reply(status=200 if self.path == "/health" else 404))

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/v1/chat/completions":
                self.reply(Reply(status=404, body={"detail": "Not Found"}))
                return
            self.reply(server.take(raw, dict(self.headers)))

        def reply(self, reply: Reply) -> None:
            if reply.hang:
                self.close_connection = True
                return
            body = reply.encoded()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if reply.cut else body)
            self.close_connection = self.close_connection or reply.cut

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
