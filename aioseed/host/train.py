"""One command's run: a learner and its local actors, joined for as long as either lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from aioseed.actor.config import EnvironmentConfig
from aioseed.actor.run import run_actor
from aioseed.actor.task import task_of
from aioseed.errors import AioseedError, ConfigError
from aioseed.host.actors import LocalActors
from aioseed.host.config import RunConfig
from aioseed.host.events import Event, Finished
from aioseed.host.learner import Learner
from aioseed.host.rundir import Resume
from aioseed.plugins import environment_plugin, load
from aioseed.transport.channel import Transport
from aioseed.transport.memory import MemoryTransport
from aioseed.wire.messages import Task


async def train(
    config: RunConfig,
    *,
    run_dir: Path | None = None,
    resume: Resume = "never",
    stop: asyncio.Event | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Finished:
    """Train with local actors until the run is over, and return what was reached.

    Cancelling ends the run in order, and every actor process with it. Setting `stop` does so too, and returns.

    Args:
        config: The run; its sections `actor` and `transport` say how many actors there are and how they reach it.
        run_dir: Where the run lives; None makes a new folder under ``runs/``.
        resume: ``never`` begins a run, ``auto`` goes on if there is one, ``require`` insists.
        stop: Set, from the event loop's thread, to end the run before it is over.
        on_event: Told what happens, in the event loop's thread; the troubles of local actors too.

    Raises:
        AioseedError: What ended the run.
    """
    memory = MemoryTransport()
    url = await asyncio.to_thread(_listen_url, config.transport.name)
    learner = Learner(config, listen=[url], run_dir=run_dir, resume=resume, transports=[memory])
    async with learner:
        actors = asyncio.ensure_future(_actors(config, learner, memory, on_event))
        events = asyncio.ensure_future(_forward(learner, on_event))
        stopping = asyncio.ensure_future((stop or asyncio.Event()).wait())
        try:
            await asyncio.wait({actors, events, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if actors.done() and not events.done():
                await actors  # raises what no actor can survive; else the run is over and the learner says so
            learner.stop()
            await events
            return await learner.wait()
        finally:
            for task in (actors, events, stopping):
                task.cancel()
            await asyncio.gather(actors, events, stopping, return_exceptions=True)


async def _forward(learner: Learner, on_event: Callable[[Event], None]) -> None:
    async for event in learner.events():
        on_event(event)


async def _actors(
    config: RunConfig, learner: Learner, memory: MemoryTransport, on_event: Callable[[Event], None]
) -> None:
    if config.transport.name == "memory":
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(config.actor.processes):
                    group.create_task(_actor_in_process(config, learner, memory, index))
        except* AioseedError as errors:
            raise errors.exceptions[0] from None
    else:
        await LocalActors(config, learner.urls[0], learner.token, on_event).run()


async def _actor_in_process(config: RunConfig, learner: Learner, memory: MemoryTransport, index: int) -> None:
    environment, actor = config.environment, config.actor
    await run_actor(
        learner.urls[0],
        environment,
        environments=actor.groups * actor.envs_per_group,
        groups=actor.groups,
        actor_id=f"local-{index}",
        actor_index=index,
        task=await asyncio.to_thread(_task, environment),
        transport=memory,
        wait_s=600.0,
        reconnect_s=actor.reconnect_s,
        step_deadline_s=actor.step_deadline_s,
        compression=actor.compression,
    )


def _task(environment: EnvironmentConfig) -> Task:
    plugin = environment_plugin(environment.plugin)
    return task_of(environment.name, plugin.task(environment.name, environment.options))


def _listen_url(transport: str) -> str:
    known = {"websocket": "ws://127.0.0.1:0", "grpc": "grpc://127.0.0.1:0", "memory": "memory://learner"}
    if transport in known:
        return known[transport]
    plugin = load("aioseed.transports", transport)
    made = plugin() if callable(plugin) else plugin
    if not isinstance(made, Transport):
        raise ConfigError(f"transport.name: {transport} is not a Transport", path="transport.name", value=transport)
    return f"{made.schemes[0]}://127.0.0.1:0"
