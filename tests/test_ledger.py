"""The ledger: nothing lost, nothing twice, nothing silently wrong."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import ledger as ledger_module
from pipeline import ledger_index
from pipeline.errors import Stopped, UserError
from pipeline.ledger import Ledger, LedgerRow, encode_line, repair
from pipeline.ledger_index import Index, Location
from pipeline.ledger_segments import may_share, segment_name
from pipeline.records import (
    Finish,
    Generation,
    Message,
    PromptRef,
    Request,
    Sampling,
    Usage,
    request_id,
)


def make(
    i: int, finish: Finish = Finish.STOP, text: str = "an answer"
) -> tuple[Request, Generation]:
    messages, sampling = (Message("user", f"question {i}"),), Sampling()
    key = request_id("m", messages, sampling, 0)
    request = Request(key, f"s{i}", "response", PromptRef("p", "h"), messages, sampling, 0, "m")
    return request, Generation(key, text, finish, Usage(3, 4))


def fill(root: Path, n: int) -> Path:
    """A ledger with n rows in one segment; returns the segment."""
    with Ledger(root, "m") as ledger:
        for i in range(n):
            ledger.append(*make(i))
    return next(ledger.folder.glob("*.jsonl"))


def test_rows_of_an_earlier_process_are_read_back_whole(tmp_path: Path) -> None:
    fill(tmp_path, 200)
    ledger = Ledger(tmp_path, "m")
    request, generation = make(77)
    row = ledger.get(request.id)
    assert row is not None
    assert (row.request, row.generation) == (request, generation)
    assert len(ledger) == 200


def test_two_models_never_share_an_answer(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    assert not Ledger(tmp_path, "another model").answered(make(0)[0].id)


def test_an_error_row_is_asked_again_and_an_answer_is_not(tmp_path: Path) -> None:
    with Ledger(tmp_path, "m") as ledger:
        ledger.append(*make(0, Finish.ERROR))
        ledger.flush()
        assert not ledger.answered(make(0)[0].id)
        ledger.append(*make(0))
        ledger.flush()
        assert ledger.answered(make(0)[0].id)
        ledger.append(*make(0, Finish.ERROR))  # a late error cannot hide an answer
    assert Ledger(tmp_path, "m").answered(make(0)[0].id)


def test_the_journal_cut_at_every_byte_keeps_every_whole_row(tmp_path: Path) -> None:
    segment = fill(tmp_path, 3)
    data = segment.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    for size in range(len(data) + 1):
        segment.write_bytes(data[:size])
        ledger = Ledger(tmp_path, "m")
        # A row is whole with or without its newline.
        assert len(ledger) == sum(size >= end - 1 for end in ends), size
        assert ledger.torn == (0 if size in {0, *ends, *(e - 1 for e in ends)} else 1), size


def test_one_flipped_bit_is_recovered_or_refused_never_silent(tmp_path: Path) -> None:
    segment = fill(tmp_path, 3)
    data = segment.read_bytes()
    right = [make(i) for i in range(3)]
    for at in range(len(data)):
        segment.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            ledger = Ledger(tmp_path, "m")
        except UserError as refused:
            assert str(segment) in str(refused)
            continue
        for request, generation in right:
            row = ledger.get(request.id)
            assert row is None or row.generation == generation, at


def test_damage_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    segment = fill(tmp_path, 5)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    with pytest.raises(UserError, match="damaged at byte"):
        Ledger(tmp_path, "m")
    assert repair(segment)[0] == 1
    assert len(Ledger(tmp_path, "m")) == 4
    assert segment.with_suffix(".damaged").read_bytes().strip()


def test_a_damaged_index_file_is_not_believed(tmp_path: Path) -> None:
    segment = fill(tmp_path, 1500)
    Ledger(tmp_path, "m")
    index = segment.with_suffix(".idx")
    data = bytearray(index.read_bytes())
    data[100] ^= 1
    index.write_bytes(data)
    ledger = Ledger(tmp_path, "m")
    assert all(ledger.answered(make(i)[0].id) for i in range(1500))


def test_rows_written_after_the_index_file_are_found(tmp_path: Path) -> None:
    fill(tmp_path, 1500)
    Ledger(tmp_path, "m")
    with Ledger(tmp_path, "m") as ledger:
        ledger.append(*make(5000))
    again = Ledger(tmp_path, "m")
    assert len(again) == 1501
    assert again.answered(make(5000)[0].id)


def test_a_full_disk_stops_the_run_and_the_next_start_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    real = os.write
    ledger = Ledger(tmp_path, "m")
    ledger.append(*make(0))
    ledger.flush()

    def full(handle: int, data: bytes) -> int:
        real(handle, data[:10])  # the file system takes a little before it fails
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Stopped, match="full"):
        ledger.append(*make(1))
        ledger.flush()
    monkeypatch.setattr(os, "write", real)
    again = Ledger(tmp_path, "m")
    assert again.torn == 0
    assert [again.answered(make(i)[0].id) for i in range(2)] == [True, False]


def test_hostile_text_survives_the_store(tmp_path: Path) -> None:
    text = 'line\u2028separator \x00 \x1b[31m "}\n{"crc":"00000000"} 中文 🎈'
    with Ledger(tmp_path, "m") as ledger:
        ledger.append(*make(0, text=text))
    row = Ledger(tmp_path, "m").get(make(0)[0].id)
    assert row is not None and row.generation.text == text


def test_rows_that_fitted_on_a_full_disk_are_kept_even_if_the_torn_one_cannot_be_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    real = os.write
    ledger = Ledger(tmp_path, "m")
    line = len(encode_line(LedgerRow(*make(0))))
    room = 2 * line + 10

    def nearly_full(handle: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "no space left")
        written = real(handle, data[:room])
        room -= written
        return written

    def broken(*_: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "write", nearly_full)
    monkeypatch.setattr(os, "ftruncate", broken)
    with pytest.raises(Stopped, match="full"):
        for i in range(5):
            ledger.append(*make(i))
    with pytest.raises(Stopped, match="full"):  # nothing may be written behind the torn line
        ledger.append(*make(9))
    monkeypatch.undo()
    again = Ledger(tmp_path, "m")
    assert again.torn == 1
    assert [again.answered(make(i)[0].id) for i in range(5)] == [True, True, False, False, False]


def test_a_full_disk_does_not_keep_a_ledger_from_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    segment = fill(tmp_path, 1500)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "replace", full)
    assert len(Ledger(tmp_path, "m")) == 1500
    assert not list(segment.parent.glob("*.partial"))


def test_many_rows_are_found_after_the_recent_ones_were_merged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_index, "MERGE_AT", 7)
    with Ledger(tmp_path, "m") as ledger:
        for i in range(100):
            ledger.append(*make(i, Finish.ERROR if i % 5 == 0 else Finish.STOP))
        ledger.flush()
        for i in range(0, 100, 10):
            ledger.append(*make(i))
        ledger.flush()
        assert len(ledger) == 100
        assert all(ledger.answered(make(i)[0].id) == (i % 10 != 5) for i in range(100))
    again = Ledger(tmp_path, "m")
    assert len(again) == 100
    assert all(again.answered(make(i)[0].id) == (i % 10 != 5) for i in range(100))
    assert again.get(make(90)[0].id).generation.finish is Finish.STOP  # type: ignore[union-attr]


def scanned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Fills with (segment, offset it is scanned from) whenever lines were read from there."""
    real, found = ledger_module.scan, []

    def scan(path: Path, start: int = 0) -> Iterator[object]:
        for item in real(path, start):
            found.append((path.name, start))
            yield item

    monkeypatch.setattr(ledger_module, "scan", scan)
    return found


