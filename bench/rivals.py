"""The same rows through other tools and through ours, in turn, on the same server.

    python bench/rivals.py --work /tmp/rivals         # installs them there first; some 20 minutes
    python bench/rivals.py --only ours script --rows 2000

Each tool lives in an environment of its own under --work, and is driven by its function in
rival_clients.py with the settings that suit it best: no limits of its own, no telemetry, as many
requests in flight as asked for. Speed: rows/s and CPU (user + system, with its child processes)
of the job alone, imports left out; medians over the rounds. Then each on fresh state: killed half
way and started again; one row edited; the system prompt changed. The server counts what it is
asked. A tool that cannot be installed or fails is said so in its line, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path

import harness

CLIENT = harness.HERE / "rival_clients.py"
INSTALL_SECONDS = 600


@dataclass
class Rival:
    """What to install, and the share of --rows that is enough for a slow tool."""

    packages: list[str]
    share: float = 1.0


RIVALS = {
    "ours": Rival([]),
    "script": Rival(["openai"]),
    "datatrove": Rival(
        ["datatrove", "aiohttp", "aiosqlite", "aiofiles", "httpx", "orjson", "xxhash"]
    ),
    "curator": Rival(["bespokelabs-curator"], 0.5),
    "data-designer": Rival(["data-designer"], 0.25),
    "distilabel": Rival(["distilabel[openai]", "requests"], 0.25),
}


class Trouble(Exception):
    """Why a tool has no figure, in a few words."""


def install(name: str, work: Path) -> Path:
    """The tool's Python; made and filled if it is not there."""
    if name == "ours":
        return Path(sys.executable)
    folder = work / "environments" / name
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return python
    print(f"installing {name}", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", *RIVALS[name].packages]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise Trouble(f"not installed within {INSTALL_SECONDS} s") from None
    if ended.returncode:
        raise Trouble("not installed: " + last_line(ended.stderr))
    done.touch()
    return python


def last_line(text: str) -> str:
    lines = [part.strip() for part in text.splitlines() if part.strip()]
    return lines[-1][:160] if lines else "(it said nothing)"


@dataclass
class Bench:
    """One server, the tools' Pythons, and how a job is given to them."""

    options: argparse.Namespace
    port: int
    pythons: dict[str, Path]

    def start(self, name: str, rows: int, state: Path, *more: str) -> subprocess.Popen[str]:
        """The client in a session of its own, so that its children can be killed with it."""
        command = [str(self.pythons[name]), str(CLIENT), name, "--port", str(self.port)]
        command += ["--rows", str(rows), "--concurrency", str(self.options.concurrency)]
        state.mkdir(parents=True, exist_ok=True)
        root = str(harness.HERE.parent)
        return subprocess.Popen(
            [*command, *more],
            cwd=state,
            env=os.environ | {"HOME": str(state), "PYTHONPATH": root if name == "ours" else ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=harness.off_core_0,
        )

    def run(self, name: str, rows: int, state: Path, *more: str) -> list[float]:
        """[seconds, CPU seconds] of a job that ends; `Trouble` if it does not end well."""
        process = self.start(name, rows, state, *more)
        try:
            text, _ = process.communicate(timeout=self.options.timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            raise Trouble(f"not done after {self.options.timeout} s") from None
        found = [part for part in text.splitlines() if part.startswith("MEASURED ")]
        if process.returncode or not found:
            raise Trouble(last_line(text))
        good, seconds, cpu = json.loads(found[-1].removeprefix("MEASURED "))
        if good != rows:
            raise Trouble(f"{good} of {rows} rows came back")
        return [seconds, cpu]

    def asked(self) -> int:
        return int(harness.stats(self.port)["requests"])

    def answered(self) -> int:
        return int(harness.stats(self.port)["statuses"].get("200", 0))


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def rows_of(name: str, options: argparse.Namespace) -> int:
    return max(200, int(options.rows * RIVALS[name].share))


def speed(bench: Bench, work: Path) -> None:
    """Rounds of all tools in turn, each on fresh state."""
    options = bench.options
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in bench.pythons}
    trouble: dict[str, str] = {}
    for number in range(options.rounds):
        for name in bench.pythons:
            if name in trouble:
                continue
            rows = rows_of(name, options)
            try:
                seconds, cpu = bench.run(name, rows, work / f"speed-{number}-{name}")
            except Trouble as error:
                trouble[name] = str(error)
                continue
            found[name].append((rows / seconds, cpu / rows * 1e6))
    print(
        f"\n{options.latency * 1000:g} ms, {options.concurrency} at a time, 2 KB answers; medians"
    )
    harness.table(["tool", "rows", "rows/s", "of ideal", "us CPU/row", "rounds"])
    for name, runs in found.items():
        if not runs or name in trouble:
            harness.line([name, rows_of(name, options), trouble.get(name, ""), "", "", len(runs)])
            continue
        rate, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
        ideal = rate * options.latency / options.concurrency
        numbers = [f"{rate:,.0f}", f"{ideal:.2f}", f"{cpu:,.0f}", len(runs)]
        harness.line([name, rows_of(name, options), *numbers])


def resumed(bench: Bench, name: str, rows: int, state: Path) -> str:
    """Kill the job when half is answered, start it again: requests beyond what was missing."""
    before, answered = bench.asked(), bench.answered()
    process = bench.start(name, rows, state)
    limit = time.monotonic() + bench.options.timeout
    while bench.answered() - answered < rows // 2:
        if process.poll() is not None or time.monotonic() > limit:
            kill(process)
            raise Trouble("ended before it could be killed")
        time.sleep(0.02)
    kill(process)
    time.sleep(0.5)  # answers to the dead are on their way
    paid = bench.answered() - answered
    bench.run(name, rows, state)
    return f"{bench.asked() - before - rows} of {paid}"


def changed(bench: Bench, name: str, rows: int, state: Path, *change: str) -> str:
    """Run the job again after a change: how many requests it made."""
    before = bench.asked()
    bench.run(name, rows, state, *change)
    return str(bench.asked() - before)


def habits(bench: Bench, work: Path) -> None:
    """What a kill, an edited row and a new system prompt cost."""
    rows = bench.options.habit_rows
    print(f"\n{rows} rows; a kill half way: requests made again, of those answered before it")
    head = "tool; asked again after a kill; one row edited (right: 1)"
    head += f"; system prompt changed (right: {rows}); same job again (right: 0)"
    harness.table(head.split("; "))
    for name in bench.pythons:
        state = work / f"habits-{name}"
        cells = [name]
        jobs = (
            lambda name=name, s=state / "kill": resumed(bench, name, rows, s),
            lambda name=name, s=state / "edit": first_then(bench, name, rows, s, "--edited"),
            lambda name=name, s=state / "system": first_then(bench, name, rows, s, "--system", "B"),
            lambda name=name, s=state / "same": first_then(bench, name, rows, s),
        )
        for job in jobs:
            try:
                cells.append(job())
            except Trouble as error:
                cells.append(str(error))
        harness.line(cells)


def first_then(bench: Bench, name: str, rows: int, state: Path, *change: str) -> str:
    bench.run(name, rows, state)
    return changed(bench, name, rows, state, *change)


def versions(pythons: dict[str, Path]) -> None:
    """Say what was measured."""
    for name, python in pythons.items():
        for package in RIVALS[name].packages[:1]:
            package = package.split("[")[0]
            code = f"import importlib.metadata as m; print(m.version({package!r}))"
            done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
            print(f"{package} {done.stdout.strip()}", end="; ")
    print()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="where all goes (default: a temporary folder)")
    parser.add_argument("--only", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--rows", type=int, default=6000, help="slow tools get a share of them")
    parser.add_argument("--habit-rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one job")
    parser.add_argument("--skip", nargs="+", choices=["speed", "habits"], default=[])
    return parser.parse_args()


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        pythons: dict[str, Path] = {}
        for name in options.only:
            try:
                pythons[name] = install(name, work)
            except Trouble as error:
                print(f"{name}: {error}")
        versions(pythons)
        state = Path(tempfile.mkdtemp(dir=work, prefix="state-"))
        try:
            with harness.server(latency=options.latency) as port:
                bench = Bench(options, port, pythons)
                if "speed" not in options.skip:
                    speed(bench, state)
                if "habits" not in options.skip:
                    habits(bench, state)
        finally:
            shutil.rmtree(state, ignore_errors=True)


if __name__ == "__main__":
    main()
