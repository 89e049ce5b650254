"""One job through one tool, for rivals.py: ask `--rows` questions, keep what is needed to resume.

Runs in the tool's own environment. Each function does the job in the way the tool's own
documents show, with its limits lifted, and returns how many answers came back right.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MODEL = "bench"
SYSTEM = "A"


def questions(options: argparse.Namespace) -> list[str]:
    texts = [f"question {i} " + "x" * 300 for i in range(options.rows)]
    if options.edited:
        texts[7] += " edited"
    return texts


def ours(options: argparse.Namespace) -> int:
    """`distill generate`, all of it: seeds, requests, ledger, the list of used rows."""
    from pipeline.__main__ import main

    rows = [{"id": f"q{i}", "question": text} for i, text in enumerate(questions(options))]
    Path("seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompt = {"system": options.system, "user": "{{ question }}"}
    Path("ask.yaml").write_text(json.dumps(prompt))
    serving = {"base_url": options.url, "concurrency": options.concurrency}
    task = {"name": "rows", "recipe": "response", "seeds": "seeds.jsonl"}
    config = {
        "name": "run",
        "teacher": {"backend": "openai", "model": MODEL, "serving": serving},
        "student": {"model": "none"},
        "tasks": [task | {"teacher_prompt": "ask.yaml", "student_prompt": "ask.yaml"}],
        "curate": {"filters": [{"finish": {}}]},
        "execution": {"probe_every": None},
    }
    Path("config.yaml").write_text(json.dumps(config))
    redo = ["--redo", "generate"] if Path("runs/run/steps.jsonl").exists() else []
    if code := main(["generate", "config.yaml", *redo]):
        sys.exit(code)
    used = Path("runs/run/1_generations.jsonl").read_text().splitlines()
    return sum(json.loads(line)["finish"] == "stop" for line in used)


def script(options: argparse.Namespace) -> int:
    """What most people write first: AsyncOpenAI, a semaphore, gather, one file at the end."""
    from openai import AsyncOpenAI

    async def job() -> list[str | None]:
        client = AsyncOpenAI(base_url=options.url, api_key="none")
        gate = asyncio.Semaphore(options.concurrency)

        async def one(text: str) -> str | None:
            async with gate:
                answer = await client.chat.completions.create(
                    model=MODEL,
                    messages=[
                        {"role": "system", "content": options.system},
                        {"role": "user", "content": text},
                    ],
                )
                return answer.choices[0].message.content

        return await asyncio.gather(*(one(text) for text in questions(options)))

    answers = asyncio.run(job())
    Path("answers.jsonl").write_text("".join(json.dumps(text) + "\n" for text in answers))
    return sum(bool(text) for text in answers)


def datatrove(options: argparse.Namespace) -> int:
    """One local task with checkpoints, which is what its resume needs."""
    from datatrove.data import Document
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.writers import JsonlWriter

    async def rollout(document: Any, generate: Any) -> Any:
        messages = [
            {"role": "system", "content": options.system},
            {"role": "user", "content": document.text},
        ]
        return await generate({"messages": messages})

    config = InferenceConfig(
        server_type="endpoint",
        model_name_or_path=MODEL,
        endpoint_url=options.url.removesuffix("/v1"),
        max_concurrent_generations=options.concurrency,
        metric_interval=3600,
    )
    runner = InferenceRunner(
        rollout,
        config,
        JsonlWriter("out", output_filename="${rank}_chunk_${chunk_index}.jsonl", compression=None),
        checkpoints_local_dir=str(Path("checkpoints").resolve()),
        records_per_chunk=1000,
    )
    documents = [Document(text, str(i)) for i, text in enumerate(questions(options))]
    # A finished task is skipped by its rank alone, whatever it is given.
    LocalPipelineExecutor([documents, runner], tasks=1, logging_dir="logs").run()
    lines = [x for path in Path("out").glob("*.jsonl") for x in path.read_text().splitlines()]
    return sum(bool(json.loads(x)["metadata"]["rollout_results"]) for x in lines)


def curator(options: argparse.Namespace) -> int:
    """Its own OpenAI path, limits lifted."""
    os.environ |= {"TELEMETRY_ENABLED": "false", "CURATOR_DISABLE_RICH_DISPLAY": "1"}
    import tiktoken

    # The table of cl100k is fetched from the net at start; one of single bytes is not.
    table = tiktoken.Encoding(
        "bytes",
        pat_str=r"\S+|\s+",
        mergeable_ranks={bytes([i]): i for i in range(256)},
        special_tokens={},
    )
    tiktoken.get_encoding = lambda name: table
    from bespokelabs import curator as tool
    from datasets import Dataset

    class Ask(tool.LLM):  # type: ignore[misc,name-defined]
        def prompt(self, row: dict[str, str]) -> str:
            return row["question"]

        def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
            return {"question": row["question"], "answer": response}

    ask = Ask(
        model_name=MODEL,
        backend="openai",
        system_prompt=options.system,
        backend_params={
            "base_url": options.url,
            "api_key": "none",
            "max_requests_per_minute": 10**7,
            "max_tokens_per_minute": 10**12,
            "max_concurrent_requests": options.concurrency,
        },
    )
    rows = Dataset.from_list([{"question": text} for text in questions(options)])
    found = ask(rows, working_dir=str(Path("curator").resolve()))
    found = getattr(found, "dataset", found)
    return sum(bool(row["answer"]) for row in found)


def data_designer(options: argparse.Namespace) -> int:
    """One column of text over a seed file."""
    os.environ["NEMO_TELEMETRY_ENABLED"] = "false"
    import data_designer.config as dd
    from data_designer.interface import DataDesigner

    lines = [json.dumps({"question": text}) + "\n" for text in questions(options)]
    Path("seeds.jsonl").write_text("".join(lines))
    parameters = dd.ChatCompletionInferenceParams(max_parallel_requests=options.concurrency)
    model = dd.ModelConfig(
        alias="teacher",
        model=MODEL,
        provider="local",
        inference_parameters=parameters,
        skip_health_check=True,
    )
    provider = dd.ModelProvider(name="local", endpoint=options.url, api_key="none")
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.LocalFileSeedSource(path="seeds.jsonl"))
    builder.add_column(
        dd.LLMTextColumnConfig(
            name="answer",
            prompt="{{ question }}",
            system_prompt=options.system,
            model_alias="teacher",
        )
    )
    tool = DataDesigner(artifact_path=Path("artifacts"), model_providers=[provider])
    tool.set_run_config(dd.RunConfig(buffer_size=250))
    found = tool.create(
        builder, num_records=options.rows, dataset_name="rows", resume=dd.ResumeMode.IF_POSSIBLE
    )
    return int(found.load_dataset()["answer"].astype(bool).sum())


def distilabel(options: argparse.Namespace) -> int:
    """One TextGeneration step; a batch is as large as what may be in flight."""
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    rows = [{"instruction": text} for text in questions(options)]
    with Pipeline("rows", cache_dir=Path("cache").resolve()) as pipeline:
        load = LoadDataFromDicts(name="load", data=rows, batch_size=options.concurrency)
        ask = TextGeneration(
            name="ask",
            llm=OpenAILLM(model=MODEL, base_url=options.url, api_key="none"),
            system_prompt=options.system,
            input_batch_size=options.concurrency,
        )
        load >> ask
    found = pipeline.run(use_cache=True)["default"]["train"]
    return sum(bool(row["generation"]) for row in found)


def main() -> None:
    tools = {
        "ours": ours,
        "script": script,
        "datatrove": datatrove,
        "curator": curator,
        "data-designer": data_designer,
        "distilabel": distilabel,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=tools)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--edited", action="store_true", help="one question differs")
    parser.add_argument("--system", default=SYSTEM)
    options = parser.parse_args()
    options.url = f"http://127.0.0.1:{options.port}/v1"
    warm_up(options.tool)
    begin, before = time.monotonic(), sum(os.times()[:4])
    good = tools[options.tool](options)
    seconds, cpu = time.monotonic() - begin, sum(os.times()[:4]) - before
    print("\nMEASURED " + json.dumps([good, seconds, cpu]), flush=True)


def warm_up(tool: str) -> None:
    """Imports are no part of the job."""
    for name in {
        "ours": ["pipeline.flow", "pipeline.stage1_generate.generate", "aiohttp"],
        "script": ["openai"],
        "datatrove": ["datatrove.executor.local", "datatrove.pipeline.inference.run_inference"],
        "curator": ["bespokelabs.curator", "datasets"],
        "data-designer": ["data_designer.config", "data_designer.interface", "pandas"],
        "distilabel": ["distilabel.pipeline", "distilabel.steps.tasks", "distilabel.models"],
    }[tool]:
        importlib.import_module(name)


if __name__ == "__main__":
    main()
