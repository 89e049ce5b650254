"""The whole line with the fake teacher: real files, real curation, real TRL on a tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from tests.project import Project, make_project, write_seeds


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    """One finished run, for the tests that only look."""
    folder = tmp_path_factory.mktemp("finished")
    project = make_project(folder, tiny_model)
    ended = project.distill("run", "config.yaml")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return project


def test_a_run_writes_the_flow_and_says_where_the_report_is(finished: Project) -> None:
    names = {p.name for p in finished.run.iterdir()}
    assert {
        "config.yaml",
        "steps.jsonl",
        "0_seeds.jsonl",
        "1_generations.jsonl",
        "2_kept.jsonl",
        "2_dropped.jsonl",
        "2_funnel.json",
        "3_dataset",
        "4_student",
        "5_answers",
        "6_scores.json",
        "7_report.html",
        "7_report.md",
    } <= names
    assert not [name for name in names if name.endswith(".partial")]


def test_only_right_answers_are_kept_and_every_other_has_a_reason(finished: Project) -> None:
    kept, dropped = finished.rows("2_kept.jsonl"), finished.rows("2_dropped.jsonl")
    funnel = json.loads((finished.run / "2_funnel.json").read_text())
    # 12 seeds, 3 samples: sample 2 is wrong, sample 1 says the same as sample 0.
    assert (len(kept), funnel["asked"], funnel["kept"]) == (12, 36, 12)
    assert {(row["filter"], row["reason"]) for row in dropped} == {
        ("answer", "wrong"),
        ("exact_duplicates", "same prompt and completion as an earlier row"),
    }
    assert sum(stage["dropped"] for stage in funnel["stages"]) == len(dropped) == 24


def test_the_student_sees_its_own_prompt_not_the_teachers(finished: Project) -> None:
    for row in finished.rows("2_kept.jsonl"):
        assert not row["prompt"][-1]["content"].startswith("Work it out")
        assert "The answer is" in row["completion"][0]["content"]


def test_the_dataset_opens_with_load_dataset_and_has_a_card(finished: Project) -> None:
    from datasets import load_dataset

    data = load_dataset(str(finished.run / "3_dataset"))
    assert sum(len(split) for split in data.values()) == 12
    row = data["train"][0]
    assert [m["role"] for m in row["prompt"] + row["completion"]] == ["user", "assistant"]
    assert "fake-teacher" in (finished.run / "3_dataset" / "README.md").read_text()


def test_no_seed_is_on_both_sides_of_the_split(finished: Project) -> None:
    from datasets import load_dataset

    data = load_dataset(str(finished.run / "3_dataset"))
    if "validation" in data:
        assert not set(data["train"]["seed_id"]) & set(data["validation"]["seed_id"])


def test_the_student_is_trained_and_opens_as_plain_safetensors(finished: Project) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(finished.model)
    after = AutoModelForCausalLM.from_pretrained(finished.run / "4_student")
    moved = [
        not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)
    ]
    assert any(moved)
    assert list((finished.run / "4_student" / "logs").glob("**/events*"))
    assert (finished.run / "4_student" / "README.md").is_file()


def test_all_arms_answer_identical_items(finished: Project) -> None:
    items = {
        arm: [
            (row["variant"], row["item_id"])
            for row in finished.rows(f"5_answers/{arm}/chain_of_thought.jsonl")
        ]
        for arm in ("teacher", "before", "after")
    }
    assert items["teacher"] == items["before"] == items["after"]
    assert len(items["before"]) == 12


def test_a_second_run_does_nothing_and_asks_nothing(finished: Project) -> None:
    before = len(finished.asked())
    ended = finished.distill("run", "config.yaml")
    assert ended.returncode == 0
    assert "nothing to do" in ended.stdout and "7_report.html" in ended.stdout
    assert len(finished.asked()) == before


def test_status_show_and_verify_work_on_the_run(finished: Project) -> None:
    status = finished.call("status", "small")
    assert status.returncode == 0 and "36 stop" in status.stdout
    assert finished.call("show", "small").returncode == 0
    dropped = finished.rows("2_dropped.jsonl")[0]
    traced = finished.call("show", "small", dropped["request_id"])
    assert (
        dropped["seed_id"] in traced.stdout and f"dropped by {dropped['filter']}" in traced.stdout
    )
    verified = finished.call("verify", "small")
    assert verified.returncode == 0, verified.stdout
    unknown = finished.call("show", "no-such-run")
    assert unknown.returncode == 2 and "small" in unknown.stderr


def without_first_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def edited(path: Path) -> None:
    path.write_text(path.read_text().replace("pears", "plums"))


def holed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:200] = bytes(100)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("2_dropped.jsonl", without_first_line),
        ("2_dropped.jsonl", Path.unlink),
        ("0_seeds.jsonl", cut),
        ("1_generations.jsonl", cut),
        ("steps.jsonl", cut),
        ("2_kept.jsonl", cut),
        ("2_kept.jsonl", edited),
        ("3_dataset/train-00000-of-00001.parquet", cut),
        ("3_dataset/train-00000-of-00001.parquet", holed),
        ("3_dataset/train-00000-of-00001.parquet", Path.unlink),
        ("4_student/README.md", Path.unlink),
        ("6_scores.json", cut),
    ],
)
def test_verify_names_a_damaged_file_and_what_to_type(
    finished: Project, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    copy = Project(Path(shutil.copytree(finished.folder, tmp_path / "copy")), finished.model)
    damage(copy.run / name)
    ended = copy.call("verify", "small")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    bad = [line for line in ended.stdout.splitlines() if line.startswith("bad: ")]
    assert any(name.split("/")[0] in line for line in bad), ended.stdout
    assert "distill run runs/small/config.yaml --redo" in ended.stdout


def test_a_damaged_record_of_a_step_says_how_to_go_on(project: Project) -> None:
    up_to_curation(project)
    cut(project.run / "steps.jsonl")
    for words in (("curate", "config.yaml"), ("status", "small")):
        ended = project.call(*words)
        assert ended.returncode == 2 and "steps.jsonl:2" in ended.stderr, ended.stderr
    without_last = (project.run / "steps.jsonl").read_text().splitlines(keepends=True)[:-1]
    (project.run / "steps.jsonl").write_text("".join(without_last))
    assert project.call("curate", "config.yaml").returncode == 0
    assert project.call("verify", "small").returncode == 0


def test_rows_that_verify_sets_aside_are_asked_again_by_the_command_it_names(
    project: Project,
) -> None:
    up_to_curation(project)
    (segment,) = (project.folder / "runs" / "ledger").glob("*/*.jsonl")
    edited(segment)
    asked = len(project.asked())
    found = project.call("verify", "small")
    assert found.returncode == 1 and "distill verify small --repair" in found.stdout
    repaired = project.call("verify", "small", "--repair")
    assert "distill run runs/small/config.yaml --redo generate" in repaired.stdout
    generate(project, "--redo", "generate")
    assert len(project.asked()) == asked + 36
    assert project.call("curate", "config.yaml").returncode == 0
    assert project.call("verify", "small").returncode == 0


def test_a_row_whose_id_is_not_its_requests_is_set_aside_and_asked_again(project: Project) -> None:
    from pipeline.ledger import decode_line, encode_line

    up_to_curation(project)
    (segment,) = (project.folder / "runs" / "ledger").glob("*/*.jsonl")
    first, *others = segment.read_bytes().splitlines(keepends=True)
    row = decode_line(first.removesuffix(b"\n"))
    forged = structs.replace(row, request=structs.replace(row.request, sample_index=77))
    segment.write_bytes(encode_line(forged) + b"".join(others))
    found = project.call("verify", "small")
    assert found.returncode == 1 and "the id is not the hash of the request" in found.stdout
    repaired = project.call("verify", "small", "--repair")
    assert "1 bad lines set aside" in repaired.stdout
    generate(project, "--redo", "generate")
    assert project.asked()[36:] == [row.request.id]
    assert project.call("verify", "small").returncode == 0


def test_an_answer_that_two_runs_bought_at_once_is_a_note(project: Project) -> None:
    up_to_curation(project)
    (segment,) = (project.folder / "runs" / "ledger").glob("*/*.jsonl")
    again = segment.with_name(segment.name.replace("-0", "-9", 1))
    again.write_text(segment.read_text().splitlines(keepends=True)[0])
    ended = project.call("verify", "small")
    assert ended.returncode == 0, ended.stdout
    assert "note: " in ended.stdout and "1 ids have more than one answer" in ended.stdout


def generate(project: Project, *words: str) -> None:
    ended = project.call("generate", "config.yaml", *words)
    assert ended.returncode == 0, ended.stderr


def up_to_curation(project: Project) -> None:
    generate(project)
    ended = project.call("curate", "config.yaml")
    assert ended.returncode == 0, ended.stderr


def test_plan_counts_what_is_new_and_asks_nothing(project: Project) -> None:
    planned = project.call("plan", "config.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "36 requests (0 in the ledger, 36 new)" in planned.stdout
    assert "Work it out" in planned.stdout and project.asked() == []
    up_to_curation(project)
    write_seeds(project.folder / "seeds.jsonl", 13)
    planned = project.call("plan", "config.yaml")
    assert "39 requests (36 in the ledger, 3 new)" in planned.stdout


def test_a_changed_filter_is_refused_with_both_ways_out_and_redone_for_free(
    project: Project,
) -> None:
    up_to_curation(project)
    asked = len(project.asked())
    project.edit(curate__filters=[{"finish": {}}, {"length": {"max_tokens": 5}}])
    refused = project.call("curate", "config.yaml")
    assert refused.returncode == 2
    for said in ("filters", "length", "--redo curate", "name"):
        assert said in refused.stderr
    loosened = [{"finish": {}}, {"length": {"max_tokens": 500}}]
    project.edit(curate__filters=loosened)
    redone = project.call("curate", "config.yaml", "--redo", "curate")
    assert redone.returncode == 0, redone.stderr
    assert len(project.rows("2_kept.jsonl")) == 24  # duplicates are in now
    assert len(project.asked()) == asked


def test_a_changed_prompt_is_refused_and_named(project: Project) -> None:
    up_to_curation(project)
    (project.folder / "ask.yaml").write_text("user: 'Work it out slowly: {{ question }}'\n")
    refused = project.distill("run", "config.yaml")
    assert refused.returncode == 2 and "teacher_prompt" in refused.stderr


@pytest.mark.parametrize(
    ("change", "new"),
    [
        ("one seed edited", 3),
        ("one seed added", 3),
        ("one more sample", 12),
        ("temperature", 36),
        ("teacher prompt", 36),
        ("concurrency", 0),
        ("another run name", 0),
    ],
)
def test_only_new_requests_are_asked(project: Project, change: str, new: int) -> None:
    generate(project)
    before = len(project.asked())
    if change == "one seed edited":
        text = (project.folder / "seeds.jsonl").read_text()
        (project.folder / "seeds.jsonl").write_text(text.replace("figs", "plums", 1))
    elif change == "one seed added":
        write_seeds(project.folder / "seeds.jsonl", 13)
    elif change == "one more sample":
        project.edit(tasks__0__samples=4)
    elif change == "temperature":
        project.edit(teacher__sampling={"temperature": 0.5})
    elif change == "teacher prompt":
        (project.folder / "ask.yaml").write_text("user: 'Try this: {{ question }}'\n")
    elif change == "concurrency":
        project.edit(teacher__serving={"script": "teacher.py", "concurrency": 3})
    elif change == "another run name":
        project.edit(name="other")
    generate(project, "--redo", "generate")
    assert len(project.asked()) - before == new


def test_a_failed_row_is_kept_asked_again_and_nothing_else_is(project: Project) -> None:
    script = (project.folder / "teacher.py").read_text()
    broken = script.replace(
        "    a, b =", "    if 'Basket C' in request.messages[-1].content: 1/0\n    a, b ="
    )
    (project.folder / "teacher.py").write_text(broken)
    ended = project.call("generate", "config.yaml")
    assert ended.returncode == 75 and "failed" in ended.stderr
    (project.folder / "teacher.py").write_text(script)
    before = len(project.asked())
    generate(project)
    # 12 seeds: basket C is i=2, and CC i=12 is not among them.
    assert len(project.asked()) - before == 3


def test_a_budget_stops_the_run_and_a_larger_one_goes_on(project: Project) -> None:
    project.edit(budget={"max_tokens": 200})
    ended = project.call("generate", "config.yaml")
    assert ended.returncode == 75 and "max_tokens" in ended.stderr
    bought = len(project.asked())
    assert 0 < bought < 36
    project.edit(budget={"max_tokens": 100000})
    generate(project)
    assert len(project.asked()) == 36 == len(set(project.asked()))


def test_a_wrong_answer_does_not_make_a_right_one_its_duplicate(project: Project) -> None:
    # Both say the same; the first was cut off, and is dropped for it.
    (project.folder / "teacher.py").write_text(
        "from pipeline.records import Finish, Generation\n"
        "def answer(request):\n"
        "    cut = request.sample_index == 0\n"
        "    finish = Finish.LENGTH if cut else Finish.STOP\n"
        "    return Generation(request.id, 'The answer is 3.', finish)\n"
    )
    project.edit(
        tasks__0__filters=[{"finish": {}}],
        tasks__0__samples=2,
        curate__filters=[{"exact_duplicates": {}}, {"empty": {}}],
    )
    up_to_curation(project)
    assert {row["filter"] for row in project.rows("2_dropped.jsonl")} == {"finish"}
    assert len(project.rows("2_kept.jsonl")) == 12
    funnel = json.loads((project.run / "2_funnel.json").read_text())
    assert [(stage["filter"], stage["in"]) for stage in funnel["stages"]] == [
        ("empty", 24),
        ("finish", 24),
        ("contamination", 12),
        ("exact_duplicates", 12),
    ]


@pytest.mark.parametrize("share", [0.999, 0.5])
def test_a_large_share_for_validation_leaves_rows_to_train_on(
    project: Project, share: float
) -> None:
    project.edit(curate__validation_share=share)
    up_to_curation(project)
    from datasets import load_dataset

    data = load_dataset(str(project.run / "3_dataset"))
    assert len(data["train"]) >= 1 and len(data["validation"]) >= 1
    assert not set(data["train"]["seed_id"]) & set(data["validation"]["seed_id"])


def test_the_dataset_card_counts_in_whole_numbers(finished: Project) -> None:
    card = (finished.run / "3_dataset" / "README.md").read_text()
    assert "| sums | 12 | 12 | " in card


def test_training_items_that_are_evaluated_are_dropped(project: Project) -> None:
    rows = (project.folder / "seeds.jsonl").read_text().splitlines()
    stolen = (project.folder / "eval.jsonl").read_text().splitlines()[0]
    (project.folder / "seeds.jsonl").write_text("\n".join([*rows, stolen]) + "\n")
    up_to_curation(project)
    hits = [r for r in project.rows("2_dropped.jsonl") if r["filter"] == "contamination"]
    assert {row["seed_id"] for row in hits} == {"q100"}
    assert "q100" not in {row["meta"]["seed_id"] for row in project.rows("2_kept.jsonl")}
