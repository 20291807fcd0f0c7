"""A server's frames, which are written by hand, are those that aiohttp reads."""

from __future__ import annotations

import pytest
from aioseed_websocket.channel import JOINED_BYTES
from aioseed_websocket.frames import frame_head

from aioseed.errors import ChannelClosed

from .conftest import Ends

SIZES = [0, 1, 125, 126, 127, 2**16 - 1, 2**16, JOINED_BYTES, JOINED_BYTES + 1, 200_000]


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (2**16 - 1, "827effff"),
        (2**16, "827f0000000000010000"),
    ],
)
def test_the_length_takes_the_shortest_of_three_forms(size: int, head: str) -> None:
    assert frame_head(size).hex() == head


async def test_aiohttp_reads_every_size_as_one_binary_message(plain: Ends) -> None:
    for size in SIZES:
        plain.channel.send_nowait(bytes([size % 251]) * size)
    for size in SIZES:
        assert await plain.client.receive_bytes() == bytes([size % 251]) * size


async def test_a_message_for_a_connection_that_breaks_is_refused(plain: Ends) -> None:
    plain.channel._transport.abort()
    with pytest.raises(ChannelClosed) as caught:
        plain.channel.send_nowait(b"nobody hears")
    assert not caught.value.clean
