"""Every STEP of a session is lost once on its way, over every transport, and nothing shows.

Here a short session; tests/chaos plays the long one.
"""

from __future__ import annotations

import asyncio
import random
from urllib.parse import urlsplit

import pytest

from aioseed.chaos.learner import Laboratory
from aioseed.chaos.losses import LOSSES, Loss, Lost, lose_every_message
from aioseed.chaos.network import SimulatedNetwork, SimulatedTransport
from aioseed.plugins import transport_for
from aioseed.testing.proxy import Proxy
from aioseed.testing.seeded_loop import run_seeded

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def laboratory() -> Laboratory:
    return Laboratory()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scheme", ["ws", "grpc"])
def test_a_lost_message_does_not_show(laboratory: Laboratory, scheme: str, loss: Loss) -> None:
    steps, url = 12, f"{scheme}://127.0.0.1:0"
    transport = transport_for(url)

    async def play() -> Lost:
        async with Proxy("127.0.0.1", 0) as proxy:

            def through(address: str) -> tuple[str, Proxy]:
                proxy.lead_to("127.0.0.1", urlsplit(address).port or 0)
                return f"{scheme}://127.0.0.1:{proxy.port}", proxy

            return await lose_every_message(laboratory, transport, url, loss, steps, through)

    lost = asyncio.run(play())
    assert lost.messages == steps and lost.resumed == steps


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_message_does_not_show_in_memory(laboratory: Laboratory, loss: Loss) -> None:
    async def play() -> Lost:
        network = SimulatedNetwork(random.Random(0))
        transport = SimulatedTransport(network, "actor")
        return await lose_every_message(
            laboratory, transport, "simulated://learner", loss, 200, lambda address: (address, network)
        )

    lost, _ = run_seeded(0, play())
    assert lost.messages == 200
