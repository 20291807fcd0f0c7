"""Run one handler a channel for a listener, and end them all in a known order."""

from __future__ import annotations

import asyncio

from aioseed.errors import ChannelClosed
from aioseed.transport.channel import Channel, Handler

_CLOSED = "the listener closed"


class HandlerSet:
    """Own the handler tasks of one listener.

    A handler that fails closes its channel and is reported to the event loop's exception handler; the listener and its
    other channels go on. `ChannelClosed` is the usual way for a handler to end and is not reported.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._running: dict[asyncio.Task[None], Channel] = {}
        self._closing = False

    def __len__(self) -> int:
        return len(self._running)

    def start(self, channel: Channel) -> asyncio.Task[None]:
        """Run the handler for `channel` and close the channel after it; the task never fails, it may be cancelled.

        Once the set is closing, the channel is only closed.
        """
        task = asyncio.get_running_loop().create_task(self._run(channel), name=f"handler of {channel.peer}")
        self._running[task] = channel
        task.add_done_callback(self._running.pop)
        return task

    async def close(self, grace_s: float) -> None:
        """Close every channel, wait for the handlers, cancel those that still run after `grace_s`.

        Idempotent; may be called from a handler, which is then not waited for.
        """
        self._closing = True
        handlers = {task for task in self._running if task is not asyncio.current_task()}
        loop = asyncio.get_running_loop()
        closing = {loop.create_task(self._running[task].close(_CLOSED)) for task in handlers}
        tasks = handlers | closing
        if not tasks:
            return
        try:
            await asyncio.wait(tasks, timeout=grace_s)
        finally:
            for task in tasks:
                task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                loop.call_exception_handler({"message": "a channel failed to close", "exception": outcome})

    async def _run(self, channel: Channel) -> None:
        try:
            if not self._closing:
                await self._handler(channel)
        except ChannelClosed:
            return
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"the handler of {channel.peer} failed", "exception": error}
            )
        finally:
            await channel.close(_CLOSED if self._closing else "")
