"""A real HTTP server as the command of `serving.serve.command`, with faults on order.

    python served_by.py --host 127.0.0.1 --port 4321 --key-file FILE --model NAME --folder FOLDER

It answers as `tests.fake_server` does, to whoever has the key, and appends the hash of each body
that it has answered to FOLDER/PORT.answered and of each that it has seen to FOLDER/PORT.seen.
FOLDER/slow holds the seconds of an answer; while there is FOLDER/loading, it is not ready;
while there is FOLDER/garbled, it does not speak HTTP;
FOLDER/broken makes it end with 3 at its start; what FOLDER/refused holds makes a request a mistake.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.fake_server import Ask


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def handler(options: argparse.Namespace) -> type[BaseHTTPRequestHandler]:
    folder, wanted = Path(options.folder), None
    if options.key_file:
        wanted = f"Bearer {Path(options.key_file).read_text().strip()}"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if (folder / "garbled").exists():
                self.wfile.write(b"what?\r\n\r\n")
                self.close_connection = True
            elif self.path == "/health":
                self.say(503 if (folder / "loading").exists() else 200, {})
            elif self.may():
                self.say(200, {"data": [{"id": options.model}]})

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            if not self.may():
                return
            self.note("seen", raw)
            refused = folder / "refused"
            if refused.exists() and refused.read_bytes() in raw:
                self.say(400, {"error": {"message": "no such thing"}})
                return
            slow = folder / "slow"
            time.sleep(float(slow.read_text()) if slow.exists() else 0)
            body = Ask(json.loads(raw), {}, 1).answer(content=sum_of(raw)).body
            self.say(200, body)  # type: ignore[arg-type]
            self.note("answered", raw)

        def may(self) -> bool:
            fine = wanted is None or self.headers.get("Authorization") == wanted
            if not fine:
                self.say(401, {"error": "no key"})
            return fine

        def note(self, what: str, raw: bytes) -> None:
            with (folder / f"{options.port}.{what}").open("a") as file:
                file.write(hashlib.sha256(raw).hexdigest() + "\n")

        def say(self, status: int, body: dict[str, object]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def sum_of(raw: bytes) -> str:
    """What the fake teacher of tests/project.py says: right two times in three, by the text."""
    import re

    text = json.loads(raw)["messages"][-1]["content"]
    a, b = map(int, re.findall(r"\d+", text)[:2])
    return f"{a} and {b} make {a + b}. The answer is {a + b}."


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("host", "model", "folder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--key-file", default="")
    options = parser.parse_args()
    if (Path(options.folder) / "broken").exists():
        print("out of GPU memory, says this server")
        sys.exit(3)
    Server((options.host, options.port), handler(options)).serve_forever()


if __name__ == "__main__":
    main()
