"""Our HTTP engine against the bare aiohttp loop, in turn, on the same deterministic server.

    python bench/http_engine.py                        # under a minute: the two usual settings
    python bench/http_engine.py --latency 1 --concurrency 512 --seconds 60 --slow-share 0.05

The server runs on core 0, each client in a process of its own on core 1. Three clients take turns,
so that a machine whose speed drifts treats them alike: `floor` (aiohttp and msgspec, nothing
else: no retries, no limits, no records), `engine` (Model.generate), and `ledger` (the same with
every answer made durable). Medians over the rounds; CPU is user + system of the client.

`of ideal` is against a run without an end: in flight / mean latency. `of perfect` is against a
scheduler that starts the next row whenever a slot is free, and costs nothing: a run with slow rows
ends with stragglers (one that takes 10 s and is asked last adds 10 s), which nobody who asks in
order can avoid.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
from bench_server import seconds_of

CLIENTS = ("floor", "engine", "ledger")


def floor_body(i: int) -> bytes:
    import msgspec

    message = {"role": "user", "content": harness.QUESTION.format(i)}
    return msgspec.json.encode({"model": harness.MODEL, "messages": [message]})


async def floor(url: str, rows: int, concurrency: int) -> int:
    """What aiohttp can do at best: one session, workers that share a counter."""
    import aiohttp
    import msgspec

    numbers = iter(range(rows))
    good = 0
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def work() -> None:
            nonlocal good
            for i in numbers:
                headers = {"Content-Type": "application/json"}
                post = session.post(f"{url}/chat/completions", data=floor_body(i), headers=headers)
                async with post as response:
                    answer = msgspec.json.decode(await response.read())
                    good += bool(answer["choices"][0]["message"]["content"])

        await asyncio.gather(*(work() for _ in range(concurrency)))
    return good


def engine(url: str, rows: int, concurrency: int, durable: bool) -> int:
    """`Model.generate` over the same rows, with or without the ledger behind it."""
    from pipeline.ledger import Ledger
    from pipeline.models.openai_api import OpenAIModel, Serving
    from pipeline.records import Finish, Request

    asked: dict[str, Request] = {}

    def requests() -> Iterator[Request]:
        for request in harness.requests(0, rows):
            asked[request.id] = request
            yield request

    model = OpenAIModel(
        harness.MODEL, revision=None, serving=Serving(base_url=(url,), concurrency=concurrency)
    )
    good = 0
    with tempfile.TemporaryDirectory(dir=harness.HERE) as folder:
        ledger = Ledger(Path(folder), harness.MODEL) if durable else None
        for generation in model.generate(requests()):
            request = asked.pop(generation.request_id)
            good += generation.finish is Finish.STOP
            if ledger is not None:
                ledger.append(request, generation)
        if ledger is not None:
            ledger.close()
    model.close()
    return good


def perfect_seconds(options: argparse.Namespace) -> float:
    """How long these rows take at best, asked in order, so many at a time."""
    from pipeline.models.chat_wire import ChatEncoder

    encoder = ChatEncoder(harness.MODEL)
    if options.client == "floor":
        bodies = (floor_body(i) for i in range(options.rows))
    else:
        bodies = (encoder.encode(request) for request in harness.requests(0, options.rows))
    slots = [0.0] * options.concurrency[0]
    for body in bodies:
        taken = seconds_of(body, options.latency, options.slow_share)
        heapq.heapreplace(slots, slots[0] + taken)
    return max(slots)


def run_client(options: argparse.Namespace) -> None:
    """The child process: do the rows, print what they took."""
    import pipeline.ledger
    import pipeline.models.openai_api  # noqa: F401  (imports are not what is measured)

    url = f"http://127.0.0.1:{options.port}/v1"
    cpu, wall = time.process_time(), time.perf_counter()
    if options.client == "floor":
        good = asyncio.run(floor(url, options.rows, options.concurrency[0]))
    else:
        good = engine(url, options.rows, options.concurrency[0], options.client == "ledger")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert good == options.rows, f"{good} of {options.rows} rows were answered"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    share = perfect_seconds(options) / wall
    print(json.dumps([options.rows / wall, share, cpu / options.rows * 1e6, peak]))


def measure(options: argparse.Namespace, concurrency: int) -> dict[str, list[list[float]]]:
    """Rounds of all clients in turn: [rows/s, share of perfect, us CPU a row, MB] each."""
    expected = min(concurrency / mean_latency(options), 3500.0)
    rows = max(200, int(options.seconds * expected))
    latency = ["--latency", str(options.latency), "--slow-share", str(options.slow_share)]
    found: dict[str, list[list[float]]] = {name: [] for name in CLIENTS}
    with harness.server(latency=options.latency, slow_share=options.slow_share) as port:
        for _ in range(options.rounds):
            for name in CLIENTS:
                child = [sys.executable, __file__, "--client", name, "--port", str(port)]
                child += ["--rows", str(rows), "--concurrency", str(concurrency), *latency]
                out = subprocess.run(
                    child, capture_output=True, text=True, preexec_fn=harness.off_core_0
                )
                if out.returncode:
                    sys.exit(out.stderr)
                found[name].append(json.loads(out.stdout))
    return found


def mean_latency(options: argparse.Namespace) -> float:
    return float(options.latency * (1 + 9 * options.slow_share))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--latency", type=float, default=0.05, help="of the server, seconds")
    parser.add_argument("--slow-share", type=float, default=0.0, help="of rows, ten times slower")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.5, help="of work for each client")
    for name, kind in (("--client", str), ("--port", int), ("--rows", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options: Any = parse()
    if options.client:
        run_client(options)
        return
    head = "latency, in flight, client, rows/s, of ideal, of perfect, of floor, us CPU/row, peak MB"
    harness.table(head.split(", "))
    for concurrency in options.concurrency:
        found = measure(options, concurrency)
        base = statistics.median(run[0] for run in found["floor"])
        for name in CLIENTS:
            rate, perfect, cpu, peak = (
                statistics.median(column) for column in zip(*found[name], strict=True)
            )
            ideal = rate * mean_latency(options) / concurrency
            shares = [f"{share:.2f}" for share in (ideal, perfect, rate / base)]
            cells = [f"{options.latency:g} s", concurrency, name, f"{rate:,.0f}", *shares]
            harness.line([*cells, f"{cpu:.0f}", f"{peak:.0f}"])


if __name__ == "__main__":
    main()
