"""Published files as they are: GSM8K's form, SVAMP's, BIG-Bench Hard's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import SeedSource
from pipeline.errors import UserError
from pipeline.records import Seed
from pipeline.stage1_generate.seeds import load_seeds
from pipeline.stage3_evaluate.answers import expected_of

PUBLIC = Path(os.environ.get("DISTILL_PUBLIC_DATA", "/nowhere"))
SORTED = [("Sort these words: List: pear fig", "fig pear"), ("Sort these words: List: oak", "oak")]
OPTIONS = "Which is red?\nOptions:\n(A) the sky\n(B) a cherry"
DASHED = "Does it follow?\nOptions:\n- valid\n- invalid"


def read(tmp_path: Path, name: str, rows: Any, **options: Any) -> list[Seed]:
    path = tmp_path / name
    lines = [json.dumps(row) for row in rows] if isinstance(rows, list) else [json.dumps(rows)]
    path.write_text("\n".join(lines) + "\n")
    return load_seeds(SeedSource.model_validate({"path": str(path)} | options), "t", 0)


def bbh(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    return {"canary": "x", "examples": [{"input": a, "target": b} for a, b in pairs]}


def test_the_number_behind_the_marks_is_the_answer_and_the_solution_is_kept(tmp_path: Path) -> None:
    answer = "He has 2 * 600 = $<<2*600=1200>>1200.\n#### 1,200"
    (seed,) = read(tmp_path, "test.jsonl", [{"question": "How much?", "answer": answer}])
    assert (seed.fields["question"], seed.reference) == ("How much?", "1200")
    assert seed.fields["solution"] == "He has 2 * 600 = $1200."
    assert expected_of(seed).kind == "number"


@pytest.mark.parametrize("document", [False, True])
def test_body_and_question_are_the_question(tmp_path: Path, document: bool) -> None:
    rows = [
        {"ID": "chal-1", "Body": "Ann has 3 pens. ", "Question": "How many?", "Answer": 3.0},
        {"ID": "chal-2", "Body": "Bo has half a pie.", "Question": "How much?", "Answer": 0.5},
    ]
    path = tmp_path / ("svamp.json" if document else "svamp.jsonl")
    text = json.dumps(rows, indent=1) if document else "\n".join(map(json.dumps, rows))
    path.write_text(text)
    one, two = load_seeds(SeedSource(path=str(path)), "t", 0)
    assert (one.id, one.fields["question"], one.reference) == (
        "chal-1", "Ann has 3 pens. How many?", "3",
    )  # fmt: skip
    assert two.reference == "0.5"


@pytest.mark.parametrize(
    ("pairs", "kind"),
    [
        ([("1 + 1 =", "2"), ("1 - 3 =", "-2")], "number"),
        ([("Back at the start?", "Yes"), ("And now?", "No")], "yes_no"),
        ([("not True is", "False"), ("not False is", "True")], "true_false"),
        ([(OPTIONS, "(B)")], "choice"),
        ([(DASHED, "valid"), (DASHED, "invalid")], "option"),
        (SORTED, "words"),
        ([("Close: [ (", ") ]"), ("Close: <", ">")], "text"),
    ],
)
def test_all_targets_of_a_file_show_the_kind_of_its_answers(
    tmp_path: Path, pairs: list[tuple[str, str]], kind: str
) -> None:
    seeds = read(tmp_path, "task.json", bbh(pairs))
    assert [seed.reference for seed in seeds] == [target for _, target in pairs]
    assert {expected_of(seed).kind.value for seed in seeds} == {kind}
    assert seeds[0].id == "task-1"


def test_options_of_an_input_are_the_choices(tmp_path: Path) -> None:
    (seed,) = read(tmp_path, "task.json", bbh([(OPTIONS, "(B)")]))
    assert expected_of(seed).options == {"A": "the sky", "B": "a cherry"}


def test_n_takes_the_first_and_lines_of_input_and_target_need_the_form(tmp_path: Path) -> None:
    assert len(read(tmp_path, "task.json", bbh(SORTED), n=1)) == 1
    rows = [{"input": a, "target": b} for a, b in SORTED]
    assert [s.reference for s in read(tmp_path, "a.jsonl", rows, form="bbh")] == ["fig pear", "oak"]


def test_rows_as_they_are(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "so #### 3"}
    assert read(tmp_path, "a.jsonl", [row], form="rows")[0].reference == "so #### 3"
    found = read(tmp_path, "a.jsonl", [row], columns={"question": "question"})
    assert found[0].reference == "so #### 3"


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (
            [{"question": "q", "answer": "3"}],
            {"form": "gsm8k"},
            "behind ####; seen: question, answer",
        ),
        ([{"question": "q", "answer": "#### many"}], {}, "the answer 'many' is no number"),
        ([{"question": "q", "answer": "3"}], {"form": "svamp"}, "`Body`, `Question` and `Answer`"),
        ([{"Body": "b", "Question": "q", "Answer": "?"}], {}, "form svamp: the answer '?'"),
        ([{"question": "q"}], {"form": "bbh"}, "seen: question"),
        (
            bbh([("no options", "(A)")]),
            {},
            "example 1: form bbh: the target is '(A)', but",
        ),
    ],
)
def test_a_row_of_another_form_is_named_with_its_place(
    tmp_path: Path, rows: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, "a.jsonl", rows, **options)
    assert "a.jsonl:1" in str(caught.value)
    assert said in str(caught.value)


def test_form_is_for_files_without_columns() -> None:
    with pytest.raises(ValueError, match="form are for a file"):
        SeedSource.model_validate({"generator": "word_problems", "form": "gsm8k"})
    with pytest.raises(ValueError, match="give columns"):
        SeedSource.model_validate({"path": "a", "form": "bbh", "columns": {"question": "q"}})


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="DISTILL_PUBLIC_DATA names no folder")
def test_the_published_files_are_read_whole() -> None:
    kinds = {
        path.stem: {
            expected_of(s).kind.value for s in load_seeds(SeedSource(path=str(path)), "t", 0)
        }
        for path in sorted((PUBLIC / "bbh").glob("*.json"))
    }
    assert kinds["word_sorting"] == {"words"}
    assert kinds["navigate"] == kinds["web_of_lies"] == {"yes_no"}
    assert len(load_seeds(SeedSource(path=str(PUBLIC / "gsm8k/test.jsonl")), "t", 0)) == 1319
