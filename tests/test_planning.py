"""docs/planning.md shows what bench/planning.py says, from sizes that the code really has."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipeline import ledger, ledger_index

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def planning() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planning", ROOT / "bench" / "planning.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["planning"] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_table_that_the_program_prints(planning: ModuleType) -> None:
    page = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
    assert "\n".join(planning.lines()) in page
    assert f"{ledger_index.MOST_SEGMENTS:,} segments" in page
    assert planning.SEGMENT_BYTES == ledger.SEGMENT_BYTES


def test_another_job_has_its_own_arithmetic(planning: ModuleType) -> None:
    job = planning.Job(7_200_000, rows_per_shard=100_000, output_tokens=500, tokens_per_second=1000)
    found = planning.plan(job)
    assert found.shards == 72
    assert found.output_tokens == 3.6e9 and found.gpu_hours == pytest.approx(1000)
    assert found.asking_hours == pytest.approx(125)
    assert found.shard_index_bytes == pytest.approx(2_400_000)


def test_a_small_simulation_finds_the_bytes_that_the_arithmetic_takes(
    planning: ModuleType, tmp_path: Path
) -> None:
    words = "--only partitions --rows 1500 --shards 50 --partitions 2 --work"
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "plan_scale.py"), *words.split(), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    part = re.search(r"^\| 2 \| [\d.]+ \| 1 \| (\d+) \| ([\d.]+) \|$", done.stdout, re.M)
    assert part is not None, done.stdout
    job, measured = planning.Job(1), planning.Measured()
    row = measured.line_bytes + job.bytes_per_token * (job.input_tokens + job.output_tokens)
    assert float(part[1]) == pytest.approx(row, rel=0.02)
    assert float(part[2]) == pytest.approx(measured.index_bytes, rel=0.01)
    assert "shard 2 of 50 opens its own: 1,500 ids" in done.stdout
    assert "shard 2 of 51 has to open all: 3,000 ids" in done.stdout
    assert not list(tmp_path.iterdir()), "it leaves something behind"
