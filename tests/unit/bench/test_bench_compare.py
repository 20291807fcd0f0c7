"""What changed between two measurements."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from aioseed.bench.compare import Change, compare, compare_files, read
from aioseed.errors import UsageError

BEFORE = {"steps_per_s": 100.0, "latency": {"p50": 2}, "machine": {"cpu": "a"}, "on": True, "gone": 1}
AFTER = {"steps_per_s": 150.0, "latency": {"p50": 1}, "machine": {"cpu": "b"}, "on": True, "new": "x"}


def test_figures_of_both_are_compared_by_their_ratio() -> None:
    changes = {change.name: change.ratio for change in compare(BEFORE, AFTER).changes}
    assert changes == {"steps_per_s": 1.5, "latency.p50": 0.5}


def test_everything_else_is_shown_where_it_differs() -> None:
    settings = compare(BEFORE, AFTER).settings
    assert settings == (("machine.cpu", "a", "b"), ("gone", "1", "-"), ("new", "-", "x"))


def test_a_figure_that_was_zero_has_no_ratio() -> None:
    assert Change("x", 0.0, 1.0).ratio == math.inf
    assert math.isnan(Change("x", 0.0, 0.0).ratio)
    json.dumps(compare({"x": 0.0}, {"x": 1.0}).figures(), allow_nan=False)


def test_lists_are_compared_element_by_element() -> None:
    changes = compare({"range": [1, 2]}, {"range": [2, 2]}).changes
    assert [(change.name, change.ratio) for change in changes] == [("range.0", 2.0), ("range.1", 1.0)]


def test_the_text_names_the_circumstances_first() -> None:
    text = compare(BEFORE, AFTER).text()
    assert text.index("machine.cpu") < text.index("steps_per_s")
    assert "x 1.500" in text


def test_files_hold_their_measurement_in_the_last_line(tmp_path: Path) -> None:
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    before.write_text("a warning\n" + json.dumps(BEFORE) + "\n")
    after.write_text(json.dumps(AFTER))
    assert compare_files(before, after) == compare(BEFORE, AFTER)


@pytest.mark.parametrize("text", ["", "[1]", "not json"])
def test_a_file_without_a_measurement_is_a_usage_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UsageError):
        read(path)
    with pytest.raises(UsageError):
        read(tmp_path / "absent.json")
