"""The part of `distill status` about servers that `distill serve` keeps: from their files alone."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from pipeline.commands import printable
from pipeline.models.served import ServerState, ServerStatus, seems_lost, servers

MOST_SHOWN = 40


def print_servers(run: Path) -> None:
    found = [(status, _word(status)) for status in servers(run)]
    if not found:
        return
    words = [word for _, word in found]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    rates = [s.rate for s, word in found if word == "ready" and s.rate is not None]
    rate = f"; {sum(rates):.2f} requests/s" if rates else ""
    print(f"  servers: {counts}{rate}")
    for status, word in found[:MOST_SHOWN]:
        print(_line(status, word))


def _word(status: ServerStatus) -> str:
    gone = status.state is not ServerState.FAILED and seems_lost(status)
    return "lost" if gone else status.state.value


def _line(status: ServerStatus, word: str) -> str:
    parts = [f"{status.url} ({status.teacher}): {word}"]
    if word == "ready":
        parts += [f"{status.rate:.2f} requests/s"] if status.rate is not None else []
        parts += [f"{status.running} running"] if status.running is not None else []
    parts += [f"died {status.deaths} times"] if status.deaths else []
    parts.append(f"{status.host} {status.pid}")
    line = f"    {', '.join(parts)}"
    if word == "lost":
        line += "\n      `distill serve` is gone without a word (killed?); start it again"
    if status.last_error:
        line += f"\n      {printable(status.last_error, 300)}"
    if word != "ready":
        log = min(status.log, os.path.relpath(status.log), key=len)
        line += f"\n      tail {shlex.quote(log)}"
    return line
