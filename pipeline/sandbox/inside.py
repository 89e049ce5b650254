"""The sandboxed process: puts up its walls, then runs a program that nobody trusts.

Started by `run_python` as `python -I -S inside.py JOB REPORT`, two file descriptors. JOB holds two
lines of JSON: the program with its limits, and (read only when the program has run) the tests with
a token. REPORT gets a line once the walls are up, and then, where there are tests, one more: the
token where every test passed, else what failed.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import sys
import types
from typing import Any


def main() -> None:
    job, report = os.fdopen(int(sys.argv[1]), encoding="utf-8"), int(sys.argv[2])
    order: dict[str, Any] = json.loads(job.readline())
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    confine: Any = importlib.import_module("confine")
    del sys.path[0]
    confine.die_with_parent()
    confine.limit(order["cpu_seconds"], order["memory_bytes"], order["file_bytes"])
    try:
        confine.wall_in(bytes.fromhex(order["calls"]), confine.library_folders(), os.getcwd())
    except OSError as error:
        os.write(report, json.dumps({"walls": str(error)}).encode() + b"\n")
        os._exit(1)
    os.write(report, b"{}\n")  # before the program could say so itself
    sys.argv = ["answer.py"]
    builtins.__dict__.update(exit=sys.exit, quit=sys.exit)  # as `site` would
    if order["tested"]:
        _under_test(order["code"], job, report)
    else:
        _as_program(order["code"])


def _as_program(code: str) -> None:
    main_module = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "answer.py", "exec"), main_module.__dict__)


def _under_test(code: str, job: Any, report: int) -> None:
    # Under its own name, so that `if __name__ == "__main__":` does not start what reads input.
    answer = sys.modules["answer"] = types.ModuleType("answer")
    found: dict[str, Any] = {}
    try:
        exec(compile(code, "answer.py", "exec"), answer.__dict__)
        tests = json.loads(job.readline())
        found = {"token": tests["token"]}
        for number, test in enumerate(tests["tests"]):
            found["test"] = number
            exec(compile(test, f"test {number}", "exec"), answer.__dict__)
        found = {"passed": found["token"]}
    except BaseException as error:
        found = {"error": type(error).__name__, "test": found.get("test")}
    os.write(report, json.dumps(found).encode()[:4000] + b"\n")


if __name__ == "__main__":
    main()
