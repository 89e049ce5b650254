"""What a launcher adds: eight shards of a minute on Slurm and on Ray against the commands by hand.

    python bench/launch_overhead.py                              # some 4 minutes a round
    python bench/launch_overhead.py --slots 2                    # two shards at a time
    python bench/launch_overhead.py --seconds 5 --shards 4 --rounds 1 --on slurm

By hand are the commands that a launcher starts, typed one after the other: `train --check`, the
shards, the gathering. Slurm (two nodes on this machine; needs root) and Ray (`ray start --head`)
are there before the clock starts and have a slot for every shard, or `--slots`. The endpoint takes
half a second an answer, so the shards need hardly any CPU beside the start of their processes,
which is the same for all. Said are seconds from the command to the finished step, and the median of
the ratios of each round. A request that is sent twice ends the measurement.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import harness
from kills import make_project

LATENCY, CONCURRENCY = 0.5, 8
HERE = str(harness.HERE.parent)
DONE = Path("runs/run/1_generations.jsonl")


@dataclass(frozen=True)
class Place:
    """A folder with a config, and how commands are typed in it."""

    folder: Path
    shards: int
    slots: int  # shards at a time

    def do(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *words],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": HERE},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            sys.exit(f"exit code {done.returncode}:\n{done.stdout}")


def by_hand(place: Place) -> None:
    place.do("train", "config.yaml", "--check")
    parts = [f"{number}/{place.shards}" for number in range(1, place.shards + 1)]
    with ThreadPoolExecutor(place.slots) as at_once:
        list(at_once.map(lambda part: place.do("generate", "config.yaml", "--shard", part), parts))
    place.do("generate", "config.yaml", "--gather")


def on_slurm(place: Place) -> None:
    place.do("run", "config.yaml", "--on", "slurm", "--until", "generate")
    while not (place.folder / DONE).exists():
        jobs = subprocess.run(["squeue", "-h"], capture_output=True, text=True).stdout
        if not jobs and not (place.folder / DONE).exists():
            logs = sorted(place.folder.glob("runs/run/launch/logs/*.log"))
            sys.exit("\n".join(path.read_text() for path in logs))
        time.sleep(0.2)


def on_ray(place: Place) -> None:
    place.do("run", "config.yaml", "--on", "ray", "--until", "generate")


def seconds_of(work: Callable[[Place], None], options: argparse.Namespace, address: str) -> float:
    """From the first command to the finished step."""
    from tests.tiny import make_tiny_model

    rows = int(options.shards * options.seconds / LATENCY * CONCURRENCY)
    with tempfile.TemporaryDirectory() as name, harness.server(latency=LATENCY) as port:
        folder = Path(name)
        make_project(folder, port, rows, set(), CONCURRENCY)
        config = json.loads((folder / "config.yaml").read_text())
        config["student"]["model"] = str(make_tiny_model(folder / "student", hidden=16, layers=1))
        config["execution"] |= {
            "shards": options.shards,
            "slurm": {"environment": ["PYTHONPATH"], "options": {"time": 30}},
            "ray": {"address": address, "options": {"num_cpus": 1}},
        }
        (folder / "config.yaml").write_text(json.dumps(config))
        begin = time.monotonic()
        work(Place(folder, options.shards, options.slots or options.shards))
        took = time.monotonic() - begin
        seen = harness.stats(port)
    if seen["distinct"] != rows or seen["requests"] != rows:
        sys.exit(f"{rows} rows, {seen['distinct']} asked, in {seen['requests']} requests")
    return took


@contextlib.contextmanager
def slurm_of(slots: int) -> Iterator[None]:
    from tests.slurm_local import LocalSlurm, missing

    if why := missing():
        sys.exit(f"no Slurm: {why}; leave it out with --on ray")
    local = LocalSlurm(cpus=(slots + 1) // 2)
    os.environ |= local.environment
    try:
        local.start()
        yield
    finally:
        local.stop()


@contextlib.contextmanager
def ray_of(slots: int) -> Iterator[str]:
    """Its address."""
    from tests.ray_local import LocalRay

    local = LocalRay(cpus=slots)
    os.environ |= local.environment | {"PYTHONPATH": HERE}
    try:
        local.add_node()
        yield local.address
    finally:
        local.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of a shard's asking")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--slots", type=int, help="shards at a time; all of them without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--on", nargs="+", choices=["slurm", "ray"], default=["slurm", "ray"])
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}, "
        f"{options.shards} shards of {options.seconds:.0f} s, "
        f"{options.slots or options.shards} at a time"
    )
    works = {"slurm": on_slurm, "ray": on_ray}
    found: dict[str, list[float]] = {name: [] for name in options.on}
    with contextlib.ExitStack() as stack:
        address = ""
        if "slurm" in options.on:
            stack.enter_context(slurm_of(options.slots or options.shards))
        if "ray" in options.on:
            address = stack.enter_context(ray_of(options.slots or options.shards))
        harness.table(["round", "by hand, seconds", *options.on])
        for number in range(1, options.rounds + 1):
            hand = seconds_of(by_hand, options, address)
            took = {name: seconds_of(works[name], options, address) for name in options.on}
            harness.line([number, f"{hand:.1f}", *(f"{took[name]:.1f}" for name in options.on)])
            for name in options.on:
                found[name].append(took[name] / hand)
    for name, ratios in found.items():
        print(f"{name}: median ratio {statistics.median(ratios):.3f} of the commands by hand")


if __name__ == "__main__":
    main()
