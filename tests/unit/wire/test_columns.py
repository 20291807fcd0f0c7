from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest

from aioseed.errors import ProtocolError
from aioseed.specs import ActionSpec, ArraySpec, ObservationSpec, discrete, multi_discrete
from aioseed.types import StepColumns
from aioseed.wire import columns as wire
from aioseed.wire.columns import (
    COPIED_BYTES,
    HEADER,
    LARGE_ROW_BYTES,
    MAX_ROWS,
    STEP_TYPE,
    ActionLayout,
    ColumnLayout,
    RowWriter,
    StepLayout,
    StepMessage,
    flat_columns,
    step_views,
)

NESTED: ObservationSpec = {
    "b": ArraySpec("uint8", (3,)),
    "a": (ArraySpec("float64", ()), ArraySpec("float16", (2, 1))),
}


def header(rows: int, message_type: int = STEP_TYPE, version: int = 1, reserved: int = 0) -> bytes:
    return HEADER.pack(message_type, version, reserved, rows)


def numbered(layout: StepLayout, rows: int, offset: int = 0) -> StepMessage:
    message = StepMessage(layout, rows)
    for column in flat_columns(message.columns):
        column[...] = (np.arange(column.size) + offset).reshape(column.shape) % 251
    return message


def code_of(layout: ColumnLayout, payload: bytes, max_rows: int = MAX_ROWS) -> str:
    with pytest.raises(ProtocolError) as caught:
        layout.rows(payload, max_rows)
    return caught.value.code


def test_columns_lie_where_the_layout_is_documented() -> None:
    layout = StepLayout(NESTED, metrics=2)
    places = layout.offsets(3)
    # header, epoch, slot, sequence, reward, metrics, flags, a.0, a.1, b: each at the next multiple of 8
    assert [offset for offset, _ in places.columns] == [8, 32, 48, 64, 80, 104, 112, 136, 152]
    assert [size for _, size in places.columns] == [24, 12, 12, 12, 24, 3, 24, 12, 9]
    assert places.total_bytes == 161


def test_no_metrics_take_no_room() -> None:
    layout = StepLayout(ArraySpec("uint8", (1,)), metrics=0)
    assert layout.size_bytes(1) == 8 + 8 + 8 + 8 + 8 + 8 + 1
    assert step_views(layout, StepMessage(layout, 3).tobytes()).metrics.shape == (3, 0)


def test_row_bytes_count_every_column_once() -> None:
    assert StepLayout(NESTED, metrics=2).row_bytes == 8 + 4 + 4 + 4 + 8 + 1 + 8 + 4 + 3


def test_the_identity_lies_at_one_place_in_both_messages() -> None:
    step, action = StepLayout(NESTED, 1), ActionLayout(discrete(3))
    for rows in range(1, 10):
        assert step.identity_bytes(rows) == action.identity_bytes(rows) == action.offsets(rows).columns[3][0]


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_views_show_what_was_written(rows: int) -> None:
    layout = StepLayout(NESTED, metrics=1)
    message = numbered(layout, rows)
    views = step_views(layout, message.tobytes())
    for column, view in zip(flat_columns(message.columns), flat_columns(views), strict=True):
        assert view.dtype == column.dtype
        np.testing.assert_array_equal(view, column)


def test_gaps_are_zero() -> None:
    layout = StepLayout(NESTED, metrics=1)
    message = StepMessage(layout, 3)
    for column in flat_columns(message.columns):
        column.view(np.uint8)[...] = 255
    payload = np.frombuffer(message.tobytes(), np.uint8).copy()
    for offset, size in layout.offsets(3).columns:
        payload[offset : offset + size] = 0
    assert not payload[8:].any()


def test_a_view_cannot_be_written() -> None:
    layout = StepLayout(NESTED, 0)
    with pytest.raises(ValueError, match="read-only"):
        step_views(layout, numbered(layout, 2).tobytes()).reward[0] = 1


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "truncated"),
        (header(2)[:7], "truncated"),
        (header(2, message_type=2), "unexpected_message"),
        (header(2, message_type=0), "unexpected_message"),
        (header(2, version=2), "version"),
        (header(0), "row_count"),
        (header(5), "row_count"),
        (header(2**32 - 1), "row_count"),
        (header(2), "size_mismatch"),
        (header(2) + bytes(1000), "size_mismatch"),
    ],
)
def test_a_bad_header_or_size_is_a_protocol_error(payload: bytes, code: str) -> None:
    assert code_of(StepLayout(NESTED, 0), payload, max_rows=4) == code


def test_a_row_count_that_lies_is_found_out_in_both_directions() -> None:
    layout = StepLayout(NESTED, 0)
    payload = StepMessage(layout, 3).tobytes()
    for claim in (1, 2, 4, MAX_ROWS):
        assert code_of(layout, payload[:4] + struct.pack("<I", claim) + payload[8:]) == "size_mismatch"