def test_a_finished_ledger_is_opened_without_reading_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 1500)
    read = scanned(monkeypatch)
    ledger = Ledger(tmp_path, "m")
    assert not read
    assert len(ledger) == 1500 and all(ledger.answered(make(i)[0].id) for i in range(1500))


def test_after_a_kill_only_the_last_segment_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "SEGMENT_BYTES", 20_000)
    monkeypatch.setattr(ledger_module, "WORTH_A_FILE", 10)
    ledger = Ledger(tmp_path, "m")
    for i in range(300):
        ledger.append(*make(i, Finish.ERROR if i == 7 else Finish.STOP))
    ledger.append(*make(7))  # its ERROR row lies in another segment
    ledger.flush()  # and never closed, as if killed
    segments = sorted(path.name for path in ledger.folder.glob("*.jsonl"))
    assert len(segments) > 3
    read = scanned(monkeypatch)
    again = Ledger(tmp_path, "m")
    assert {name for name, _ in read} == {segments[-1]}
    assert len(again) == 300 and all(again.answered(make(i)[0].id) for i in range(300))
    for i in (0, 7, 150, 299):
        row = again.get(make(i)[0].id)
        assert row is not None and row.generation == make(i)[1]


def test_of_several_rows_of_one_id_an_answer_counts_before_an_error_and_then_the_latest(
    tmp_path: Path,
) -> None:
    half = "0123456789abcdef"
    ids = [half + f"{i:016x}" for i in range(4)] + [f"{i:032x}" for i in range(1, 4)]
    index = Index()
    rows = [
        [(10, ids[0], "stop"), (20, ids[1], "error"), (30, ids[2], "stop"), (40, ids[4], "stop")],
        [(10, ids[0], "stop"), (20, ids[1], "stop"), (30, ids[2], "error"), (40, ids[3], "error")],
    ]
    for number in range(2):
        path = tmp_path / f"{number}.jsonl"
        path.touch()
        index.add_segment(number, path, lambda _, number=number: iter(rows[number]))
    index.drop_replaced()
    assert [index.find(key) for key in ids] == [
        Location(1, 10, False),
        Location(1, 20, False),
        Location(0, 30, False),
        Location(1, 40, True),
        Location(0, 40, False),
        None,
        None,
    ]
    assert len(index) == 5


