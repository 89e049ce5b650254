"""The part of `distill status` about shards and arms: from their files alone."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline.commands import printable
from pipeline.commands.status_logs import last_words, logs_of_commands, logs_of_parts
from pipeline.config import Config
from pipeline.launch import units
from pipeline.launch.units import Unit, UnitState, UnitStatus
from pipeline.steps import records

FEW = 40  # parts with a line each
MOST = 100  # lines of more parts than that: what is not well, and what runs, the slowest first

NO_STATUS = "without a status"
UNWELL = ("failed", "lost", "paused", NO_STATUS)
LISTED = (*UNWELL, "stopped", "running")  # in this order


class Part(msgspec.Struct, frozen=True):
    """A shard, an arm or a whole command. `status` is None before it has begun."""

    unit: Unit
    word: str
    status: UnitStatus | None = None
    log: Path | None = None  # of one that has told nothing since it was last submitted


def print_parts(config: Config, run: Path, every: bool = False) -> None:
    """Every part that has begun, those of the config's shards that have not, and a sum.

    Before them the commands for whole steps that are at work or have not ended well. `every`: a
    line for each part, however many there are.
    """
    found = [Part(status.unit, _word(status), status) for status in units.statuses(run)]
    for part in found:
        if not (part.unit.of or part.unit.arm) and part.word != "done":
            print(_lines(part))
    done = records(run)
    for unit, log in logs_of_commands(config, run, [part.unit for part in found], done):
        print(_lines(Part(unit, NO_STATUS, log=log)))
    for command in ("generate", "evaluate"):
        begun = [p for p in found if p.unit.command == command and (p.unit.of or p.unit.arm)]
        begun = _with_logs(config, run, begun)
        # A step that is done, by whatever parts, waits for none.
        waiting = [] if command in done else _waiting(config, run, command, begun)
        if begun or (waiting and (run / "launch").is_dir()):
            _print_command(run, command, begun, waiting, every)


def _waiting(config: Config, run: Path, command: str, begun: Sequence[Part]) -> list[Part]:
    """Parts of the same division that have no file yet."""
    if command == "generate":
        of = _division(begun) or config.execution.shards
        expected = [Unit(command, n, of) for n in range(1, of + 1)] if of > 1 else []
    else:
        expected = [Unit(command, arm=arm) for arm in config.evaluate.all_arms]
    known = {part.unit for part in begun}
    missing = [unit for unit in expected if unit not in known]
    logs = logs_of_parts(config, run, dict.fromkeys(missing, 0.0))
    return [
        Part(unit, NO_STATUS if unit in logs else "waiting", log=logs.get(unit)) for unit in missing
    ]


def _with_logs(config: Config, run: Path, begun: Sequence[Part]) -> list[Part]:
    """What ended, was submitted again and failed at once says only how it ended the first time."""
    told = {p.unit: p.status.time for p in begun if p.status and p.word in (*UNWELL, "stopped")}
    logs = logs_of_parts(config, run, told)
    return [msgspec.structs.replace(p, log=logs[p.unit]) if p.unit in logs else p for p in begun]


def _division(begun: Sequence[Part]) -> int:
    """Into how many shards the last part to write anything was divided; 0: none has begun."""
    found = [part.status for part in begun if part.status is not None]
    return max(found, key=lambda status: status.time).unit.of if found else 0


def _print_command(
    run: Path, command: str, begun: list[Part], waiting: list[Part], every: bool
) -> None:
    parts = [*begun, *waiting]
    words = Counter(part.word for part in parts)
    counts = ", ".join(f"{n:,} {word}" for word, n in words.items())
    told = "; ".join([counts, *filter(None, [", ".join(_sum(begun, waiting))])])
    print(f"  parts of {command}: {told}")
    parts.sort(key=lambda part: (part.unit.of, part.unit.part))
    if every or len(parts) <= FEW:
        for part in parts:
            print(_lines(part))
    else:
        _print_urgent(run, parts)
    if any(words[word] for word in UNWELL):
        print(
            "    what follows a part that has not ended well does not start, or was cancelled; "
            "the same command that launched it (or the part's own) does what is missing"
        )


def _sum(begun: Sequence[Part], waiting: Sequence[Part]) -> list[str]:
    """Rows and time are of all parts: those that have not counted theirs yet are like the rest."""
    of = _division(begun)
    statuses = [part.status for part in begun if part.status is not None]
    # After another division the rows of the earlier one are among those of the new one.
    last = [status for status in statuses if status.unit.of == of]
    counted = [s for s in last if s.all or s.state is UnitState.DONE]
    found = []
    if counted:
        done = sum(status.done for status in last)
        share = (len(last) + len(waiting)) / len(counted)
        expected = round(sum(status.all for status in counted) * share)
        ended = not waiting and all(status.state is UnitState.DONE for status in last)
        found.append(f"{done:,} of {'' if ended else 'about '}{expected:,} rows")
        rate = sum(p.status.rate for p in begun if p.status is not None and p.word == "running")
        if rate:
            left = max(0, expected - done) / rate
            found += [f"{rate:.2f} rows/s", f"about {left:,.0f} s left"]
    tokens = sum(s.input_tokens + s.output_tokens for s in statuses)
    return found + _used(tokens, sum(s.usd for s in statuses))


def _used(tokens: int, usd: float) -> list[str]:
    return [f"{tokens:,} tokens"] * (tokens > 0) + [f"{usd:,.4f} USD"] * (usd > 0)


def _print_urgent(run: Path, parts: Sequence[Part]) -> None:
    """Of many parts those that want a look; the same words of several of them once."""
    urgent = sorted((part for part in parts if part.word in LISTED), key=_urgency)[:MOST]
    alike: dict[tuple[object, ...], list[Part]] = {}
    for part in urgent:
        said = re.sub(r"\d+", "", _said(part))
        same = part.word in UNWELL and said
        alike.setdefault((part.word, said) if same else (part.unit,), []).append(part)
    for first, *others in alike.values():
        print(_lines(first))
        if others:
            print(f"      and {len(others)} more that say the same: {_names(others)}")
    rest = Counter(part.word for part in parts) - Counter(part.word for part in urgent)
    if rest:
        counts = ", ".join(f"{n:,} {word}" for word, n in rest.items())
        print(f"    and {counts}; a line for each: `distill status {run.name} --all`")


def _names(parts: Sequence[Part]) -> str:
    names = [part.unit.arm or f"{part.unit.part}/{part.unit.of}" for part in parts]
    return ", ".join(names if len(names) <= 8 else [*names[:7], "..."])


def _urgency(part: Part) -> tuple[int, float]:
    left = part.status.seconds_left if part.status is not None else None
    slowest = float("-inf") if left is None else -left
    return LISTED.index(part.word), slowest if part.word == "running" else 0.0


def _word(status: UnitStatus) -> str:
    return "lost" if units.lost(status) else status.state.value


def _said(part: Part) -> str:
    """Its last error, or the last line of its log."""
    if part.status is not None:
        return printable(part.status.last_error, 300) if part.word != "done" else ""
    return printable(last_words(part.log), 300) if part.log is not None else ""


def _lines(part: Part) -> str:
    if part.word == "waiting":
        return f"    {part.unit.words}: waiting"
    if part.status is None:
        lines = [
            f"    {part.unit.words}: no status was written: it never began, or failed at once (or "
            "begins just now)"
        ]
    else:
        facts = ", ".join([part.word, *_facts(part.status, part.word)])
        lines = [f"    {part.unit.words}: {facts}"]
    if part.word == "lost":
        lines.append("      its process is gone without a word (killed?); start it again")
    if said := _said(part):
        lines.append(f"      {said}")
    if part.status is not None and part.log is not None:
        last = printable(last_words(part.log), 300)
        lines.append(f"      submitted again since then; its log ends with: {last}")
    log = str(part.log) if part.log is not None else part.status.log if part.status else ""
    if log and part.word != "done":
        lines.append(f"      tail {shlex.quote(_near(log))}")
    return "\n".join(lines)


def _facts(status: UnitStatus, word: str) -> list[str]:
    facts = [f"{status.done:,}/{status.all:,} rows"] if status.all else []
    if word == "running" and status.all:
        facts.append(f"{status.rate:.2f} rows/s")
        if (left := status.seconds_left) is not None:
            facts.append(f"{left:,.0f} s left")
    facts += _used(status.input_tokens + status.output_tokens, status.usd)
    facts += [f"{status.errors} errors"] if status.errors else []
    facts += [f"started {status.starts} times"] if status.starts > 1 else []
    return [*facts, f"{status.host} {status.pid}"]


def _near(path: str) -> str:
    """As it is typed from here, where that is shorter."""
    return min(path, os.path.relpath(path), key=len)
