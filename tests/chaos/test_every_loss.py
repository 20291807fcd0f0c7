"""Request, reply and the connection under way are lost at every message index of a session of 200 steps."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from aioseed.chaos.learner import Laboratory
from aioseed.chaos.losses import LOSSES, Loss, Lost, lose_every_message
from aioseed.plugins import transport_for
from aioseed.testing.proxy import Proxy

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

STEPS = 200


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scheme", ["ws", "grpc"])
def test_no_loss_shows(scheme: str, loss: Loss) -> None:
    url = f"{scheme}://127.0.0.1:0"
    transport = transport_for(url)

    async def play() -> Lost:
        async with Proxy("127.0.0.1", 0) as proxy:

            def through(address: str) -> tuple[str, Proxy]:
                proxy.lead_to("127.0.0.1", urlsplit(address).port or 0)
                return f"{scheme}://127.0.0.1:{proxy.port}", proxy

            return await lose_every_message(Laboratory(), transport, url, loss, STEPS, through)

    lost = asyncio.run(play())
    assert lost == Lost(messages=STEPS, rows=2 * STEPS, resumed=STEPS)
