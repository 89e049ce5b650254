"""The report shows what the run's files say, lets no text of a stranger act, and names gaps."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from pipeline.errors import UserError
from pipeline.records import Answer, Example, Extraction, Finish, Message, write_jsonl
from pipeline.stage1_generate.lengths import Lengths
from pipeline.stage3_evaluate import report
from pipeline.stage3_evaluate.report import write_report
from pipeline.stage3_evaluate.score import score

HOSTILE = (
    "</div></script><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }} "
    '" onmouseover="alert(3) \x1b[31mred\x1b[0m \x07 \u202egpj.exe ``` | end'
)


def answers_of(arm: str, right: int, text: str = "The answer is 12.") -> list[Answer]:
    return [
        Answer(
            model=arm,
            ability="chain_of_thought",
            variant=variant,
            item_id=f"item-{n}",
            text=text,
            finish=Finish.STOP,
            extraction=Extraction.VALUE,
            extracted="12",
            correct=float(n < right),
            reference="12",
            question=f"Question {n}: {text}",
            output_tokens=9,
            request_id=f"{arm}-{variant}-{n}",
        )
        for variant in ("step_by_step", "direct")
        for n in range(40)
    ]


def make_run(run: Path, text: str = "The answer is 12.") -> Path:
    answers = {
        arm: answers_of(arm, right, text)
        for arm, right in (("teacher", 31), ("before", 7), ("after", 23))
    }
    for arm, rows in answers.items():
        write_jsonl(run / "5_answers" / arm / "chain_of_thought.jsonl", rows)
    scores = score(answers, arms=["teacher", "before", "after"])
    (run / "6_scores.json").write_bytes(msgspec.json.encode(scores))
    (run / "config.yaml").write_text(
        "name: words\nteacher:\n  model: big/teacher\n"
        "  serving: {api_key_env: REPORT_TEST_KEY, base_url: 'http://me:hunter2@host/v1'}\n"
        "student: {model: small/student}\n"
    )
    meta = {"task": "sums", "recipe": "chain_of_thought", "seed_id": "s1"}
    example = Example((Message("user", text),), (Message("assistant", text),), 1.0, ("r1",), meta)
    write_jsonl(run / "2_kept.jsonl", [example])
    dropped: dict[str, object] = {"request_id": "r2", "task": "sums", "seed_id": "s2", "text": text}
    dropped |= {"filter": "answer", "reason": text[:60], "score": 0.25}
    write_jsonl(run / "2_dropped.jsonl", [dropped])
    funnel: dict[str, object] = {
        "asked": 90,
        "answered": 88,
        "kept": 61,
        "by_task": {"sums": {"asked": 90, "kept": 61, "tokens": 6100, "usd": 0.61}},
    }
    funnel["stages"] = [{"filter": "answer", "in": 88, "dropped": 27, "reasons": {text: 27}}]
    (run / "2_funnel.json").write_text(json.dumps(funnel))
    (run / "4_student").mkdir()
    log = ['{"step": 1, "loss": 2.5}', '{"step": 2, "loss": NaN}', '{"step": 2, "eval_loss": 2.1}']
    (run / "4_student" / "training_log.jsonl").write_text("\n".join(log))
    line: dict[str, object] = {
        "step": "generate",
        "counts": {"new": 90},
        "seconds": 83.0,
        "cost_usd": 0.12,
    }
    line |= {"tokens": {"input": 1234, "output": 567}, "versions": {"torch": "2.13.0"}}
    line |= {"machine": "two cores", "finished_at": "2026-11-21T05:12:44+00:00"}
    notes = {"tokens_per_second": 118.3, "mfu": 0.52, "memory_gb": 2.94, "mfu_of": "120 GFLOP/s"}
    training = {"step": "train", "notes": notes, "finished_at": line["finished_at"]}
    (run / "steps.jsonl").write_text(f"{json.dumps(training)}\n{json.dumps(line)}\n")
    return run


class Page(HTMLParser):
    """Tags, attributes that point somewhere or act, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.acting: list[tuple[str, str]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name in ("src", "href", "srcset", "action", "xlink:href"):
                self.acting.append((name, value or ""))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_and_the_markdown_hold_every_arms_numbers(tmp_path: Path) -> None:
    html, plain = write_report(make_run(tmp_path))
    for text in (Page(html.read_text("utf-8")).words, plain.read_text("utf-8")):
        numbers = ("78%", "18%", "57%", "+40 points", "big/teacher", "61", "68%", "1,234", "0.12")
        for number in numbers:
            assert number in text, number
        assert "distilled" in text
        assert "torch" in text and "two cores" in text and "2026-11-21" in text


def test_the_page_says_how_fast_the_student_was_trained(tmp_path: Path) -> None:
    html, _ = write_report(make_run(tmp_path))
    words = Page(html.read_text("utf-8")).words
    assert "118 tokens per second, 52% of the machine's 120 GFLOP/s" in words
    assert "2.9 GB of memory" in words


def test_the_length_of_rows_and_what_training_cuts_off_is_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "3_dataset").mkdir()
    lengths = Lengths("small/student", 4, [20, 30, 40, 2000], [(32, 2), (48, 1), (2048, 1)])
    (run / "3_dataset" / "lengths.json").write_bytes(msgspec.json.encode(lengths))
    for path in write_report(run):
        text = path.read_text()
        assert "longer than the 1,024 read in training" in text and "up to 2,048" in text


