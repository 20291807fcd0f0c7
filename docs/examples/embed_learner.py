"""A learner, its actor and the trained policy inside one event loop of one's own: no process, no port."""

import asyncio
import logging
from pathlib import Path

import gymnasium

import aioseed
from aioseed.host.events import Finished, Progress, Trouble
from aioseed.host.policy import LoadedPolicy
from aioseed.transport.memory import MemoryTransport

log = logging.getLogger("embedding")


async def train(config: aioseed.RunConfig, run_dir: Path) -> Finished:
    """Train until the run is over and return what was reached; cancelling ends everything in order."""
    network = MemoryTransport()
    async with aioseed.Learner(config, listen=["memory://learner"], run_dir=run_dir, transports=[network]) as learner:
        environments = config.actor.groups * config.actor.envs_per_group
        stepping = aioseed.run_actor(
            learner.urls[0], config.environment, environments=environments, transport=network, wait_s=60
        )
        async with asyncio.TaskGroup() as tasks:
            actor = tasks.create_task(stepping)
            async for event in learner.events():
                if isinstance(event, Progress):
                    log.info("%d steps, mean return %.0f; %s", event.trained_steps, event.return_mean, event.verdict)
                elif isinstance(event, Trouble):
                    log.warning("%s", event.message)
            actor.cancel()  # it has ended by itself if the run is over, but would look for a learner that was stopped
        return await learner.wait()


def play(policy: LoadedPolicy, name: str) -> float:
    """Return what one episode with the policy brings."""
    environment = gymnasium.make(name)
    observation, _ = environment.reset(seed=0)
    policy.reset()
    total, reward, over = 0.0, 0.0, False
    while not over:
        observation, gained, terminated, truncated, _ = environment.step(policy(observation, reward))
        reward, over = float(gained), terminated or truncated
        total += reward
    environment.close()
    return total


async def main(config: aioseed.RunConfig, run_dir: Path) -> float:
    """Train, then play one episode with what was learned."""
    finished = await train(config, run_dir)
    log.info("%s after %d steps; saved in %s", finished.reason, finished.trained_steps, finished.run_dir)
    # Loading compiles and playing computes: both in a thread, so that whatever else this loop serves goes on.
    policy = await asyncio.to_thread(aioseed.load_policy, run_dir)
    return await asyncio.to_thread(play, policy, config.environment.name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = aioseed.load_config("cartpole", ["training.total_steps=100000"])
    log.info("one episode brings %.0f", asyncio.run(main(config, Path("runs/embedded"))))
