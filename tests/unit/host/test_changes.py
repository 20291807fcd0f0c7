from __future__ import annotations

import json

import pytest

from aioseed.host.changes import changes_said


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"seed": 0}, {"seed": 1}, "seed is 1 (was 0)"),
        ({"agent": {"name": "a", "cost": 0.1}}, {"agent": {"name": "a", "cost": 0.2}}, "agent.cost is 0.2 (was 0.1)"),
        ({"hidden": [64, 64]}, {"hidden": [64]}, "hidden is [64] (was [64, 64])"),
        ({"t": [{"n": 1}, {"n": 2}]}, {"t": [{"n": 1}, {"n": 3}]}, "t.1.n is 3 (was 2)"),
        ({"t": []}, {"t": [{"n": 1}]}, "t.0.n is 1 (was not there), t is not there (was [])"),
        ({"a": 1}, {"a": 1, "b": None}, "b is null (was not there)"),
        ({"a": "x" * 80}, {"a": ""}, f'a is "" (was "{"x" * 56}...)'),
        ({"a": "x" * 58}, {"a": ""}, f'a is "" (was "{"x" * 58}")'),
    ],
)
def test_each_key_that_changed_is_named_with_both_values(before, now, said):
    sentence = changes_said(json.dumps(before), json.dumps(now))
    assert sentence == f"configured otherwise than before: {said}"


@pytest.mark.parametrize(("changes", "ending"), [(8, ""), (9, ", and 1 more"), (11, ", and 3 more")])
def test_many_changes_are_counted(changes, ending):
    before, now = ({f"k{i:02}": value for i in range(changes)} for value in (0, 1))
    said = changes_said(json.dumps(before), json.dumps(now))
    assert said.count("(was 0)") == 8 and said.endswith(f"k07 is 1 (was 0){ending}")


def test_nothing_is_said_where_nothing_changed_or_nothing_is_known():
    config = json.dumps({"a": [1, {"b": 2}], "c": {}})
    assert changes_said(config, config) == "" == changes_said("{half", config)