def test_the_index_takes_24_bytes_an_id_and_little_more_while_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, path = 50_000, tmp_path / "0000-000000.jsonl"
    monkeypatch.setattr(ledger_index, "_AT_ONCE", n // 100)  # else it is what counts here
    path.write_bytes(b"\n" * n)

    def rows(start: int) -> Iterator[tuple[int, str, str]]:
        for i in range(start, n):
            yield i, f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}{i:016x}", "stop"

    def peak() -> tuple[float, float]:
        """Bytes an id: at the most, and in the end."""
        tracemalloc.start()
        index = Index()
        index.add_segment(0, path, rows)
        index.drop_replaced()
        assert len(index) == n
        now, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most / n, now / n

    scanned_most, scanned_now = peak()
    read_most, read_now = peak()  # now from the index file
    assert scanned_now < 25 and read_now < 25
    assert scanned_most < 34 and read_most < 28, (scanned_most, read_most)


def test_a_shard_reads_every_segment_that_can_hold_its_requests_and_no_other() -> None:
    for of in range(1, 13):
        for other_of in range(1, 13):
            both = {(h % of, h % other_of) for h in range(of * other_of)}
            for part in range(1, of + 1):
                for other in range(1, other_of + 1):
                    name = segment_name(other, other_of, 7)
                    assert may_share(name, part, of) == ((part - 1, other - 1) in both), name
    for unknown in ("0003-000007.jsonl", "0000-000000.jsonl", "anything.jsonl"):
        assert may_share(unknown, 2, 4)
    assert may_share(segment_name(3, 4, 0), 0, 0)  # a whole command reads all


def test_a_shard_opens_only_its_own_segments_and_the_older_ones_without_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, 2)
    for part in (1, 2, 3, 4):
        with Ledger(tmp_path, "m", part, 4) as ledger:
            ledger.append(*make(10 * part))
    ledger.folder.joinpath(segment_name(4, 4, 4)).rename(ledger.folder / "0004-000004.jsonl")
    read = scanned(monkeypatch)
    assert len(Ledger(tmp_path, "m", 1, 2)) == 2 + 2 + 1
    names = [name for name, _ in read]
    assert names == ["0000-000000.jsonl"] * 2 + [
        "0001of0004-000001.jsonl",
        "0003of0004-000003.jsonl",
        "0004-000004.jsonl",
    ]
    assert len(Ledger(tmp_path, "m")) == 6


def test_many_small_segments_are_indexed_as_one(tmp_path: Path) -> None:
    for start in range(0, 90, 3):
        with Ledger(tmp_path, "m", start % 4 + 1, 4) as ledger:
            for i in range(start, start + 3):
                ledger.append(*make(i, Finish.ERROR if i % 5 == 0 else Finish.STOP))
    ledger = Ledger(tmp_path, "m")
    assert len(ledger) == 90
    for i in range(90):
        row = ledger.get(make(i)[0].id)
        assert row is not None and row.request == make(i)[0]
        assert ledger.answered(row.request.id) == bool(i % 5)


def test_more_segments_than_an_index_can_tell_apart_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MOST_SEGMENTS", 2)
    for part in (1, 2, 3):
        with Ledger(tmp_path, "m", part, 3) as ledger:
            ledger.append(*make(part))
    with pytest.raises(UserError, match="3 segments"):
        Ledger(tmp_path, "m")
