"""Which requests are asked: accepted-row targets, longer second tries, pauses, poison rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.project import Project

# The answer to a seed is right from the sample on that its first number says (modulo 4).
RIGHT_FROM = """
import os, re
from pipeline.records import Finish, Generation, Usage

def answer(request):
    with open(os.environ["ASKED_LOG"], "a") as file:
        file.write(f"{request.id} {request.sample_index} {request.sampling.max_tokens}\\n")
    a, b = map(int, re.findall(r"\\d+", request.messages[-1].content)[:2])
    right = request.sample_index >= a % 4
    text = f"Try {request.sample_index}: the answer is {a + b + (not right)}."
    return Generation(request.id, text, Finish.STOP, Usage(10, 5))
"""


def asked(project: Project) -> list[tuple[int, int]]:
    """(sample index, max_tokens) of every request the teacher was asked."""
    lines = project.asked_log.read_text().splitlines() if project.asked_log.exists() else []
    return [(int(line.split()[1]), int(line.split()[2])) for line in lines]


def set_task(project: Project, **changes: Any) -> None:
    from pipeline.config_file import dump_yaml, load_yaml

    raw, _ = load_yaml(project.config)
    for name in ("samples", "accept"):
        raw["tasks"][0].pop(name, None)
    raw["tasks"][0].update(changes)
    dump_yaml(raw, project.config)


def generate(project: Project, *words: str) -> str:
    done = project.call("generate", "config.yaml", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sampling_of_a_seed_stops_when_enough_answers_pass(project: Project) -> None:
    (project.folder / "teacher.py").write_text(RIGHT_FROM)
    set_task(project, accept={"per_seed": 1, "at_most": 3})
    out = generate(project)
    seeds = project.rows("0_seeds.jsonl")
    first = [int(seed["fields"]["question"].split()[3]) % 4 for seed in seeds]
    wanted = [min(n + 1, 3) for n in first]
    rows = project.rows("1_generations.jsonl")
    counts = [sum(row["seed_id"] == seed["id"] for row in rows) for seed in seeds]
    assert counts == wanted
    assert len(asked(project)) == sum(wanted)
    assert f"{sum(n < 3 for n in first)} accepted" in out


def test_a_total_is_bought_exactly_and_a_larger_one_buys_the_difference(project: Project) -> None:
    (project.folder / "teacher.py").write_text(RIGHT_FROM)
    set_task(project, accept={"total": 5, "at_most": 4})
    assert "5 accepted" in generate(project)
    rows = project.rows("1_generations.jsonl")
    before = len(asked(project))
    assert len(rows) == before < 12 * 4
    set_task(project, accept={"total": 9, "at_most": 4})
    assert "9 accepted" in generate(project, "--redo", "generate")
    larger = project.rows("1_generations.jsonl")
    assert larger[: len(rows)] == rows  # the first rows are the same ones
    assert len(asked(project)) == len(larger)


def test_a_stopped_run_with_a_target_buys_what_an_undisturbed_one_does(
    project: Project, tmp_path: Path
) -> None:
    (project.folder / "teacher.py").write_text(RIGHT_FROM)
    set_task(project, accept={"per_seed": 2, "at_most": 6})
    project.edit(budget={"max_tokens": 100})
    codes = []
    for limit in (100, 160, 400, 100_000):
        project.edit(budget={"max_tokens": limit})
        codes.append(project.call("generate", "config.yaml").returncode)
    assert codes[:2] == [75, 75] and codes[-1] == 0
    stopped = (project.run / "1_generations.jsonl").read_bytes()
    assert len(asked(project)) == len(stopped.splitlines())
    (project.folder / "runs").rename(tmp_path / "aside")
    generate(project)
    assert (project.run / "1_generations.jsonl").read_bytes() == stopped


def test_samples_and_accept_exclude_each_other(project: Project) -> None:
    set_task(project, samples=2, accept={"per_seed": 1})
    done = project.call("generate", "config.yaml")
    assert done.returncode == 2 and "either `samples` or `accept`" in done.stderr


CUT_OFF = """
import os
from pipeline.records import Finish, Generation, Usage

