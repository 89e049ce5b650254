"""`distill show RUN ID`: from a seed to where its row ended, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.project import Project, make_project

TASK: dict[str, Any] = {
    "recipe": "chain_of_thought",
    "teacher_prompt": "ask.yaml",
    "student_prompt": "show.yaml",
    "filters": [{"answer": {}}],
}


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    """Two tasks, the second on the first one's answers; a mixture that leaves rows out."""
    project = make_project(tmp_path_factory.mktemp("show"), tiny_model)
    first = {**TASK, "name": "sums", "seeds": "seeds.jsonl", "samples": 3}
    second = {**TASK, "name": "again", "seeds": {"from": "sums", "n": 4}}
    second["student_prompt"] = "direct.yaml"
    project.edit(
        tasks=[first, second],
        curate__mixture={
            "weights": {"sums": 1, "again": 0},
            "k_shot": {"share": 0.5, "k": [2, 2]},
        },
    )
    for command in ("generate", "curate"):
        ended = project.call(command, "config.yaml")
        assert ended.returncode == 0, ended.stderr
    return project


def shown(project: Project, *words: str) -> str:
    ended = project.call("show", "small", *words)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_row_of_the_dataset_is_traced_back_to_its_seed(curated: Project) -> None:
    from datasets import load_dataset

    row = load_dataset(str(curated.run / "3_dataset"))["train"][3]
    text = shown(curated, "--id", "train:3")
    request = row["source"][0]
    order = [
        f"request {request}",
        f"1. seed {row['seed_id']} (task sums, from seeds.jsonl:",
        "reference: ",
        "2. asked teacher teacher (fake-teacher), sample 0",
        "[user] Work it out: ",
        "3. answered: finish stop",
        "   answer                   keep (score 1)",
        "5. kept; in 3_dataset as train:3 (train-00000-of-00001.parquet), weight 1",
        f"[assistant] {row['completion'][0]['content']}",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_rows_with_shots_are_shown_as_the_student_reads_them(curated: Project) -> None:
    from datasets import load_dataset

    rows = load_dataset(str(curated.run / "3_dataset"))["train"]
    number = next(i for i, row in enumerate(rows) if row["shots"])
    text = shown(curated, f"train:{number}")
    assert "after 2 others of its task" in text
    for message in rows[number]["prompt"]:
        assert f"[{message['role']}] {message['content']}" in text


def test_a_seed_shows_all_its_rows_and_why_each_was_dropped(curated: Project) -> None:
    text = shown(curated, "q1")
    assert text.count("=== request") == 3  # and not those of q10 and q11, or of q1/...
    assert "answer                   drop: wrong (score 0)" in text
    assert "5. dropped by answer: wrong (score 0)" in text
    assert "5. dropped by exact_duplicates: same prompt and completion as an earlier row" in text


def test_a_derived_seed_names_its_parent_and_the_answer_it_came_from(curated: Project) -> None:
    seed = next(s for s in curated.rows("0_seeds.jsonl") if s["task"] == "again")
    text = shown(curated, seed["id"])
    parent = seed["fields"]["source_seed"]
    assert f"derived from seed {parent} (task sums, seeds.jsonl:" in text
    source = seed["fields"]["source_request"]
    assert f"`distill show small --id {source}`" in text
    assert f"=== request {source}" in shown(curated, source)


def test_a_row_that_the_mixture_left_out_is_said_to_be(curated: Project) -> None:
    kept = [row for row in curated.rows("2_kept.jsonl") if row["meta"]["task"] == "again"]
    text = shown(curated, kept[0]["source"][0])
    assert "kept; left out of 3_dataset by curate.mixture" in text


def test_many_rows_are_named_and_not_all_printed(curated: Project) -> None:
    text = shown(curated, "q", "--n", "2")
    assert text.count("=== request") == 2 and "38 more rows" in text


@pytest.mark.parametrize(
    ("wanted", "said"),
    [("nothing", "begins with 'nothing'"), ("train:99", "rows in train, numbered from 0")],
)
def test_what_is_not_there_is_said(curated: Project, wanted: str, said: str) -> None:
    ended = curated.call("show", "small", wanted)
    assert ended.returncode == 2 and said in ended.stderr


def test_secrets_that_a_filter_hides_are_hidden_here_too(project: Project) -> None:
    key = "AKIA" + "QWERTYUIOP234567"
    (project.folder / "teacher.py").write_text(
        f"def answer(request):\n    return 'The key is {key}. The answer is 3.'\n"
    )
    project.edit(
        tasks__0__filters=[], curate__filters=[{"finish": {}}, {"secrets": {}}], tasks__0__samples=1
    )
    project.call("generate", "config.yaml")
    project.call("curate", "config.yaml")
    text = project.call("show", "small", "q1").stdout
    assert "=== request" in text and key not in text
