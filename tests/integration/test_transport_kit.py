"""Every transport of the project passes the kit that is shipped for those of others, on each event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aioseed_grpc import GrpcTransport
from aioseed_websocket import WebSocketTransport

from aioseed.testing.transport_kit import TRANSPORT_CHECKS, Check, Make
from aioseed.transport import MemoryTransport, Transport

pytestmark = pytest.mark.every_loop


def maker(transport: Callable[[], Transport], url: str) -> Make:
    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Transport, str]]:
        yield transport(), url

    return make


MAKERS = {
    "memory": maker(MemoryTransport, "memory://here:0"),
    "websocket": maker(WebSocketTransport, "ws://127.0.0.1:0"),
    "grpc": maker(GrpcTransport, "grpc://127.0.0.1:0"),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("check", TRANSPORT_CHECKS.values(), ids=TRANSPORT_CHECKS)
async def test_transport_passes(check: Check, make: Make) -> None:
    await check(make)
