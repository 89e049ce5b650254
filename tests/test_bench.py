"""The measurements of bench/ can be repeated by anyone: each runs, small, and says its figures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm_local import missing

NO_FOLDER = (
    "coverage.py",
    "launch_overhead.py",
    "workers.py",
    "http_engine.py",
    "faulty_server.py",
    "restart.py",
    "hostile_answers.py",
)
BENCH = Path(__file__).parent.parent / "bench"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("http_engine.py --seconds 0.2 --rounds 1 --concurrency 16", "| ledger |"),
        ("long_run.py --rows 400 --every 0.5", "one row more"),
        ("edits.py --rows 200", "| filter | 0 | 0 |"),
        ("ledger_scale.py --engine 300 --ledger 2000", "| restart (index file) |"),
        ("kills.py --rows 2000 --kills 3 --poison 2 --latency 0.2", "after 3 kills: exit code 0;"),
        ("faulty_server.py --rows 400 --limit-seconds 2", "| faulty |"),
        ("restart.py --rows 2000", "2,000"),
        ("recuration.py --rows 1000", "1,000"),
        ("hostile_answers.py --rows 200 --seconds 0.3", "| hostile | 0 | 2 |"),
        (
            "duplicates.py --rivals --rows 1000 --exact-rows 2000 --memory-rows 2000 --rounds 1",
            "| near_duplicates |",
        ),
        ("train_ratio.py --model tiny --steps 6 --rounds 1", "median ratio "),
        ("soft_cost.py --model tiny --steps 4 --rounds 1", "soft: median time "),
        pytest.param(
            "launch_overhead.py --seconds 2 --shards 2 --rounds 1 --on slurm",
            "slurm: median ratio ",
            marks=pytest.mark.skipif(missing() is not None, reason="no Slurm here"),
        ),
        (
            "plan_scale.py --only index files --shards 60 --seeds 20 --index 4 --rows 1500",
            "one shard among all: ",
        ),
        ("coverage.py --runs 40 --kinds share difference perplexity", "| perplexity |"),
        ("rivals.py --only ours --rows 300 --rounds 1 --habit-rows 200", "| ours |"),
    ],
)
def test_a_measurement_runs(words: str, says: str, tmp_path: Path) -> None:
    script, *options = words.split()
    work = [] if script in NO_FOLDER else ["--work", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *options, *work],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert says in done.stdout, done.stdout
    assert not list(tmp_path.iterdir()), "it leaves something behind"


@pytest.mark.slow
def test_four_shards_ask_an_endpoint_for_several_times_the_rows_of_one_process() -> None:
    # 20 rows/s and worker, so that the endpoint is the limit and not a core.
    words = ["--rows", "960", "--alone", "240", "--latency", "0.4", "--concurrency", "8"]
    done = subprocess.run(
        [sys.executable, str(BENCH / "workers.py"), *words],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"of asking ([\d.]+); (\d+) requests were sent twice", done.stdout)
    assert found is not None and float(found[1]) >= 2.5 and found[2] == "0", done.stdout


@pytest.mark.slow
def test_the_measurement_against_lm_eval_runs(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra lm-eval")
    rows = [f'{{"question": "What is {n} + 1?", "answer": "So #### {n + 1}"}}\n' for n in (2, 3)]
    (tmp_path / "sums.jsonl").write_text("".join(rows))
    words = [
        "--items",
        "2",
        "--tokens",
        "4",
        "--rounds",
        "1",
        "--batches",
        "2",
        "--threads",
        "1",
        "--data",
        "sums.jsonl",
    ]
    done = subprocess.run(
        [sys.executable, str(BENCH / "lm_eval_ratio.py"), *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert "median ratio " in done.stdout and "right on the same answers" in done.stdout


@pytest.mark.slow
def test_the_extractors_are_compared(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra lm-eval")
    solution = "4 boxes of 4 cost 4*4 = $<<4*4=16>>16.00\\n#### 16"
    (tmp_path / "solved.jsonl").write_text(f'{{"question": "?", "answer": "{solution}"}}\n')
    done = subprocess.run(
        [sys.executable, str(BENCH / "extractors.py"), "--data", "solved.jsonl"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert "| without the last line | 1.000 | 0.000 | 0.000 | 1 | 1 |" in done.stdout
    assert "| as written | 1.000 | 1.000 | 1.000 | 0 | 0 |" in done.stdout
