"""`distill export`: a dry run by default, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.project import Project, make_project, write_seeds

HUB = ("--to", "hub", "--repo", "me/sums")


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    project = make_project(tmp_path_factory.mktemp("export"), tiny_model)
    return _curated(project)


def _curated(project: Project) -> Project:
    for command in ("generate", "curate"):
        ended = project.call(command, "config.yaml")
        assert ended.returncode == 0, ended.stderr
    return project


class RecordingHub:
    """In place of huggingface_hub.HfApi: what it was asked to do."""

    calls: list[tuple[str, dict[str, Any]]] = []  # noqa: RUF012

    def __init__(self, token: str) -> None:
        self.calls.append(("token", {"token": token}))

    def create_repo(self, repo: str, **options: Any) -> None:
        self.calls.append(("create_repo", {"repo": repo, **options}))

    def upload_folder(self, **options: Any) -> str:
        self.calls.append(("upload_folder", options))
        return "https://hub.example/me/sums"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    monkeypatch.setattr("huggingface_hub.HfApi", RecordingHub)
    monkeypatch.setattr(RecordingHub, "calls", [])
    monkeypatch.setenv("HF_TOKEN", "hf_test_token_of_nobody")
    return RecordingHub.calls


def test_a_dry_run_says_what_would_go_and_touches_no_hub(
    curated: Project, hub: list[tuple[str, dict[str, Any]]]
) -> None:
    ended = curated.call("export", "small", *HUB)
    assert ended.returncode == 0, ended.stderr
    size = (curated.run / "3_dataset" / "train-00000-of-00001.parquet").stat().st_size
    for part in ("hub me/sums (private)", f"{size:,} bytes", "rows", "| license:", "dry run"):
        assert part in ended.stdout, part
    assert not hub


def test_with_yes_one_private_commit_holds_all_files(
    curated: Project, hub: list[tuple[str, dict[str, Any]]]
) -> None:
    ended = curated.call("export", "small", *HUB, "--yes")
    assert ended.returncode == 0 and "hub.example" in ended.stdout, ended.stderr
    assert [name for name, _ in hub] == ["token", "create_repo", "upload_folder"]
    assert hub[1][1]["private"] is True and hub[1][1]["repo_type"] == "dataset"
    assert Path(hub[2][1]["folder_path"]).name == "3_dataset"


def test_without_a_token_nothing_is_pushed(
    curated: Project, hub: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    ended = curated.call("export", "small", *HUB, "--yes")
    assert ended.returncode == 2 and "HF_TOKEN" in ended.stderr and not hub


def test_a_folder_gets_a_dataset_that_loads(curated: Project, tmp_path: Path) -> None:
    from datasets import load_dataset

    place = tmp_path / "there"
    assert curated.call("export", "small", "--to", "folder", str(place)).returncode == 0
    assert not place.exists()
    ended = curated.call("export", "small", "--to", "folder", f"file://{place}", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert sum(len(rows) for rows in load_dataset(str(place)).values()) == 12
    again = curated.call("export", "small", "--to", "folder", str(place), "--yes")
    assert again.returncode == 2 and "--replace" in again.stderr
    again = curated.call("export", "small", "--to", "folder", str(place), "--yes", "--replace")
    assert again.returncode == 0, again.stderr
    assert sum(len(rows) for rows in load_dataset(str(place)).values()) == 12
    (place / "SHA256SUMS").unlink()
    others = curated.call("export", "small", "--to", "folder", str(place), "--replace")
    assert others.returncode == 2 and "not empty" in others.stderr


def test_rows_of_the_evaluation_are_not_exported_unless_one_says_so(
    curated: Project, tmp_path: Path
) -> None:
    copy = Project(Path(shutil.copytree(curated.folder, tmp_path / "copy")), curated.model)
    write_seeds(copy.folder / "eval.jsonl", 6)  # the very seeds: somebody changed the evaluation
    refused = copy.call("export", "small", "--to", "folder", "out")
    assert refused.returncode == 2 and "overlap with evaluation items: train:0" in refused.stderr
    overruled = copy.call("export", "small", "--to", "folder", "out", "--with-contamination")
    assert overruled.returncode == 0


def test_rows_with_secrets_are_named_and_their_secrets_are_not(project: Project) -> None:
    key = "AKIA" + "QWERTYUIOP234567"
    teacher = f"def answer(request):\n    return 'Take {key}. The answer is ' + request.seed_id\n"
    (project.folder / "teacher.py").write_text(teacher)
    project.edit(tasks__0__filters=[])
    _curated(project)
    refused = project.call("export", "small", "--to", "folder", "out", "--yes")
    assert refused.returncode == 2 and "train:0 (AWS Access Key)" in refused.stderr
    assert key not in refused.stderr and not (project.folder / "out").exists()
    overruled = project.call("export", "small", "--to", "folder", "out", "--yes", "--with-secrets")
    assert overruled.returncode == 0 and (project.folder / "out" / "README.md").is_file()


@pytest.mark.parametrize("words", [["hub"], ["folder"], ["gguf"], ["folder", "a", "b"]])
def test_targets_that_make_no_sense_are_answered_with_the_two_forms(
    curated: Project, words: list[str]
) -> None:
    ended = curated.call("export", "small", "--to", *words)
    assert ended.returncode == 2 and "--to hub --repo OWNER/NAME" in ended.stderr
