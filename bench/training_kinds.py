"""The quickstart trained in several ways, each with several seeds, on the same rows and tests.

    python bench/training_kinds.py --work /tmp/kinds            # 4 x 3 trainings: 2 hours
    python bench/training_kinds.py --work /tmp/kinds --kinds sft curriculum --seeds 1 2

Plain SFT; with soft targets (lambda 0.5, k = 20, tail bucket); with preferences after it (the
student's own answers rejected); as a curriculum (the shorter half first). All see as many rows.
The teacher is asked once, with log-probabilities; what is finished in --work is not done again.
Printed for each kind: the share of right answers, mean over seeds, and its difference to plain
SFT, with bootstrap intervals over items (scipy, BCa; an item's value is its mean over the seeds,
so the spread over seeds is within it). The spread over seeds is printed beside it, and at the end
every difference with its sign-flip test over items, corrected for their number by Holm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import harness
import numpy as np

ROOT = harness.HERE.parent
KINDS: dict[str, dict[str, Any]] = {
    "sft": {},
    "soft": {"train.soft_targets": {"weight": 0.5, "top_k": 20}},
    "preference": {
        "train.preference": {
            "after": "sft",
            "dpo": {
                "num_train_epochs": 1,
                "learning_rate": 5e-6,
                "per_device_train_batch_size": 4,
                "max_length": 256,
            },
        }
    },
    "curriculum": {
        "train.stages": [
            {"by": "characters", "share": [0, 0.5], "sft": {"num_train_epochs": 1}},
            {"sft": {"num_train_epochs": 1.5}},
        ]
    },
}
MEASURES = {
    "word problems, step by step": ("chain_of_thought", ("step_by_step",)),
    "in context, 8 shots": ("in_context", ("symbol_mapping k=8", "headlines k=8")),
    "trained constraints": ("instruction_following", ("seen_types",)),
    "other constraints": ("instruction_following", ("unseen_types",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="more")
    options = parser.parse_args()
    for name in ("configs", "prompts", "data"):
        shutil.copytree(ROOT / name, options.work / name, dirs_exist_ok=True)
    after: dict[str, dict[str, np.ndarray]] = {}
    for seed in options.seeds:  # so that a part of the table is there early
        for kind in options.kinds:
            run(options.work, kind, seed, options.more)
        after = report(options.work, options.kinds, options.seeds[: options.seeds.index(seed) + 1])
    if "sft" in after and len(after) > 1:
        tests(after)


def run(work: Path, kind: str, seed: int, more: list[str]) -> None:
    settings = {
        "name": f"{kind}-{seed}",
        "teacher.sampling.logprobs": 20,
        "train.sft.seed": seed,
        "evaluate.arms": ["before", "after"],
    } | KINDS[kind]
    words = [word for item in settings.items() for word in ("--set", setting(*item))]
    words += [word for one in more for word in ("--set", one)]
    command = [sys.executable, "-m", "pipeline", "run", "configs/quickstart.yaml", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (work / f"{kind}-{seed}.log").open("a") as log:
        done = subprocess.run(command, cwd=work, stdout=log, stderr=log, env=environment)
    if done.returncode:
        sys.exit(f"{kind}, seed {seed}: exit code {done.returncode}; see {log.name}")


def setting(key: str, value: Any) -> str:
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def right(work: Path, kind: str, seeds: list[int], arm: str = "after") -> dict[str, np.ndarray]:
    """For each measure the shares of right answers: (items, seeds)."""
    found: dict[str, np.ndarray] = {}
    for measure, (ability, variants) in MEASURES.items():
        columns = []
        for seed in seeds:
            path = work / "runs" / f"{kind}-{seed}" / "5_answers" / arm / f"{ability}.jsonl"
            items = defaultdict(list)
            for line in path.read_text().splitlines():
                row = json.loads(line)
                if row["variant"] in variants:
                    items[(row["variant"], row["item_id"])].append(row["correct"])
            columns.append([float(np.mean(items[key])) for key in sorted(items)])
        found[measure] = np.array(columns).T
    return found


def report(work: Path, kinds: list[str], seeds: list[int]) -> dict[str, dict[str, np.ndarray]]:
    """Prints the table. Returns kind -> measure -> (items, seeds)."""
    before = right(work, kinds[0], seeds[:1], "before")
    after = {kind: right(work, kind, seeds) for kind in kinds}
    print(f"\nafter {len(seeds)} seeds; right answers in %, [95 % interval], by seed")
    harness.table(["measure", "kind", "right", "less plain SFT", "by seed", "seconds of training"])
    for measure in MEASURES:
        harness.line([measure, "before", interval(before[measure][:, 0]), "", "", ""])
        for kind in kinds:
            values = after[kind][measure]
            less = ""
            if kind != "sft" and "sft" in kinds:
                less = interval((values - after["sft"][measure]).mean(axis=1))
            by_seed = ", ".join(f"{100 * x:.0f}" for x in values.mean(axis=0))
            seconds = f"{np.mean([training_seconds(work, kind, seed) for seed in seeds]):.0f}"
            harness.line([measure, kind, interval(values.mean(axis=1)), less, by_seed, seconds])
    return after


def tests(after: dict[str, dict[str, np.ndarray]]) -> None:
    """All differences to plain SFT as one family: of a dozen some look large by chance."""
    from scipy.stats import permutation_test

    from pipeline.stage3_evaluate.statistics import holm

    names, found = [], []
    for kind in (kind for kind in after if kind != "sft"):
        for measure in MEASURES:
            gaps = after[kind][measure] - after["sft"][measure]
            item = gaps.mean(axis=1)
            p = 1.0
            if item.any():
                flips = {"permutation_type": "samples", "n_resamples": 20_000, "rng": 0}
                p = float(permutation_test((item,), np.mean, **flips).pvalue)
            by_seed = ", ".join(f"{100 * x:+.1f}" for x in gaps.mean(axis=0))
            names.append([kind, measure, f"{100 * item.mean():+.1f}", by_seed])
            found.append(p)
    print("\nless plain SFT, tested")
    harness.table(["kind", "measure", "difference", "by seed", "p", "p (Holm)"])
    rows = zip(names, found, holm(found), strict=True)
    for name, p, adjusted in sorted(rows, key=lambda row: row[1]):
        harness.line([*name, f"{p:.3f}", f"{adjusted:.3f}"])


def interval(values: np.ndarray) -> str:
    """Mean and 95 % interval in percent points."""
    from scipy.stats import bootstrap

    mean = 100 * values.mean()
    if np.ptp(values) == 0:
        return f"{mean:.1f} [no spread]"
    found = bootstrap((100 * values,), np.mean, rng=0).confidence_interval
    return f"{mean:.1f} [{found.low:.1f}, {found.high:.1f}]"


def training_seconds(work: Path, kind: str, seed: int) -> float:
    lines = (work / "runs" / f"{kind}-{seed}" / "steps.jsonl").read_text().splitlines()
    return sum(
        row["seconds"] for row in map(json.loads, lines) if row["step"] in ("pairs", "train")
    )


if __name__ == "__main__":
    main()
