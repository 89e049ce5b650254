"""The sandbox: programs that try to break out do not, and a missing wall is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import pipeline.sandbox
from pipeline.errors import UserError
from pipeline.records import Decision, Verdict
from pipeline.sandbox import Ended, Limits, SandboxRun, probes, run_python
from pipeline.sandbox.probes import PROBES, broken_out, require_sandbox
from pipeline.stage1_generate.curate import make_filter
from pipeline.stage1_generate.curate.code_answers import python_code
from tests.project import Project
from tests.test_filters import row

LIMITS = Limits(seconds=1, memory_mb=128)
ADD = "```python\ndef add(a, b):\n    return a + b\n```"


def test_no_probe_gets_through_and_the_sandbox_is_accepted() -> None:
    require_sandbox.cache_clear()
    require_sandbox()


def without_walls(code: str, limits: Limits) -> SandboxRun:
    if "while True" in code:
        return SandboxRun(Ended.FINISHED, 0, "", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    return SandboxRun(Ended.FINISHED, done.returncode, done.stdout, done.stderr)


def test_every_probe_gets_through_where_there_are_no_walls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write where they are
    assert {name for name, _ in broken_out(PROBES, without_walls)} == set(PROBES)


ALLOW_ALL = bytes.fromhex("060000000000ff7f")  # one instruction: every system call is allowed


@pytest.mark.parametrize("name", ["network", "starting processes"])
def test_a_missing_filter_of_system_calls_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.sandbox, "program", lambda: ALLOW_ALL)
    assert [found for found, _ in broken_out({name: PROBES[name]})] == [name]


def test_a_sandbox_with_a_hole_is_refused_by_the_name_of_the_hole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline.sandbox, "program", lambda: ALLOW_ALL)
    monkeypatch.setattr(probes, "PROBES", {"network": PROBES["network"]})
    require_sandbox.cache_clear()
    with pytest.raises(UserError, match="network got through the sandbox"):
        make_filter("code", {"allow": True}, "test")
    require_sandbox.cache_clear()


def test_a_machine_without_the_walls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.sandbox, "program", lambda: b"")  # seccomp takes no empty filter
    require_sandbox.cache_clear()
    with pytest.raises(UserError, match=r"cannot be put up: .*seccomp"):
        make_filter("code", {"allow": True}, "test")
    require_sandbox.cache_clear()


def test_code_is_off_unless_asked_for() -> None:
    with pytest.raises(UserError, match="allow: true"):
        make_filter("code", {}, "test")


def test_a_key_of_the_environment_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-run")
    found = run_python(
        "import os\nprint(dict(os.environ))\n"
        f"print(open('/proc/{os.getpid()}/environ', 'rb').read())",
        LIMITS,
    )
    assert "sk-secret" not in found.output + found.errors
    assert found.error == "PermissionError"


def test_what_a_program_may_do_works() -> None:
    found = run_python(
        "import asyncio, collections, dataclasses, decimal, json, random, re, threading\n"
        "open('note', 'w').write('hi'); print(open('note').read())\n"
        "thread = threading.Thread(target=print, args=('thread',)); thread.start(); thread.join()\n"
        "asyncio.run(asyncio.sleep(0)); print(input())\n",
        Limits(seconds=5),
        stdin="grüß dich 你好\n",
    )
    assert (found.output, found.status) == ("hi\nthread\ngrüß dich 你好\n", 0), found.errors


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("print('x' * 100, flush=True)\nwhile True: print('x' * 10000)", Ended.PRINTED_TOO_MUCH),
        ("for i in range(10**6): open(str(i), 'wb').write(bytes(10**6))", Ended.WROTE_TOO_MUCH),
        ("while True: pass", Ended.TIMED_OUT),
        ("import time; time.sleep(60)", Ended.TIMED_OUT),
    ],
)
def test_a_program_that_goes_too_far_is_ended(code: str, ended: Ended) -> None:
    started = time.monotonic()
    assert run_python(code, Limits(seconds=2, memory_mb=128)).ended is ended
    assert time.monotonic() - started < 20


def test_a_program_that_makes_files_without_end_is_ended_by_one_limit_or_the_other() -> None:
    # Its folder is locked most of the time: on a busy machine its CPU time is used up first.
    found = run_python("for i in range(10**7): open(str(i), 'wb').close()", LIMITS)
    assert found.ended in (Ended.WROTE_TOO_MUCH, Ended.TIMED_OUT)


@pytest.mark.parametrize(
    "action",
    [
        "os.open('note', os.O_RDONLY | os.O_TRUNC)",
        "os.truncate('note', 0)",
        "fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
        "fcntl.ioctl(0, 0x8901, b'1234')",
        "os.mkdir('folder')",
        "os.symlink('/', 'link')",
        "socket.socketpair()[0].sendto(b'x', '/tmp/nowhere')",
        "os.memfd_create('x')",
    ],
)
def test_what_no_computation_needs_is_refused(action: str) -> None:
    found = run_python(
        "import fcntl, os, socket\nopen('note', 'w').write('hi')\n"
        f"try:\n  print({action})\n"
        "except PermissionError:\n  print('refused', os.stat('note').st_size)",
        LIMITS,
    )
    assert found.output == "refused 2\n", found.errors


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = os.listdir("/proc/self/fd")
    run_python("for i in range(50): open(str(i), 'w').write('x')", LIMITS)
    assert not list(tmp_path.iterdir())
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "import os, signal; os.abort()",
        "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        "import os\nfor fd in range(3, 20):\n  try: os.write(fd, b'{\"passed\": true}\\n')\n"
        "  except OSError: pass\nos._exit(0)",
        "import ctypes; ctypes.string_at(0)",
        "raise KeyboardInterrupt",
        "(" * 100_000,
        "\x00",
    ],
)
def test_a_program_that_ends_early_has_not_passed(code: str) -> None:
    found = run_python(code, LIMITS, ["assert True"])
    assert not found.passed


def code(text: str, tests: Any, **settings: Any) -> Verdict:
    check = make_filter("code", {"allow": True, "seconds": 1.0, **settings}, "test")
    return check(row(text, tests=tests))


ASSERTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]


def test_code_that_passes_its_tests_is_kept() -> None:
    assert code(f"Here it is:\n\n{ADD}\n\nUse it as `add(1, 2)`.", ASSERTS).score == 1.0
    assert code(ADD, "\n".join(ASSERTS)).decision is Decision.KEEP
    assert code("def add(a, b):\n    return a + b", ASSERTS).decision is Decision.KEEP


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ADD.replace("+", "-"), "wrong: assert add(1, 2) == 3"),
        (ADD.replace("add", "plus"), "raised: NameError"),
        (ADD.replace("return a + b", "while True: pass"), "timed out"),
        (ADD.replace("a + b", "[0] * 10**10"), "out of memory"),
        ("```python\nimport os\nos._exit(0)\n```", "ended before its tests"),
        ("```python\ndef add(a, b)\n```", "raised: SyntaxError"),
        ("I would add the two numbers.", "no code block"),
        ("```python\ndef add(a, b):\n    return a +", "no code block"),
        ("```bash\nadd 1 2\n```", "no code block"),
    ],
)
def test_code_that_does_not_is_dropped_with_its_reason(text: str, reason: str) -> None:
    found = code(text, ASSERTS)
    assert (found.decision, found.reason) == (Decision.DROP, reason)


def test_programs_are_tested_by_what_they_print() -> None:
    pairs = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 5\n", "output": "10"}]
    program = (
        "```\na, b = map(int, input().split())\nif __name__ == '__main__':\n    print(a + b)\n```"
    )
    assert code(program, pairs).decision is Decision.KEEP
    wrong = code(program.replace("a + b", "3"), pairs)
    assert (wrong.reason, wrong.score) == ("wrong: printed '3\\n' for input 2", 0.5)
    assert code(program.replace("print(", "exit("), pairs).reason == "ended badly: status 3"


def test_seeds_without_tests_or_with_strange_ones_are_dropped() -> None:
    assert code(ADD, None).reason == "the seed has no tests"
    assert code(ADD, [3]).reason.startswith("the seed's tests cannot be read: ")
    assert code(ADD, ["assert True", {"input": "", "output": ""}]).decision is Decision.DROP
    assert (
        code(ADD, ["assert add(1, 2) == 3"], tests_from="other").reason == "the seed has no other"
    )


def test_the_block_that_defines_what_is_tested_is_taken() -> None:
    usage = "```python\nprint(add(1, 2))\n```"
    assert "def add" in (python_code(f"{usage}\n{ADD}", "assert add(1, 2) == 3") or "")
    assert python_code("~~~py\nx = 1\n~~~") == "x = 1\n"
    assert python_code("````python\ns = '''\n```\n'''\n````") == "s = '''\n```\n'''\n"


def test_a_report_that_a_program_forges_is_read_as_a_stranger_s_word() -> None:
    for said in ('{"walls": "none"}', '{"error": 7, "test": "x"}', "[1]", '{"passed": null}'):
        forged = (
            "import os\nfor fd in range(3, 20):\n  try: os.write(fd, "
            f"{json.dumps(said)}.encode() + b'\\n')\n  except OSError: pass\nprint(1)\nos._exit(0)"
        )
        assert not run_python(forged, LIMITS, ["assert True"]).passed


TEACHER = """
def answer(request):
    sign = "-" if "pears" in request.messages[-1].content else "+"
    return f"```python\\ndef add(a, b):\\n    return a {sign} b\\n```"
"""


def test_a_run_keeps_the_programs_that_pass_and_says_why_others_do_not(project: Project) -> None:
    (project.folder / "teacher.py").write_text(TEACHER)
    seeds = [
        {"question": f"Write add(a, b) for {fruit}.", "tests": ["assert add(2, 2) == 4"]}
        for fruit in ("figs", "plums", "dates", "pears")
    ]
    (project.folder / "seeds.jsonl").write_text("\n".join(map(json.dumps, seeds)))
    project.edit(tasks__0__filters=[{"code": {}}], tasks__0__samples=1)
    refused = project.make(str(project.config))
    assert refused.returncode == 2
    assert not project.asked()
    project.edit(tasks__0__filters=[{"code": {"allow": True, "seconds": 2}}])
    done = project.make(str(project.config))
    assert done.returncode == 0, done.stderr
    assert len(project.rows("2_kept.jsonl")) == 3
    dropped = project.rows("2_dropped.jsonl")
    assert [(row["filter"], row["reason"]) for row in dropped] == [
        ("code", "wrong: assert add(2, 2) == 4")
    ]
