"""Packed STEPs at the intake are what the STEPs are for which they stand, and are inflated only if a row applies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.errors import ProtocolError
from aioseed.serving.rule import Close
from aioseed.wire import packing
from aioseed.wire.messages import Error

from .bench import STEPS, Bench, Peer, taken

LIMIT = 2**20


def packed(payload: bytes) -> bytes:
    """Return a packed message even where it is larger, but for the check of that."""
    return packing.pack(STEPS, payload, STEPS.rows(payload))


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    # Messages here are too small to shrink; that a packed one is smaller is tested where packing is.
    def rows(layout: object, payload: bytes, max_rows: int, max_bytes: int) -> int:
        return int.from_bytes(payload[4:8], "little")

    monkeypatch.setattr(packing, "packed_rows", rows)


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True),
            st.integers(-2, 1),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_any_messages_do_the_same_packed_and_plain(
    told: list[tuple[bool, list[int], int, bool]],
) -> None:
    """Steps, repeats, gaps and subsets, some packed to one intake and none to the other, served now and then."""

    def play(may_pack: bool) -> tuple[list[object], list[tuple[list[int], list[int], list[int]]], int, list[float]]:
        bench = Bench(deadline_s=9.0)
        peer, slots = bench.join(1, 4)
        said: list[object] = []
        seen: list[float] = []
        for number, (is_packed, rows, ahead, serves) in enumerate(told):
            where = slots[rows]
            sequence = [max(0, int(last) + 1 + ahead) for last in bench.table.last_sequence[where]]
            payload = bench.step(where, sequence, float(number))
            if is_packed and may_pack:
                error = bench.intake.take_packed(peer, packed(payload), 0.0, LIMIT)
            else:
                error = bench.intake.take(peer, payload, 0.0)
            said.append(error.encode() if isinstance(error, Error) else error)
            bench.intake.sync()
            if serves and bench.intake.waiting_rows:
                bench.intake.close(Close.ENOUGH, 0.0)
                batch = bench.batches[0]
                seen.extend(batch.rows.columns.observation[0][: batch.count, 1].tolist())
                bench.serve()
        return said, taken(peer), peer.counted, seen

    assert play(True) == play(False)


def stepping() -> tuple[Bench, Peer, np.ndarray]:
    bench = Bench()
    peer, slots = bench.join(1, 4)
    for sequence in range(2):
        assert bench.intake.take_packed(peer, packed(bench.step(slots, sequence)), 0.0, LIMIT) is None
        bench.intake.poll(0.0)
        bench.serve()
    return bench, peer, slots


def test_a_known_group_is_not_sorted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, peer, slots = stepping()
    monkeypatch.setattr(bench.table, "sort", None)
    assert bench.intake.take_packed(peer, packed(bench.step(slots, 2)), 0.0, LIMIT) is None
    assert bench.intake.waiting_rows == 4


@pytest.mark.parametrize("sequence", [1, 0, 7])
def test_what_brings_nothing_new_is_not_inflated(monkeypatch: pytest.MonkeyPatch, sequence: int) -> None:
    bench, peer, slots = stepping()
    payload = packed(bench.step(slots, sequence))
    before = len(peer.answers)
    monkeypatch.setattr(packing, "unpack", None)
    error = bench.intake.take_packed(peer, payload, 0.0, LIMIT)
    if sequence == 1:
        assert error is None and peer.answers[before:] == peer.answers[before - 1 : before] and peer.counted == 1
    else:
        assert error is not None and error.code == "sequence_gap" and len(error.rows) == 4


def test_a_broken_stream_leaves_everything_as_it_was() -> None:
    bench, peer, slots = stepping()
    good = bench.step(slots, 2)
    with pytest.raises(ProtocolError):
        bench.intake.take_packed(peer, packed(good)[:-3], 0.0, LIMIT)
    assert bench.intake.waiting_rows == 0
    assert bench.intake.take(peer, good, 0.0) is None and bench.intake.waiting_rows == 4
