"""Step `cost`: what it costs to use each model: the reason for distilling at all.

Teacher, student and the models of `evaluate.models` answer the same few questions of the
evaluation under the same engine, which is the student's backend, each in a process of its own, so
that its peak of memory is its own. A model that is only known over HTTP cannot be measured.

    5_cost.json     a record per model
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config, ModelConfig
from pipeline.errors import RunFatal
from pipeline.models import Model, local_checkpoint, model_identity, open_model
from pipeline.records import Finish, Request, Sampling
from pipeline.stage3_evaluate.arms import arm_model, identities, trained_folder
from pipeline.stage3_evaluate.evaluate import questions_of
from pipeline.stage3_evaluate.held_out_text import LOCAL
from pipeline.steps import Step, StepResult

FILE = "5_cost.json"
TAG = "cost of use: "  # before the child's result: libraries print, too


class Cost(msgspec.Struct, frozen=True):
    """One model. Seconds and tokens/s hold for the whole way through the door."""

    arm: str
    model: str
    parameters: int
    disk_bytes: int  # of its weights
    memory_gb: float  # the most that was taken: of the accelerator's memory, or of the process's
    first_token_seconds: float  # median of one question at a time
    alone: float  # tokens/s, one question at a time
    together: float  # tokens/s, all questions at once
    questions: int
    engine: str
    device: str


class _Job(msgspec.Struct, frozen=True):
    """What the child is told."""

    arm: str
    model: dict[str, Any]
    requests: list[Request]


def step(config: Config) -> Step:
    measured = _measured(config)
    known = identities(config)
    table = config.evaluate.cost_of_use
    assert table is not None
    trained = (trained_folder(config, arm) for arm in measured)
    return Step(
        name="cost",
        run=config.run_dir,
        settings=table.model_dump(mode="json")
        # Where it computes makes no identity elsewhere; here it is what is measured.
        | {"engine": config.student.model_dump(mode="json", include={"backend", "serving"})}
        | {"models": {arm: known.get(arm, "trained") for arm in measured}},
        inputs=[folder for folder in trained if folder is not None],
        outputs=[config.run_dir / FILE],
        work=lambda: measure(config),
    )


def _measured(config: Config) -> list[str]:
    """The arms whose size can differ: another seed's student is as large as the student."""
    others = [name for name in config.evaluate.all_arms if name in config.evaluate.models]
    arms = [arm for arm in ("teacher", "after") if arm in config.evaluate.all_arms]
    return [*arms, *others]


def measure(config: Config) -> StepResult:
    """Ask each model in its own process and write 5_cost.json."""
    found, left_out = [], []
    for arm in _measured(config):
        model = arm_model(config, arm)
        if model.backend not in LOCAL:
            left_out.append(arm)
            continue
        print(f"measuring the cost of use: {arm}", flush=True)
        found.append(_in_a_process(_job(config, arm, model)))
    path = config.run_dir / FILE
    partial = path.with_name(f"{FILE}.partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2))
    os.replace(partial, path)
    return StepResult(
        counts={"models": len(found)},
        notes={"not measured, only known by answers": left_out} if left_out else {},
    )


def _job(config: Config, arm: str, model: ModelConfig) -> _Job:
    table = config.evaluate.cost_of_use
    assert table is not None
    student = config.student
    # One engine for all, or the numbers would compare engines.
    same = ModelConfig(
        backend=student.backend,
        model=model.model,
        revision=model.revision,
        serving=student.serving,
    )
    identity = model_identity(same)
    sampling = Sampling(temperature=0.0, max_tokens=table.tokens)
    every = list(questions_of(config, "before"))
    spread = every[:: max(1, len(every) // table.questions)]
    requests = [
        msgspec.structs.replace(question.request(identity), sampling=sampling)
        for question in islice(spread, table.questions)
    ]
    return _Job(arm, same.model_dump(mode="json"), requests)


def _in_a_process(job: _Job) -> Cost:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.stage3_evaluate.cost_of_use"],
        input=msgspec.json.encode(job),
        stdout=subprocess.PIPE,
        check=False,
    )
    for line in done.stdout.decode(errors="replace").splitlines():
        if line.startswith(TAG):
            return msgspec.json.decode(line.removeprefix(TAG), type=Cost)
    raise RunFatal(
        f"the cost of use of {job.arm} could not be measured: its process ended with code "
        f"{done.returncode}; what it said is above. Leave evaluate.cost_of_use out to go on "
        "without it"
    )


def cost_of(job: _Job) -> Cost:
    """Ask the questions: each for one token, each in full, and all at once."""
    config = ModelConfig.model_validate(job.model)
    parameters, size = _size(config)
    model = open_model(config, "student")
    try:
        first = [
            msgspec.structs.replace(r, sampling=msgspec.structs.replace(r.sampling, max_tokens=1))
            for r in job.requests
        ]
        _ask(model, first[:1])  # the first call builds kernels and buffers
        waits = [_ask(model, [request])[1] for request in first]
        alone = [_ask(model, [request]) for request in job.requests]
        together = _ask(model, job.requests)
        device, memory = _machine(config)
    finally:
        model.close()
    return Cost(
        arm=job.arm,
        model=config.model,
        parameters=parameters,
        disk_bytes=size,
        memory_gb=memory,
        first_token_seconds=statistics.median(waits),
        alone=sum(tokens for tokens, _ in alone) / sum(seconds for _, seconds in alone),
        together=together[0] / together[1],
        questions=len(job.requests),
        engine=config.backend,
        device=device,
    )


def _ask(model: Model, requests: list[Request]) -> tuple[int, float]:
    """(tokens that came back, seconds)."""
    begin, tokens = time.monotonic(), 0
    for generation in model.generate(iter(requests)):
        if generation.finish is Finish.ERROR:
            raise RunFatal(f"a question failed: {generation.error}")
        tokens += generation.usage.output
    return tokens, time.monotonic() - begin


def _size(config: ModelConfig) -> tuple[int, int]:
    """(parameters, bytes of the weights); tied weights count once."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    checkpoint = local_checkpoint(config)
    folder = Path(checkpoint.source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(checkpoint.source, revision=checkpoint.revision))
    trust = config.serving.trust_remote_code
    with torch.device("meta"):
        shape = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
        empty = AutoModelForCausalLM.from_config(shape, trust_remote_code=trust)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return sum(p.numel() for p in empty.parameters()), size


def _machine(config: ModelConfig) -> tuple[str, float]:
    """(device, peak memory in GB)."""
    import torch

    from pipeline.models.weights import device_of
    from pipeline.stage2_train.watch import memory_gb

    device = device_of(config.serving)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return name, round(memory_gb(), 3)


def saved_costs(run: Path) -> list[Cost]:
    path = run / FILE
    return msgspec.json.decode(path.read_bytes(), type=list[Cost]) if path.is_file() else []


if __name__ == "__main__":
    result = cost_of(msgspec.json.decode(sys.stdin.buffer.read(), type=_Job))
    print(TAG + msgspec.json.encode(result).decode(), flush=True)