def test_a_header_that_was_sound_before_is_checked_again_in_full() -> None:
    layout = StepLayout(NESTED, 0)
    payload = StepMessage(layout, 3).tobytes()
    assert layout.rows(payload) == layout.rows(payload) == 3
    assert code_of(layout, payload, max_rows=2) == "row_count"
    assert code_of(layout, payload[:-1]) == code_of(layout, payload + b"\0") == "size_mismatch"
    assert code_of(layout, b"", max_rows=2**32) == "truncated"


def test_reserved_bytes_are_not_read() -> None:
    layout = StepLayout(NESTED, 0)
    payload = StepMessage(layout, 3).tobytes()
    assert layout.rows(header(3, reserved=0xFFFF) + payload[8:]) == 3


def test_the_largest_claim_about_the_largest_specs_costs_no_memory() -> None:
    leaf = ArraySpec("float64", (2**31,))
    layout = StepLayout(tuple(leaf for _ in range(64)), metrics=64)
    assert layout.size_bytes(MAX_ROWS) > 2**60
    tracemalloc.start()
    try:
        for rows in range(1, 300):
            with pytest.raises(ProtocolError):
                layout.rows(header(rows))
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("row_bytes", "places"), [(1, 64), (LARGE_ROW_BYTES, 8)])
def test_a_peer_that_plays_with_sizes_fills_no_memory(
    monkeypatch: pytest.MonkeyPatch, row_bytes: int, places: int
) -> None:
    monkeypatch.setattr(wire, "KEPT_SIZES", 16)
    monkeypatch.setattr(wire, "KEPT_PLACES", 64)
    layout = StepLayout(ArraySpec("uint8", (row_bytes,)), 0)
    writer = RowWriter(layout, layout.allocate(100))
    stores = {
        name: store for owner in (layout, writer) for name, store in vars(owner).items() if isinstance(store, dict)
    }
    most = dict.fromkeys(stores, 0)
    for rows in range(1, 100):
        payload = header(rows) + bytes(layout.size_bytes(rows) - 8)
        writer.write(payload, layout.rows(payload), 0)
        writer.end(rows, 0)
        most = {name: max(most[name], len(store)) for name, store in stores.items()}
    sizes = {"_offsets": 16, "first_slots": 16, "_sound": 16, "_sources": 16}
    assert most == sizes | {"_ends": places, "_plans": places}


@pytest.mark.parametrize("rows", [0, -1, MAX_ROWS + 1])
def test_a_step_has_at_least_one_row_and_not_too_many(rows: int) -> None:
    with pytest.raises(ValueError, match="rows"):
        StepMessage(StepLayout(NESTED, 0), rows)


def test_a_subset_is_the_message_of_its_rows() -> None:
    layout = StepLayout(NESTED, 2)
    message = numbered(layout, 5)
    keep = np.array([True, False, False, True, True])
    views = step_views(layout, message.subset(keep))
    for column, view in zip(flat_columns(message.columns), flat_columns(views), strict=True):
        np.testing.assert_array_equal(view, column[keep])


def test_a_subset_of_all_rows_is_the_message() -> None:
    message = numbered(StepLayout(NESTED, 2), 5)
    assert message.subset(np.ones(5, bool)) == message.tobytes()


def test_a_subset_of_no_rows_is_no_message() -> None:
    with pytest.raises(ValueError, match="0"):
        numbered(StepLayout(NESTED, 2), 5).subset(np.zeros(5, bool))


def test_what_is_written_later_does_not_change_a_message_that_was_taken() -> None:
    message = numbered(StepLayout(NESTED, 0), 2)
    before = message.tobytes()
    message.columns.reward[:] = -1
    assert before != message.tobytes()


