"""`distill serve`: servers found through files of the run, lost, late, locked, ended in time."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.config import load_config
from pipeline.errors import RunFatal, Stopped, UserError
from pipeline.launch.local_servers import all_failed, check_reachable, gpu_shares
from pipeline.launch.serve import Need
from pipeline.launch.server import as_words, reserve
from pipeline.launch.units import Unit, new_status
from pipeline.ledger import Damage, Ledger, line_key, scan
from pipeline.models import found_endpoints, model_identity, served
from pipeline.models.found_endpoints import Served
from pipeline.models.openai_api import OpenAIModel, Serving
from pipeline.models.served import ServerState, ServerStatus, new_server, servers, write_server
from tests.fake_server import FakeServer, answer_to
from tests.project import Project, write_seeds
from tests.test_openai_backend import rows

COMMAND = [
    sys.executable, "-m", "tests.served_by", "--host", "{host}", "--port", "{port}",
    "--model", "{model}", "--key-file", "{key_file}", "--folder", ".",
]  # fmt: skip


def use_servers(project: Project, seeds: int = 30, **serve: Any) -> None:
    write_seeds(project.folder / "seeds.jsonl", seeds)
    settings = {"command": COMMAND, "wait_minutes": 1} | serve
    project.edit(
        teacher={
            "backend": "openai",
            "model": "teacher-m",
            "sampling": {"seed": 1},  # so that no two samples are one request on the wire
            "serving": {"concurrency": 4, "timeout": 20, "serve": settings},
        }
    )


class Typed:
    """`distill serve` and others as a person starts them in several terminals."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *words],
            cwd=self.project.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.project.environment(),
        )
        self.started.append(process)
        return process

    def serve(self, *words: str) -> subprocess.Popen[str]:
        return self.start("serve", "config.yaml", *words)

    def end(self) -> None:
        for process in self.started:
            process.terminate()
        for process in self.started:
            try:
                process.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def typed(project: Project) -> Iterator[Typed]:
    found = Typed(project)
    yield found
    found.end()


