"""Ray Data over HTTP against `distill generate`: rows/s, and what a kill loses.

    python bench/ray_data.py       # some 3 minutes; needs the extra `ray`
    python bench/ray_data.py --rows 600

The same rows, the same endpoint, as many requests in flight; our clock begins with the process,
Ray Data's when Ray has started. Ray Data asks by `map_batches` with an actor whose batches are
asked all at once, as a person would write it: the HTTP stage of its own `ray.data.llm` sends the
rows of a batch one after the other (Ray 2.60). Then each of the two is killed with -9 in the
middle and started again: said are the requests that the server saw above one a row, which is what
is paid for twice. Ray Data is without its `CheckpointConfig` (beta), which would keep the rows
whose block of output was written before the kill.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import harness
from kills import make_project

LATENCY, IN_FLIGHT = 0.2, 32

SCRIPT = """
import asyncio, sys, time
import aiohttp, ray

url, in_flight = sys.argv[1], int(sys.argv[2])
ray.init(address="local", include_dashboard=False, log_to_driver=False)
print("begin", time.time(), flush=True)

class Ask:
    async def one(self, session, question):
        body = {"model": "bench", "messages": [{"role": "user", "content": question}]}
        async with session.post(url, json=body) as answer:
            return (await answer.json())["choices"][0]["message"]["content"]

    async def __call__(self, batch):
        async with aiohttp.ClientSession() as session:
            asked = [self.one(session, str(question)) for question in batch["question"]]
            yield {"id": batch["id"], "text": await asyncio.gather(*asked)}

rows = ray.data.read_json("seeds.jsonl")
rows.map_batches(Ask, batch_size=in_flight, concurrency=1).write_json("out")
print("end", time.time(), flush=True)
"""


def ours(folder: Path, _port: int) -> list[str]:
    return [sys.executable, "-m", "pipeline", "generate", "config.yaml"]


def ray_data(folder: Path, port: int) -> list[str]:
    (folder / "asking.py").write_text(SCRIPT)
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return [sys.executable, "asking.py", url, str(IN_FLIGHT)]


def start(folder: Path, words: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(harness.HERE.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate()
    if process.returncode:
        sys.exit(f"exit code {process.returncode}: {said[-2000:]}")
    return said


def rate(words: Callable[[Path, int], list[str]], rows: int) -> float:
    """Rows a second, between the first request and the end of the process or its own clock."""
    with tempfile.TemporaryDirectory() as name, harness.server(latency=LATENCY) as port:
        folder = Path(name)
        make_project(folder, port, rows, set(), IN_FLIGHT)
        begin = time.time()
        said = finish(start(folder, words(folder, port)))
        end = time.time()
        clock = dict(
            line.split() for line in said.splitlines() if line.startswith(("begin ", "end "))
        )
        if harness.stats(port)["distinct"] != rows:
            sys.exit("not all rows were asked")
    return rows / (float(clock.get("end", end)) - float(clock.get("begin", begin)))


def twice(words: Callable[[Path, int], list[str]], rows: int) -> int:
    """Requests above one a row, when it is killed at half of them and started again."""
    with tempfile.TemporaryDirectory() as name, harness.server(latency=LATENCY) as port:
        folder = Path(name)
        make_project(folder, port, rows, set(), IN_FLIGHT)
        process = start(folder, words(folder, port))
        while harness.stats(port)["requests"] < rows / 2:
            if process.poll() is not None:
                sys.exit("it ended before it was killed")
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(10)  # the workers of a dead driver go by themselves
        finish(start(folder, words(folder, port)))
        return int(harness.stats(port)["requests"]) - rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=3000)
    rows = parser.parse_args().rows
    harness.table(["", "rows/s", "of the endpoint's most", "asked twice after a kill"])
    for name, words in (("distill generate", ours), ("Ray Data, map_batches", ray_data)):
        fast, again = rate(words, rows), twice(words, rows)
        share = fast / (IN_FLIGHT / LATENCY)
        harness.line([name, f"{fast:.0f}", f"{share:.0%}", f"{again} of {rows}"])
    print(json.dumps({"rows": rows, "latency": LATENCY, "in flight": IN_FLIGHT}))


if __name__ == "__main__":
    main()
