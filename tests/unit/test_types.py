from __future__ import annotations

import numpy as np

from aioseed.types import FINAL, FIRST, TERMINATED, TRUNCATED, UnrollLayout


def test_flags_are_different_bits_of_a_byte() -> None:
    assert [int(flag) for flag in (FIRST, TERMINATED, TRUNCATED)] == [1, 2, 4]
    assert FINAL == TERMINATED | TRUNCATED and not FINAL & FIRST


def test_flags_leave_a_column_of_bytes_one() -> None:
    column = np.zeros(3, np.uint8)
    assert ((column | FIRST) & FINAL).dtype == np.uint8


def test_an_unroll_has_a_row_more_than_steps_and_overlap() -> None:
    layout = UnrollLayout((), None, (), (), unroll_steps=20, overlap_steps=5)  # type: ignore[arg-type]
    assert layout.rows == 26
