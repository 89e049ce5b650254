"""What each recipe shows the student of an answer, and what it makes of its seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.errors import UserError
from pipeline.prompts import Prompt, load_prompt
from pipeline.records import (
    Constraint,
    Extraction,
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    Seed,
    Usage,
)
from pipeline.stage1_generate.generators import generate
from pipeline.stage1_generate.recipes import (
    Lost,
    chain_of_thought,
    context,
    in_context,
    label,
    phrase,
    step_by_step,
)
from pipeline.stage3_evaluate.answers import extract_number

RATIONALE = "Tom has 3 + 4 = 7 pens. He gives 2 away, so 7 - 2 = 5. The answer is 5."


def prompt(tmp_path: Path, text: str) -> Prompt:
    path = tmp_path / "prompt.yaml"
    path.write_text(f"user: {text!r}\n")
    load_prompt.cache_clear()
    return load_prompt(str(path))


def seed(number: int = 0, reference: str | None = "5", **fields: Any) -> Seed:
    fields = {"question": f"How many pens? ({number})"} | fields
    return Seed(f"s{number}", "t", fields, reference, origin=f"test:{number}")


def said(text: str, finish: Finish = Finish.STOP, reasoning: str | None = None) -> Generation:
    return Generation("r", text, finish, Usage(5, 5), reasoning)


def request(number: int = 0) -> Request:
    messages = (Message("user", "x"),)
    return Request(f"r{number}", "s", "x", PromptRef("p", "h"), messages, Sampling(), 0, "m")


def shown(row: Any) -> str:
    return str(row.completion[-1].content)


# chain_of_thought


def test_an_answer_first_row_states_the_answer_before_the_steps_and_not_after(
    tmp_path: Path,
) -> None:
    showing = prompt(tmp_path, "{{ question }}")
    (row,) = chain_of_thought.rows(seed(), said(RATIONALE), showing, answer_first=1.0)
    assert row.view == "answer_first"
    assert shown(row).startswith("The answer is 5.\n\nTom has")
    assert shown(row).count("answer is") == 1
    assert extract_number(shown(row), Finish.STOP) == (Extraction.VALUE, "5")


def test_an_answer_first_row_in_chinese_keeps_its_language(tmp_path: Path) -> None:
    showing = prompt(tmp_path, "{{ question }}")
    text = "原来有5只，又得到3只，5 + 3 = 8。"
    (row,) = chain_of_thought.rows(seed(), said(text), showing, answer_first=1.0)
    assert shown(row).startswith("答案是8。")


def test_the_share_of_answer_first_rows_is_decided_by_the_seed(tmp_path: Path) -> None:
    showing = prompt(tmp_path, "{{ question }}")
    views = {}
    for number in range(400):
        for text in (RATIONALE, RATIONALE.replace("Tom", "Ann")):
            (row,) = chain_of_thought.rows(seed(number), said(text), showing, answer_first=0.25)
            assert views.setdefault(number, row.view) == row.view
    assert 70 < sum(view == "answer_first" for view in views.values()) < 130


def test_without_a_readable_answer_the_steps_stay_in_front(tmp_path: Path) -> None:
    showing = prompt(tmp_path, "{{ question }}")
    (row,) = chain_of_thought.rows(seed(), said("I wonder."), showing, answer_first=1.0)
    assert (row.view, shown(row)) == ("", "I wonder.")


@pytest.mark.parametrize("share", [1.5, -0.1, True, "half"])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: Any) -> None:
    with pytest.raises(UserError, match=r"answer_first: a share from 0 to 1"):
        showing = prompt(tmp_path, "{{ question }}")
        chain_of_thought.rows(seed(), said(RATIONALE), showing, answer_first=share)


# step_by_step


def test_an_answer_gives_a_label_row_and_a_rationale_row(tmp_path: Path) -> None:
    showing = prompt(tmp_path, "[{{ view }}] {{ question }}")
    rationale, answer = step_by_step.rows(seed(), said(RATIONALE), showing, alpha=0.3)
    assert (rationale.view, shown(rationale), rationale.weight) == ("rationale", RATIONALE, 1.4)
    assert (answer.view, shown(answer), answer.weight) == ("label", "5", 0.6)
    assert answer.prompt[-1].content.startswith("[label] How many")
    assert rationale.prompt[-1].content.startswith("[rationale] How many")


def test_the_rationale_can_end_before_the_answer_as_in_the_paper(tmp_path: Path) -> None:
    showing = prompt(tmp_path, "[{{ view }}] {{ question }}")
    rationale, _ = step_by_step.rows(seed(), said(RATIONALE), showing, closing=False)
    assert shown(rationale).endswith("7 - 2 = 5.")


def test_an_answer_that_cannot_be_read_gives_no_label_row(tmp_path: Path) -> None:
    showing = prompt(tmp_path, "[{{ view }}] {{ question }}")
    rows = step_by_step.rows(seed(), said("Some and a few."), showing)
    assert [row.view for row in rows] == ["rationale"]


@pytest.mark.parametrize("alpha", [0, 1, 1.2, "0.5"])
def test_alpha_lies_between_0_and_1(tmp_path: Path, alpha: Any) -> None:
    showing = prompt(tmp_path, "[{{ view }}] {{ question }}")
    with pytest.raises(UserError, match=r"options\.alpha"):
        step_by_step.rows(seed(), said(RATIONALE), showing, alpha=alpha)


def test_a_student_prompt_that_cannot_tell_the_views_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="view"):
        step_by_step.rows(seed(), said(RATIONALE), prompt(tmp_path, "{{ question }}"))


# in_context

LABELS = ["negative", "positive"]
SHOWING = "{% for s in shots %}{{ s.text }}={{ s.label }};{% endfor %}{{ text }}="


def episode(number: int = 0) -> Seed:
    shots = [{"text": f"t{i}", "label": LABELS[i % 2]} for i in range(8)]
    fields = {"text": f"q{number}", "shots": shots, "labels": LABELS}
    return seed(number, "positive", **fields)


def shots_of(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    parts = messages[-1].content.split(";")[:-1]
    return [(part.split("=")[0], part.split("=")[1]) for part in parts]


def in_context_row(
    item: Seed, showing: Prompt, answer: str = "positive"
) -> tuple[list[tuple[str, str]], str]:
    shot_messages, completion = in_context.example(item, said(answer), showing)
    return shots_of(shot_messages), completion[0].content


def test_a_range_gives_every_number_of_shots_about_as_often() -> None:
    prepared = [in_context.prepare(episode(i), i, shots={"from": 1, "to": 8}) for i in range(800)]
    counts = Counter(item.fields["student_shots"] for item in prepared)
    assert sorted(counts) == list(range(1, 9))
    assert all(70 < count < 130 for count in counts.values())
    again = [in_context.prepare(episode(i), 0, shots={"from": 1, "to": 8}) for i in range(800)]
    assert [a.fields for a in again] == [p.fields for p in prepared]


@pytest.mark.parametrize("shots", [{"from": 3, "to": 1}, {"from": 1}, {"from": 0.5, "to": 2}, []])
def test_a_range_of_shots_that_is_none_is_refused(shots: Any) -> None:
    with pytest.raises(UserError, match=r"options\.shots"):
        in_context.prepare(episode(), 0, shots=shots)


def test_symbols_stand_for_the_same_label_in_shots_and_answer(tmp_path: Path) -> None:
    showing = prompt(tmp_path, SHOWING)
    item = in_context.prepare(episode(), 0, shots=[8], labels={"symbols": 1.0})
    shots, answer = in_context_row(item, showing)
    symbol = {text: label for text, label in shots}
    assert len({symbol[f"t{i}"] for i in (1, 3, 5, 7)}) == 1
    assert symbol["t0"] != symbol["t1"]
    assert answer == symbol["t1"] not in LABELS
    assert in_context_row(item, showing, "negative")[1] == symbol["t0"]


def test_the_teacher_is_asked_with_the_labels_own_names(tmp_path: Path) -> None:
    item = in_context.prepare(episode(), 0, shots=[8], labels={"symbols": 1.0})
    asked = in_context.requests(item, prompt(tmp_path, SHOWING))
    assert {label for _, label in shots_of(asked)} == set(LABELS)


def test_flipped_labels_are_flipped_in_shots_and_answer(tmp_path: Path) -> None:
    item = in_context.prepare(episode(), 0, shots=[4], labels={"flipped": 1.0})
    shots, answer = in_context_row(item, prompt(tmp_path, SHOWING))
    assert shots == [("t0", "positive"), ("t1", "negative"), ("t2", "positive"), ("t3", "negative")]
    assert answer == "negative"


def test_remapped_labels_are_all_shown_whatever_k_was_drawn(tmp_path: Path) -> None:
    item = in_context.prepare(episode(), 0, shots=[0], labels={"symbols": 1.0})
    shots, answer = in_context_row(item, prompt(tmp_path, SHOWING))
    assert answer in {label for _, label in shots}


def test_useless_shots_say_nothing_about_the_texts_and_the_answer_stays(tmp_path: Path) -> None:
    showing = prompt(tmp_path, SHOWING)
    right = total = 0
    for number in range(200):
        item = in_context.prepare(episode(number), 0, shots=[8], labels={"useless": 1.0})
        shots, answer = in_context_row(item, showing)
        assert answer == "positive"
        assert Counter(label for _, label in shots) == {"negative": 4, "positive": 4}
        right += sum(label == LABELS[int(text[1:]) % 2] for text, label in shots)
        total += len(shots)
    assert 0.45 < right / total < 0.55


def test_the_shares_of_label_names_come_out_as_asked() -> None:
    shares = {"natural": 0.5, "symbols": 0.3, "flipped": 0.1, "useless": 0.1}
    drawn = Counter(
        in_context.prepare(episode(i), i, labels=shares).fields["student_labels_are"]
        for i in range(2000)
    )
    for how, share in shares.items():
        assert abs(drawn[how] / 2000 - share) < 0.04


@pytest.mark.parametrize("labels", [{"natural": 0.5}, {"wild": 1.0}, {}, {"natural": True}])
def test_shares_of_label_names_that_do_not_add_up_are_refused(labels: Any) -> None:
    with pytest.raises(UserError, match=r"options\.labels: shares of natural, symbols"):
        in_context.prepare(episode(), 0, labels=labels)


def labelled(n: int) -> Iterator[Seed]:
    for i in range(n):
        yield seed(i, ["bad", "fine", "good"][i % 3], text=f"text {i}")


def test_labelled_texts_become_balanced_episodes_without_their_own_text() -> None:
    made = list(in_context.arrange(labelled(30), episodes=6))
    assert len(made) == 30
    for item in made:
        texts = [shot["text"] for shot in item.fields["shots"]]
        assert item.fields["text"] not in texts
        assert len(set(texts)) == 6
        labels = Counter(shot["label"] for shot in item.fields["shots"])
        assert labels == {"bad": 2, "fine": 2, "good": 2}
    orders = {tuple(s["label"] for s in item.fields["shots"]) for item in made}
    assert len(orders) > 10
    back = sorted(in_context.arrange(iter(list(labelled(30))[::-1]), episodes=6), key=by_id)
    assert back == sorted(made, key=by_id)


def by_id(item: Seed) -> str:
    return item.id


def test_too_few_texts_for_the_episodes_are_named() -> None:
    with pytest.raises(UserError, match="rarest label has 2 texts, so that at most 3"):
        list(in_context.arrange(labelled(8), episodes=6))


# label

REVIEW = {"text": "Marie Curie moved to Paris."}


def test_the_student_learns_the_label_alone(tmp_path: Path) -> None:
    item = label.prepare(seed(0, "positive", **REVIEW), 0, labels=LABELS)
    row = label.example(item, said("Label: Positive."), prompt(tmp_path, "{{ text }}"))
    assert row[1][0].content == "positive"


def test_entities_are_learnt_in_the_order_of_the_text(tmp_path: Path) -> None:
    item = label.prepare(seed(0, None, **REVIEW), 0, entities=["person", "place"])
    text = (
        '```json\n[{"text": "Paris", "type": "place"}, {"text": "Marie Curie", "type": "person"},'
        ' {"text": "Paris", "type": "place"}]\n```'
    )
    row = label.example(item, said(text), prompt(tmp_path, "{{ text }}"))
    assert row[1][0].content == (
        '[{"text":"Marie Curie","type":"person"},{"text":"Paris","type":"place"}]'
    )


def test_extracted_json_is_learnt_in_one_spelling(tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["who"]}
    item = label.prepare(seed(0, None, **REVIEW), 0, schema=schema)
    row = label.example(item, said('{ "where": "Paris",\n"who": "M."}'), prompt(tmp_path, "x"))
    assert row[1][0].content == '{"where":"Paris","who":"M."}'


def test_a_gold_label_outside_the_set_is_refused() -> None:
    with pytest.raises(UserError, match="gold label '1' is not in"):
        label.prepare(seed(0, "1", **REVIEW), 0, labels=LABELS)


def test_a_gold_answer_that_cannot_be_read_is_refused() -> None:
    gold = '[{"text": "London", "type": "place"}]'
    with pytest.raises(UserError, match="test:0: the gold answer cannot be read: a span"):
        label.prepare(seed(0, gold, **REVIEW), 0, entities=["place"])


@pytest.mark.parametrize("labels", [[], ["a", "a"], "ab", [""], [1]])
def test_a_label_set_that_is_none_is_refused(labels: Any) -> None:
    with pytest.raises(UserError, match="a list of different names"):
        label.prepare(seed(0, None, **REVIEW), 0, labels=labels)


def test_labelled_texts_are_seeds_for_other_tasks_once_each() -> None:
    item = label.prepare(seed(4, "positive", **REVIEW), 0, labels=LABELS)
    answers = [(item, request(i), said(text)) for i, text in enumerate(["negative"] * 2)]
    (row,) = label.harvest(iter(answers))
    assert isinstance(row, dict)
    assert (row["text"], row["answer"], row["source_request"]) == (
        REVIEW["text"],
        "negative",
        "r0",
    )
    assert "labels" not in row


# context


def test_worked_examples_out_of_the_seed_are_a_context(tmp_path: Path) -> None:
    path = tmp_path / "context.yaml"
    path.write_text("shots_from: examples\nuser: '{{ question }}'\n")
    item = seed(0, examples=[{"user": "Hi?", "assistant": "Hello."}])
    asked = context.requests(item, load_prompt(str(path)))
    assert [message.content for message in asked][:2] == ["Hi?", "Hello."]
    with pytest.raises(UserError, match="sees no more than the student"):
        context.requests(item, prompt(tmp_path, "{{ question }}"))


# phrase


def constrained() -> Seed:
    (row,) = generate(
        "constrained_instructions",
        1,
        3,
        topics="data/seeds/topics.jsonl",
        types=["max_words"],
    )
    given = msgspec.convert(row["constraints"], tuple[Constraint, ...])
    return Seed(row["id"], "t", row | {"question": row["instruction"]}, None, given)


def test_a_rewritten_instruction_that_still_asks_for_all_is_a_seed() -> None:
    item = constrained()
    count = item.constraints[0].params["count"]
    text = f"Could you tell me about it in no more than {count} words?"
    (row,) = phrase.harvest(iter([(item, request(), said(text))]))
    assert isinstance(row, dict)
    assert row["instruction"] == text
    assert row["id"].startswith(f"{item.id}/") and row["source_seed"] == item.id
    assert row["constraints"] == [{"type": "max_words", "params": {"count": count}}]


@pytest.mark.parametrize("text", ["Could you tell me in few words?", "Tell me. {count} times!"])
def test_a_rewritten_instruction_that_lost_a_constraint_is_none(text: str) -> None:
    item = constrained()
    text = text.format(count=item.constraints[0].params["count"])
    (lost,) = phrase.harvest(iter([(item, request(), said(text))]))
    assert isinstance(lost, Lost)
    assert "max_words" in lost.reason
