from __future__ import annotations

import numpy as np
import pytest

from aioseed.serving.finite import blank, nonfinite_rows
from aioseed.specs import ArraySpec
from aioseed.types import StepColumns
from aioseed.wire.columns import StepLayout

LAYOUT = StepLayout((ArraySpec("float32", (2, 2)), ArraySpec("uint8", (3,)), ArraySpec("float64", ())), 1)


def columns() -> StepColumns:
    made = LAYOUT.allocate(6)
    made.observation[1].fill(255)
    made.metrics.fill(np.nan)  # nothing that is learned from
    return made


def test_rows_that_are_finite_are_not_named() -> None:
    assert nonfinite_rows(columns(), 6).tolist() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_is_named_wherever_it_is_not_finite_and_only_among_the_rows_in_use(value: float) -> None:
    made = columns()
    made.reward[1] = made.observation[0][3, 1, 0] = made.observation[2][4] = made.reward[5] = value
    assert nonfinite_rows(made, 5).tolist() == [1, 3, 4]


def test_blank_rows_are_zero_and_the_others_stay() -> None:
    made = columns()
    made.observation[0].fill(7.0)
    made.observation[0][2, 0, 0] = made.reward[2] = np.nan
    blank(made, np.array([2]))
    assert nonfinite_rows(made, 6).tolist() == []
    assert made.reward[2] == 0 and not made.observation[0][2].any()
    assert (made.observation[0][[0, 1, 3, 4, 5]] == 7.0).all() and (made.observation[1] == 255).all()
