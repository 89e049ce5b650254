"""A deterministic chat-completions server for measurements: cheap per request, faults on order.

    python bench/bench_server.py --port 8700 --latency 0.05 --core 0

The answer is a function of the request body alone, so a client's rows can be checked by hash.
Faults are drawn from (body, how often it was seen), so a retry of a faulty row can succeed and
two clients meet the same faults. `GET /stats` tells what was asked: requests, distinct bodies,
answers by status, each second of them, and the seconds from the first request to the last answer.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.util
import json
import os
import time
from collections import Counter
from typing import cast


class Server:
    """Settings, counters and the token bucket shared by all connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.seen: Counter[bytes] = Counter()
        self.statuses: Counter[int] = Counter()
        self.timeline: Counter[tuple[int, int]] = Counter()  # (second, status)
        self.started = time.monotonic()
        self.first = self.last = self.started  # request, and answer
        self.level = options.limit * options.burst
        self.filled = self.started

    def take(self) -> bool:
        """One token of the rate limit, if there is one."""
        if not self.options.limit:
            return True
        now = time.monotonic()
        full = self.options.limit * self.options.burst
        self.level = min(full, self.level + (now - self.filled) * self.options.limit)
        self.filled = now
        if self.level < 1:
            return False
        self.level -= 1
        return True

    def fault(self, key: bytes) -> str:
        """Which fault this sight of this body meets."""
        options = self.options
        draw = hashlib.blake2b(key + self.seen[key].to_bytes(4, "big"), digest_size=8).digest()
        share = int.from_bytes(draw, "big") / 2**64
        for name in ("p429", "p500", "phang", "pcut"):
            share -= getattr(options, name)
            if share < 0:
                return name
        return ""

    def record(self, status: int) -> None:
        self.last = time.monotonic()
        self.statuses[status] += 1
        self.timeline[(int(self.last - self.started), status)] += 1

    def stats(self) -> bytes:
        timeline = [[second, status, n] for (second, status), n in sorted(self.timeline.items())]
        return json.dumps(
            {
                "requests": sum(self.seen.values()),
                "distinct": len(self.seen),
                "statuses": self.statuses,
                "timeline": timeline,
                "seconds": self.last - self.first,
            }
        ).encode()


def seconds_of(body: bytes, latency: float, slow_share: float, slow_factor: float = 10.0) -> float:
    """How long the answer to this body takes."""
    slow = hashlib.blake2b(body, digest_size=16).digest()[0] / 256 < slow_share
    return latency * slow_factor if slow else latency


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection; no pipelining, as no client here does it."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop
        self.buffer = b""
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return
        body = self.buffer[end + 4 : end + 4 + length]
        self.buffer = self.buffer[end + 4 + length :]
        self.closing = b"connection: close" in head
        if head.startswith(b"get"):
            self.send(200, self.server.stats())
        else:
            self.answer(body)

    def answer(self, body: bytes) -> None:
        server, options = self.server, self.server.options
        key = hashlib.blake2b(body, digest_size=16).digest()
        if not server.seen:
            server.first = time.monotonic()
        server.seen[key] += 1
        if options.poison and options.poison in body:
            return self.refuse(400)
        if not server.take():
            return self.refuse(429)
        fault = server.fault(key)
        if fault == "p429":
            return self.refuse(429)
        if fault == "phang":
            return server.record(0)
        latency = seconds_of(body, options.latency, options.slow_share, options.slow_factor)
        if fault == "p500":
            self.loop.call_later(latency, self.refuse, 500)
            return
        text = key.hex() * (options.reply_bytes // 32)
        reply = (
            b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"bench",'
            b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
            + text.encode()
            + b'"},'
            b'"finish_reason":"stop"}],"usage":{"prompt_tokens":64,"completion_tokens":512,'
            b'"total_tokens":576}}'
        )
        self.loop.call_later(latency, self.finish, reply, fault == "pcut")

    def refuse(self, status: int) -> None:
        self.server.record(status)
        extra = b"Retry-After: 1\r\n" if status == 429 else b""
        self.send(status, b'{"error":{"message":"not now"}}', extra)

    def finish(self, reply: bytes, cut: bool) -> None:
        if not cut:
            self.server.record(200)
            self.send(200, reply)
        elif not self.transport.is_closing():
            self.server.record(-1)
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply)
            self.transport.write(head + reply[: len(reply) // 2])
            self.transport.close()

    def send(self, status: int, body: bytes, extra: bytes = b"") -> None:
        if self.transport.is_closing():
            return
        self.transport.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
            % (status, extra, len(body))
            + body
        )
        if self.closing:
            self.transport.close()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one; it is printed")
    parser.add_argument("--core", type=int, help="run on this core only")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--reply-bytes", type=int, default=2048)
    parser.add_argument("--slow-share", type=float, default=0.0, help="share of slow answers")
    parser.add_argument("--slow-factor", type=float, default=10.0)
    parser.add_argument("--limit", type=float, default=0.0, help="requests a second; 0: no limit")
    parser.add_argument("--burst", type=float, default=0.1, help="bucket size in seconds of limit")
    parser.add_argument(
        "--poison", type=str.encode, default=b"", help="text of bodies refused with 400"
    )
    for name in ("p429", "p500", "phang", "pcut"):
        parser.add_argument(f"--{name}", type=float, default=0.0, help="share of requests")
    return parser.parse_args()


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    state = Server(options)
    server = await loop.create_server(
        lambda: Connection(state, loop), "127.0.0.1", options.port, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    settings = parse()
    if settings.core is not None:
        os.sched_setaffinity(0, {settings.core})
    if importlib.util.find_spec("uvloop"):
        import uvloop

        uvloop.run(serve(settings))
    else:
        asyncio.run(serve(settings))
