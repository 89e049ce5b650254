"""A real HTTP server with the files and batches of an OpenAI-compatible provider, for tests.

    with FakeBatches() as server:
        server.hook = lambda event, when: Reply(status=502) if (event, when) == ... else None

Events are upload, create, list, look, cancel, content, delete and chat. `hook` is called before
and after the effect of each, and may answer instead: a 502 after a create is an answer that got
lost. Output lines come in reverse order. `bought` counts what the account was charged for.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fake_server import Reply, _Listener, answer_to

RUNNING = ("validating", "in_progress", "cancelling")


def text_of(row: dict[str, Any]) -> str:
    """What a row asks: the last message."""
    return str(row["body"]["messages"][-1]["content"])


@dataclass
class Batch:
    id: str
    number: int
    file_id: str
    metadata: dict[str, str] | None
    rows: list[dict[str, Any]]
    status: str = "validating"
    looks: int = 0
    unfinished: set[str] = field(default_factory=set)  # texts
    failed: set[str] = field(default_factory=set)
    errors: list[dict[str, Any]] = field(default_factory=list)
    output_id: str | None = None
    error_id: str | None = None

    def shown(self) -> dict[str, Any]:
        over = self.status not in RUNNING
        done = len(self.rows) - len(self.unfinished) - len(self.failed) if over else 0
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": self.file_id,
            "completion_window": "24h",
            "created_at": 1_800_000_000 + self.number,
            "status": self.status,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "output_file_id": self.output_id,
            "error_file_id": self.error_id,
            "request_counts": {
                "total": len(self.rows),
                "completed": done,
                "failed": len(self.failed),
            },
            "metadata": self.metadata,
        }


class FakeBatches:
    """Serves on a free port of the loop-back device from a thread; use it as a context."""

    def __init__(self) -> None:
        self.hook: Callable[[str, str], Reply | None] = lambda event, when: None
        self.looks = 2  # a batch is over when it is looked at so often
        self.ending = "completed"
        self.leaves_out: Callable[[Batch, str], bool] = lambda batch, text: False
        self.row: Callable[[Batch, str], Reply | None] = lambda batch, text: None  # a row's error
        self.refuses: Callable[[Batch], list[dict[str, Any]]] = lambda batch: []
        self.junk: list[bytes] = []  # lines that come first in every output file
        self.files: dict[str, bytes] = {}
        self.batches: list[Batch] = []
        self.events: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.chats: Counter[str] = Counter()  # asked online, by text
        self._lock = threading.RLock()
        self._server = _Listener(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> FakeBatches:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.drop_connections()

    @property
    def bought(self) -> Counter[str]:
        """How often each text was answered, or will be if its batch goes on."""
        count = Counter(self.chats)
        for batch in self.batches:
            if batch.status != "failed":
                texts = (text_of(row) for row in batch.rows)
                count.update(t for t in texts if t not in batch.unfinished | batch.failed)
        return count

    def lines_in(self, batch: Batch) -> list[bytes]:
        return self.files[batch.file_id].splitlines()

    def take(self, method: str, url: str, raw: bytes, headers: dict[str, str]) -> Reply:
        path, query = urlsplit(url).path.removeprefix("/v1/"), parse_qs(urlsplit(url).query)
        with self._lock:
            self.headers.append(headers)
            event, do = self._route(method, path.split("/"), query, raw, headers)
            self.events.append(event)
            if (early := self.hook(event, "before")) is not None:
                return early
            reply = do()
            return self.hook(event, "after") or reply

    def _route(
        self,
        method: str,
        words: list[str],
        query: dict[str, list[str]],
        raw: bytes,
        headers: dict[str, str],
    ) -> tuple[str, Callable[[], Reply]]:
        match (method, *words):
            case ("POST", "files"):
                return "upload", lambda: self._upload(raw, headers["Content-Type"])
            case ("GET", "files", file_id, "content"):
                return "content", lambda: self._content(file_id)
            case ("DELETE", "files", file_id):
                return "delete", lambda: self._delete(file_id)
            case ("POST", "batches"):
                return "create", lambda: self._create(json.loads(raw))
            case ("GET", "batches"):
                return "list", lambda: self._list(query)
            case ("GET", "batches", batch_id):
                return "look", lambda: self._look(self._batch(batch_id))
            case ("POST", "batches", batch_id, "cancel"):
                return "cancel", lambda: self._cancel(self._batch(batch_id))
            case ("POST", "chat", "completions"):
                return "chat", lambda: self._chat(json.loads(raw))
        return "unknown", lambda: Reply(status=404, body={"error": {"message": "Not Found"}})

    def _upload(self, raw: bytes, content_type: str) -> Reply:
        boundary = content_type.split("boundary=")[1].encode()
        for part in raw.split(b"--" + boundary):
            head, _, body = part.partition(b"\r\n\r\n")
            if b'name="file"' in head:
                file_id = f"file-{len(self.files)}"
                self.files[file_id] = body.removesuffix(b"\r\n")
                return Reply(body={"id": file_id, "object": "file", "purpose": "batch"})
        return Reply(status=400, body={"error": {"message": "no file in the form"}})

    def _content(self, file_id: str) -> Reply:
        if file_id not in self.files:
            return Reply(status=404, body={"error": {"message": f"no file {file_id}"}})
        return Reply(body=self.files[file_id], headers={"Content-Type": "application/octet-stream"})

    def _delete(self, file_id: str) -> Reply:
        self.files.pop(file_id, None)
        return Reply(body={"id": file_id, "object": "file", "deleted": True})

    def _batch(self, batch_id: str) -> Batch | None:
        return next((b for b in self.batches if b.id == batch_id), None)

    def _create(self, asked: dict[str, Any]) -> Reply:
        number = len(self.batches)
        rows = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        batch = Batch(
            f"batch_{number}", number, asked["input_file_id"], asked.get("metadata"), rows
        )
        ids = [row["custom_id"] for row in rows]
        batch.errors = self.refuses(batch)
        if len(set(ids)) < len(ids):
            batch.errors.append({"code": "duplicate_custom_id", "message": "twice", "line": 2})
        self.batches.append(batch)
        return Reply(body=batch.shown())

    def _list(self, query: dict[str, list[str]]) -> Reply:
        found = self.batches[::-1]
        if after := query.get("after"):
            ids = [batch.id for batch in found]
            found = found[ids.index(after[0]) + 1 :]
        page = found[:2]  # small pages, so that they are turned
        shown = [batch.shown() for batch in page]
        return Reply(body={"object": "list", "data": shown, "has_more": len(found) > 2})

    def _look(self, batch: Batch | None) -> Reply:
        if batch is None:
            return Reply(status=404, body={"error": {"message": "No such batch"}})
        batch.looks += 1
        if batch.status in RUNNING:
            if batch.errors:
                batch.status = "failed"
            elif batch.status == "cancelling":
                self._end(batch, "cancelled")
            elif batch.looks >= self.looks:
                self._end(batch, self.ending)
            else:
                batch.status = "in_progress"
        return Reply(body=batch.shown())

    def _cancel(self, batch: Batch | None) -> Reply:
        if batch is None or batch.status not in RUNNING:
            return Reply(status=409, body={"error": {"message": "cannot be cancelled"}})
        batch.status = "cancelling"
        return Reply(body=batch.shown())

    def _end(self, batch: Batch, status: str) -> None:
        batch.status = status
        output, errors = list(self.junk), []
        for row in batch.rows[::-1]:
            text = text_of(row)
            line: dict[str, Any] = {"id": "x", "custom_id": row["custom_id"], "error": None}
            if self.leaves_out(batch, text):
                batch.unfinished.add(text)
                line |= {"response": None, "error": {"code": f"batch_{status}", "message": "late"}}
                errors.append(line)
            elif (reply := self.row(batch, text)) is not None:
                batch.failed.add(text)
                errors.append(line | {"response": _response(reply.status, reply.body)})
            else:
                line |= {"response": _response(200, _completion(row["body"]["messages"]))}
                output.append(json.dumps(line).encode())
        if output:
            batch.output_id = f"output-{batch.number}"
            self.files[batch.output_id] = b"\n".join(output) + b"\n"
        if errors:
            batch.error_id = f"errors-{batch.number}"
            self.files[batch.error_id] = "".join(json.dumps(e) + "\n" for e in errors).encode()

    def _chat(self, body: dict[str, Any]) -> Reply:
        self.chats[text_of({"body": body})] += 1
        return Reply(body=_completion(body["messages"]))


def _completion(messages: list[dict[str, str]]) -> dict[str, Any]:
    said = {"role": "assistant", "content": answer_to(messages)}
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": said, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def _response(status: int, body: Any) -> dict[str, Any]:
    return {"status_code": status, "request_id": "req", "body": body}


def _handler(server: FakeBatches) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                raw = self._chunks()
            else:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = server.take(
                self.command, self.path, raw, {k.title(): v for k, v in self.headers.items()}
            )
            body = reply.encoded()
            headers = {"Content-Type": "application/json"} | reply.headers
            self.send_response(reply.status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if reply.cut else body)
            self.close_connection = self.close_connection or reply.cut

        do_GET = do_DELETE = do_POST

        def _chunks(self) -> bytes:
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
