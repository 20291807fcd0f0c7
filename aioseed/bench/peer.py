"""An echo in a process of its own, whose event loop and allocator are its own too.

Runs as ``python -m aioseed.bench.peer``: one JSON line says what to echo, the answer where it listens. Each further
line is answered with the processor time that was spent. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from aioseed.bench.echo import AiohttpEcho, Echo, GrpcEcho, SocketEcho
from aioseed.bench.load import run_on_fast_loop, say
from aioseed.plugins import load
from aioseed.transport.allocator import keep_large_blocks


async def _serve_standard_input() -> None:
    lines = asyncio.get_running_loop().run_in_executor
    order = json.loads(await lines(None, sys.stdin.readline))
    answer_bytes = int(order["answer_bytes"])
    echo: Echo
    if order["over"] == "socket":
        echo = await SocketEcho.open(int(order["message_bytes"]), answer_bytes)
    elif order["over"] == "grpc":
        if order["tuned"]:
            load("aioseed.transports", "grpc")  # which sets the library up
        echo = await GrpcEcho.open(answer_bytes)
    else:
        echo = await AiohttpEcho.open(answer_bytes)
    try:
        say({"url": echo.url})
        while await lines(None, sys.stdin.readline):
            say({"cpu_s": time.process_time()})
    finally:
        await echo.close()


def main() -> int:
    """Serve until standard input closes and return the exit code."""
    keep_large_blocks()
    return run_on_fast_loop(_serve_standard_input())


if __name__ == "__main__":
    sys.exit(main())
