"""The HTTP engine against a server that fails, and against one whose limit it does not know.

    python bench/faulty_server.py                  # about three minutes

1. 5 % of requests answered 429 with Retry-After, 2 % 500, 0.5 % never, 0.5 % cut in half; 50 ms,
   64 at a time. Beside it the same rows on a sound server: answers, requests a row, wall time.
2. A server that takes 300 requests a second and answers 429 to the others: the share of that which
   is used, and the share of 429 after the first 30 s.

A request that hangs is cut after 1 s. The last rows of a job that hang or must wait cost some
seconds whatever its size, so the ratio of a short job is worse. Every answer is made durable. The
server runs on core 0, the client on another.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

TIMEOUT = 1.0  # seconds, twenty times the latency; a request that hangs holds a slot so long
FAULTS = {"p429": 0.05, "p500": 0.02, "phang": 0.005, "pcut": 0.005}


def run(rows: int, concurrency: int, seconds: float, **faults: float) -> dict[str, Any]:
    """Ask all rows once (or until the seconds are over); what was answered and what it took."""
    from pipeline.ledger import Ledger
    from pipeline.models.openai_api import OpenAIModel, Serving

    with harness.server(**faults) as port, tempfile.TemporaryDirectory() as folder:
        serving = Serving(
            base_url=(f"http://127.0.0.1:{port}/v1",), concurrency=concurrency, timeout=TIMEOUT
        )
        model = OpenAIModel(harness.MODEL, revision=None, serving=serving)
        begin = time.monotonic()
        answered = failed = 0
        with Ledger(Path(folder), harness.MODEL) as ledger:
            asked = {}

            def pull() -> Any:
                for request in harness.requests(0, rows):
                    if time.monotonic() - begin > seconds:
                        return
                    asked[request.id] = request
                    yield request

            for generation in model.generate(pull()):
                ledger.append(asked.pop(generation.request_id), generation)
                failed += generation.finish == "error"
                answered += generation.finish != "error"
        model.close()
        wall = time.monotonic() - begin
        return {"answered": answered, "failed": failed, "wall": wall} | harness.stats(port)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--limit", type=float, default=300.0, help="requests a second")
    parser.add_argument("--limit-seconds", type=float, default=60.0)
    options = parser.parse_args()
    if harness.several_cores():
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {0})

    harness.table(["server", "rows", "answered", "failed", "requests a row", "seconds", "ratio"])
    sound = run(options.rows, 64, 1e9)
    faulty = run(options.rows, 64, 1e9, **FAULTS)
    for name, found in (("sound", sound), ("faulty", faulty)):
        harness.line(
            [
                name,
                options.rows,
                found["answered"],
                found["failed"],
                f"{found['requests'] / options.rows:.3f}",
                f"{found['wall']:.1f}",
                f"{found['wall'] / sound['wall']:.2f}",
            ]
        )

    found = run(10**9, 256, options.limit_seconds, limit=options.limit)
    late = [(status, n) for second, status, n in found["timeline"] if second >= 30]
    total = sum(n for _, n in late) or 1
    refused = sum(n for status, n in late if status == 429)
    used = found["answered"] / (options.limit * found["wall"])
    print(
        f"\nhidden limit of {options.limit:g}/s for {found['wall']:.0f} s: {used:.3f} of it used, "
        f"{refused / total:.2%} of requests 429 after 30 s"
    )


if __name__ == "__main__":
    main()
