"""Which connection is shared; what comes of it over a network is in tests/integration/test_half_open.py."""

from __future__ import annotations

from aioseed_grpc.sharing import connection_number, leave_connection


def test_who_leaves_late_does_not_bring_a_dead_connection_back() -> None:
    url = "grpc://late.example:1"
    for left, shared in [(0, 1), (0, 1), (1, 2), (0, 2), (1, 2)]:
        leave_connection(url, left)
        assert connection_number(url) == shared
    assert connection_number("grpc://other.example:1") == 0