def answer(request):
    with open(os.environ["ASKED_LOG"], "a") as file:
        file.write(f"{request.id} {request.sample_index} {request.sampling.max_tokens}\\n")
    needed = 100 if "1 " in request.messages[-1].content else 1000
    if request.sampling.max_tokens < needed:
        return Generation(request.id, "So", Finish.LENGTH, Usage(5, request.sampling.max_tokens))
    return Generation(request.id, "So it is 1.", Finish.STOP, Usage(5, 50))
"""


def test_a_cut_off_answer_is_asked_again_once_with_more_room(project: Project) -> None:
    (project.folder / "teacher.py").write_text(CUT_OFF)
    set_task(project, samples=1, sampling={"max_tokens": 20}, longer_max_tokens=200)
    generate(project)
    rows = project.rows("1_generations.jsonl")
    limits = [limit for _, limit in asked(project)]
    assert sorted(limits) == [20] * 12 + [200] * 12
    assert len(rows) == 12  # one row a sample: the second try counts
    assert {row["finish"] for row in rows} == {"stop", "length"}
    before = len(limits)
    generate(project, "--redo", "generate")
    assert len(asked(project)) == before  # never again and again


def test_the_run_pauses_when_nothing_passes_any_more(project: Project) -> None:
    from tests.project import write_seeds

    write_seeds(project.folder / "seeds.jsonl", 400)
    (project.folder / "teacher.py").write_text(
        RIGHT_FROM.replace("right = request.sample_index >= a % 4", "right = False")
    )
    set_task(project, samples=1)
    done = project.call("generate", "config.yaml")
    assert done.returncode == 75
    assert "0.0% of the last 200 answers passed" in done.stderr
    assert "answer: wrong" in done.stderr
    assert len(asked(project)) == 200  # nothing was bought after that
    project.edit(budget={"min_acceptance": 0})
    assert project.call("generate", "config.yaml").returncode == 0
    assert len(asked(project)) == 400


SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}


def test_answers_that_break_the_schema_are_dropped_and_say_where(project: Project) -> None:
    (project.folder / "teacher.py").write_text(
        "def answer(request):\n    n = request.sample_index\n"
        '    return [\'{"sum": 3}\', \'{"sum": "three"}\', "three", \'{"sum": 4}\'][n]\n'
    )
    set_task(project, samples=4, response_schema=SCHEMA, filters=[])
    generate(project)
    assert project.call("curate", "config.yaml").returncode == 0
    dropped = project.rows("2_dropped.jsonl")
    reasons = {row["reason"].split(":")[0] for row in dropped if row["filter"] == "schema"}
    assert reasons == {"not JSON", "breaks the schema"}
    assert any("$.sum" in row["reason"] for row in dropped)
    funnel = json.loads((project.run / "2_funnel.json").read_text())
    assert next(s for s in funnel["stages"] if s["filter"] == "schema")["dropped"] == 24


def test_a_teacher_that_ignores_the_schema_stops_the_run_early(project: Project) -> None:
    set_task(project, samples=3, response_schema=SCHEMA)
    done = project.call("generate", "config.yaml")
    assert done.returncode == 75
    assert "ignores it" in done.stderr
    assert len(project.asked()) == 20


def test_a_wrong_schema_is_a_mistake_in_the_config(project: Project) -> None:
    set_task(project, response_schema={"type": "objekt"})
    done = project.call("plan", "config.yaml")
    assert done.returncode == 2 and "not a JSON schema" in done.stderr


KILLER = """
import os, signal

in_process = True

def answer(request):
    with open(os.environ["ASKED_LOG"], "a") as file:
        file.write(request.id + "\\n")
    text = request.messages[-1].content
    if "Basket B " in text and request.sample_index == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    return "The answer is 1."
