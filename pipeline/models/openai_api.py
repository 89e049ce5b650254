"""The `openai` backend: any OpenAI-compatible chat endpoint, one or several, over keep-alive HTTP.

The hot path is aiohttp and msgspec; this process needs neither torch nor the openai SDK. The
event loop runs inside the generator, in the caller's thread, and only while the caller waits:
no second thread competes for the interpreter, and nothing is asked that nobody takes.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import aiohttp
import msgspec

from pipeline.errors import UserError
from pipeline.models.chat_wire import BadAnswer, BadRequest, ChatEncoder, decode, to_generation
from pipeline.models.endpoint_urls import checked_key, checked_url, health_url
from pipeline.models.endpoints import Endpoint
from pipeline.models.found_endpoints import FoundEndpoints, Served
from pipeline.models.http_errors import (
    Failure,
    Fate,
    judge_inner_error,
    judge_status,
    printable,
    public_url,
)
from pipeline.models.limits import Ceilings, Window
from pipeline.models.workers import Flow
from pipeline.records import Generation, Grade, Request

MOST_BYTES = 256 * 2**20  # of one answer; a stranger's server must not fill the memory
HEALTH_SECONDS = 5.0
IDLE_SECONDS = 4.0  # below the 5 s after which uvicorn (vLLM) closes an idle connection


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model is and how hard it may be driven; never part of an identity."""

    base_url: tuple[str, ...] = ()
    served: Served | None = None  # instead of base_url: servers that come and go
    api_key: str | None = None  # the value; it must never be shown
    api_key_env: str | None = None  # its variable's name, for messages
    concurrency: int = 64  # requests in flight, over all base URLs, or at each server
    timeout: float = 120.0  # seconds for one answer
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_retries: int = 6
    max_error_share: float = 0.5  # of recent rows; above it the run ends, resumable

    def __repr__(self) -> str:
        return f"Serving(base_url={[public_url(url) for url in self.base_url]}, api_key=hidden)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("base_url", [public_url(url) for url in self.base_url]), ("api_key", "hidden")]


