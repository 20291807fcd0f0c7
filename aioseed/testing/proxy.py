"""A TCP proxy between actors and a learner that does to connections what networks do.

Put it between the two on loopback and script it from the test::

    async with Proxy("127.0.0.1", port) as proxy:
        ...                  # dial proxy.port
        proxy.stall()        # nothing arrives any more, and nobody is told: half-open connections
        proxy.release()      # what was held back arrives after all
        proxy.cut()          # reset: both ends are told, what is under way is lost
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Direction", "Faults", "Proxy"]

Direction: TypeAlias = Literal["there", "back"]
"""From the dialling side to the listening one, or back."""

_CHUNK_BYTES = 65536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends a reset


class Faults(NamedTuple):
    """Say what happens to a new connection all along."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    slice_bytes: int = _CHUNK_BYTES
    """Largest piece that arrives at once."""
    cut_after_bytes: int | None = None
    """Bytes from the dialling side after which the connection is reset."""


class Proxy:
    """Pass bytes both ways between 127.0.0.1:`port` and a target (an asynchronous context manager).

    A target that does not answer is a connection that is closed at once. Thread: the event loop that entered it.

    Args:
        host: Of the target.
        port: Of the target.
        faults: What happens to connections; the attribute may be changed for later ones.
        seed: Of the jitter.
    """

    def __init__(self, host: str, port: int, faults: Faults | None = None, seed: int = 0) -> None:
        self.faults = faults or Faults()
        self._target = host, port
        self._random = random.Random(seed)  # noqa: S311 - jitter
        self._listening: socket.socket | None = None
        self._tasks: dict[asyncio.Task[None], socket.socket] = {}
        self._links: dict[asyncio.Task[None], _Link] = {}

    @property
    def port(self) -> int:
        """Return the port to dial. Only while entered."""
        assert self._listening is not None, "enter the proxy first"
        port: int = self._listening.getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """Return how many connections there are."""
        return len(self._links)

    def lead_to(self, host: str, port: int) -> None:
        """Give later connections another target."""
        self._target = host, port

    def cut(self, most: int | None = None) -> int:
        """Reset connections at both ends, as a network does that forgets them, and return how many.

        Args:
            most: The oldest so many; None for all.
        """
        chosen = list(self._links.values())[:most]
        for link in chosen:
            link.cut()
        return len(chosen)

    def stall(self, direction: Direction | None = None) -> None:
        """Let nothing arrive any more in one direction, or both; no end is told."""
        for link in self._links.values():
            link.stall(direction)

    def release(self) -> None:
        """Let what was held back arrive, and what comes after it."""
        for link in self._links.values():
            link.release()

    async def __aenter__(self) -> Proxy:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        # No `asyncio.Server`: one that closes leaks what it has just accepted (CPython 3.11).
        asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listening is not None
        asyncio.get_running_loop().remove_reader(self._listening)
        self._listening.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        try:
            accepted, _ = listening.accept()
        except OSError:  # gone again before it was taken
            return
        accepted.setblocking(False)
        task = asyncio.ensure_future(self._serve(accepted))
        self._tasks[task] = accepted
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task).close()  # which nothing else does for a task that was cancelled before its first step

    async def _serve(self, accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=accepted)
        task = asyncio.current_task()
        assert task is not None
        self._links[task] = link = _Link(writer, self.faults, self._random.random)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            link.writers.append(far_writer)
            await link.carry_both(reader, far_reader)
        except (OSError, asyncio.CancelledError):
            for end in link.writers:  # broken at one end, or the proxy ends
                end.transport.abort()
        finally:
            del self._links[task]
            for end in link.writers:
                end.close()
            for end in link.writers:
                with contextlib.suppress(OSError):
                    await end.wait_closed()


class _Link:
    """Carry one connection."""

    def __init__(self, near: asyncio.StreamWriter, faults: Faults, uniform: Callable[[], float]) -> None:
        self.writers = [near]
        self._faults = faults
        self._uniform = uniform
        self._flows: dict[Direction, asyncio.Event] = {"there": asyncio.Event(), "back": asyncio.Event()}
        self._carried = 0
        self.release()

    def stall(self, direction: Direction | None) -> None:
        for name, flows in self._flows.items():
            if direction in (None, name):
                flows.clear()

    def release(self) -> None:
        for flows in self._flows.values():
            flows.set()

    def cut(self) -> None:
        """Close with a reset instead of an orderly end."""
        for writer in self.writers:
            raw: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        self.release()

    async def carry_both(self, near_reader: asyncio.StreamReader, far_reader: asyncio.StreamReader) -> None:
        near_writer, far_writer = self.writers
        ways = [
            asyncio.ensure_future(self._carry("there", near_reader, far_writer)),
            asyncio.ensure_future(self._carry("back", far_reader, near_writer)),
        ]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        faults, flows = self._faults, self._flows[direction]
        while data := await reader.read(faults.slice_bytes):
            if faults.delay_s or faults.jitter_s:
                await asyncio.sleep(faults.delay_s + faults.jitter_s * self._uniform())
            await flows.wait()
            self._carried += len(data) if direction == "there" else 0
            if faults.cut_after_bytes is not None and self._carried > faults.cut_after_bytes:
                self.cut()
                raise ConnectionResetError("as told")
            writer.write(data)
            await writer.drain()
        await flows.wait()
        if writer.is_closing():  # cut meanwhile: uvloop takes an end of file there for a mistake
            return
        with contextlib.suppress(OSError, NotImplementedError):
            writer.write_eof()
