"""The one door to any language model: `open_model(...)`, then `model.generate(requests)`.

Teacher, student before, student after and judges all stand behind it; nothing else in the
pipeline produces text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from pipeline.config import Config, ModelConfig, api_key
from pipeline.config_models import Changes, StudentModel
from pipeline.errors import UserError
from pipeline.ledger import ledger_folder
from pipeline.models.locate import Checkpoint, identity_of, unpack
from pipeline.records import Generation, Grade, Request, digest

if TYPE_CHECKING:
    from pipeline.models.openai_api import Serving as HTTPServing

RUNS = Path("runs")


class Model(Protocol):
    identity: str  # what the ledger knows it by

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Generation]:
        """Answers in order of arrival, one for each request.

        A `None` among the requests means: nothing to ask until the answers so far were read.

        Pulls requests lazily and keeps a bounded number in flight. A failed row is a Generation
        with finish ERROR; `RunFatal` is raised only when no row can succeed any more. When
        `requests` ends, what is in flight is finished and yielded.
        """
        ...

    def close(self) -> None: ...


# What each backend can return; a recipe above it is refused before anything is asked.
GRADES = {
    "openai": Grade.TOP_LOGPROBS,
    "vllm": Grade.TOP_LOGPROBS,
    "transformers": Grade.TOP_LOGPROBS,
    "fake": Grade.TEXT,
}


def grade_of(config: ModelConfig) -> Grade:
    return GRADES[config.backend]


def model_identity(config: ModelConfig) -> str:
    """The identity without opening the model. The same checkpoint is the same model anywhere."""
    if config.backend in ("openai", "fake"):
        return f"{config.model}@{config.revision}" if config.revision else config.model
    identity = identity_of(config.model, config.revision)
    changes = _changes_of(config).model_dump(exclude_defaults=True)
    return f"{identity}+{digest(changes, 16)}" if changes else identity


def open_model(
    config: ModelConfig,
    place: str = "teacher",
    *,
    online: bool = False,
    run: Path | None = None,
) -> Model:
    """Open the backend that a config names. `place` is its key, for messages.

    `online`: answers are wanted now, whatever `serving.batch` says. `run`: the folder of the run,
    where servers of its own are found.

    Imports are inside: the process that talks to an endpoint never loads torch.
    """
    identity = model_identity(config)
    if config.serving.serve is not None:
        return _open_served(config, place, identity, run)
    if config.backend == "openai":
        return _open_endpoint(config, place, online)
    if config.backend == "fake":
        from pipeline.models.fake import FakeModel

        return FakeModel(identity, config.serving.script)
    here = config.backend == "transformers"
    checkpoint = local_checkpoint(config, onnx=here)
    if here:
        from pipeline.models.transformers_local import TransformersModel

        return TransformersModel(checkpoint, identity, config.serving)
    from pipeline.models.vllm_engine import VLLMModel, VLLMServing

    return VLLMModel(
        checkpoint.source,
        revision=checkpoint.revision,
        identity=identity,
        serving=VLLMServing(
            engine=config.serving.engine,
            # Unless the user chose a number, the engine's own size decides.
            concurrency=config.serving.concurrency,
        ),
    )


def http_serving(config: ModelConfig, place: str) -> HTTPServing:
    from pipeline.models.openai_api import Serving as HTTPServing

    urls = config.serving.base_url or "https://api.openai.com/v1"
    return HTTPServing(
        base_url=tuple([urls] if isinstance(urls, str) else urls),
        api_key=api_key(config.serving, place),
        api_key_env=config.serving.api_key_env,
        concurrency=config.serving.endpoint_concurrency,
        timeout=config.serving.timeout,
        requests_per_minute=config.serving.requests_per_minute,
        tokens_per_minute=config.serving.tokens_per_minute,
        max_retries=config.serving.max_retries,
    )


def _open_served(config: ModelConfig, place: str, identity: str, run: Path | None) -> Model:
    """The same model as without servers, by name and by the seeds of its rows."""
    from pipeline.models.found_endpoints import Served
    from pipeline.models.openai_api import OpenAIModel
    from pipeline.models.served import run_key
    from pipeline.models.vllm_engine import row_seed

    serve = config.serving.serve
    assert serve is not None and run is not None
    served = Served(run=run, model=identity, wait_seconds=60 * serve.wait_minutes)
    serving = msgspec.structs.replace(http_serving(config, place), base_url=(), served=served)
    if serving.api_key is None:
        serving = msgspec.structs.replace(serving, api_key=run_key(run))
    seeds = row_seed if config.backend == "vllm" else None
    return OpenAIModel(
        config.model, revision=config.revision, serving=serving, identity=identity, seed_of=seeds
    )


def _open_endpoint(config: ModelConfig, place: str, online: bool) -> Model:
    from pipeline.models.batch_records import open_parts
    from pipeline.models.openai_api import OpenAIModel

    serving = http_serving(config, place)
    model = OpenAIModel(config.model, revision=config.revision, serving=serving)
    batch = config.serving.batch
    # Rows of an open batch are paid for: a run that no longer makes batches waits for them too.
    if online or (batch is None and not open_parts(ledger_folder(RUNS, model.identity))):
        return model
    from pipeline.models.provider_batch import BatchModel

    return BatchModel(model, config.model, serving, batch, RUNS)


def local_checkpoint(config: ModelConfig, *, onnx: bool = False) -> Checkpoint:
    """A folder or hub id that transformers, vLLM and the trainer can all open.

    A student is changed first, once, where its config or its chat template asks for it.
    `onnx`: whether a folder with ONNX weights will do, which the transformers backend alone runs.
    """
    model, serving = config.model, config.serving
    checkpoint = unpack(model, config.revision)
    if checkpoint.onnx and not onnx:
        raise UserError(
            f"{model}: is a student exported to ONNX, which can only be asked, by the backend "
            "`transformers`; name the folder it was exported from, or one with safetensors"
        )
    if checkpoint.remote_code and not serving.trust_remote_code:
        raise UserError(
            f"{model}: its config.json asks to run code that comes with the model (auto_map). "
            "If you have read that code and trust it, set `serving: {trust_remote_code: true}`"
        )
    if not isinstance(config, StudentModel):
        return checkpoint
    from pipeline.models.changes import changed

    return changed(checkpoint, model, model_identity(config), config.changes, serving)


def student_model(config: Config) -> StudentModel:
    """The student before training. All that stages 1 to 3 know of it comes from here."""
    student = config.student
    template = None
    if student.chat_template is not None:
        path = Path(student.chat_template)
        if path.suffix not in (".jinja", ".j2") or not path.is_file():
            raise UserError(
                f"student.chat_template: {student.chat_template!r} is not there, or not a .jinja "
                f"file (looked from {Path.cwd()}); it holds the text of a chat template"
            )
        template = path.read_text(encoding="utf-8")
    # Layers that are left out keep the others' weights: nothing is drawn.
    drawn = set(student.shrink) - {"num_hidden_layers"}
    return StudentModel(
        backend=student.backend,
        model=student.model,
        revision=student.revision,
        serving=student.serving,
        changes=Changes(
            chat_template=template,
            add_tokens=student.add_tokens,
            shrink=student.shrink,
            seed=config.seed if drawn else None,
        ),
    )


def student_identity(config: Config) -> str:
    """What the student before training is known by: its weights and what is changed of them."""
    return model_identity(student_model(config))


def student_checkpoint(config: Config) -> Checkpoint:
    """The student before training as files, made once where it is changed."""
    return local_checkpoint(student_model(config))


def _changes_of(config: ModelConfig) -> Changes:
    return config.changes if isinstance(config, StudentModel) else Changes()
