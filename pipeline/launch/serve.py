"""`distill serve CONFIG`: keep a server for a teacher, and say so in a file of the run.

The same command on n machines, or n times on one with different GPUs, keeps n servers; whoever asks
finds them through these files (pipeline/models/served.py). A server that dies is started again on
another port. Told to stop, this process takes its file away first, so that nobody comes any more,
then ends the server.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline import stopping
from pipeline.config import Config, Teacher, api_key, load_config
from pipeline.errors import DONE, RUN_AGAIN, DriftError, RunFatal, Stopped, UserError
from pipeline.launch import units
from pipeline.launch.plan import asks_missing, save_config_if_none
from pipeline.launch.server import HERE, Server
from pipeline.launch.units import Unit, UnitState, UnitStatus
from pipeline.models import model_identity
from pipeline.models.served import (
    ServerState,
    forget_the_dead,
    new_server,
    remove_server,
    run_key,
    servers_folder,
    write_server,
)

POLL_SECONDS = 0.2
SICK_SECONDS = 60.0  # without a good health check: the server hangs
LAUNCHED = "DISTILL_LAUNCHED"  # in the environment of one that `distill run` ends
NEED_SECONDS = 10.0  # between two looks whether it is needed any more


def serve(
    path: Path, overrides: Sequence[str], teacher: str | None = None, until: str | None = None
) -> int:
    """Keep one server until told to stop (exit code 75), or until `until` has all its answers."""
    stopping.install()
    config = load_config(path, overrides)
    name = served_teacher(config, teacher)
    need = Need(config, until) if until else None
    if need and (why := need.over()):
        print(why)
        return DONE
    servers_folder(config.run_dir).mkdir(parents=True, exist_ok=True)
    (config.run_dir / "launch" / "logs").mkdir(exist_ok=True)
    forget_the_dead(config.run_dir)
    save_config_if_none(config)
    try:
        print(_Keeper(config, name, need.over if need else lambda: None).keep())
    except Stopped:
        if LAUNCHED in os.environ:
            return RUN_AGAIN  # whoever started it says what it means
        raise
    return DONE


def served_teacher(config: Config, name: str | None) -> str:
    """The teacher to serve: the one that is named, or the only one with `serving.serve`."""
    served = [n for n, one in config.all_teachers.items() if one.serving.serve is not None]
    if not served:
        raise UserError(
            "no teacher has `serving: {serve: {}}`, so there is nothing to serve; docs/serving.md "
            "says what it means"
        )
    if name is None and len(served) == 1:
        return served[0]
    if name not in served:
        raise UserError(f"--teacher {name or '?'}: name one of {', '.join(served)}")
    return name


class Need:
    """Whether a step's requests still want a server."""

    def __init__(self, config: Config, until: str) -> None:
        from pipeline.flow import all_steps

        self._config = config
        self._until = until
        self._steps = all_steps(config)
        self._busy_at = time.monotonic()
        self._looked = -math.inf
        self._beats: dict[Unit, tuple[str, int]] = {}  # of units elsewhere, as last seen
        # Thousands of files of shards are not read by many servers every few seconds.
        self._pause = max(NEED_SECONDS, config.execution.shards / 100)

    def over(self) -> str | None:
        """Why no server is needed; None while one is."""
        now, first = time.monotonic(), self._looked == -math.inf
        if now - self._looked < self._pause:
            return None
        self._looked = now
        try:
            if not asks_missing(self._config, self._steps, self._until):
                return f"{self._until} has all its answers: no server is needed"
        except DriftError:  # somebody has redone a step with other settings since we began
            if first:
                raise
        # All of them, so that the next look knows each one's beat.
        busy = [self.at_work(s) for s in units.statuses(self._config.run_dir)]
        if any(busy):
            self._busy_at = now
        idle = max(
            t.serving.serve.idle_minutes
            for t in self._config.all_teachers.values()
            if t.serving.serve is not None
        )
        if now - self._busy_at > 60 * idle:
            return (
                f"no `distill {self._until}` was at work for {idle:g} minutes: the server has "
                "ended; the same command starts one again"
            )
        return None

    def at_work(self, status: UnitStatus) -> bool:
        """Elsewhere a beat that moved between two looks counts: clocks may be wrong."""
        if status.unit.command != self._until or status.state is not UnitState.RUNNING:
            return False
        if units.here(status):
            return units.process_lives(status)
        beat = (status.start, status.beat)
        before = self._beats.get(status.unit, beat)
        self._beats[status.unit] = beat
        return beat != before