LARGE = ArraySpec("uint8", (COPIED_BYTES // 2,))
"""Two rows of it are as large as a column that is still copied, three are larger."""


@pytest.mark.parametrize("observation", [NESTED, ArraySpec("float32", ()), LARGE, {"x": LARGE, "y": NESTED}])
@pytest.mark.parametrize("metrics", [0, 2])
def test_rows_land_at_their_place_and_nowhere_else(observation: ObservationSpec, metrics: int) -> None:
    layout = StepLayout(observation, metrics)
    batch = layout.allocate(7)
    for column in flat_columns(batch):
        column.view(np.uint8)[...] = 0xA5
    writer = RowWriter(layout, batch)
    first, second = numbered(layout, 2), numbered(layout, 3, offset=100)
    writer.write(first.tobytes(), 2, 0)
    writer.write(second.tobytes(), 3, 3)
    for column, early, late in zip(*map(flat_columns, (batch, first.columns, second.columns)), strict=True):
        np.testing.assert_array_equal(column[:2], early)
        np.testing.assert_array_equal(column[3:6], late)
        assert (np.concatenate([column[2:3], column[6:]]).view(np.uint8) == 0xA5).all()


ODD = ArraySpec("uint8", (COPIED_BYTES // 2 + 1,))


@pytest.mark.parametrize(
    "observation",
    [LARGE, {"x": LARGE, "y": NESTED}, {"w": NESTED, "x": ODD, "y": ArraySpec("float64", (2,)), "z": ODD}],
)
def test_a_step_whose_end_is_where_it_belongs_is_written_as_any_other(observation: ObservationSpec) -> None:
    layout = StepLayout(observation, 2)
    batch, expected = layout.allocate(7), layout.allocate(7)
    writer, payload = RowWriter(layout, batch), numbered(layout, 3, offset=5).tobytes()
    RowWriter(layout, expected).write(payload, 3, 2)
    for _ in range(2):
        end = writer.end(3, 2)
        assert end is not None and end.begin + sum(map(len, end.memory)) == len(payload)
        at = end.begin
        for piece in end.memory:
            piece[:], at = payload[at : at + len(piece)], at + len(piece)
        end.write_before(payload[: end.begin])
        for column, other in zip(*map(flat_columns, (batch, expected)), strict=True):
            np.testing.assert_array_equal(column, other)
            column[...] = 0
    assert writer.end(3, 0) is not writer.end(3, 2)


def test_small_columns_have_no_end_of_their_own() -> None:
    layout = StepLayout(LARGE, 0)
    assert RowWriter(layout, layout.allocate(7)).end(2, 0) is None


def test_a_write_beyond_the_batch_raises_and_writes_nothing() -> None:
    layout = StepLayout(NESTED, 2)
    batch = layout.allocate(4)
    with pytest.raises(ValueError):
        RowWriter(layout, batch).write(numbered(layout, 3, offset=1).tobytes(), 3, 2)
    assert not any(column.any() for column in flat_columns(batch))


def broken(batch: StepColumns, how: str) -> StepColumns:
    if how == "strided":
        return batch._replace(reward=np.zeros(8, np.float32)[::2])
    if how == "fortran":
        return batch._replace(observation=(np.zeros((4, 2, 3), np.uint8, order="F"),))
    if how == "dtype":
        return batch._replace(reward=np.zeros(4, np.float64))
    if how == "capacity":
        return batch._replace(flags=np.zeros(5, np.uint8))
    return batch._replace(observation=(np.zeros((4, 3, 2), np.uint8),))


@pytest.mark.parametrize("how", ["strided", "fortran", "dtype", "capacity", "shape"])
def test_columns_whose_bytes_do_not_lie_as_the_layout_says_are_refused(how: str) -> None:
    layout = StepLayout(ArraySpec("uint8", (2, 3)), 0)
    with pytest.raises(ValueError, match="contiguous"):
        RowWriter(layout, broken(layout.allocate(4), how))


def test_an_action_comes_back_with_the_identity_of_its_step() -> None:
    step_layout, layout = StepLayout(NESTED, 2), ActionLayout(multi_discrete((3, 4)))
    message = numbered(step_layout, 3)
    actions = np.array([[0, 1], [2, 3], [1, 0]], "<i4")
    identity = message.tobytes()[8 : step_layout.identity_bytes(3)]
    answer = layout.decode(layout.encode(3, identity, actions.tobytes()))
    np.testing.assert_array_equal(answer.action, actions)
    for field in ("slot", "epoch", "sequence"):
        np.testing.assert_array_equal(getattr(answer, field), getattr(message.columns, field))


def test_a_scalar_action_has_one_axis() -> None:
    layout = ActionLayout(discrete(2))
    assert layout.decode(header(3, message_type=2) + bytes(layout.size_bytes(3) - 8)).action.shape == (3,)


def test_choices_are_checked_each_against_its_own_count_and_real_numbers_for_nan_alone() -> None:
    layout = ActionLayout(multi_discrete((3, 4)))
    layout.check(np.array([[2, 3], [0, 0]], "<i4"))
    for wrong, said in (
        ([3, 0], "3, .* 0 to 2"),
        ([0, 4], "4, .* 0 to 3"),
        ([-1, 0], "-1, .* 0 to 2"),
        ([0, -1], "-1,"),
    ):
        with pytest.raises(ProtocolError, match=f"an ACTION makes the choice {said}"):
            layout.check(np.array([[0, 0], wrong], "<i4"))
    with pytest.raises(ProtocolError, match="the choice 2, and the action space has 0 to 1: it is the agent's act"):
        ActionLayout(discrete(2)).check(np.array([0, 2], "<i4"))
    box = ActionSpec("box", ArraySpec("float32", (1,)), low=(-1.0,), high=(1.0,))
    ActionLayout(box).check(np.array([[1.0000001], [-2.0], [np.inf]], "<f4"))
    with pytest.raises(ProtocolError, match="an ACTION holds a number that is NaN: it is the agent's act that chooses"):
        ActionLayout(box).check(np.array([[1.0], [np.nan]], "<f4"))


def test_a_step_is_no_action() -> None:
    with pytest.raises(ProtocolError, match="type 2"):
        ActionLayout(discrete(2)).decode(StepMessage(StepLayout(NESTED, 0), 1).tobytes())
