from __future__ import annotations

import pytest

from aioseed.transport.guard import Bucket, Guard


class Peer:
    """A channel of which a test says how much it received, what waits and how many writes ended."""

    def __init__(self) -> None:
        self.peer = "peer"
        self.received_bytes = 0
        self.backlog_bytes = 0
        self.finished_writes = 0
        self.held: list[bool] = []
        self.cuts: list[str] = []

    def hold(self, held: bool) -> None:
        self.held.append(held)

    def cut(self, reason: str) -> None:
        self.cuts.append(reason)


def test_a_bucket_allows_a_burst_and_then_its_rate() -> None:
    bucket = Bucket(10.0, 5.0, 100.0)
    assert [bucket.take(1, 100.0) for _ in range(6)] == [True] * 5 + [False]
    assert [bucket.take(1, 100.2), bucket.take(1, 100.2)] == [True, False]
    assert all(bucket.take(1, 101.0 + step / 10) for step in range(100))


def test_who_sends_too_fast_is_held_until_its_average_is_right_again() -> None:
    peer, guard = Peer(), Guard(1000.0, 10.0)
    guard.add(peer, 0.0)
    peer.received_bytes = 1000
    assert guard.tick(0.25) == [] and peer.held == []
    peer.received_bytes = 3500
    assert guard.tick(0.5) == [(peer, "rate_limited")] and peer.held == [True]
    assert guard.tick(1.0) == [(peer, "rate_limited")] and peer.held == [True]
    assert guard.tick(2.76) == [] and peer.held == [True, False]


def test_who_never_reads_is_cut_and_who_reads_slowly_is_not() -> None:
    stuck, slow, idle = Peer(), Peer(), Peer()
    guard = Guard(1e9, 10.0)
    for peer in (stuck, slow, idle):
        guard.add(peer, 0.0)
    stuck.backlog_bytes = slow.backlog_bytes = 1000
    found = []
    for step in range(1, 60):
        slow.backlog_bytes -= 1
        stuck.backlog_bytes += 5
        found += guard.tick(step / 4)
    assert found == [(stuck, "slow_reader")]
    assert (stuck.cuts, slow.cuts, idle.cuts) == (["the peer does not read"], [], []) and len(guard) == 2


def test_whoever_was_cut_is_told_of_once_and_let_be() -> None:
    peer, guard = Peer(), Guard(1.0, 10.0)
    guard.add(peer, 0.0)
    peer.backlog_bytes = peer.received_bytes = 1000
    assert guard.tick(10.0) == [(peer, "slow_reader")] and peer.held == []


def test_a_channel_whose_writes_end_is_busy_and_not_stuck_though_as_much_waits_as_before() -> None:
    peer, guard = Peer(), Guard(1e9, 10.0)
    guard.add(peer, 0.0)
    peer.backlog_bytes = 1000
    for step in range(1, 100):
        peer.finished_writes += step % 30 == 0
        assert guard.tick(step / 4) == []
    assert [guard.tick(step / 4) for step in range(100, 131)] == 30 * [[]] + [[(peer, "slow_reader")]]


@pytest.mark.parametrize("times", [1, 2])
def test_a_channel_that_has_gone_is_looked_at_no_more(times: int) -> None:
    peer, guard = Peer(), Guard(1.0, 1.0)
    guard.add(peer, 0.0)
    for _ in range(times):
        guard.remove(peer)
    peer.received_bytes = 10**9
    assert guard.tick(1.0) == [] and len(guard) == 0
