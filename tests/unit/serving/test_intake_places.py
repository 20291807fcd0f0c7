"""STEPs of known groups whose observations are read to where they stay."""

from __future__ import annotations

import pytest

from aioseed.serving.rule import TIMER_S, Close
from aioseed.specs import ArraySpec
from aioseed.wire.columns import COPIED_BYTES, StepLayout, flat_columns

from .bench import Bench, Peer, taken

PICTURES = StepLayout(ArraySpec("uint8", (5000,)), 1)


def sent_to_its_place(bench: Bench, peer: Peer, payload: bytes, there: int | None = None) -> bool:
    """Send a STEP as a transport does that reads large messages to their places, and say whether it had one."""
    step = bench.intake.place(peer, len(payload), memoryview(payload)[:there])
    if step is None:
        return False
    at = step.end.begin
    for piece in step.end.memory:
        piece[:], at = payload[at : at + len(piece)], at + len(piece)
    bench.intake.take_placed(step, 0.0)
    return True


def test_a_step_of_a_known_group_is_read_to_its_rows_and_is_served_as_any_other() -> None:
    benches = Bench(steps=PICTURES), Bench(steps=PICTURES)
    answers, batches = [], []
    for bench, in_place in zip(benches, (True, False), strict=True):
        peers = [bench.join(1, 2), bench.join(2, 3)]
        for sequence in range(4):
            for peer, slots in peers:
                payload = bench.step(slots, sequence, 10 * sequence + peer.number)
                if not (in_place and sequence and sent_to_its_place(bench, peer, payload)):
                    assert sequence == 0 or not in_place
                    assert bench.intake.take(peer, payload, 0.0) is None
            assert bench.intake.poll(0.0) is Close.ALL
            columns, count = bench.batches[0].rows.columns, bench.batches[0].count
            batches.append([column[:count].tolist() for column in flat_columns(columns)])
            bench.serve()
        answers.append([taken(peer) for peer, _ in peers])
    assert answers[0] == answers[1] and len(answers[0][0]) == 4
    assert batches[:4] == batches[4:]


def test_a_batch_is_as_old_as_the_step_that_was_read_to_its_place() -> None:
    bench = Bench(steps=PICTURES)
    peers = bench.join(1, 2), bench.join(2, 2)
    for peer, slots in peers:
        bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.poll(0.0)
    bench.serve()
    peer, slots = peers[0]
    step = bench.intake.place(peer, len(payload := bench.step(slots, 1)), memoryview(payload))
    assert step is not None and bench.intake.due_at_s() is None  # it is not there yet
    bench.intake.take_placed(step, 7.0)
    assert bench.intake.waiting_rows == 2 and bench.intake.due_at_s() == pytest.approx(7.0 + TIMER_S)
    peer, slots = peers[1]
    step = bench.intake.place(peer, len(payload := bench.step(slots, 1)), memoryview(payload))
    assert step is not None
    bench.intake.take_placed(step, 8.0)
    assert bench.intake.waiting_rows == 4 and bench.intake.due_at_s() == pytest.approx(7.0 + TIMER_S)


def test_only_what_is_sure_to_be_taken_gets_a_place() -> None:
    bench = Bench(steps=PICTURES, max_rows=6)
    (one, ours), (two, theirs) = bench.join(1, 3), bench.join(2, 4)
    assert not sent_to_its_place(bench, one, bench.step(ours, 0))  # not known yet
    for peer, slots in ((one, ours), (two, theirs)):
        bench.intake.take(peer, bench.step(slots, 0), 0.0)
        bench.intake.close(Close.FULL, 0.0) if bench.intake.waiting_rows else None
        bench.serve()
    assert not sent_to_its_place(bench, one, bench.step(ours, 2))  # a gap
    assert not sent_to_its_place(bench, one, bench.step(ours, 0))  # a repeat
    assert not sent_to_its_place(bench, one, bench.step(ours[:2], 1))  # others than those that step together
    assert not sent_to_its_place(bench, two, bench.step(ours, 1))  # slots of another session
    assert not sent_to_its_place(bench, one, bench.step(ours, 1), there=80)  # it cannot be told yet
    assert sent_to_its_place(bench, one, bench.step(ours, 1))
    assert not sent_to_its_place(bench, one, bench.step(ours, 1))  # it is in a batch
    assert not sent_to_its_place(bench, two, bench.step(theirs, 1))  # no room
    assert bench.intake.waiting_rows == 3


def test_a_step_with_the_head_of_a_known_group_and_another_length_gets_no_place() -> None:
    bench = Bench(steps=PICTURES)
    other, theirs = bench.join(1, 3)
    bench.intake.take(other, bench.step(theirs, 0), 0.0)  # messages of 3 rows were seen before
    peer, slots = bench.join(2, 2)
    for sequence in range(3):
        bench.intake.take(peer, bench.step(slots, sequence), 0.0)
        bench.intake.close(Close.ENOUGH, 0.0)
        bench.serve()
    sound = bench.step(slots, 3)
    forged = sound + bytes(PICTURES.size_bytes(3) - len(sound))
    assert forged[32:36] == sound[24:28], "where 3 rows have the slot of the first, this step has the same number"
    assert bench.intake.place(peer, len(forged), memoryview(forged)) is None
    assert bench.intake.place(peer, len(sound), memoryview(sound)) is not None


def test_in_lockstep_nothing_gets_a_place() -> None:
    bench = Bench(steps=PICTURES, lockstep_rows=2)
    peer, slots = bench.join(1, 2)
    bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.poll(0.0)
    bench.serve()
    assert not sent_to_its_place(bench, peer, bench.step(slots, 1))


SMALL = ArraySpec("uint8", (COPIED_BYTES // 2,))


@pytest.mark.parametrize("last", [SMALL, ArraySpec("uint8", (COPIED_BYTES // 2 + 1,))])
def test_observations_that_are_a_small_part_of_a_message_get_no_place(last: ArraySpec) -> None:
    bench = Bench(steps=StepLayout({"a": SMALL, "b": SMALL, "z": last}, 0))
    peer, slots = bench.join(1, 2)
    bench.intake.take(peer, bench.step(slots, 0), 0.0)
    bench.intake.poll(0.0)
    bench.serve()
    assert not sent_to_its_place(bench, peer, bench.step(slots, 1))
