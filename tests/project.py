"""A small project folder, and the `distill` command as a user would type it in there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.__main__ import main
from pipeline.config_file import dump_yaml, load_yaml
from pipeline.prompts import load_prompt

# Right two times in three, so that every filter has something to do.
TEACHER = """
import json, os, re, time

def answer(request):
    log = os.environ.get("ASKED_LOG")
    if log:
        with open(log, "a") as file:
            file.write(request.id + "\\n")
    time.sleep(float(os.environ.get("TEACHER_SECONDS", 0)))
    a, b = map(int, re.findall(r"\\d+", request.messages[-1].content)[:2])
    wrong = request.sample_index % 3 == 2
    return f"{a} and {b} make {a + b + wrong}. The answer is {a + b + wrong}."
"""


class Project:
    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.config = folder / "config.yaml"
        self.run = folder / "runs" / "small"
        self.asked_log = folder / "asked.log"

    def edit(self, **changes: Any) -> None:
        """Set dotted keys (`__` for a dot) of the config."""
        raw, _ = load_yaml(self.config)
        for key, value in changes.items():
            *path, last = key.split("__")
            node: Any = raw
            for part in path:
                node = node[int(part)] if part.isdigit() else node[part]
            node[last] = value
        dump_yaml(raw, self.config)

    def distill(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command in a process of its own, as a user types it."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=300,
        )

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The same command in this process: a second faster."""
        load_prompt.cache_clear()  # files may have been edited, as between two processes
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.folder),
            mock.patch.dict(os.environ, self.environment()),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main(words)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What `run --until curate` does, without its check of the training: the last ending."""
        done = self.call("generate", *words)
        return self.call("curate", *words) if done.returncode == 0 else done

    def start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *words],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment(**environment),
        )

    def environment(self, **extra: str) -> dict[str, str]:
        root = str(Path(__file__).parent.parent)
        return os.environ | {"PYTHONPATH": root, "ASKED_LOG": str(self.asked_log)} | extra

    def asked(self) -> list[str]:
        """Ids of the requests the teacher was really asked, in order."""
        return self.asked_log.read_text().split() if self.asked_log.exists() else []

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / name).read_text().splitlines()]


def make_project(folder: Path, model: Path, seeds: int = 12) -> Project:
    project = Project(folder, model)
    (folder / "teacher.py").write_text(TEACHER)
    for name, text in {
        "ask.yaml": "user: 'Work it out: {{ question }}'\n",
        "show.yaml": "user: '{{ question }}'\n",
        "direct.yaml": "user: 'Only the number. {{ question }}'\n",
    }.items():
        (folder / name).write_text(text)
    write_seeds(folder / "seeds.jsonl", seeds)
    write_seeds(folder / "eval.jsonl", 6, start=100)
    dump_yaml(
        {
            "name": "small",
            "seed": 3,
            "teacher": {
                "backend": "fake",
                "model": "fake-teacher",
                "price": {"input": 1.0, "output": 2.0},
                "serving": {"script": "teacher.py"},
            },
            "student": {"model": str(model)},
            "tasks": [
                {
                    "name": "sums",
                    "recipe": "chain_of_thought",
                    "seeds": "seeds.jsonl",
                    "teacher_prompt": "ask.yaml",
                    "student_prompt": "show.yaml",
                    "samples": 3,
                    "filters": [{"answer": {}}],
                }
            ],
            "curate": {"filters": [{"finish": {}}, {"empty": {}}, {"exact_duplicates": {}}]},
            "train": {"sft": {"max_steps": 2, "per_device_train_batch_size": 4}},
            "evaluate": {
                "abilities": ["chain_of_thought"],
                "sampling": {"temperature": 0.0, "max_tokens": 8},
                "chain_of_thought": {
                    "items": "eval.jsonl",
                    "prompt": "show.yaml",
                    "direct_prompt": "direct.yaml",
                    "teacher_prompt": "ask.yaml",
                },
            },
        },
        project.config,
    )
    return project


def write_seeds(path: Path, n: int, start: int = 0) -> None:
    rows = []
    for i in range(start, start + n):
        a, b = i * 7 % 50 + 1, i * 3 % 40 + 2
        question = f"Basket {i} holds {a} figs and {b} pears. How many fruits?"
        # The basket's number would be read as the first operand by the fake teacher.
        question = question.replace(f"Basket {i}", f"Basket {'ABCDEFGHIJ'[i % 10] * (i // 10 + 1)}")
        rows.append(json.dumps({"id": f"q{i}", "question": question, "answer": str(a + b)}))
    path.write_text("\n".join(rows) + "\n")