def wait_until(true: Callable[[], object], what: str, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"after {seconds} s still not: {what}"
        time.sleep(0.05)


def wait_for_line(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    while words not in (line := process.stdout.readline()):
        assert line, "it has ended"


def ready(project: Project) -> list[ServerStatus]:
    return [s for s in servers(project.run) if s.state is ServerState.READY]


def seen(project: Project, what: str = "seen") -> list[list[str]]:
    """The bodies that each server has seen, or answered."""
    return [path.read_text().split() for path in sorted(project.folder.glob(f"*.{what}"))]


def counted(project: Project, what: str = "seen") -> Counter[str]:
    return Counter(body for each in seen(project, what) for body in each)


def stored(project: Project) -> Counter[str]:
    """How often the ledger holds each request."""
    found: Counter[str] = Counter()
    for path in (project.folder / "runs" / "ledger").glob("*/*.jsonl"):
        for item in scan(path):
            if not isinstance(item, Damage):
                found[line_key(item[1])[0]] += 1
    return found


def server_pid(status: ServerStatus) -> int:
    """Of the server itself: the child of its keeper."""
    children = Path(f"/proc/{status.pid}/task/{status.pid}/children").read_text().split()
    return int(children[0])


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_two_servers_share_the_work_and_each_request_is_asked_once(
    project: Project, typed: Typed
) -> None:
    use_servers(project)
    (project.folder / "slow").write_text("0.05")
    keepers = [typed.serve(), typed.serve()]
    wait_until(lambda: len(ready(project)) == 2, "two servers are ready")
    done = project.call("generate", "config.yaml")
    assert done.returncode == 0, done.stderr
    each = seen(project)
    assert len(each) == 2 and min(map(len, each)) > 20
    assert set(counted(project).values()) == {1} and counted(project).total() == 90
    shown = project.call("status", "small").stdout
    assert "servers: 2 ready" in shown and ready(project)[0].url in shown
    pids = [server_pid(status) for status in ready(project)]
    begin = time.monotonic()
    for keeper, number in zip(keepers, (signal.SIGTERM, signal.SIGUSR1), strict=True):
        keeper.send_signal(number)
    assert [keeper.wait(10) for keeper in keepers] == [75, 75]
    assert time.monotonic() - begin < 4
    assert not servers(project.run) and all(map(gone, pids))


@pytest.mark.slow
def test_a_killed_server_is_started_again_and_nothing_is_lost(
    project: Project, typed: Typed
) -> None:
    use_servers(project)
    (project.folder / "slow").write_text("0.1")
    typed.serve()
    typed.serve()
    wait_until(lambda: len(ready(project)) == 2, "two servers are ready")
    asking = typed.start("generate", "config.yaml")
    wait_until(lambda: [len(one) > 5 for one in seen(project)] == [True, True], "both are asked")
    os.kill(server_pid(ready(project)[0]), signal.SIGKILL)
    wait_until(lambda: any(s.deaths for s in ready(project)), "it is ready again")
    assert asking.wait(60) == 0, asking.communicate()[0]
    assert len(Ledger(project.folder / "runs", "teacher-m")) == 90
    twice = [n for n in counted(project).values() if n > 1]
    assert len(twice) <= 4, "only what was in flight there is asked again"
    assert len(counted(project, "answered")) == 90
    shown = project.call("status", "small").stdout
    assert "died 1 times" in shown and "was killed by SIGKILL" in shown


@pytest.mark.slow
def test_a_keeper_that_is_killed_takes_its_server_along_and_the_others_go_on(
    project: Project, typed: Typed
) -> None:
    use_servers(project)
    (project.folder / "slow").write_text("0.1")
    typed.serve()
    wait_until(lambda: len(ready(project)) == 1, "a server is ready")
    asking = typed.start("generate", "config.yaml")
    typed.serve()
    wait_until(lambda: len(seen(project)) == 2, "the late one is asked, too")
    first = ready(project)[0]
    pid = server_pid(first)
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: gone(pid), "its server is gone")
    assert asking.wait(60) == 0, asking.communicate()[0]
    assert len(Ledger(project.folder / "runs", "teacher-m")) == 90
    assert "1 ready, 1 lost" in project.call("status", "small").stdout.replace(
        "1 lost, 1 ready", "1 ready, 1 lost"
    )
    typed.serve()  # forgets the dead of its machine

    def forgotten() -> bool:
        return first.file_name not in {s.file_name for s in servers(project.run)}

    wait_until(lambda: len(ready(project)) == 2 and forgotten(), "the lost one is forgotten")


def test_what_a_wrapper_leaves_behind_is_killed_by_the_next_keeper(
    project: Project, typed: Typed
) -> None:
    # The shell gets the signal of its parent's death, and its child does not.
    words = ["bash", "-c", '"$@" & echo $! > inner; wait', "bash"]
    use_servers(project, command=words + COMMAND)
    first = typed.serve()
    wait_until(lambda: ready(project), "it is ready")
    pid = int((project.folder / "inner").read_text())
    first.kill()
    first.wait()
    time.sleep(0.5)
    assert not gone(pid), "else this test shows nothing"
    typed.serve()
    wait_until(lambda: gone(pid), "it is gone")
    wait_until(lambda: ready(project), "the next one is ready")


def test_a_command_waits_for_a_server_and_says_what_it_waits_for(
    project: Project, typed: Typed
) -> None:
    use_servers(project, wait_minutes=0.02)
    none = project.call("generate", "config.yaml")
    assert none.returncode == 75
    assert "none was started" in none.stderr and "distill serve CONFIG" in none.stderr
    use_servers(project)
    (project.folder / "loading").touch()
    typed.serve()
    asking = typed.start("generate", "config.yaml")
    wait_until(lambda: servers(project.run), "a server is starting")
    wait_for_line(asking, "waiting for a server of teacher-m")
    time.sleep(1)
    assert asking.poll() is None and not ready(project)
    (project.folder / "loading").unlink()
    assert asking.wait(60) == 0


def test_a_stop_signal_ends_a_command_that_waits(project: Project, typed: Typed) -> None:
    use_servers(project)
    asking = typed.start("generate", "config.yaml")
    wait_for_line(asking, "waiting for a server")
    begin = time.monotonic()
    asking.send_signal(signal.SIGTERM)
    assert asking.wait(10) == 75
    assert time.monotonic() - begin < 3


@pytest.mark.slow
def test_a_server_that_cannot_start_is_one_message_with_its_last_words(
    project: Project, typed: Typed
) -> None:
    use_servers(project, servers=2, wait_minutes=60)
    (project.folder / "broken").touch()
    done = typed.serve()
    assert done.wait(20) == 1
    said = done.communicate()[0]
    assert "ended with 3" in said and "out of GPU memory" in said and "Traceback" not in said
    # It does not wait for what never comes.
    run = project.distill("run", "config.yaml", "--until", "generate")
    assert run.returncode == 1 and "every server has ended" in run.stderr, run.stderr
    assert "servers: 3 failed" in project.call("status", "small").stdout


def test_servers_that_are_told_to_stop_have_not_failed(project: Project, typed: Typed) -> None:
    use_servers(project, servers=1)
    (project.folder / "loading").touch()
    keeper = typed.serve()
    wait_until(lambda: servers(project.run), "a server is starting")
    assert not all_failed([keeper])
    keeper.terminate()
    assert keeper.wait(15) == 75 and not all_failed([keeper])
    (project.folder / "broken").touch()
    broken = typed.serve()
    assert broken.wait(30) == 1 and all_failed([broken])


@pytest.mark.slow
def test_distill_run_starts_servers_and_ends_them(project: Project) -> None:
    use_servers(project, servers=2)
    (project.folder / "slow").write_text("0.03")
    run = project.distill("run", "config.yaml", "--until", "generate")
    assert run.returncode == 0, run.stderr
    assert len(seen(project)) == 2 and not servers(project.run)
    assert "stopped" not in run.stderr
    pids = subprocess.run(["pgrep", "-f", str(project.run)], capture_output=True, text=True)
    assert not pids.stdout.split()


def test_a_server_ends_by_itself_when_its_command_has_all_answers(
    project: Project, typed: Typed
) -> None:
    use_servers(project, 4)
    keeper = typed.serve("--until", "generate")
    wait_until(lambda: ready(project), "it is ready")
    assert project.call("generate", "config.yaml").returncode == 0
    assert keeper.wait(30) == 0
    assert "generate has all its answers" in keeper.communicate()[0]
    assert not servers(project.run)
    again = project.call("serve", "config.yaml", "--until", "generate")
    assert again.returncode == 0 and "no server is needed" in again.stdout


def test_a_question_that_fails_for_good_needs_no_server_once_the_arm_is_done(
    project: Project, typed: Typed
) -> None:
    use_servers(project, wait_minutes=0.02)
    project.edit(evaluate__arms=["teacher"])
    (project.folder / "refused").write_text("Basket BBBBBBBBBBB ")
    keeper = typed.serve()
    wait_until(lambda: ready(project), "it is ready")
    arm = project.call("evaluate", "config.yaml", "--arm", "teacher")
    assert arm.returncode == 0, arm.stderr
    keeper.terminate()
    assert keeper.wait(15) == 75
    whole = project.call("evaluate", "config.yaml")
    assert whole.returncode == 1 and "2 rows failed for good" in whole.stderr, whole.stderr
    assert "no such thing" in whole.stderr and (project.run / "6_scores.json").is_file()
    again = project.call("evaluate", "config.yaml", "--redo", "evaluate")
    assert again.returncode == 75 and "no server of teacher-m" in again.stderr


def test_nobody_is_served_without_the_key_and_it_is_in_no_command_or_log(
    project: Project, typed: Typed
) -> None:
    use_servers(project, 4)
    typed.serve()
    wait_until(lambda: ready(project), "it is ready")
    (status,) = ready(project)
    key_file = project.run / "launch" / "endpoints" / "key"
    key = key_file.read_text().strip()
    assert len(key) > 30 and key_file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{status.url}/models", timeout=5)
    assert project.call("generate", "config.yaml").returncode == 0
    command = Path(f"/proc/{server_pid(status)}/cmdline").read_bytes()
    assert key.encode() not in command
    for path in project.folder.rglob("*"):
        if path.is_file() and path != key_file:
            assert key.encode() not in path.read_bytes(), path


def test_a_server_that_speaks_no_http_for_a_while_is_checked_again(
    project: Project, typed: Typed
) -> None:
    use_servers(project, 4)
    (project.folder / "garbled").touch()
    keeper = typed.serve()
    wait_for_line(keeper, "its log")
    time.sleep(1.5)
    assert keeper.poll() is None and not ready(project)
    (project.folder / "garbled").unlink()
    wait_until(lambda: ready(project), "it is ready")


def test_a_part_on_another_machine_is_at_work_by_its_beats_not_by_its_clock(
    project: Project,
) -> None:
    use_servers(project)
    need = Need(load_config(project.config), "generate")
    part = msgspec.structs.replace(new_status(Unit("generate", 1, 2), ""), host="n1")
    part.time = time.time() - 3600
    assert not need.at_work(part)
    part.beat += 1
    assert need.at_work(part)
    assert not need.at_work(part)
    here = new_status(Unit("generate", 2, 2), "")
    assert need.at_work(here) and need.at_work(here)


def test_a_server_that_takes_everybody_is_said(project: Project, typed: Typed) -> None:
    use_servers(project, 4, command=COMMAND[:-4] + COMMAND[-2:])
    keeper = typed.serve()
    wait_until(lambda: ready(project), "it is ready")
    time.sleep(0.3)
    keeper.terminate()
    assert "answers without a key" in keeper.communicate(timeout=15)[0]


def test_a_server_with_another_model_is_refused(project: Project) -> None:
    words = [word if word != "{model}" else "another" for word in COMMAND]
    use_servers(project, 4, command=words)
    done = project.distill("serve", "config.yaml")
    assert done.returncode == 2
    assert "calls its models another" in done.stderr and "teacher-m" in done.stderr


def test_the_doctor_says_that_no_server_is_there(project: Project) -> None:
    use_servers(project)
    done = project.call("doctor", "config.yaml")
    assert "no server is ready" in done.stdout and "distill serve CONFIG" in done.stdout


# ---- the asking side alone, with servers of "other machines"


def announced(run: Path, server: FakeServer, host: str) -> ServerStatus:
    status = new_server("m", "teacher", "")
    changed = msgspec.structs.replace(
        status, host=host, url=server.url, state=ServerState.READY, beat=1
    )
    (run / "launch" / "endpoints").mkdir(parents=True, exist_ok=True)
    write_server(run, changed)
    return changed


@pytest.fixture
def one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 stands for the addresses of several."""
    monkeypatch.setattr(found_endpoints, "reachable", lambda status: True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, one_machine: None) -> None:
    monkeypatch.setattr(found_endpoints, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(served, "LOST_SECONDS", 0.5)


def asked(run: Path, **options: Any) -> OpenAIModel:
    wanted = Served(run=run, model="m", wait_seconds=5)
    return OpenAIModel("m", revision=None, serving=Serving(served=wanted, timeout=30.0, **options))


@pytest.mark.usefixtures("quick")
def test_what_is_in_flight_on_a_machine_that_is_cut_off_is_asked_elsewhere(tmp_path: Path) -> None:
    with FakeServer(latency=0.01) as well, FakeServer() as cut_off:
        cut_off.behave = lambda ask: _hanging()
        announced(tmp_path, cut_off, "n1")
        there = announced(tmp_path, well, "n2")
        model = asked(tmp_path, concurrency=4)
        begin = time.monotonic()
        found = {}
        for generation in model.generate(rows(60)):
            found[generation.request_id] = generation
            there.beat += 1
            there.time = time.time()
            write_server(tmp_path, there)
            if len(found) == 5:
                cut_off.__exit__()  # answers no health check either
        model.close()
    assert len(found) == 60 and all(g.text == answer_to(_said(g.request_id)) for g in
                                    found.values())  # fmt: skip
    assert time.monotonic() - begin < 10, "not only when the request timed out"


def _hanging() -> Any:
    from tests.fake_server import Reply

    return Reply(hang=True)


def _said(request_id: str) -> list[dict[str, str]]:
    text = request_id.removeprefix("id ").rpartition(" ")[0]
    return [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]


@pytest.mark.usefixtures("quick")
def test_a_server_whose_beats_stop_is_kept_while_it_is_well(tmp_path: Path) -> None:
    with FakeServer(latency=0.05) as server:
        announced(tmp_path, server, "n1")  # no beat follows, as on a disk that shows files late
        model = asked(tmp_path, concurrency=2)
        assert len(list(model.generate(rows(40)))) == 40
        model.close()


@pytest.mark.usefixtures("quick")
def test_servers_of_another_model_and_long_silent_ones_are_not_asked(tmp_path: Path) -> None:
    with FakeServer() as other, FakeServer() as silent, FakeServer() as right:
        write_server(tmp_path, msgspec.structs.replace(announced(tmp_path, other, "n1"), model="b"))
        old = announced(tmp_path, silent, "n2")
        write_server(tmp_path, msgspec.structs.replace(old, time=time.time() - 1000))
        announced(tmp_path, right, "n3")
        model = asked(tmp_path, concurrency=4)
        assert len(list(model.generate(rows(20)))) == 20
        model.close()
        assert (other.requests, silent.requests, right.requests) == (0, 0, 20)


def test_the_loopback_address_of_another_machine_is_not_asked(tmp_path: Path) -> None:
    with FakeServer() as server:
        announced(tmp_path, server, "n1")
        wanted = Served(run=tmp_path, model="m", wait_seconds=0.2)
        model = OpenAIModel("m", revision=None, serving=Serving(served=wanted, timeout=30.0))
        with pytest.raises(Stopped, match=r"1 on n1 for that machine alone.*0\.0\.0\.0"):
            list(model.generate(rows(1)))
        model.close()
        assert server.requests == 0


def test_servers_that_have_all_failed_end_a_command_for_good(tmp_path: Path) -> None:
    with FakeServer() as server:
        status = announced(tmp_path, server, "n1")
        status.state, status.last_error = ServerState.FAILED, "out of GPU memory"
        write_server(tmp_path, status)
        wanted = Served(run=tmp_path, model="m", wait_seconds=0.2)
        model = OpenAIModel("m", revision=None, serving=Serving(served=wanted, timeout=30.0))
        with pytest.raises(RunFatal, match="1 failed; the last one: out of GPU memory"):
            list(model.generate(rows(1)))
        model.close()


def test_beside_its_servers_a_teacher_is_only_asked_and_its_weights_stay_closed(
    project: Project,
) -> None:
    texts = ({"id": f"t{n}", "text": "Figs and pears are fruits."} for n in range(2))
    (project.folder / "texts.jsonl").write_text("".join(f"{json.dumps(t)}\n" for t in texts))
    teacher = {"backend": "vllm", "model": str(project.model), "serving": {"serve": {}}}
    project.edit(teacher=teacher, evaluate__arms=["teacher"], evaluate__held_out_text="texts.jsonl")
    wanted = load_config(project.config).teacher
    assert wanted is not None
    with FakeServer() as server:
        status = msgspec.structs.replace(
            announced(project.run, server, "n1"), host=socket.gethostname()
        )
        status.model = model_identity(wanted)
        write_server(project.run, status)
        done = project.call("evaluate", "config.yaml", "--arm", "teacher", "--no-weights")
        assert done.returncode == 0 and server.requests, done.stderr
    assert not list((project.run / "launch").glob("arms/text-*/*"))
    whole = project.call("evaluate", "config.yaml")  # the servers have ended
    assert whole.returncode == 0, whole.stderr
    assert len((project.run / "5_text" / "teacher.jsonl").read_text().splitlines()) == 2


@pytest.mark.usefixtures("one_machine")
def test_each_server_gets_the_whole_window(tmp_path: Path) -> None:
    with FakeServer(latency=0.2) as one, FakeServer(latency=0.2) as two:
        announced(tmp_path, one, "n1")
        announced(tmp_path, two, "n2")
        model = asked(tmp_path, concurrency=8)
        assert len(list(model.generate(rows(64)))) == 64
        model.close()
        assert one.most_in_flight == two.most_in_flight == 8
        assert abs(one.requests - two.requests) <= 8


# ---- configs, words, scripts


def test_servers_are_no_part_of_an_identity(project: Project) -> None:
    engine = {"backend": "vllm", "model": str(project.model)}
    project.edit(teacher=engine)
    in_process = load_config(project.config).teacher
    project.edit(teacher=engine | {"serving": {"serve": {}}})
    through_servers = load_config(project.config).teacher
    assert in_process is not None and through_servers is not None
    assert model_identity(in_process) == model_identity(through_servers)


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        ({"backend": "fake", "serving": {"serve": {}}}, "backends vllm"),
        ({"backend": "openai", "serving": {"serve": {}}}, "needs `command`"),
        ({"backend": "vllm", "serving": {"serve": {"command": ["x"]}}}, "backend: openai"),
        ({"backend": "vllm", "serving": {"serve": {}, "base_url": "http://a"}}, "take base_url"),
        ({"backend": "vllm", "serving": {"serve": {"args": ["--api-key=x"]}}}, "--api-key is set"),
        ({"backend": "vllm", "serving": {"serve": {"args": ["--port", "1"]}}}, "--port is set"),
        ({"backend": "vllm", "serving": {"serve": {"server": 2}}}, "did you mean 'servers'"),
    ],
)
def test_a_mistake_is_one_message(project: Project, teacher: dict[str, Any], says: str) -> None:
    project.edit(teacher={"model": "m"} | teacher)
    refused = project.call("serve", "config.yaml")
    assert refused.returncode == 2 and says in refused.stderr, refused.stderr


def test_nothing_to_serve_is_said(project: Project) -> None:
    refused = project.call("serve", "config.yaml")
    assert refused.returncode == 2 and "nothing to serve" in refused.stderr


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_a_server_may_listen_on_the_port_that_is_held_for_it(option: int) -> None:
    with reserve("127.0.0.1") as held, socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, option, 1)
        server.bind(held.getsockname())
        server.listen()
        socket.create_connection(held.getsockname(), timeout=5).close()


def test_engine_options_become_words_of_the_server() -> None:
    options = {"max_model_len": 512, "enforce_eager": True, "async_scheduling": False}
    options |= {"compilation_config": {"level": 0}, "revision": None, "lora_modules": ["a", "b"]}
    assert as_words(options) == [
        "--max-model-len", "512", "--enforce-eager", "--no-async-scheduling",
        "--compilation-config", '{"level":0}', "--lora-modules", "a", "b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("visible", "n", "shares"),
    [
        ("0,1,2,3", 2, ["0,1", "2,3"]),
        ("4,5", 2, ["4", "5"]),
        ("7", 2, ["7", "7"]),
        ("", 2, [None] * 2),
    ],
)
def test_the_gpus_of_a_machine_are_shared_out(
    monkeypatch: pytest.MonkeyPatch, visible: str, n: int, shares: list[str | None]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_shares(n) == shares


def test_slurm_gets_an_array_of_servers_beside_the_commands_that_ask_them(
    project: Project,
) -> None:
    use_servers(project, servers=3)
    project.edit(
        execution={"on": "slurm", "shards": 4, "slurm": {"serve": {"gres": "gpu:2"}}},
        evaluate__arms=["teacher", "before"],
    )
    refused = project.call("run", "config.yaml", "--dry-run")
    assert refused.returncode == 2 and "host: 0.0.0.0" in refused.stderr
    project.edit(teacher__serving__serve__host="127.0.0.1")
    warned = project.call("run", "config.yaml", "--dry-run")
    assert warned.returncode == 0 and "on another machine than a server's" in warned.stderr
    project.edit(teacher__serving__serve__host="0.0.0.0")
    done = project.call("run", "config.yaml", "--dry-run")
    assert done.returncode == 0 and not done.stderr, done.stderr
    found = {p.stem[3:]: p for p in (project.run / "launch" / "slurm").glob("*.sbatch")}
    text = found["serve-generate"].read_text()
    for line in ("#SBATCH --array=1-3", "#SBATCH --gres=gpu:2", "#SBATCH --requeue"):
        assert f"\n{line}\n" in text
    assert re.search(r"serve runs/small/launch/config-\w{8}\.yaml --until generate", text)
    assert "gpu:2" not in found["generate"].read_text()
    assert "sbatch --parsable runs/small/launch/slurm/01-serve-generate.sbatch" in done.stdout
    (line,) = (one for one in done.stdout.splitlines() if "serve-evaluate.sbatch" in one)
    assert "afterok:<train>" in line
    assert subprocess.run(["bash", "-n", found["serve-evaluate"]]).returncode == 0
    printed = project.call("run", "config.yaml", "--on", "print").stdout
    assert "# serve-generate; 3 times, where the GPUs are, while generate runs:" in printed
    assert "distill serve config.yaml --until generate" in printed


def test_servers_for_a_ray_of_several_machines_are_told_where_to_listen(project: Project) -> None:
    use_servers(project, servers=2)
    for ray in ({"address": "auto"}, {"local": {"address": "10.0.0.1:6379"}}):
        project.edit(execution={"on": "ray", "ray": ray})
        with pytest.raises(UserError, match=r"host: 0\.0\.0\.0"):
            check_reachable(load_config(project.config), "ray")
    project.edit(execution={"on": "ray", "ray": {"local": {"num_cpus": 2}}})
    check_reachable(load_config(project.config), "ray")


@pytest.mark.slow
def test_ray_keeps_servers_beside_the_shards_and_ends_them(project: Project) -> None:
    use_servers(project, servers=2)  # of a Ray that is started here: 127.0.0.1 is enough
    (project.folder / "slow").write_text("0.05")
    # No more cores than servers: a server takes none of them from the shards.
    ray = {"local": {"num_cpus": 2}, "options": {"num_cpus": 1}}
    project.edit(execution={"on": "ray", "shards": 3, "ray": ray})
    done = project.distill("run", "config.yaml", "--until", "generate")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "serve-generate: 2 servers on Ray" in done.stdout
    assert len(seen(project)) == 2 and set(stored(project).values()) == {1}
    assert len(stored(project)) == 90 and not servers(project.run)
