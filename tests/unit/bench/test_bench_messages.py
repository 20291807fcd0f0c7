"""Large messages: the socket echo moves whole messages, a child that dies says so, figures are ratios of a round."""

from __future__ import annotations

import pytest

from aioseed.bench.child import Child
from aioseed.bench.echo import SocketEcho
from aioseed.bench.links import SocketLink
from aioseed.bench.messages import figures, measure_messages
from aioseed.bench.traffic import Traffic
from aioseed.errors import AioseedError, ConnectError

MESSAGE_BYTES = 300_000


async def test_the_socket_echo_answers_each_message_once_with_its_head() -> None:
    echo = await SocketEcho.open(MESSAGE_BYTES, 10)
    link = await SocketLink.open(echo.url, 10)
    for turn in range(3):
        payload = bytes([turn]) * MESSAGE_BYTES
        assert await link.ask(payload) == payload[:10]
    await link.close()
    await echo.close()


async def test_who_waits_on_a_socket_that_goes_is_told() -> None:
    echo = await SocketEcho.open(MESSAGE_BYTES, 10)
    link = await SocketLink.open(echo.url, 10)
    link.connection_lost(None)  # nobody waits
    link.data_received(b"nobody asked")
    await link.close()
    with pytest.raises(ConnectError):
        await link.ask(b"x")
    await echo.close()


@pytest.mark.timeout(240)
async def test_road_and_peers_take_turns_in_processes_of_their_own() -> None:
    found = await measure_messages(Traffic("websocket", 1, 2, 1000), 0.3)
    assert found["rounds"] == 3
    assert found["message_bytes"] == Traffic("websocket", 1, 2, 1000).step_bytes
    rates = [found[f"{name}_bytes_per_s"] for name in ("road", "untuned_echo", "tuned_echo", "socket")]
    assert all(isinstance(rate, int) and rate > 0 for rate in rates)


async def test_a_child_that_dies_is_an_error_with_its_name() -> None:
    child = await Child.start("peer")
    with pytest.raises(AioseedError, match="the peer failed: its process died"):
        await child.order({"over": "socket"})
    await child.close()
    await child.close()


def test_figures_compare_turns_of_the_same_round() -> None:
    rates = {"road": [4.0, 30.0, 5.0], "untuned_echo": [1.0, 10.0, 1.0], "tuned_echo": [2.0, 20.0, 4.0],
             "socket": [8.0, 40.0, 10.0]}  # fmt: skip
    assert figures(rates) == {
        "road_bytes_per_s": 5, "untuned_echo_bytes_per_s": 1, "tuned_echo_bytes_per_s": 4, "socket_bytes_per_s": 10,
        "times_untuned_echo": 4.0, "times_tuned_echo": 1.5, "times_socket": 0.5, "allocator_times": 2.0,
    }  # fmt: skip
