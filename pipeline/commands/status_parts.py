"""The part of `distill status` about shards and arms: from their files alone."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from pipeline.commands import printable
from pipeline.config import Config
from pipeline.launch import units
from pipeline.launch.units import Unit, UnitState, UnitStatus
from pipeline.steps import records

MOST_SHOWN = 40  # parts with a line each; of more, only those that are not well


def print_parts(config: Config, run: Path) -> None:
    """Every part that has begun, those of the config's shards that have not, and a sum.

    Before them the commands for whole steps that are at work or have not ended well.
    """
    every = list(units.statuses(run))
    for status in every:
        if not (status.unit.of or status.unit.arm) and status.state is not UnitState.DONE:
            print(_line(status, _state(status)))
    done = records(run)
    found = [status for status in every if status.unit.of or status.unit.arm]
    for command in ("generate", "evaluate"):
        mine = [status for status in found if status.unit.command == command]
        # A step that is done, by whatever parts, waits for none.
        waiting = [] if command in done else _waiting(config, command, mine)
        if mine or (waiting and (run / "launch").is_dir()):
            _print_command(command, mine, waiting)


def _waiting(config: Config, command: str, begun: Sequence[UnitStatus]) -> list[Unit]:
    """Parts of the same division that have no file yet."""
    of = max(begun, key=lambda s: s.time).unit.of if begun else config.execution.shards
    if command == "generate":
        every = [Unit(command, n, of) for n in range(1, of + 1)] if of > 1 else []
    else:
        every = [Unit(command, arm=arm) for arm in config.evaluate.all_arms]
    known = {status.unit for status in begun}
    return [unit for unit in every if unit not in known]


def _print_command(command: str, begun: list[UnitStatus], waiting: list[Unit]) -> None:
    words = [_state(status) for status in begun] + ["waiting"] * len(waiting)
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    done, every = sum(s.done for s in begun), sum(s.all for s in begun)
    rate = sum(s.rate for s in begun if _state(s) == "running")
    tokens = sum(s.input_tokens + s.output_tokens for s in begun)
    usd = sum(s.usd for s in begun)
    parts = [f"{done:,} of about {every:,} rows"]
    parts += [f"{rate:.2f} rows/s", f"about {(every - done) / rate:,.0f} s left"] if rate else []
    parts += [f"{tokens:,} tokens by the last processes"] if tokens else []
    parts += [f"{usd:.4f} USD"] if usd else []
    print(f"  parts of {command}: {counts}; {', '.join(parts)}")
    shown = [(status, word) for status, word in zip(begun, words, strict=False)]
    if len(begun) > MOST_SHOWN:
        shown = [(s, word) for s, word in shown if word not in ("done", "running")]
        print(f"    (more than {MOST_SHOWN} parts: only those that are not well)")
    for status, word in shown[:MOST_SHOWN]:
        print(_line(status, word))
    for unit in waiting[: max(0, MOST_SHOWN - len(begun))]:
        print(f"    {unit.words}: waiting")
    if any(word in ("failed", "lost", "paused") for word in words):
        print(
            "    what follows a part that has not ended well does not start, or was cancelled; "
            "the same command that launched it (or the part's own) does what is missing"
        )


def _state(status: UnitStatus) -> str:
    return "lost" if units.lost(status) else status.state.value


def _line(status: UnitStatus, word: str) -> str:
    parts = [f"{status.done:,}/{status.all:,} rows"] if status.all else []
    if word == "running" and status.all:
        parts.append(f"{status.rate:.2f} rows/s")
        if (left := status.seconds_left) is not None:
            parts.append(f"{left:,.0f} s left")
    parts += [f"{status.errors} errors"] if status.errors else []
    parts.append(f"{status.host} {status.pid}")
    line = f"    {status.unit.words}: {word}, {', '.join(parts)}"
    if word == "lost":
        line += "\n      its process is gone without a word (killed?); start it again"
    if status.last_error and word != "done":
        line += f"\n      {printable(status.last_error, 300)}"
    if status.log and word != "done":
        line += f"\n      tail {shlex.quote(_near(status.log))}"
    return line


def _near(path: str) -> str:
    """As it is typed from here, where that is shorter."""
    return min(path, os.path.relpath(path), key=len)
