"""Instruction following: results by place, at both levels, by number of constraints; IFEval."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.records import (
    Answer,
    Constraint,
    Extraction,
    Finish,
    Followed,
    Generation,
    Message,
    PromptRef,
    Sampling,
    Seed,
    read_jsonl,
)
from pipeline.stage3_evaluate import ifeval
from pipeline.stage3_evaluate.instruction_following import read
from pipeline.stage3_evaluate.questions import Question
from pipeline.stage3_evaluate.report_data import read_run
from pipeline.stage3_evaluate.report_instruction_following import constraint_charts
from pipeline.stage3_evaluate.score import score
from tests.project import Project

NO_COMMA, LOWER = Constraint("no_comma"), Constraint("all_lowercase")


def asked(
    *constraints: Constraint, variant: str = "unseen_types", text: str = "Say it."
) -> Question:
    item = Seed("i", "t", {"question": text}, constraints=constraints)
    ref = PromptRef("p", "h")
    return Question(
        "instruction_following", variant, item, ref, (Message("user", text),), Sampling()
    )


def answer(question: Question, text: str, finish: Finish = Finish.STOP) -> Answer:
    return read(question, Generation("r", text, finish), "before")


def of(item: str, *kept: Followed, variant: str = "unseen_types", arm: str = "before") -> Answer:
    strict = all(one is Followed.STRICT for one in kept)
    return Answer(
        arm, "instruction_following", variant, item, "text", Finish.STOP, Extraction.VALUE, None,
        float(strict), float(Followed.BROKEN not in kept), followed=kept,
    )  # fmt: skip


def numbers(*rows: Answer) -> dict[str, Any]:
    return {one.metric: one for one in score({"before": list(rows)}, arms=["before"]).scores}


def test_constraints_of_one_type_keep_their_own_outcomes_by_place() -> None:
    twice = asked(
        Constraint("include_words", {"words": ["tea"]}),
        NO_COMMA,
        Constraint("include_words", {"words": ["milk"]}),
    )
    found = answer(twice, "Some tea please")
    assert found.followed == (Followed.STRICT, Followed.STRICT, Followed.BROKEN)
    assert found.correct == 0 and found.extracted == "include_words"


def test_a_constraint_that_only_a_loose_form_keeps_is_marked_so() -> None:
    found = answer(asked(NO_COMMA, LOWER), "Sure, here it is:\nhot tea now")
    assert found.followed == (Followed.LOOSE, Followed.LOOSE)
    assert (found.correct, found.loose) == (0.0, 1.0)


def test_instruction_level_counts_single_constraints_and_prompt_level_whole_items() -> None:
    strict, loose, broken = Followed.STRICT, Followed.LOOSE, Followed.BROKEN
    found = numbers(
        of("a", strict), of("b", broken), of("c", strict, loose), of("d", strict, strict, broken)
    )
    assert found["strict/unseen_types"].value == 1 / 4
    assert found["loose/unseen_types"].value == 2 / 4
    assert found["strict_instructions/unseen_types"].value == 4 / 7
    assert found["loose_instructions/unseen_types"].value == 5 / 7
    assert found["strict_instructions/unseen_types"].n == 7
    one = found["strict_instructions/unseen_types"]
    assert one.low < one.value < one.high


def test_shares_by_number_of_constraints_are_of_the_items_with_so_many() -> None:
    strict, broken = Followed.STRICT, Followed.BROKEN
    found = numbers(
        of("a", strict), of("b", broken), of("c", strict, strict), of("d", strict, broken),
        of("e", broken, broken), of("f", strict, strict, strict, variant="seen_types"),
    )  # fmt: skip
    assert found["strict/unseen_types/n=1"].value == 1 / 2
    assert found["strict/unseen_types/n=2"].value == 1 / 3
    assert found["strict/unseen_types/n=2"].n == 3
    assert "strict/seen_types/n=3" not in found  # all of that set have three: it is strict itself


@pytest.mark.parametrize("kept", [Followed.STRICT, Followed.BROKEN])
def test_all_or_nothing_kept_still_has_an_interval(kept: Followed) -> None:
    one = numbers(*(of(str(i), *[kept] * (1 + i % 2)) for i in range(12)))
    found = one["strict_instructions/unseen_types"]
    assert found.value == float(kept is Followed.STRICT)
    assert found.high - found.low > 0.1


def test_answers_read_before_outcomes_were_kept_are_still_scored() -> None:
    found = numbers(of("a"), of("b"))
    assert "strict/unseen_types" in found and "strict_instructions/unseen_types" not in found


def test_the_report_draws_strict_by_the_number_of_constraints(project: Project) -> None:
    topics = [{"topic": f"t{i}", "instruction": f"Tell me about t{i}."} for i in range(4)]
    (project.folder / "topics.jsonl").write_text("\n".join(map(json.dumps, topics)))
    source = {"generator": "constrained_instructions", "topics": "topics.jsonl", "n": 8}
    project.edit(
        evaluate__abilities=["instruction_following"],
        evaluate__arms=["teacher", "before"],
        evaluate__instruction_following={
            "unseen_types": source | {"combine": [1, 2]}, "seen_types": source,
            "prompt": "show.yaml",
        },
    )  # fmt: skip
    (project.folder / "teacher.py").write_text("def answer(request):\n    return 'a b'\n")
    done = project.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    drawn = constraint_charts(read_run(project.run))
    assert [chart.title for chart in drawn] == ["Instruction following: new types"]
    scores = read_run(project.run).scores
    assert scores is not None
    shown = {(s.model, s.metric): s for s in scores.scores}
    for n in (1, 2):
        one = shown["teacher", f"strict/unseen_types/n={n}"]
        assert f"teacher, constraints {n}: {100 * one.value:.0f}%" in drawn[0].svg


# --- files in IFEval's form


LINES: list[dict[str, Any]] = [
    {
        "key": 1, "prompt": "Write about tea. Use no commas and the words hot and green.",
        "instruction_id_list": ["punctuation:no_comma", "keywords:existence", "keywords:existence"],
        "kwargs": [{}, {"keywords": ["hot"]}, {"keywords": ["green"], "num_words": None}],
    },
    {
        "key": 337, "prompt": "At least 400 words, please.",
        "instruction_id_list": ["length_constraints:number_words"],
        "kwargs": [{"relation": "at least", "num_words": 336}],
    },
    {
        "key": 2078, "prompt": "Exactly one bullet point. A few bullet points.",
        "instruction_id_list": ["detectable_format:number_bullet_lists"],
        "kwargs": [{"num_bullets": 1}],
    },
]  # fmt: skip


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_errata_change_only_what_the_published_file_has_wrong(tmp_path: Path) -> None:
    path = write(tmp_path / "prompts.jsonl", LINES)
    plain = {item.id: item for item in ifeval.load_ifeval(path, None, errata=False)}
    mended = {item.id: item for item in ifeval.load_ifeval(path, None, errata=True)}
    assert list(plain) == ["1", "337", "2078"] and list(mended) == ["1", "337"]
    assert plain["337"].constraints[0].params["num_words"] == 336
    assert mended["337"].constraints[0].params["num_words"] == 400
    assert mended["1"] == plain["1"]
    other = [{**LINES[1], "kwargs": [{"relation": "at least", "num_words": 50}]}]
    (kept,) = ifeval.load_ifeval(write(tmp_path / "own.jsonl", other), None, errata=True)
    assert kept.constraints[0].params["num_words"] == 50


@pytest.mark.parametrize(
    "change, said",
    [
        ({"kwargs": [{}]}, "3 instructions and 1 kwargs"),
        ({"prompt": None}, "IFEval's form"),
        ({"instruction_id_list": [], "kwargs": []}, "0 instructions"),
    ],
)
def test_a_line_of_another_form_is_refused_by_its_place(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "prompts.jsonl", [LINES[0] | change])
    with pytest.raises(UserError, match=said) as raised:
        ifeval.load_ifeval(path, None, errata=False)
    assert "prompts.jsonl:1" in str(raised.value)


def test_a_missing_library_is_named_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "langdetect", None)
    ifeval.checkers.cache_clear()
    with pytest.raises(UserError, match=r"lm-evaluation-harness.*pip install.*lm-eval"):
        ifeval.followed(Seed("1", "ifeval", {"question": "x"}, constraints=(NO_COMMA,)), "text")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra lm-eval")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("checks")
@pytest.mark.parametrize(
    "names, params, said",
    [
        (["keywords:existance"], [{}], "unknown"),
        (["keywords:existence"], [{}], "keywords"),
        (["length_constraints:number_words"], [{"num_words": 9}], "relation"),
        (["punctuation:no_comma"], [{"num_words": 9}], "num_words"),
        (
            ["length_constraints:number_words"], [{"num_words": "x", "relation": "at least"}],
            "cannot be checked with .*'x'",
        ),
        (["keywords:existence"], [{"keywords": "tea"}], "keywords has to be a list"),
        (["keywords:existence"], [{"keywords": [7]}], "cannot be checked"),
        (["language:response_language"], [{"language": "xx"}], "cannot be checked"),
    ],
)  # fmt: skip
def test_an_instruction_that_cannot_be_checked_is_refused(
    names: list[str], params: list[dict[str, Any]], said: str
) -> None:
    constraints = tuple(Constraint(n, p) for n, p in zip(names, params, strict=True))
    with pytest.raises(UserError, match=said):
        ifeval.check_instructions(Seed("1", "ifeval", {"question": "x"}, constraints=constraints))


REPLIES = (
    "hot tea is green",
    "Sure, here you are:\nhot tea",
    "*hot* and green, of course",
    "",
    "Dr. Lee drinks tea. It is hot. It is green, e.g. in N.Y. too.",
    'Tea is NICE and HOT. "It is", they say: GREEN!',
)


@pytest.mark.usefixtures("checks")
def test_strict_and_loose_are_those_of_lm_eval_itself(tmp_path: Path) -> None:
    lines = [
        *LINES,
        {
            "key": 9, "prompt": "Two sentences at most; SHOUT twice.",
            "instruction_id_list": [
                "length_constraints:number_sentences", "change_case:capital_word_frequency",
                "language:response_language",
            ],
            "kwargs": [
                {"relation": "less than", "num_sentences": 3},
                {"capital_relation": "at least", "capital_frequency": 2}, {"language": "en"},
            ],
        },
    ]  # fmt: skip
    items = ifeval.load_ifeval(write(tmp_path / "p.jsonl", lines), None, errata=False)
    ifeval.followed(items[0], "makes the tables of sentences")
    from lm_eval.tasks.ifeval.utils import process_results

    seen = set()
    for item, line in zip(items, lines, strict=True):
        for reply in REPLIES:
            question = asked(*item.constraints, variant="ifeval", text=line["prompt"])
            ours, theirs = answer(question, reply), process_results(line, [reply])
            strict = [one is Followed.STRICT for one in ours.followed]
            loose = [one is not Followed.BROKEN for one in ours.followed]
            assert strict == theirs["inst_level_strict_acc"]
            assert loose == theirs["inst_level_loose_acc"]
            assert bool(ours.correct) == theirs["prompt_level_strict_acc"]
            assert bool(ours.loose) == theirs["prompt_level_loose_acc"]
            seen.update(ours.followed)
    assert seen == set(Followed)


@pytest.mark.usefixtures("checks")
def test_sentences_are_counted_as_nltk_counts_them(tmp_path: Path) -> None:
    three = Constraint(
        "length_constraints:number_sentences", {"relation": "less than", "num_sentences": 4}
    )
    text = "Dr. Lee met Mr. Ito at 3 p.m. on Jan. 5. They drank tea. It was good."
    found = answer(asked(three, variant="ifeval"), text)
    assert found.followed == (Followed.STRICT,)  # by full stops alone there are seven


@pytest.mark.usefixtures("checks")
def test_a_file_in_ifevals_form_is_asked_scored_and_shown(project: Project) -> None:
    write(project.folder / "prompts.jsonl", LINES[:2])
    table = {"ifeval": {"path": "prompts.jsonl", "errata": True}, "prompt": "show.yaml"}
    project.edit(
        evaluate__abilities=["instruction_following"],
        evaluate__arms=["teacher", "before"],
        evaluate__instruction_following=table,
    )
    (project.folder / "teacher.py").write_text(
        "def answer(request):\n    return 'hot tea is green'\n"
    )
    done = project.call("evaluate", "config.yaml")
    assert done.returncode == 0, done.stderr
    path = project.run / "5_answers" / "teacher" / "instruction_following.jsonl"
    first, second = read_jsonl(path, Answer)
    assert first.followed == (Followed.STRICT,) * 3 and second.followed == (Followed.BROKEN,)
    scores = json.loads((project.run / "6_scores.json").read_text())["scores"]
    shown = {s["metric"]: s["value"] for s in scores if s["model"] == "teacher"}
    assert shown["strict/ifeval"] == 0.5 and shown["strict_instructions/ifeval"] == 0.75
    assert shown["strict/ifeval/n=3"] == 1.0
