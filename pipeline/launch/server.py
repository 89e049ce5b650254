"""One server in the care of `distill serve`: its words, its process, whether it is well."""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.launch.children import with_parent
from pipeline.models.http_errors import printable

END_SECONDS = 8.0  # that a server gets to end by itself
CHECK_SECONDS = 5.0  # between two health checks of a server that is ready, and for one
EAGER_SECONDS = 0.5  # between two checks of one that starts
MOST_METRICS = 2**22  # bytes
HERE = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")


def words_of(model: ModelConfig, host: str, port: int, key_file: Path) -> list[str]:
    """The command that serves a teacher. No key stands in it: everybody sees a command."""
    serve = model.serving.serve
    assert serve is not None
    if serve.command is not None:
        filled = {"model": model.model, "host": host, "port": port, "key_file": key_file}
        words = serve.command
        for name, value in filled.items():
            words = [word.replace(f"{{{name}}}", str(value)) for word in words]
        return words
    if importlib.util.find_spec("vllm") is None:
        raise UserError("`distill serve` starts vLLM, which is not installed here; see README.md")
    from pipeline.models import local_checkpoint
    from pipeline.models.vllm_engine import MOST_LOGPROBS

    checkpoint = local_checkpoint(model)
    options: dict[str, Any] = {
        "served_model_name": model.model,
        "host": host,
        "port": port,
        "enable_prefix_caching": True,
        "max_logprobs": MOST_LOGPROBS,
        # The config says how it is sampled; the model's own defaults would add to that.
        "generation_config": "vllm",
        "uvicorn_log_level": "warning",  # a line a request is a log of gigabytes
        "middleware": "pipeline.models.guard.Guard",
    }
    if checkpoint.revision:
        options |= {"revision": checkpoint.revision, "tokenizer_revision": checkpoint.revision}
    words = [sys.executable, "-m", _vllm_module(), "serve", checkpoint.source]
    return [*words, *as_words(options | model.serving.engine), *serve.args]


def _vllm_module() -> str:
    """Its own command line, which wants its package to be called so."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return "pipeline.launch.vllm_cli"
    return "vllm.entrypoints.cli.main"


def as_words(options: dict[str, Any]) -> list[str]:
    """{"max_model_len": 512, "enforce_eager": True} -> ["--max-model-len", "512", ...]."""
    words = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, dict):
            words += [f"--{flag}", msgspec.json.encode(value).decode()]
        elif isinstance(value, list | tuple):
            words += [f"--{flag}", *map(str, value)]
        else:
            words += [f"--{flag}", str(value)]
    return words


class Server:
    """A process in a group of its own. It ends with `end`, and when this process dies."""

    def __init__(
        self, model: ModelConfig, host: str, key: str, key_file: Path, log: Path, mark: str
    ) -> None:
        self._model = model.model
        self._key = key
        self._log = log
        self._reserved = reserve(host)
        port = self._reserved.getsockname()[1]
        self.url = f"http://{_announced(host)}:{port}/v1"
        self.words = words_of(model, host, port, key_file)
        with log.open("ab") as out:
            try:
                self._process = subprocess.Popen(
                    self.words,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=_environment(key, mark),
                    start_new_session=True,  # a terminal's Ctrl-C is for us to hand on
                    # TERM, not KILL: vLLM then ends its engine, too.
                    preexec_fn=with_parent(signal.SIGTERM),
                )
            except OSError as error:
                self._reserved.close()
                raise UserError(
                    f"serving.serve.command: {self.words[0]!r} cannot be started: {error.strerror}"
                ) from None
        self.ready = False
        self.well_at = time.monotonic()  # when it was last known to be well
        self.problem: str | None = None  # it answers, and cannot be used
        self.is_open = False  # it answers without the key, too
        self.running: int | None = None
        self.answered: int | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._check_until_ended, daemon=True).start()

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def end(self) -> None:
        """It has ended, with all that it started, when this returns."""
        self._ended.set()
        self._reserved.close()
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
        self.kill()
        self._process.wait()

    def kill(self) -> None:
        """Also what a server that died has left behind: vLLM's engine holds the GPU's memory."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def last_words(self) -> str:
        """The end of its log."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - 4000))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return printable(" / ".join(line.strip() for line in lines[-3:] if line.strip()), self._key)

    def _check_until_ended(self) -> None:
        while not self._ended.wait(CHECK_SECONDS if self.ready else EAGER_SECONDS):
            if self._is_well():
                self.well_at = time.monotonic()
                if not self.ready:
                    self._look_at_models()
                self._count()

    def _is_well(self) -> bool:
        status, _ = self._get("/health")
        return status is not None and (status == 200 or status == 404)

    def _look_at_models(self) -> None:
        """Ready: it lists the model under the name that requests will say."""
        status, body = self._get("/v1/models", self._key)
        if status == 401 or status == 403:
            self.problem = "it does not take the key of this run"
        if status != 200:
            return
        try:
            listed = [str(one["id"]) for one in msgspec.json.decode(body)["data"]]
        except (msgspec.DecodeError, TypeError, KeyError):
            return
        if self._model not in listed:
            names = printable(", ".join(listed))
            self.problem = f"it calls its models {names}, and `model` is {self._model}"
            return
        self.is_open = self._get("/v1/models")[0] == 200
        self._reserved.close()
        self.ready = True

    def _count(self) -> None:
        """From vLLM's metrics; other servers say nothing of the kind."""
        status, body = self._get("/metrics")
        if status != 200:
            return
        running = answered = None
        for line in body.decode("utf-8", "replace").splitlines():
            name, _, value = line.rpartition(" ")
            with suppress(ValueError, OverflowError):  # NaN, Inf, no number
                if name.startswith("vllm:num_requests_running"):
                    running = (running or 0) + int(float(value))
                elif name.startswith("vllm:request_success_total"):
                    answered = (answered or 0) + int(float(value))
        self.running, self.answered = running, answered

    def _get(self, path: str, key: str | None = None) -> tuple[int | None, bytes]:
        """(status, body); None where nothing answers."""
        request = urllib.request.Request(self.url.removesuffix("/v1") + path)
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with _OPENER.open(request, timeout=CHECK_SECONDS) as response:
                return response.status, response.read(MOST_METRICS)
        except urllib.error.HTTPError as error:
            return error.code, b""
        except (OSError, ValueError, http.client.HTTPException):
            return None, b""


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy to one's own


def reserve(host: str) -> socket.socket:
    """A free port, held until the server listens: it may bind it as well, nobody gets it anew."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
        found.bind(address)
    except OSError as error:
        raise UserError(
            f"serving.serve.host: {host!r} is no address of this machine ({error}); write "
            "127.0.0.1 for this machine alone, 0.0.0.0 for all its addresses"
        ) from None
    # Either: some servers set only the second (llama.cpp's).
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return found


def _announced(host: str) -> str:
    """What other machines call it."""
    if host in EVERYWHERE:
        return socket.gethostname()
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host


def _environment(key: str, mark: str) -> dict[str, str]:
    from pipeline.models.vllm_engine import quiet_environment

    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")  # into its log
    quiet_environment()
    name, _, value = mark.partition("=")
    return os.environ | {"VLLM_API_KEY": key, name: value}