"""


@pytest.mark.slow
def test_a_row_that_kills_its_worker_is_set_aside_after_three_deaths(project: Project) -> None:
    (project.folder / "teacher.py").write_text(KILLER)
    project.edit(budget={"min_acceptance": 0})
    done = project.distill("run", "config.yaml", "--until", "generate")
    assert done.returncode == 1, done.stderr
    assert "1 rows failed for good" in done.stderr and "its process died 3 times" in done.stderr
    assert done.stderr.count("starting it again") == 3
    rows = project.rows("1_generations.jsonl")
    failed = [row for row in rows if row["finish"] == "error"]
    assert (len(rows), len(failed)) == (36, 1)
    ids = project.asked()
    assert ids.count(failed[0]["request_id"]) == 3
    # Its neighbours were asked at most once more for each death.
    assert len(ids) <= 36 + 2 + 3 * 8
    again = project.distill("run", "config.yaml", "--redo", "generate", "--until", "generate")
    assert again.returncode == 1
    assert project.asked() == ids


def test_a_pilot_asks_a_few_rows_that_count_and_gives_an_interval(project: Project) -> None:
    first = project.call("plan", "config.yaml")
    assert "--pilot" in first.stdout and project.asked() == []
    piloted = project.call("plan", "config.yaml", "--pilot", "6")
    assert piloted.returncode == 0, piloted.stderr
    assert len(project.asked()) == 6
    assert "6 in the ledger, 30 new" in piloted.stdout
    assert "from 6 rows" in piloted.stdout
    generate(project)
    assert len(project.asked()) == 36  # the pilot's rows were not asked again


def test_a_message_names_the_rows_that_can_never_be_asked(project: Project) -> None:
    (project.folder / "teacher.py").write_text(
        "import re\n"
        "from pipeline.records import ErrorKind, Finish, Generation\n"
        "def answer(request):\n"
        "    if request.sample_index == 0 and 'Basket B ' in request.messages[-1].content:\n"
        "        return Generation(request.id, '', Finish.ERROR, error='400: too long',\n"
        "                          error_kind=ErrorKind.FINAL)\n"
        "    a, b = re.findall(r'\\d+', request.messages[-1].content)\n"
        "    return f'The answer is {int(a) + int(b)}.'\n"
    )
    done = project.call("generate", "config.yaml")
    row = next(row for row in project.rows("1_generations.jsonl") if row["finish"] == "error")
    assert done.returncode == 1 and "1 errors" in done.stdout
    assert row["request_id"] in done.stderr and "400: too long" in done.stderr
    assert project.call("curate", "config.yaml").returncode == 0  # the others are there


@pytest.mark.parametrize("key", ["accept", "longer_max_tokens"])
def test_a_target_that_cannot_be_is_refused(project: Project, key: str) -> None:
    wrong = {"accept": {"per_seed": 9, "at_most": 3}, "longer_max_tokens": 5}[key]
    set_task(project, **{key: wrong})
    done = project.call("plan", "config.yaml")
    assert done.returncode == 2 and key.split("_")[0] in done.stderr


def test_a_kill_while_the_seeds_are_noted_down_leaves_a_run_that_goes_on(project: Project) -> None:
    folder = project.run / ".requests"
    code = (
        "import os, signal, sys; from pipeline import records; real = os.replace\n"
        "def kill(a, b):\n"
        "    if str(b).endswith('seeds.json'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(a, b)\n"
        "os.replace = kill\n"
        "from pipeline.__main__ import main; main(['generate', 'config.yaml'])"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=project.folder, env=project.environment(), timeout=120
    )
    assert killed.returncode == -9 and not (folder / "seeds.json").exists()
    generate(project)
    assert (folder / "seeds.json").is_file()
    assert len(project.asked()) == 36
