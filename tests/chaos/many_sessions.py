"""Many actors in one process, each with one environment and a connection of its own.

python -m many_sessions URL SESSIONS LIFE_S: with LIFE_S each session ends in order after up to so many seconds, and
another one begins in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys

from aioseed.actor.config import EnvironmentConfig
from aioseed.actor.run import run_actor

ENVIRONMENT = EnvironmentConfig(name="paced:make")


async def one_after_the_other(url: str, life_s: float, choose: random.Random) -> None:
    while True:
        session = run_actor(
            url,
            ENVIRONMENT,
            environments=1,
            token=os.environ["AIOSEED_TOKEN"],
            wait_s=600,
            reconnect_s=600,
            on_event=lambda event: None,
        )
        if not life_s:
            await session
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(life_s * choose.uniform(0.2, 1)):
                await session
                return


async def main() -> None:
    url, sessions, life_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    choose = random.Random(sessions)
    async with asyncio.TaskGroup() as group:
        for _ in range(sessions):
            group.create_task(one_after_the_other(url, life_s, choose))
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main())
