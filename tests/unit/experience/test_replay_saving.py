"""Replay in checkpoints: written once, restored bit for bit, and never changed under the hand that writes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aioseed.errors import CheckpointError
from aioseed.experience.layout import UnrollBuffer, allocate_buffer
from aioseed.experience.replay.config import ReplayConfig
from aioseed.experience.replay.replay import SPARE_BLOCKS, Replay
from aioseed.experience.replay.resume import restore_replay, save_replay
from aioseed.experience.replay.saving import Cuts, Pins
from aioseed.specs import ArraySpec
from aioseed.types import SavedReplay, UnrollLayout

LAYOUT = UnrollLayout(
    (ArraySpec("uint8", (6, 6)),), ArraySpec("int32", ()), (), (ArraySpec("float32", (2,)),), unroll_steps=3,
    overlap_steps=0,
)  # fmt: skip


class Saving:
    """A replay, its cuts, and a disk."""

    def __init__(self, capacity: int = 64, **options: Any) -> None:
        self.replay = Replay(LAYOUT, ReplayConfig(capacity_unrolls=capacity, **options), 0, is_saved=True)
        self.cuts = Cuts(self.replay.blocks, self.replay.pins)
        self.disk: dict[str, dict[str, np.ndarray]] = {}
        self.written: list[str] = []

    def insert(self, count: int) -> None:
        self.replay.insert(numbered(self.replay.blocks.next, count), np.linspace(0.1, 2, count))

    def save(self) -> SavedReplay:
        saved = save_replay(self.replay, self.cuts, {})
        self.write(saved)
        return saved

    def write(self, saved: SavedReplay) -> None:
        self.written = []
        for segment in saved.segments:
            if segment.name not in self.disk:
                with segment.read() as arrays:
                    self.disk[segment.name] = {name: array.copy() for name, array in arrays.items()}
                self.written.append(segment.name)
        saved.release(True)


def numbered(first: int, count: int) -> UnrollBuffer:
    buffer = allocate_buffer(LAYOUT, count)
    for b in range(count):
        buffer.batch.columns.observation[0][:, b] = (first + b) % 256
        buffer.batch.columns.initial_state[0][b] = first + b
        buffer.batch.identity.slot[b], buffer.batch.identity.transitions[b] = first + b, 3
    return buffer


def contents(replay: Replay) -> list[bytes]:
    found = allocate_buffer(LAYOUT, len(replay))
    replay.blocks.copy_out(np.arange(replay.blocks.oldest, replay.blocks.next), found)
    arrays = [*found.batch.columns.observation, *found.batch.columns.initial_state, *found.batch.identity]
    return [array.tobytes() for array in arrays] + [array.tobytes() for array in replay.state().values()]


@pytest.mark.parametrize("inserts", [[5], [64, 1], [7, 30, 64, 3], [1] * 64])
@pytest.mark.parametrize("sampling", ["prioritized", "uniform"])
def test_what_is_restored_is_what_was_saved_and_goes_on_alike(inserts: list[int], sampling: str) -> None:
    one = Saving(sampling=sampling)
    for count in inserts:
        one.insert(count)
        one.replay.draw(9)
        saved = one.save()
    other = Saving(sampling=sampling)
    restore_replay(other.replay, other.cuts, saved.state, saved.arrays, one.disk.__getitem__, "")
    assert contents(one.replay) == contents(other.replay)
    assert (one.replay.evicted, one.replay.unseen_share) == (other.replay.evicted, other.replay.unseen_share)
    for both in (one, other):
        both.insert(20)
        drawn = both.replay.draw(50)
        both.replay.update(drawn.numbers, np.linspace(0, 3, 50))
    assert contents(one.replay) == contents(other.replay)
    np.testing.assert_array_equal(one.replay.draw(50).numbers, other.replay.draw(50).numbers)
    other.disk = one.disk
    assert other.save().state["segments"] == one.save().state["segments"]


@pytest.mark.parametrize(("saved_with", "expected"), [(0.9, 0.6), (0.6, 0.6), (0.6, 0.0), (0.0, None)])
def test_another_priority_exponent_holds_for_what_was_saved_too(saved_with: float, expected: float | None) -> None:
    one = Saving(priority_exponent=saved_with)
    one.insert(20)
    saved = one.save()
    other = Saving(priority_exponent=0.6 if expected is None else expected)
    restore_replay(other.replay, other.cuts, saved.state, saved.arrays, one.disk.__getitem__, "")
    weights = np.ones(20) if expected is None else np.linspace(0.1, 2, 20) ** expected
    np.testing.assert_allclose(other.replay.priorities(), weights)


@pytest.mark.parametrize("exponent", [0.9, 0.45])
def test_after_a_restart_unrolls_without_a_priority_get_the_highest_that_was_ever_seen(exponent: float) -> None:
    one, other = (Saving(capacity=4, min_unrolls=1, priority_exponent=power) for power in (0.9, exponent))
    one.replay.insert(numbered(0, 1), np.array([5.0]))
    one.insert(4)
    saved = one.save()
    restore_replay(other.replay, other.cuts, saved.state, saved.arrays, one.disk.__getitem__, "")
    other.replay.insert(numbered(5, 1), None)
    np.testing.assert_allclose(other.replay.priorities()[-1], 5**exponent)


def test_a_save_appends_what_was_inserted_since_the_one_before() -> None:
    made = Saving()
    made.insert(5)
    made.save()
    made.insert(2)
    state = made.save().state
    assert made.written == ["replay-000000000005-1", "replay-000000000006-1"], "two blocks of two: 4-5 and 6-7"
    assert len(state["segments"]) == 5
    made.save()
    assert made.written == []


def test_what_an_earlier_save_has_written_is_neither_kept_nor_read_for_a_later_one() -> None:
    made = Saving(capacity=32)
    made.insert(4)
    made.save()
    made.insert(1)
    saved = save_replay(made.replay, made.cuts, {})
    assert [made.replay.pins.may_reuse(made.replay.blocks.physical(number)) for number in range(5)] == [True] * 4 + [
        False
    ]
    with pytest.raises(CheckpointError), saved.segments[0].read():
        pass
    saved.release(True)
    assert made.replay.pins.may_reuse(made.replay.blocks.physical(4))


def test_a_save_that_failed_is_made_up_for_by_the_next() -> None:
    made = Saving(capacity=32)
    made.insert(4)
    save_replay(made.replay, made.cuts, {}).release(False)
    made.save()
    assert len(made.written) == 4


def test_pieces_of_one_block_are_read_one_after_the_other() -> None:
    made = Saving()
    made.insert(1)
    save_replay(made.replay, made.cuts, {}).release(False)
    made.insert(1)
    made.save()
    assert made.written == ["replay-000000000000-1", "replay-000000000001-1"]


def test_a_save_that_was_cut_short_needs_a_block_only_while_that_is_read() -> None:
    pins = Pins()
    save = pins.begin({1, 2, 3})
    with pins.reading(save, 1):
        pass
    with pins.reading(save, 2):
        pins.cut_short()
        assert [pins.may_reuse(block) for block in (1, 2, 3)] == [True, False, True]
    assert pins.may_reuse(2)
    with pytest.raises(CheckpointError), pins.reading(save, 2):
        pass


def test_segments_go_with_what_they_hold() -> None:
    made = Saving(capacity=32)
    made.insert(32)
    made.save()
    made.insert(10)
    names = made.save().state["segments"]
    assert names[0] == "replay-000000000010-1" and len(names) == 32


def test_a_block_that_is_being_saved_is_not_used_again_while_there_is_spare_memory() -> None:
    made = Saving(capacity=32)
    made.insert(32)
    saved = save_replay(made.replay, made.cuts, {})
    made.insert(3)
    made.write(saved)
    assert sorted(int(arrays["identity/0"][0]) for arrays in made.disk.values()) == list(range(32))


def test_blocks_that_went_before_a_save_began_do_not_cut_it_short() -> None:
    made = Saving(capacity=32)
    made.insert(32 + SPARE_BLOCKS)
    saved = save_replay(made.replay, made.cuts, {})
    made.insert(SPARE_BLOCKS)
    made.write(saved)
    assert len(made.written) == 32


def test_when_spare_memory_runs_out_the_save_is_cut_short_and_the_next_one_is_whole() -> None:
    made = Saving(capacity=32)
    made.insert(32)
    saved = save_replay(made.replay, made.cuts, {})
    reading = saved.segments[1].read()
    with reading as arrays:
        before = {name: array.copy() for name, array in arrays.items()}
        made.insert(40)
        assert all(np.array_equal(before[name], arrays[name]) for name in before), "what is being read stays"
    with pytest.raises(CheckpointError, match="tries again"), saved.segments[0].read():
        pass
    saved.release(False)
    made.insert(40)
    final = made.save()
    fresh = Saving(capacity=32)
    restore_replay(fresh.replay, fresh.cuts, final.state, final.arrays, made.disk.__getitem__, "")
    assert contents(fresh.replay) == contents(made.replay)


@pytest.mark.parametrize(
    "harm",
    [
        lambda state, arrays: state["segments"].pop(0),
        lambda state, arrays: state["segments"].reverse(),
        lambda state, arrays: state.update(evicted="0"),
        lambda state, arrays: state.pop("next"),
        lambda state, arrays: state.update(block_unrolls=7),
        lambda state, arrays: state.update(generator={"bit_generator": "MT19937"}),
        lambda state, arrays: state.update(generator="dance"),
        lambda state, arrays: state.update(priority_exponent="1"),
        lambda state, arrays: state.update(priority_exponent=-1),
        lambda state, arrays: state.update(segments=5),
        lambda state, arrays: state.update(segments=["replay-0"]),
        lambda state, arrays: state.update(segments=["replay-x-1"]),
        lambda state, arrays: state.update(segments=["replay-0-x"]),
        lambda state, arrays: arrays.update(highest=np.zeros(0)),
        lambda state, arrays: arrays.pop("weights"),
        lambda state, arrays: arrays.update(weights=arrays["weights"][1:]),
        lambda state, arrays: arrays.update(weights=arrays["weights"][:1]),
        lambda state, arrays: arrays.update(draws=arrays["draws"][:1]),
    ],
)
def test_a_saved_replay_that_does_not_fit_is_refused(harm) -> None:
    made = Saving()
    made.insert(5)
    saved = made.save()
    harm(saved.state, saved.arrays)
    other = Saving()
    with pytest.raises(CheckpointError):
        restore_replay(other.replay, other.cuts, saved.state, saved.arrays, made.disk.__getitem__, "")


def test_one_that_does_not_say_its_exponent_has_the_same() -> None:
    one, other = Saving(), Saving()
    one.insert(5)
    saved = one.save()
    restore_replay(
        other.replay,
        other.cuts,
        {name: value for name, value in saved.state.items() if name != "priority_exponent"},
        saved.arrays,
        one.disk.__getitem__,
        "",
    )
    assert contents(one.replay) == contents(other.replay)


@pytest.mark.parametrize("inserted", [65, 64])
def test_more_than_a_smaller_replay_holds_is_refused_even_where_its_blocks_are_as_large(inserted: int) -> None:
    large, small = Saving(capacity=70), Saving(capacity=64)
    large.insert(inserted)
    saved = large.save()

    def restore() -> None:
        restore_replay(small.replay, small.cuts, saved.state, saved.arrays, large.disk.__getitem__, "")

    if inserted > 64:
        with pytest.raises(CheckpointError, match=r"of another replay\.capacity_unrolls"):
            restore()
    else:
        restore()
        assert contents(small.replay) == contents(large.replay)


def test_unrolls_of_another_form_are_refused() -> None:
    made = Saving()
    made.insert(2)
    saved = made.save()
    first = next(iter(made.disk.values()))
    for harm in (lambda: first.update({"rows/0": first["rows/0"].astype(np.int64)}), lambda: first.pop("rows/0")):
        harm()
        other = Saving()
        with pytest.raises(CheckpointError, match="rows/0 has another form"):
            restore_replay(other.replay, other.cuts, saved.state, saved.arrays, made.disk.__getitem__, "")