class _Keeper:
    """What is kept between two lives of a server."""

    def __init__(self, config: Config, name: str, over: Callable[[], str | None]) -> None:
        self._run = config.run_dir
        self._model: Teacher = config.all_teachers[name]
        settings = self._model.serving.serve
        assert settings is not None
        self._settings = settings
        self._over = over
        place = "teacher" if config.teacher is not None else f"teachers.{name}"
        self._key_file = servers_folder(self._run) / "key"
        if own := api_key(self._model.serving, place):
            self._key = own
            if any("{key_file}" in word for word in settings.command or ()):
                raise UserError(
                    f"{place}.serving.serve.command: {{key_file}} is the key made for the run; "
                    "with api_key_env the server finds the key in that variable"
                )
        else:
            self._key = run_key(self._run)
        self._status = new_server(model_identity(self._model), name, "")
        stem = self._status.file_name.removesuffix(".json")
        self._log = self._run / "launch" / "logs" / f"serve-{stem}.log"
        self._status.log = str(self._log)
        self._written = 0.0
        self._answered: tuple[int, float] | None = None
        self._server: Server | None = None

    def keep(self) -> str:
        """Lives of servers, one after the other; why the last one was ended."""
        stopping.before_the_end(self._drop)
        try:
            while True:
                if (why := self._live()) is not None:
                    return why
        except (UserError, RunFatal) as error:
            self._status.state = ServerState.FAILED
            self._status.last_error = str(error)
            self._write()
            raise
        finally:
            if self._status.state is not ServerState.FAILED:
                remove_server(self._run, self._status)

    def _live(self) -> str | None:
        """One life. None: it died, and another one may begin; else why it was ended."""
        host = self._settings.host or HERE
        key_file, mark = self._key_file.resolve(), self._status.mark
        server = Server(self._model, host, self._key, key_file, self._log, mark)
        self._server = server
        self._status.url, self._status.state = server.url, ServerState.STARTING
        self._status.running = self._status.answered = self._status.rate = self._answered = None
        self._write()
        print(f"starting {server.url}: {shlex.join(server.words)}", flush=True)
        print(f"its log: tail -f {shlex.quote(self._status.log)}", flush=True)
        try:
            return self._watch(server)
        finally:
            # First nobody comes any more, then it ends.
            if self._status.state is ServerState.READY:
                remove_server(self._run, self._status)
            server.end()

    def _drop(self) -> None:
        """At once, for one who cannot wait."""
        remove_server(self._run, self._status)
        if self._server is not None:
            self._server.kill()

    def _watch(self, server: Server) -> str | None:
        began = time.monotonic()
        while True:
            time.sleep(POLL_SECONDS)
            stopping.raise_if_requested()
            if (code := server.exit_code) is not None:
                self._died(server, _how(code))
                return None
            if server.problem is not None:
                raise UserError(f"{server.url}: {server.problem}; change the server's words, or it")
            now = time.monotonic()
            if server.ready and self._status.state is ServerState.STARTING:
                self._status.state = ServerState.READY
                self._write()
                print(f"ready: {server.url} ({now - began:.0f} s)", flush=True)
                if server.is_open:
                    print(
                        f"warning: {server.url} answers without a key: whoever reaches that "
                        "address can use it",
                        file=sys.stderr,
                        flush=True,
                    )
            elif server.ready and now - server.well_at > SICK_SECONDS:
                self._died(server, f"did not answer for {now - server.well_at:.0f} s")
                return None
            elif not server.ready and now - began > 60 * self._settings.start_minutes:
                raise RunFatal(
                    f"{server.url} was not ready within {self._settings.start_minutes:g} minutes "
                    f"(serving.serve.start_minutes); tail {self._status.log}"
                )
            if now - self._written >= units.BEAT_SECONDS:
                self._count(server, now)
                with suppress(OSError):  # a full disk is no reason to end what others ask
                    self._write()
                if (why := self._over()) is not None:
                    return why

    def _died(self, server: Server, how: str) -> None:
        """Raises `RunFatal` where it is not started again."""
        said = f"the server {how}: {server.last_words()}"
        if self._status.state is not ServerState.READY:
            raise RunFatal(f"{said} (it never was ready; tail {self._status.log})")
        self._status.deaths += 1
        self._status.last_error = said
        if self._status.deaths > self._settings.restarts:
            raise RunFatal(
                f"{said} (the {self._status.deaths}. time, and serving.serve.restarts is "
                f"{self._settings.restarts}; tail {self._status.log})"
            )
        print(f"{said}; starting it again", file=sys.stderr, flush=True)

    def _count(self, server: Server, now: float) -> None:
        self._status.running, answered = server.running, server.answered
        if answered is not None and self._answered is not None:
            before, at = self._answered
            self._status.rate = max(0, answered - before) / max(now - at, 1e-9)
        self._status.answered = answered
        self._answered = None if answered is None else (answered, now)

    def _write(self) -> None:
        self._status.beat += 1
        self._status.time = time.time()
        self._written = time.monotonic()
        write_server(self._run, self._status)


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
