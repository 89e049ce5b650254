"""vLLM as the teacher of the whole first stage, in process, on this machine."""

from __future__ import annotations

import importlib.util

import pytest

from tests.project import Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed; ./run.sh test --all installs it",
    ),
]


def test_vllm_asks_and_stores_and_a_second_start_asks_nothing(project: Project) -> None:
    project.edit(
        teacher={
            "backend": "vllm",
            "model": str(project.model),
            "sampling": {"max_tokens": 8},
            "serving": {"engine": {"max_model_len": 512, "enforce_eager": True}},
        }
    )
    first = project.distill("generate", "config.yaml")
    assert first.returncode == 0, first.stderr
    assert "36 new" in first.stdout
    again = project.distill("generate", "config.yaml", "--redo", "generate")
    assert again.returncode == 0 and "0 new" in again.stdout, again.stderr
