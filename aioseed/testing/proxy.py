"""A TCP proxy that does to a connection what networks do: delay it, cut it into slices, stall it, reset it.

Put it between an actor and a learner on loopback and script it from the test::

    async with FaultyProxy("127.0.0.1", port) as proxy:
        ...                  # dial proxy.port
        proxy.stall()        # nothing arrives any more, and nobody is told: a half-open connection
        proxy.release()      # what was held back arrives after all
        proxy.reset()        # RST to both sides, what is under way is lost
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Literal, NamedTuple

__all__ = ["Faults", "FaultyProxy"]

Direction = Literal["there", "back"]
"""From the dialling side to the listening one, or back."""

_CHUNK_BYTES = 64 * 2**10
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST


class Faults(NamedTuple):
    """Say what happens to each new connection."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    slice_bytes: int = _CHUNK_BYTES  # largest piece that arrives at once
    reset_after_bytes: int | None = None  # in the direction "there"


class FaultyProxy:
    """Forward connections from a port of its own to another. Thread: one event loop.

    Args:
        host: Where the listener is.
        port: Likewise.
        faults: What happens to connections from the start; `faults` may be changed for later ones.
        seed: Of the jitter.
    """

    def __init__(self, host: str, port: int, faults: Faults | None = None, seed: int = 0) -> None:
        self.faults = faults or Faults()
        self.accepted = 0
        """Connections accepted so far."""
        self.refuse = False
        """Reset new connections at once."""
        self._target = host, port
        self._random = random.Random(seed)  # noqa: S311 - jitter
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FaultyProxy:
        """Begin to listen on loopback."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening and reset what is left."""
        self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def lead_to(self, host: str, port: int) -> None:
        """Forward new connections to another listener."""
        self._target = host, port

    @property
    def connections(self) -> int:
        """Return the number of connections that live."""
        return len(self._links)

    def stall(self, direction: Direction | None = None) -> None:
        """Let nothing arrive in one direction, or both; the ends are not told."""
        for link in self._links:
            link.stall(direction)

    def release(self) -> None:
        """Let what was held back arrive, and what comes after it."""
        for link in self._links:
            link.release()

    def reset(self, most: int | None = None) -> int:
        """Send RST to both sides of every connection, or of so many; what is under way is lost. Return how many."""
        chosen = [*self._links][:most]
        for link in chosen:
            link.reset()
        return len(chosen)

    def held_bytes(self, direction: Direction) -> int:
        """Return how many bytes are held back in one direction."""
        return sum(link.held_bytes[direction] for link in self._links)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuse:
            _abort(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _abort(writer)
            return
        link = _Link(writer, far_writer, self.faults, self._random.random, self._links.discard)
        self._links.add(link)
        for direction, source, target in (("there", reader, far_writer), ("back", far_reader, writer)):
            task = asyncio.get_running_loop().create_task(link.carry(direction, source, target))  # type: ignore[arg-type]
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class _Link:
    def __init__(
        self,
        near: asyncio.StreamWriter,
        far: asyncio.StreamWriter,
        faults: Faults,
        uniform: Callable[[], float],
        forget: Callable[[_Link], None],
    ) -> None:
        self.held_bytes: dict[Direction, int] = {"there": 0, "back": 0}
        self._writers = near, far
        self._faults = faults
        self._uniform = uniform
        self._forget = forget
        self._flows: dict[Direction, asyncio.Event] = {"there": asyncio.Event(), "back": asyncio.Event()}
        self._carried = 0
        self._open = 2
        self.release()

    def stall(self, direction: Direction | None) -> None:
        for name, flows in self._flows.items():
            if direction in (None, name):
                flows.clear()

    def release(self) -> None:
        for flows in self._flows.values():
            flows.set()

    def reset(self) -> None:
        self._forget(self)
        self.release()
        for writer in self._writers:
            _abort(writer)

    async def carry(self, direction: Direction, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(_CHUNK_BYTES):
                for start in range(0, len(chunk), self._faults.slice_bytes):
                    await self._pass_on(direction, chunk[start : start + self._faults.slice_bytes], target)
            await self._flows[direction].wait()
            if not target.transport.is_closing():
                target.write_eof()
        except OSError:
            self.reset()
        finally:
            self._open -= 1
            if not self._open:
                self._forget(self)
                for writer in self._writers:
                    writer.close()

    async def _pass_on(self, direction: Direction, piece: bytes, target: asyncio.StreamWriter) -> None:
        faults = self._faults
        if faults.delay_s or faults.jitter_s:
            await asyncio.sleep(faults.delay_s + faults.jitter_s * self._uniform())
        self.held_bytes[direction] += len(piece)
        await self._flows[direction].wait()
        self.held_bytes[direction] -= len(piece)
        self._carried += len(piece) if direction == "there" else 0
        if faults.reset_after_bytes is not None and self._carried > faults.reset_after_bytes:
            raise ConnectionResetError("as told")
        target.write(piece)
        await target.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