def test_the_page_opens_without_anything_from_outside(tmp_path: Path) -> None:
    html = write_report(make_run(tmp_path))[0].read_text("utf-8")
    page = Page(html)
    assert all(name == "href" and value.startswith("#") for name, value in page.acting)
    assert not re.search(r"url\(|@import|<link|<iframe", html)
    assert "default-src 'none'" in html
    targets = {value[1:] for _, value in page.acting}
    assert targets <= set(re.findall(r'id="([^"]+)"', html))


def test_hostile_text_is_shown_and_never_acts(tmp_path: Path) -> None:
    html, plain = write_report(make_run(tmp_path, HOSTILE))
    page = Page(html.read_text("utf-8"))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for name, _ in page.acting if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.words
    assert "{{ 7*7 }}" in page.words
    for text in (html.read_text("utf-8"), plain.read_text("utf-8")):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    # In Markdown the text stays inside a fence that its own backticks cannot close.
    assert "````text" in plain.read_text("utf-8")


def test_secrets_do_not_reach_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORT_TEST_KEY", "key-0123456789")
    for path in write_report(make_run(tmp_path, "my key is key-0123456789, keep it")):
        text = path.read_text("utf-8")
        assert "0123456789" not in text
        assert "hunter2" not in text


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("4_student", "No training log"),
        ("2_funnel.json", "No funnel"),
        ("6_scores.json", "Not scored yet"),
        ("5_answers", "No items that both arms"),
        ("2_dropped.jsonl", "No dropped rows"),
        ("steps.jsonl", "No finished steps"),
    ],
)
def test_a_missing_part_is_said_and_the_rest_stays(tmp_path: Path, gone: str, said: str) -> None:
    run = make_run(tmp_path)
    shutil.rmtree(run / gone) if (run / gone).is_dir() else (run / gone).unlink()
    words = Page(write_report(run)[0].read_text("utf-8")).words
    assert said in words
    assert "small/student" in words


def test_an_empty_folder_still_gives_a_page_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    assert "Not scored yet" in write_report(tmp_path)[0].read_text("utf-8")
    with pytest.raises(UserError, match="no such run"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "6_scores.json").write_text("{broken")
    with pytest.raises(UserError, match="damaged"):
        write_report(tmp_path)


def test_the_page_stays_small_by_showing_fewer_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, "a long answer & more " * 60)
    whole = write_report(run)[0].stat().st_size
    monkeypatch.setattr(report, "MAX_BYTES", whole // 2)
    assert write_report(run)[0].stat().st_size < whole // 2


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    first = [path.read_bytes() for path in write_report(run)]
    assert [path.read_bytes() for path in write_report(run)] == first


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
def test_search_and_filters_run_in_a_browser(tmp_path: Path) -> None:
    html = write_report(make_run(tmp_path / "run", HOSTILE))[0]
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    shown = subprocess.run(
        [*command, html.as_uri()], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    # The script counts and hides: it ran, and the policy let nothing else run.
    assert "8 of 80 shown" in shown
    assert len(re.findall(r"<article[^>]*hidden", shown)) >= 72
