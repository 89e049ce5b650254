"""Duplicates: the same row twice, nearly the same row, too many rows of one seed."""

from __future__ import annotations

import json
import random
import shutil
import tracemalloc
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.records import (
    Decision,
    Example,
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    Seed,
    Verdict,
    digest,
)
from pipeline.stage1_generate.curate import Candidate, alike, make_filter, similar_embeddings
from pipeline.stage1_generate.curate.digest_set import DigestSet
from pipeline.stage1_generate.curate.duplicates import identity
from pipeline.stage1_generate.curate.minhash import By, signatures
from tests.project import Project

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lo")]


def row(
    text: str, number: int = 0, question: str = "", seed: str = "s", task: str = "t"
) -> Candidate:
    turns = (
        Message("system", "You are helpful."),
        Message("user", question or f"Question {number}"),
    )
    key = digest([number, text, seed])
    request = Request(key, seed, "response", PromptRef("p", "h"), turns, Sampling(), 0, "m")
    example = Example(turns, (Message("assistant", text),), 1.0, (key,))
    return Candidate(Seed(seed, task, {}), request, Generation(key, text, Finish.STOP), example)


def prose(size: int, seed: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=size)


def shingles(words: list[str], ngram: int = 5) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)}


def jaccard(left: list[str], right: list[str]) -> float:
    a, b = shingles(left), shingles(right)
    return len(a & b) / len(a | b)


def judged(texts: list[str] | list[Candidate], **settings: object) -> list[Verdict]:
    rows = [t if isinstance(t, Candidate) else row(t, i) for i, t in enumerate(texts)]
    check = make_filter("near_duplicates", {"over": "completion", **settings}, "test")
    for one in rows:
        check.gather(one)  # type: ignore[attr-defined]
    return [check(one) for one in rows]


def kept(verdicts: list[Verdict]) -> list[bool]:
    return [v.decision is Decision.KEEP for v in verdicts]


def test_a_set_of_digests_knows_each_one_that_it_was_given() -> None:
    found, digests = (
        DigestSet(),
        [blake2b(b"%d" % i, digest_size=16).digest() for i in range(60_000)],
    )
    assert all(found.add(d) for d in digests)
    assert not any(found.add(d) for d in digests)
    assert len(found) == 60_000


def test_digests_that_all_want_the_same_slot_are_told_apart() -> None:
    found, digests = DigestSet(), [i.to_bytes(8, "little") + bytes(8) for i in range(1, 3000)]
    assert all(found.add(d) for d in digests)
    assert not any(found.add(d) for d in digests)


def test_a_digest_takes_at_most_40_bytes() -> None:
    found = DigestSet()
    tracemalloc.start()
    for i in range(100_000):
        found.add(blake2b(b"%d" % i, digest_size=16).digest())
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * 100_000


def test_the_border_between_two_turns_is_part_of_a_row() -> None:
    def of(*turns: tuple[str, str]) -> bytes:
        return identity(Example(tuple(Message(*turn) for turn in turns), (), 1.0, ()))

    assert of(("user", "a"), ("user", "b")) == of(("user", " a\n"), ("user", "b"))
    assert of(("user", "a"), ("user", "b")) != of(("user", "ab"))
    assert of(("user", "a"), ("user", "b")) != of(("user", "a"), ("assistant", "b"))
    assert of(("user", "a4 1 userb")) != of(("user", "a"), ("user", "b"))
    assert of(("user", "lone \ud800")) != of(("user", "lone \ud801"))


def test_a_seed_keeps_its_first_rows_up_to_the_cap() -> None:
    check = make_filter("per_seed", {"at_most": 2}, "test")
    rows = [row("a", seed="s1"), row("b", seed="s2"), row("c", seed="s1"), row("d", seed="s1")]
    rows.append(row("e", seed="s1", task="other"))  # another task's seed of the same name
    verdicts = [check(r) for r in rows]
    assert kept(verdicts) == [True, True, True, False, True]
    assert verdicts[3].reason == "its seed has 2 rows already"
    with pytest.raises(UserError, match="at_most is a whole number from 1"):
        make_filter("per_seed", {"at_most": 0}, "test")


