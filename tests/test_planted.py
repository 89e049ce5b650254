"""Of bad answers planted among good ones, each is dropped for its own fault; good ones stay."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "bench"))

import planted
import planted_kinds


def test_planted_faults_are_dropped_for_the_right_reason(tmp_path: Path, tiny_model: Path) -> None:
    rows = planted.planted(seed=77, n=400, each=4)
    found = planted.judge_all(rows, planted.config_in(tmp_path, str(tiny_model)))
    right, lost = planted.shares(found)
    assert right >= 0.98 and lost <= 0.01, planted.table(found)
    # No kind is missed as a whole.
    for kind in planted_kinds.EXPECTED:
        assert any(planted.is_right(f) for f in found if f.row.fault == kind), kind


@pytest.mark.slow
def test_planted_faults_in_three_thousand_good_answers(tmp_path: Path, tiny_model: Path) -> None:
    rows = planted.planted(seed=78, n=3000, each=20)
    found = planted.judge_all(rows, planted.config_in(tmp_path, str(tiny_model)))
    right, lost = planted.shares(found)
    assert right >= 0.98 and lost <= 0.01, planted.table(found)


def test_the_planted_set_is_made_from_its_seed_alone() -> None:
    assert planted.planted(5, 200, 1) == planted.planted(5, 200, 1)
    assert planted.planted(5, 200, 1) != planted.planted(6, 200, 1)
    assert len(planted_kinds.EXPECTED) >= 30
    assert {row.fault for row in planted.planted(5, 400, 1)} == {"", *planted_kinds.EXPECTED}
