"""The report's 95 % intervals hold the truth in 93 to 97 % of simulated evaluations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench" / "coverage.py"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["share", "two_tasks", "draws", "small_difference", "perplexity"])
def test_an_interval_holds_the_truth_as_often_as_it_says(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH), "--kinds", kind], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"| {kind} |")]
    share = float(line.split("|")[3].strip().removesuffix(" %"))
    assert 93 <= share <= 97, line