@pytest.mark.parametrize("size", [12, 40, 100, 400, 1500])
def test_signatures_estimate_jaccard_without_bias(size: int) -> None:
    texts, true = [], []
    for i in range(300):
        one = prose(size, i)
        other = [*one[: size - i % (size // 3)], *prose(i % (size // 4), 10_000 + i)]
        texts += [" ".join(one), " ".join(other)]
        true.append(jaccard(one, other))
    slots, counts = signatures(texts, 5, By.WORDS)
    error = (slots[::2] == slots[1::2]).mean(axis=1) - np.array(true)
    assert counts[0] == size - 4
    assert abs(error.mean()) < 0.01
    assert error.std() < 0.045


def test_planted_near_duplicates_are_found_and_the_first_is_named() -> None:
    originals = [prose(320, i) for i in range(300)]
    copies = []
    for i, words in enumerate(originals):
        copy = list(words)
        for at in (40, 160, 280):
            copy[at] = "changed"
        copies.append(copy)
        assert 0.88 < jaccard(words, copies[i]) < 0.92
    rows = [row(" ".join(words), i) for i, words in enumerate([*originals, *copies])]
    verdicts = judged(rows)
    assert all(kept(verdicts[:300]))
    found = verdicts[300:]
    assert sum(not k for k in kept(found)) >= 294  # 0.98
    assert found[7].reason == f"like an earlier row: {rows[7].request.id}"
    assert found[7].score == pytest.approx(0.9, abs=0.1)


def test_rows_well_below_the_threshold_are_kept() -> None:
    texts = []
    for i in range(200):
        words = prose(200, i)
        texts += [" ".join(words), " ".join([*words[:130], *prose(70, 5000 + i)])]  # Jaccard 0.48
    assert all(kept(judged(texts)))


def test_a_row_like_a_dropped_one_is_kept_where_it_is_unlike_the_kept_one() -> None:
    words = prose(700, 1)
    a, b, c = words[:400], words[40:440], words[80:480]  # neighbours 0.82, ends 0.67
    assert jaccard(a, b) > 0.81 and jaccard(b, c) > 0.81 and jaccard(a, c) < 0.7
    verdicts = judged([" ".join(part) for part in (a, b, c)], threshold=0.75)
    assert kept(verdicts) == [True, False, True]


def test_many_copies_of_one_row_leave_the_first() -> None:
    text, other = " ".join(prose(100, 1)), " ".join(prose(100, 2))
    assert kept(judged([text, other, *[text] * 500])) == [True, True, *[False] * 500]


def test_case_and_punctuation_do_not_count_and_numbers_and_signs_do() -> None:
    one = "Tom has 3 + 4 apples, so he has 7 apples in all."
    assert kept(judged([one, one.upper(), one.replace(",", ";")])) == [True, False, False]
    assert all(kept(judged([one, one.replace("+", "-"), one.replace("4", "5")])))


def test_chinese_characters_are_words() -> None:
    one = "蜜蜂采集花蜜,把它带回蜂巢酿成蜂蜜。路上花粉粘在它们的腿上,许多水果离不开它们。"
    near = one.replace("许多", "很多")
    other = "蚂蚁在地下修筑巢穴,成群结队搬运食物。工蚁负责照顾幼虫,兵蚁守卫入口,蚁后从不离开。"
    assert kept(judged([one, near, other], threshold=0.7)) == [True, False, True]
    assert kept(judged([one, near, other], by="characters", threshold=0.7)) == [True, False, True]


def test_characters_find_what_words_do_not() -> None:
    word = "unbelievableandverylongwordthatgoesonandonwithoutanyspaceatall"
    texts = [word, word[:-1] + "s"]
    assert all(kept(judged(texts)))
    assert kept(judged(texts, by="characters")) == [True, False]


def test_what_rows_are_compared_by() -> None:
    question, answer = " ".join(prose(60, 1)), " ".join(prose(60, 2))
    rows = [row(answer, 0, question), row(answer, 1, " ".join(prose(60, 3)))]
    rows.append(row(" ".join(prose(60, 4)), 2, question))
    assert kept(judged(rows, over="completion")) == [True, False, True]
    assert kept(judged(rows, over="prompt")) == [True, True, False]
    assert kept(judged(rows, over="both")) == [True, True, True]


def test_rows_too_short_for_a_shingle_are_left_to_exact_duplicates() -> None:
    assert all(kept(judged(["It is 7.", "It is 7.", "", ""])))


def test_batches_do_not_change_what_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(prose(40, i % 60)) + " tail" * (i % 3) for i in range(150)]
    whole = judged(texts)
    monkeypatch.setattr(alike, "BATCH", 1)
    assert judged(texts) == whole


def test_memory_stays_flat_while_rows_are_gathered() -> None:
    check = make_filter("near_duplicates", {"over": "completion"}, "test")
    texts = [" ".join(prose(60, i)) for i in range(64)]

    def gather(first: int, end: int) -> None:
        for i in range(first, end):
            check.gather(row(f"{texts[i % 64]} {i} {texts[i * 7 % 64]}", i))  # type: ignore[attr-defined]

    gather(0, 500)
    tracemalloc.start()
    gather(500, 4500)
    now, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now < 2_000_000  # 1.4 MB of signatures would be there, and 3 MB of text


def test_a_row_after_the_first_verdict_says_what_to_change() -> None:
    check = make_filter("near_duplicates", {}, "test")
    rows = [row(" ".join(prose(30, i)), i) for i in range(3)]
    check.gather(rows[0])  # type: ignore[attr-defined]
    check.gather(rows[1])  # type: ignore[attr-defined]
    check(rows[0])
    with pytest.raises(UserError, match=r"into curate\.filters"):
        check.gather(rows[2])  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="not the one that was gathered"):
        check(rows[2])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": 1.5}, "threshold is a number from 0.2 to 1"),
        ({"ngram": 0}, "ngram is a whole number from 1 to 32"),
        ({"by": "letters"}, "by is one of words, characters"),
        ({"over": "answer"}, "over is one of completion, prompt, both"),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_filter("near_duplicates", settings, "test")


def test_curly_and_straight_quotes_are_the_same_words() -> None:
    one = "Don't forget Tom's 3 apples, said Zoe, they are for the 2 of us."
    assert kept(judged([one, one.replace("'", "’"), one.replace("3", "4")])) == [True, False, True]


NEAR_TEACHER = """
import json
import random
import shutil

def answer(request):
    question = request.messages[-1].content
    words = random.Random(question + str(request.sample_index // 2)).choices(
        "sum adds gives figs pears fruits basket holds count first then total".split(), k=60
    )
    return " ".join([*words, "so" if request.sample_index % 2 else "thus"])
"""


def test_curation_names_the_kept_row_and_then_applies_the_cap(project: Project) -> None:
    (project.folder / "teacher.py").write_text(NEAR_TEACHER)
    project.edit(
        tasks__0__filters=[],
        tasks__0__samples=6,
        curate__filters=[
            {"near_duplicates": {"over": "completion"}},
            {"per_seed": {"at_most": 2}},
            {"finish": {}},
        ],
    )
    done = project.make("config.yaml")
    assert done.returncode == 0, done.stderr
    kept_rows, dropped = project.rows("2_kept.jsonl"), project.rows("2_dropped.jsonl")
    funnel = json.loads((project.run / "2_funnel.json").read_text())
    assert [(s["filter"], s["in"], s["dropped"]) for s in funnel["stages"]] == [
        ("finish", 72, 0),
        ("contamination", 72, 0),
        ("near_duplicates", 72, 36),
        ("per_seed", 36, 12),
    ]
    assert [row["meta"]["sample_index"] for row in kept_rows] == [0, 2] * 12
    # The first of each pair is kept, or dropped by the cap alone.
    ids = {row["source"][0] for row in kept_rows}
    ids |= {row["request_id"] for row in dropped if row["filter"] == "per_seed"}
    for row in dropped:
        if row["filter"] == "near_duplicates":
            assert row["reason"].removeprefix("like an earlier row: ") in ids
            assert row["score"] > 0.8


def embedded(rows: list[Candidate], model: Path, **settings: object) -> list[Verdict]:
    check = make_filter("similar_embeddings", {"model": str(model), **settings}, "test")
    for one in rows:
        check.gather(one)  # type: ignore[attr-defined]
    return [check(one) for one in rows]


def test_rows_of_the_same_meaning_to_a_model_leave_the_first(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is a random one: to it only rows of nearly the same letters are alike."""
    texts = ["Bees make honey in the hive.", "", "12 34 56 78", "Bees make honey in the hive!", ""]
    rows = [row(text, i) for i, text in enumerate([*texts, "12 34 56 78"])]
    settings = {"over": "completion", "threshold": 0.98}
    verdicts = embedded(rows, tiny_model, **settings)
    assert kept(verdicts) == [True, True, True, False, True, False]
    assert verdicts[3].reason == f"like an earlier row: {rows[0].request.id}"
    assert verdicts[5].score == pytest.approx(1, abs=0.01)
    monkeypatch.setattr(similar_embeddings, "_BLOCK", 2)
    assert embedded(rows, tiny_model, **settings) == verdicts


def test_a_model_that_runs_its_own_code_is_not_opened(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="code of its own"):
        embedded([row("Bees.")], folder)
