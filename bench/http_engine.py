"""Our HTTP engine against the bare aiohttp loop, in turn, on the same deterministic server.

    python bench/http_engine.py                        # under a minute: the two usual settings
    python bench/http_engine.py --latency 1 --concurrency 512 --seconds 30 --slow-share 0.05

The server runs on core 0, each client in a process of its own on core 1. Three clients take turns,
so that a machine whose speed drifts treats them alike: `floor` (aiohttp and msgspec, nothing
else: no retries, no limits, no records), `engine` (Model.generate), and `ledger` (the same with
every answer made durable). Medians over the rounds; CPU is user + system of the client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
CLIENTS = ("floor", "engine", "ledger")
QUESTION = "question {} " + "x" * 300


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
                message = {"role": "user", "content": QUESTION.format(i)}
                body = msgspec.json.encode({"model": "bench", "messages": [message]})
                headers = {"Content-Type": "application/json"}
                post = session.post(f"{url}/chat/completions", data=body, headers=headers)
                async with post as response:
                    answer = msgspec.json.decode(await response.read())
                    good += bool(answer["choices"][0]["message"]["content"])

        await asyncio.gather(*(work() for _ in range(concurrency)))
    return good


def engine(url: str, rows: int, concurrency: int, durable: bool) -> int:
    """`Model.generate` over the same rows, with or without the ledger behind it."""
    from pipeline.ledger import Ledger
    from pipeline.models.openai_api import OpenAIModel, Serving
    from pipeline.records import Finish, Message, PromptRef, Request, Sampling, request_id

    sampling, prompt = Sampling(), PromptRef("bench", "0")
    asked: dict[str, Request] = {}

    def requests() -> Iterator[Request]:
        for i in range(rows):
            messages = (Message("user", QUESTION.format(i)),)
            key = request_id("bench", messages, sampling, 0)
            asked[key] = Request(key, str(i), "bench", prompt, messages, sampling, 0, "bench")
            yield asked[key]

    model = OpenAIModel(
        "bench", revision=None, serving=Serving(base_url=(url,), concurrency=concurrency)
    )
    good = 0
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        ledger = Ledger(Path(folder), "bench") if durable else None
        for generation in model.generate(requests()):
            request = asked.pop(generation.request_id)
            good += generation.finish is Finish.STOP
            if ledger is not None:
                ledger.append(request, generation)
        if ledger is not None:
            ledger.close()
    model.close()
    return good


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
    print(json.dumps([options.rows / wall, cpu / options.rows * 1e6, peak]))


def measure(options: argparse.Namespace, concurrency: int) -> dict[str, list[list[float]]]:
    """Rounds of all clients in turn against one server: [rows/s, us CPU a row, MB] each."""
    command = [sys.executable, str(HERE / "bench_server.py"), "--core", "0"]
    command += ["--latency", str(options.latency), "--slow-share", str(options.slow_share)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        expected = min(concurrency / mean_latency(options), 3500.0)
        rows = max(200, int(options.seconds * expected))
        found: dict[str, list[list[float]]] = {name: [] for name in CLIENTS}
        for _ in range(options.rounds):
            for name in CLIENTS:
                child = [sys.executable, __file__, "--client", name, "--port", port]
                child += ["--rows", str(rows), "--concurrency", str(concurrency)]
                out = subprocess.run(
                    child, capture_output=True, text=True, preexec_fn=_on_core_1, check=False
                )
                if out.returncode:
                    sys.exit(out.stderr)
                found[name].append(json.loads(out.stdout))
        return found
    finally:
        server.kill()
        server.wait()


def mean_latency(options: argparse.Namespace) -> float:
    return float(options.latency * (1 + 9 * options.slow_share))


def _on_core_1() -> None:
    os.sched_setaffinity(0, {1})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Our HTTP engine against bare aiohttp.")
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
    print("| latency | in flight | client | rows/s | of ideal | of floor | us CPU/row | peak MB |")
    print("|---|---|---|---|---|---|---|---|")
    for concurrency in options.concurrency:
        found = measure(options, concurrency)
        base = statistics.median(run[0] for run in found["floor"])
        for name in CLIENTS:
            rate, cpu, peak = (
                statistics.median(column) for column in zip(*found[name], strict=True)
            )
            ideal = rate * mean_latency(options) / concurrency
            print(
                f"| {options.latency:g} s | {concurrency} | {name} | {rate:,.0f} | {ideal:.2f} "
                f"| {rate / base:.2f} | {cpu:.0f} | {peak:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
