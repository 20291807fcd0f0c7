"""Train with an actor behind a long or a thin way, and print steps a second and the verdict as JSON, one line a size.

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aioseed
from aioseed.host.events import Progress

WARM_UP_S = 10.0
"""Two PINGs, after which the learner knows how far its actors are."""
GROUPS = 2


class Way(NamedTuple):
    """Say how long and how thin a way is."""

    round_trip_ms: float
    megabits_per_s: float

    @property
    def bytes_per_s(self) -> float:
        """Return what it carries in one direction."""
        return self.megabits_per_s * 1e6 / 8


async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
    """Hand everything on later: what follows waits only for the bytes before it, as on a real way.

    No more than the way carries in a tenth of a second is under way, so that who sends too much is pushed back.
    """
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    free_s = 0.0

    async def deliver() -> None:
        while (arrival := await under_way.get())[1]:
            await asyncio.sleep(arrival[0] - loop.time())
            writer.write(arrival[1])
        writer.close()

    delivering = asyncio.create_task(deliver())
    while data := await reader.read(2**14):
        free_s = max(loop.time(), free_s) + len(data) / way.bytes_per_s
        under_way.put_nowait((free_s + way.round_trip_ms / 2000, data))
        await asyncio.sleep(free_s - loop.time() - 0.1)
    under_way.put_nowait((0.0, b""))
    await delivering


async def be(way: Way, port: int) -> None:
    """Listen on a free port, which is printed, and be the way from there to `port`, for ever."""

    async def connected(near_reader: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        ways = [hand_on(near_reader, far_writer, way), hand_on(far_reader, near_writer, way)]
        await asyncio.gather(*ways, return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


@contextmanager
def running(*words: object, token: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a Python program meanwhile."""
    told, env = [sys.executable, *map(str, words)], {**os.environ, "AIOSEED_TOKEN": token}
    with subprocess.Popen(told, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.terminate()


async def measured(preset: str, environments: int, way: Way, compression: str, seconds: float) -> dict[str, object]:
    """Return the figures of a run with one actor process of so many environments in two groups."""
    rows = environments // GROUPS
    sizes = [f"serving.max_batch_rows={rows}", f"serving.buckets=[{rows}]", f"serving.max_environments={environments}"]
    config = aioseed.load_config(preset, [*sizes, "stop.return_mean=null", "training.total_steps=1000000000"])
    with tempfile.TemporaryDirectory() as folder:
        async with aioseed.Learner(config, run_dir=Path(folder) / "run") as learner:
            port = learner.urls[0].rpartition(":")[2]
            told = ("--round-trips-ms", way.round_trip_ms, "--megabits-per-s", way.megabits_per_s)
            with running(__file__, "--way", port, *told) as between:
                assert between.stdout is not None
                url = f"ws://127.0.0.1:{(await asyncio.to_thread(between.stdout.readline)).strip()}"
                words = ["-m", "aioseed", "actor", url, "--preset", preset, "--envs", environments, "--groups", GROUPS]
                more = ["--compression", compression, "--wait-s", 60]
                with running(*words, *more, token=learner.token.reveal()):
                    reports = [report async for report in follow(learner, seconds)]
    began, ended = reports[0], reports[-1]
    rate = (ended.trained_steps - began.trained_steps) / (ended.wall_s - began.wall_s)
    asked = {**way._asdict(), "compression": compression, "environments": environments}
    return {**asked, "trained_steps_per_s": round(rate), "verdict": ended.verdict}


async def follow(learner: aioseed.Learner, seconds: float) -> AsyncIterator[Progress]:
    """Yield the reports of so many seconds after the warm-up, which begins with the first trained step."""
    trains_since_s = None
    async for event in learner.events():
        if not isinstance(event, Progress) or not event.trained_steps:
            continue
        trains_since_s = event.wall_s if trains_since_s is None else trains_since_s
        if event.wall_s >= trains_since_s + WARM_UP_S:
            yield event
        if event.wall_s >= trains_since_s + WARM_UP_S + seconds:
            return


def main() -> int:
    """Measure, print and return the exit code."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--preset", default="cartpole", help="(default: cartpole)")
    words.add_argument("--round-trips-ms", type=float, nargs="+", default=[0.0, 20.0, 100.0])
    words.add_argument("--megabits-per-s", type=float, nargs="+", default=[math.inf], help="in either direction")
    words.add_argument("--compression", nargs="+", default=["none"], help="of the actor: none, deflate")
    words.add_argument("--environments", type=int, nargs="+", default=[32, 256, 2048], help="of the one actor")
    words.add_argument("--seconds", type=float, default=10.0, help="of a turn (default: 10)")
    words.add_argument("--way", type=int, metavar="PORT", help=argparse.SUPPRESS)
    told = words.parse_args()
    ways = [Way(round_trip_ms, rate) for round_trip_ms in told.round_trips_ms for rate in told.megabits_per_s]
    if told.way is not None:
        asyncio.run(be(ways[0], told.way))
    for way, environments, compression in itertools.product(ways, told.environments, told.compression):
        figures = asyncio.run(measured(told.preset, environments, way, compression, told.seconds))
        sys.stdout.write(json.dumps(figures) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
