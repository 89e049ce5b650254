"""Shared fixtures: a tiny real model, and a small project folder to run commands in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.project import Project, make_project
from tests.tiny import make_tiny_model

# No test may reach a model hub or phone home; set before any library is imported.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "DO_NOT_TRACK": "1"}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without chat tokens or a chat template."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "base", base=True)


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A working folder with seeds, prompts and a config whose teacher is the fake one."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path, tiny_model)