class OpenAIModel:
    """A model behind one or several endpoints; see `pipeline.models` for the door's contract.

    `counters` holds the requests made and the failures by class ("429", "timeout", ...).
    Requests may contain `None`: nothing to ask until the answers so far have been read.
    """

    grade = Grade.TOP_LOGPROBS

    def __init__(
        self,
        model: str,
        *,
        revision: str | None,
        serving: Serving,
        identity: str | None = None,
        seed_of: Callable[[Request], int | None] | None = None,
    ) -> None:
        """`seed_of`: of a request whose sampling names none; without it the endpoint decides."""
        self.identity = identity or (f"{model}@{revision}" if revision else model)
        self.counters: Counter[str] = Counter()
        self._serving = serving
        self._key = checked_key(serving.api_key, serving.api_key_env)
        self._encoder = ChatEncoder(model, seed_of)
        urls = [checked_url(url) for url in serving.base_url]
        if not urls and serving.served is None:
            raise UserError(
                "serving.base_url is empty; give the URL of an endpoint, as in "
                "http://127.0.0.1:8000/v1"
            )
        self._endpoints = [
            Endpoint(url + "/chat/completions", public_url(url), Window(serving.concurrency))
            for url in urls
        ]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Generation]:
        """Yield one Generation a request, in order of arrival; at most `concurrency` in flight.

        Raises `RunFatal` when no row can succeed (wrong key, unknown model, nothing answers,
        too many rows fail), after the answers that had arrived were yielded.
        """
        loop = self._open()
        serving, now = self._serving, loop.time()
        found = None
        if serving.served is not None:
            found = FoundEndpoints(serving.served, serving.concurrency, self._healthy)
        flow = Flow(
            requests,
            self._ask,
            found.endpoints if found else self._endpoints,
            concurrency=serving.concurrency,
            max_retries=serving.max_retries,
            max_error_share=serving.max_error_share,
            ceilings=Ceilings(serving.requests_per_minute, serving.tokens_per_minute, now),
            counters=self.counters,
            watch=found.watch if found else None,
        )
        yield from flow.run(loop)

    def close(self) -> None:
        """Close the connections; a later `generate` opens new ones."""
        if self._loop is None or self._session is None:
            return
        self._loop.run_until_complete(self._session.close())
        self._loop.run_until_complete(asyncio.sleep(0))  # lets the transports close
        self._loop.close()
        self._loop = self._session = None

    def _open(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        if self._session is None:
            self._session = self._loop.run_until_complete(self._make_session())
        return self._loop

    async def _make_session(self) -> aiohttp.ClientSession:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "blackbox-distill",
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        seconds = self._serving.timeout
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, ttl_dns_cache=300, keepalive_timeout=IDLE_SECONDS
            ),
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, 30.0)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            # Looking for a proxy on every request is dear, so only where one is set; none stands
            # between the machines of a cluster.
            trust_env=self._serving.served is None
            and any(os.environ.get(name) for name in _PROXY_VARIABLES),
        )

    async def _ask(
        self, request: Request, endpoint: Endpoint, attempts: int
    ) -> Generation | Failure:
        """One attempt; every way it can fail becomes a `Failure`."""
        started = time.monotonic()
        try:
            body = self._encoder.encode(request)
            if self._serving.served is None:
                status, headers, answer = await self._post(endpoint.url, body)
            else:
                status, headers, answer = await self._post_unless_left(endpoint, body)
            if status != 200:
                failure = judge_status(status, headers, answer, endpoint.proven)
            else:
                completion = decode(answer)
                if completion.error is None:
                    seconds = time.monotonic() - started
                    return to_generation(request, completion, attempts, seconds)
                failure = judge_inner_error(completion.error)
        except BadRequest as error:
            failure = Failure(Fate.ROW, "bad request", str(error))
        except BadAnswer as error:
            failure = Failure(Fate.RETRY, "bad answer", str(error))
        except (ssl.SSLError, aiohttp.ClientSSLError) as error:
            failure = Failure(Fate.RUN, "tls", f"{type(error).__name__}: {error}")
        except aiohttp.ConnectionTimeoutError as error:
            failure = Failure(Fate.UNREACHABLE, "unreachable", str(error))
        except TimeoutError:
            limit = self._serving.timeout
            failure = Failure(Fate.TIMEOUT, "timeout", f"no answer within {limit:g} s")
            if endpoint.left:
                failure = Failure(Fate.UNREACHABLE, "server gone", f"{endpoint.name} is gone")
        except aiohttp.ClientConnectorError as error:
            failure = Failure(Fate.UNREACHABLE, "unreachable", str(error))
        except (aiohttp.ClientError, OSError) as error:
            failure = Failure(Fate.RETRY, "connection", f"{type(error).__name__}: {error}")
        except (ValueError, TypeError, RecursionError) as error:  # a row that has no JSON form
            failure = Failure(Fate.ROW, "bad request", f"{type(error).__name__}: {error}")
        failure.message = printable(failure.message, self._key)
        if failure.fate is Fate.RUN:
            failure.message = self._explain(failure, endpoint)
        return failure

    async def _post_unless_left(self, endpoint: Endpoint, body: bytes) -> tuple[int, Any, bytes]:
        """As `_post`; a `TimeoutError` as soon as the endpoint is left."""
        async with asyncio.timeout(None) as call:
            endpoint.calls.add(call)
            try:
                return await self._post(endpoint.url, body)
            finally:
                endpoint.calls.discard(call)

    async def _healthy(self, url: str) -> bool:
        """Does a server say that it is well? One without such a page answers 404."""
        assert self._session is not None
        limit = aiohttp.ClientTimeout(total=HEALTH_SECONDS)
        try:
            async with self._session.get(health_url(url), timeout=limit) as response:
                return bool(response.status < 500)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _post(self, url: str, body: bytes) -> tuple[int, Any, bytes]:
        assert self._session is not None
        async with self._session.post(url, data=body, allow_redirects=False) as response:
            content = response.content
            answer = await content.readany()
            if not content.at_eof():
                parts, size = [answer], len(answer)
                while not content.at_eof():
                    part = await content.readany()
                    parts.append(part)
                    size += len(part)
                    if size > MOST_BYTES:
                        raise BadAnswer(f"the answer is longer than {MOST_BYTES} bytes")
                answer = b"".join(parts)
            return response.status, response.headers, answer

    def _explain(self, failure: Failure, endpoint: Endpoint) -> str:
        """What the person should do about a failure that ends the run."""
        message = f"{endpoint.name}: {failure.message}"
        variable = self._serving.api_key_env
        if failure.kind in ("401", "403") and self._serving.served is not None:
            return (
                f"{message}. It was started with another key than this run has now; end the "
                "servers of the run and start them again"
            )
        if failure.kind in ("401", "403"):
            if variable is None:
                return f"{message}. Name the variable of the key in serving.api_key_env"
            state = "does not open it" if self._key else "is not set"
            return f"{message}. The key in the environment variable {variable} {state}"
        if failure.kind in ("404", "405"):
            return (
                f"{message}. Check `model` and serving.base_url "
                "(it is what stands before /chat/completions, and mostly ends in /v1)"
            )
        if failure.kind.startswith("3"):
            return f"{message}. It redirects: set serving.base_url to where it leads"
        return message


_PROXY_VARIABLES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
)
