"""kill -9 at random moments of a run over HTTP, and rows that the server never takes.

    python bench/kills.py                            # 20 kills in 20,000 rows: some 2 minutes
    python bench/kills.py --rows 5000 --kills 5

Starts `distill generate` in a temporary folder against the server of this folder, kills it, looks
at what is stored, starts it again. Said for each start: rows stored so far, how many requests the
server saw twice (what was in flight, or not yet synced, at the last kill), and at the end whether
an answer was lost, stored twice or wrong (each is a function of its request). Then a run of its
own with poison rows that always get HTTP 400.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import harness

POISON = "POISON"


def make_project(folder: Path, port: int, rows: int, poison: set[int], concurrency: int) -> None:
    """Seeds, prompts and a config; JSON is YAML too."""
    lines = []
    for i in range(rows):
        question = harness.QUESTION.format(i) + (POISON if i in poison else "")
        lines.append(json.dumps({"id": f"q{i}", "question": question}))
    (folder / "seeds.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "ask.yaml").write_text("user: '{{ question }}'\n")
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
        "student": {"model": "none"},
        "tasks": [task],
        "curate": {"filters": [{"finish": {}}]},
        "execution": {"probe_every": None},  # the server's counts are to be of rows alone
    }
    (folder / "config.yaml").write_text(json.dumps(config))


def start(folder: Path) -> subprocess.Popen[str]:
    root = str(harness.HERE.parent)
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "generate", "config.yaml"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=harness.off_core_0,
    )


def stored(folder: Path, check: bool = False) -> tuple[Counter[str], int, int, int]:
    """(answers by id, error rows, torn tails, wrong answers) of the ledger on the disk."""
    import hashlib

    from pipeline.ledger import Damage, decode_line, line_key, scan
    from pipeline.models.chat_wire import ChatEncoder

    encoder = ChatEncoder(harness.MODEL)
    answers: Counter[str] = Counter()
    errors = torn = wrong = 0
    for segment in sorted(folder.glob("runs/ledger/*/*.jsonl")):
        for item in scan(segment):
            if isinstance(item, Damage):
                assert item.reason == "torn", item
                torn += 1
                continue
            key, finish = line_key(item[1])
            errors += finish == "error"
            answers[key] += finish != "error"
            if check and finish != "error":
                row = decode_line(item[1])
                body = hashlib.blake2b(encoder.encode(row.request), digest_size=16).hexdigest()
                wrong += row.generation.text != body * (2048 // 32)
    return +answers, errors, torn, wrong


def kill_often(options: argparse.Namespace, folder: Path, port: int) -> list[int]:
    """Kill the run so often, each time at a random moment; requests asked again by start."""
    rng = random.Random(options.seed)
    again: list[int] = []
    before: Counter[str] = Counter()
    repeated = kills = 0
    harness.table(["kill", "after", "stored", "lost", "twice", "torn tails", "asked again"])
    while kills < options.kills:
        process = start(folder)
        seconds = rng.uniform(0.1, options.most_seconds)
        time.sleep(seconds)
        if process.poll() is not None:
            print(f"the run ended ({process.returncode}) before kill {kills + 1}; give more --rows")
            break
        process.kill()
        process.wait()
        kills += 1
        time.sleep(0.2)  # the server's answers to the dead are on their way
        now, _, torn, _ = stored(folder)
        asked = harness.stats(port)
        total = asked["requests"] - asked["distinct"]
        again.append(total - repeated)
        repeated = total
        lost, twice = len(before.keys() - now.keys()), sum(n > 1 for n in now.values())
        harness.line([kills, f"{seconds:.2f} s", len(now), lost, twice, torn, again[-1]])
        before = now
        if lost or twice:
            sys.exit("an answer was lost or is there twice")
    return again


def finish(folder: Path, port: int, rows: int) -> tuple[int, str, dict[str, Any]]:
    process = start(folder)
    text, _ = process.communicate(timeout=60 + rows / 50)
    return process.returncode, text, harness.stats(port)


def run_kills(options: argparse.Namespace, folder: Path) -> None:
    with harness.server(latency=options.latency) as port:
        make_project(folder, port, options.rows, set(), options.concurrency)
        again = kill_often(options, folder, port)
        repeated = sum(again)
        code, text, asked = finish(folder, port, options.rows)
        again.append(asked["requests"] - asked["distinct"] - repeated)
        now, errors, torn, wrong = stored(folder, check=True)
    twice = sum(n > 1 for n in now.values())
    print(
        f"\nafter {options.kills} kills: exit code {code}; {len(now):,} of {options.rows:,} "
        f"answers stored, {twice} twice, {wrong} wrong, {errors} error rows, {torn} torn tails; "
        f"requests {asked['requests']:,}; asked again by one start: at most {max(again)}, "
        f"median {sorted(again)[len(again) // 2]} (window {options.concurrency})"
    )
    if code or len(now) != options.rows or twice or wrong:
        sys.exit(text[-2000:])


def run_poison(options: argparse.Namespace, folder: Path) -> None:
    poison = set(random.Random(options.seed).sample(range(options.rows), options.poison))
    with harness.server(latency=options.latency, poison=POISON) as port:
        make_project(folder, port, options.rows, poison, options.concurrency)
        begin = time.monotonic()
        code, text, asked = finish(folder, port, options.rows)
        seconds = time.monotonic() - begin
        now, errors, _, wrong = stored(folder, check=True)
        again_code, _, later = finish(folder, port, options.rows)
    print(
        f"{options.poison} poison rows: exit code {code} after {seconds:.1f} s; {len(now):,} "
        f"answers, {wrong} wrong, {errors} error rows, {asked['requests']:,} requests; the same "
        f"command again: exit code {again_code}, {later['requests'] - asked['requests']} requests"
    )
    print("its last lines:\n  " + "\n  ".join(text.strip().splitlines()[-3:]))
    if len(now) != options.rows - options.poison or errors != options.poison or wrong:
        sys.exit("rows are missing")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--poison", type=int, default=10, help="rows the server never takes")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05, help="of the server, seconds")
    parser.add_argument("--most-seconds", type=float, default=2.5, help="from a start to its kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder to work in (default: a temporary one)")
    return parser.parse_args()


def main() -> None:
    options = parse()
    for work in (run_kills, run_poison):
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            work(options, Path(folder))


if __name__ == "__main__":
    main()
