"""`distill doctor CONFIG`: is the teacher reachable, does it honour what it is asked, does the
student fit? A handful of small requests; the teacher is paid for them, and nothing is stored.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from pipeline.commands import printable
from pipeline.config import Config, Teacher
from pipeline.errors import DONE, FAILED, RunFatal, UserError
from pipeline.flow import checked_config
from pipeline.models import Model, http_serving, model_identity, open_model, student_checkpoint
from pipeline.models.served import ServerState, reachable, say_none, seems_lost, servers
from pipeline.records import (
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    request_id,
)

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


class Health(StrEnum):
    OK = "ok"
    MISSING = "no"  # not honoured, but nothing in this config needs it
    BAD = "BAD"


def doctor(path: Path, overrides: Sequence[str]) -> int:
    config = checked_config(path, overrides)
    worst = DONE
    for name, teacher in config.all_teachers.items():
        print(f"{name}: {teacher.model} through {teacher.backend}")
        for health, what in _teacher(config, teacher):
            print(f"  {health.value:3} {what}")
            worst = FAILED if health is Health.BAD else worst
    print(f"student: {config.student.model}")
    for health, what in _student(config):
        print(f"  {health.value:3} {what}")
        worst = FAILED if health is Health.BAD else worst
    return worst


def _request(model: str, text: str, sampling: Sampling, index: int = 0, **extra: Any) -> Request:
    messages = (Message("user", text),)
    key = request_id(model, messages, sampling, index, extra.get("schema"))
    ref = PromptRef("doctor", "")
    return Request(key, "doctor", "doctor", ref, messages, sampling, index, model, **extra)


def _teacher(config: Config, teacher: Teacher) -> list[tuple[Health, str]]:
    name = model_identity(teacher)
    if teacher.serving.serve is not None:
        known = servers(config.run_dir, name)
        ready = [s for s in known if s.state is ServerState.READY and not seems_lost(s)]
        if not any(map(reachable, ready)):
            how = "`distill serve CONFIG` keeps one; ask the doctor again when it is ready"
            return [(Health.BAD, f"no server is ready ({say_none(known)}): {how}")]
    model = open_model(teacher, online=True, run=config.run_dir)
    found: list[tuple[Health, str]] = []
    try:
        hello = _ask(model, _request(name, "Say hello.", Sampling(temperature=0.0, max_tokens=64)))
        if hello.finish is Finish.ERROR:
            return [(Health.BAD, f"answers nothing: {printable(hello.error or '', 300)}")]
        found.append((Health.OK, f"answers: {printable(hello.text, 60)!r} ({hello.finish})"))
        counted = hello.usage.output > 0
        found.append(
            (Health.OK if counted else Health.MISSING, "reports token counts (needed for costs)")
        )
        if hello.reasoning:
            found.append((Health.OK, "its reasoning is kept apart from its text"))
        found.append(_logprobs(model, name))
        found.append(_cut(model, name))
        found.append(_samples(model, name))
        found.append(_schema(model, name))
        if teacher.serving.batch is not None:
            found.append(_batches(teacher))
    finally:
        model.close()
    return found


def _ask(model: Model, request: Request) -> Generation:
    return next(iter(model.generate([request])))


def _logprobs(model: Model, name: str) -> tuple[Health, str]:
    sampling = Sampling(temperature=0.0, max_tokens=4, logprobs=5)
    try:
        got = _ask(model, _request(name, "Count to three.", sampling))
    except UserError as error:
        return Health.MISSING, f"top log-probabilities: {error}"
    honoured = bool(got.logprobs and got.logprobs[0].top)
    health = Health.OK if honoured else Health.MISSING
    return health, "top log-probabilities (needed for soft targets)"


def _cut(model: Model, name: str) -> tuple[Health, str]:
    sampling = Sampling(temperature=0.0, max_tokens=3)
    got = _ask(model, _request(name, "Write a long story about the sea.", sampling))
    if got.finish is Finish.LENGTH:
        return Health.OK, "max_tokens is honoured, and a cut-off answer says so"
    return Health.BAD, f"max_tokens of 3 was not honoured (finish {got.finish})"


def _samples(model: Model, name: str) -> tuple[Health, str]:
    sampling = Sampling(temperature=1.0, max_tokens=24)
    text = "Invent a name for a boat and say why."
    asked = [_request(name, text, sampling, i) for i in range(3)]
    texts = {g.text for g in model.generate(asked)}
    if len(texts) > 1:
        return Health.OK, f"{len(texts)} of 3 samples of one prompt differ"
    return Health.BAD, "three samples at temperature 1 are the same: several samples buy nothing"


def _schema(model: Model, name: str) -> tuple[Health, str]:
    sampling = Sampling(temperature=0.0, max_tokens=64)
    text = "Describe seven red apples as JSON with colour and count."
    try:
        got = _ask(model, _request(name, text, sampling, schema=SCHEMA))
        value = msgspec.json.decode(got.text)
        honoured = isinstance(value, dict) and set(value) == {"colour", "count"}
    except UserError:
        honoured = False
    except msgspec.DecodeError:
        honoured = False
    return (Health.OK if honoured else Health.MISSING), "a JSON schema is honoured"


def _batches(teacher: Teacher) -> tuple[Health, str]:
    from pipeline.models.batch_client import BatchClient

    client = BatchClient(http_serving(teacher, "teacher"))
    try:
        client.check()
    except RunFatal as error:
        return Health.BAD, f"no batch API: {printable(str(error), 300)}"
    finally:
        client.close()
    return Health.OK, "its batch API answers"


def _student(config: Config) -> list[tuple[Health, str]]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    checkpoint = student_checkpoint(config)
    import torch

    found: list[tuple[Health, str]] = []
    try:
        shape = AutoConfig.from_pretrained(checkpoint.source, revision=checkpoint.revision)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(shape)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, revision=checkpoint.revision)
    except (OSError, ValueError) as error:
        return [(Health.BAD, f"cannot be opened: {printable(str(error), 300)}")]
    parameters = sum(p.numel() for p in model.parameters())
    # Weights, gradients and AdamW's two moments, float32; activations come on top.
    need = parameters * (4 if config.train.lora else 16) / 2**30
    if torch.cuda.is_available():
        have, where = torch.cuda.get_device_properties(0).total_memory / 2**30, "GPU memory"
    else:
        have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / 2**30
        where = "free memory"
    fits = Health.OK if need * 1.2 < have else Health.BAD
    found.append(
        (
            fits,
            f"{parameters / 1e6:.0f} M parameters: training takes {need:.1f} GB and "
            f"activations, {where} is {have:.1f} GB",
        )
    )
    chat = Health.OK if tokenizer.chat_template else Health.BAD
    found.append((chat, "its tokenizer has a chat template"))
    free = shutil.disk_usage(".").free / 2**30
    room = Health.OK if free > need * 3 else Health.BAD
    found.append((room, f"checkpoints take up to {need * 2.25:.1f} GB, the disk has {free:.1f} GB"))
    return found
