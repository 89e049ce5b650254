"""Seeds from JSON lines, CSV, TSV and text, with columns and answers under other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import SeedSource
from pipeline.errors import UserError
from pipeline.stage1_generate.seeds import load_seeds


def seeds(tmp_path: Path, name: str, text: str, **options: Any) -> list[tuple[str, str | None]]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    source = SeedSource.model_validate({"path": str(path)} | options)
    return [(s.fields["question"], s.reference) for s in load_seeds(source, "t", 0)]


def test_a_csv_file_with_a_header(tmp_path: Path) -> None:
    text = 'Class Index,Title,Description\n3,"Fears, ""big""","Two\nlines"\n1,Peace,Now\n'
    found = seeds(
        tmp_path,
        "news.csv",
        text,
        columns={"text": ["Title", "Description"], "answer": "Class Index"},
        answers={1: "world", 3: "business"},
    )
    assert found == [('Fears, "big" Two\nlines', "business"), ("Peace Now", "world")]


def test_a_tsv_file_whose_quotation_marks_are_plain_characters(tmp_path: Path) -> None:
    text = 'sentence\tlabel\n" unflinchingly bleak\t0\nfine\t1\n'
    found = seeds(tmp_path, "sst.tsv", text, columns={"text": "sentence", "answer": "label"})
    assert found == [('" unflinchingly bleak', "0"), ("fine", "1")]


def test_lines_of_a_label_and_a_text(tmp_path: Path) -> None:
    text = "0 no movement , no yuks\n\n1 fine\n"
    found = seeds(
        tmp_path,
        "sst.txt",
        text,
        columns={"answer": 0, "text": 1},
        answers={0: "negative", 1: "positive"},
        n=2,
    )
    assert found == [("no movement , no yuks", "negative"), ("fine", "positive")]


def test_columns_of_json_lines_can_be_renamed(tmp_path: Path) -> None:
    text = '{"sentence": "fine", "gold": {"b": [1], "a": "x"}}\n'
    found = seeds(tmp_path, "a.jsonl", text, columns={"text": "sentence", "answer": "gold"})
    assert found == [("fine", '{"a":"x","b":[1]}')]


def test_some_of_the_rows_by_a_column(tmp_path: Path) -> None:
    text = "text,language,stars\nfine,en,5\ngut,de,5\nbad,en,1\n"
    assert seeds(tmp_path, "a.csv", text, where={"language": "en"}) == [
        ("fine", None),
        ("bad", None),
    ]
    assert seeds(tmp_path, "a.csv", text, where={"language": "en", "stars": 1}) == [("bad", None)]
    assert seeds(tmp_path, "a.csv", text, where={"stars": 5}, n=1) == [("fine", None)]
    with pytest.raises(UserError, match=r"no row has \{lang: en\}.*text, language, stars"):
        seeds(tmp_path, "a.csv", text, where={"lang": "en"})


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.csv", "a,b\n1,2\n", {"columns": {"text": "c"}}, r"a\.csv:2: there is no column 'c'"),
        ("a.csv", "a,b\n1\n", {"columns": {"text": "a"}}, r"a\.csv:2: 1 columns, 2 expected"),
        ("a.csv", 'text\n"open\n', {}, "not a CSV file"),
        ("a.txt", "0 a\n", {}, "a text file needs `columns` with numbers"),
        ("a.csv", "a,b\n1,2\n", {"columns": {"text": "a", "answer": 1}}, "names and numbers"),
        (
            "a.csv",
            "text,answer\na,2\n",
            {"answers": {0: "no", 1: "yes"}},
            r"a\.csv:2: the answer '2' has no entry in answers: 0, 1",
        ),
    ],
)
def test_a_mistake_in_a_table_names_its_place(
    tmp_path: Path, name: str, text: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        seeds(tmp_path, name, text, **options)


def test_columns_are_for_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns, answers, where and form are for a file"):
        SeedSource.model_validate({"generator": "word_problems", "columns": {"text": "a"}})
