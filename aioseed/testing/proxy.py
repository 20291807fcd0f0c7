"""A TCP proxy between actors and a learner, whose connections can be cut from a test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType

_CHUNK_BYTES = 65536


class Proxy:
    """Pass bytes both ways between 127.0.0.1:`port` and a target (an asynchronous context manager).

    A target that does not answer is a connection that is closed at once. Thread: the event loop that entered it.

    Args:
        host: Of the target.
        port: Of the target.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._server: asyncio.Server | None = None
        self._pairs: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    @property
    def port(self) -> int:
        """Return the port to dial. Only while entered."""
        assert self._server is not None, "enter the proxy first"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """Return how many connections there are."""
        return len(self._pairs)

    def cut(self, most: int | None = None) -> int:
        """Reset connections at both ends, as a network does that forgets them, and return how many.

        Args:
            most: The oldest so many; None for all.
        """
        chosen = list(self._pairs.values())[:most]
        for writers in chosen:
            for writer in writers:
                _reset(writer)
        return len(chosen)

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for pair in self._pairs:
            pair.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs[task] = [writer]
        try:
            await self._pass_both(reader, writer, self._pairs[task])
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()  # broken at one end, or the proxy ends
        finally:
            del self._pairs[task]
            await _close(writer)

    async def _pass_both(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: list[asyncio.StreamWriter]
    ) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        ends.append(far_writer)
        ways = [asyncio.ensure_future(_pass(reader, far_writer)), asyncio.ensure_future(_pass(far_reader, writer))]
        try:
            await asyncio.gather(*ways)
        except (OSError, asyncio.CancelledError):
            far_writer.transport.abort()
            raise
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _close(far_writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError, NotImplementedError):
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of an orderly end."""
    raw: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
