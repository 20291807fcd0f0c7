"""WebSockets as a transport of aioseed: ``ws://host:port`` and ``wss://host:port``, on aiohttp."""

from __future__ import annotations

from aioseed_websocket.transport import WebSocketTransport

__all__ = ["WebSocketTransport"]
