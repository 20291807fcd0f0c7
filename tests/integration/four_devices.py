"""Train on one device and on four, and print what came of it as JSON.

Run by test_devices.py in a process of its own: the number of virtual devices is fixed before JAX begins.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aioseed.agents.agent import LossOutput, PyTree, Unroll
from aioseed.experience.layout import allocate_buffer
from aioseed.host.acting import build_agent, layout_of
from aioseed.host.config import RunConfig
from aioseed.host.train import train
from aioseed.presets import apply_overrides, read
from aioseed.specs import ArraySpec, discrete
from aioseed.training.config import TrainingConfig
from aioseed.training.device import find_devices
from aioseed.training.optimizer import make_optimizer
from aioseed.training.publish import compile_copy
from aioseed.training.trees import flatten_arrays
from aioseed.training.update import Update, column_shapes, compile_update, init_state
from aioseed.types import FIRST, EnvironmentSpec, UnrollColumns, UnrollLayout
from aioseed.validation import validate

SPEC = EnvironmentSpec(ArraySpec("float32", (3,)), discrete(2))
UNROLL_STEPS, CALLS = 5, 3
FOUR = ("cpu:0", "cpu:1", "cpu:2", "cpu:3")
AGENTS: dict[str, tuple[dict[str, object], dict[str, object], int]] = {  # and the passes over a batch
    "ppo": ({"name": "ppo"}, {"name": "mlp", "hidden": [8]}, 2),
    "r2d2": (
        {"name": "r2d2", "burn_in_steps": 2, "target_update_every": 2},
        {"name": "dueling_lstm", "hidden": [8], "lstm_units": 8, "dueling_units": 8},
        1,
    ),
}
SMALL = [
    "transport.name=memory", "actor.processes=1", "actor.groups=2", "actor.envs_per_group=4",
    "serving.max_environments=8", "serving.max_batch_rows=8", "serving.buckets=[8]", "experience.unroll_steps=4",
    "network={name: mlp, hidden: [8]}", "training.batch_unrolls=8", "stop.return_mean=null",
    "telemetry.tensorboard=false",
]  # fmt: skip


def columns(layout: UnrollLayout, unrolls: int, seed: int) -> UnrollColumns:
    """Return made-up unrolls: normal numbers, some episode borders, a weight for each."""
    generator = np.random.default_rng(seed)
    made = allocate_buffer(layout, unrolls).batch.columns
    for leaf in (*made.observation, made.reward, *made.extras, *made.initial_state):
        leaf[...] = generator.normal(size=leaf.shape)
    made.flags[...] = np.where(generator.random(made.flags.shape) < 0.2, FIRST, 0)
    for leaf in (made.action, made.previous_action):
        leaf[...] = generator.integers(2, size=leaf.shape)
    made.importance[...] = generator.uniform(0.2, 1.0, unrolls)
    return made


def trained(name: str, devices: tuple[str, ...]) -> dict[str, Any]:
    """Return what a few updates on `devices` leave: parameters, priorities, and what was published to each device."""
    agent, network, passes = AGENTS[name]
    config = TrainingConfig.model_validate(
        {"batch_unrolls": 8, "micro_unrolls": 4, "updates_per_call": 2, "passes": passes, "devices": devices,
         "optimizer": {"learning_rate": 0.01, "epsilon": 1e-3, "clip_norm": 1.0}}
    )  # fmt: skip
    built, placement = build_agent(agent, network, SPEC), find_devices(config.devices)
    seen: set[int] = set()

    def loss(params: PyTree, extra: PyTree, unroll: Unroll, keys: jax.Array) -> LossOutput:
        seen.add(unroll.reward.shape[1])
        return built.agent.loss(params, extra, unroll, keys)

    layout, optimizer = layout_of(built, UNROLL_STEPS), make_optimizer(config, UNROLL_STEPS)
    state = init_state(built.agent, optimizer, jax.random.key(0), placement)
    before = flatten_arrays(state)
    update = Update(built.agent._replace(loss=loss), optimizer, SPEC.observation, config)
    program = compile_update(update, state, layout, config, placement)
    copies = [compile_copy(state.learner.params, device) for device in jax.local_devices()]
    priorities = []
    for call in range(CALLS):
        published = [copy(state.learner.params) for copy in copies]
        old, was = state, flatten_arrays(state.learner.params)
        state, output = program(state, columns(layout, config.call_unrolls, call))
        jax.block_until_ready(state)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old.learner.params)), "the state was not donated"
        for device, params in zip(jax.local_devices(), published, strict=True):
            assert all(leaf.devices() == {device} for leaf in jax.tree.leaves(params))
            jax.tree.map(np.testing.assert_array_equal, flatten_arrays(params), was)
        if isinstance(output.aux, dict) and "priorities" in output.aux:
            priorities += np.asarray(output.aux["priorities"]).tolist()
    shapes = column_shapes(layout, (4, 4), placement)
    after = flatten_arrays(state)
    return {
        "arrays": after,
        "priorities": priorities,
        "moved": max(
            float(np.abs(after[key] - before[key]).max()) for key in after if key.startswith("learner/params")
        ),
        "share_of_a_piece": shapes.reward.sharding.shard_shape(shapes.reward.shape)[2],  # type: ignore[attr-defined]
        "unrolls_in_a_loss": sorted(seen),
        "homes": sorted({len(leaf.devices()) for leaf in jax.tree.leaves(state)}),
    }


def compared(name: str) -> dict[str, object]:
    """Return how far one device and four are apart, relative to what the updates moved."""
    one, four = trained(name, FOUR[:1]), trained(name, FOUR)
    assert one["arrays"].keys() == four["arrays"].keys()
    apart = {
        key: float(np.abs(array.astype(np.float64) - four["arrays"][key]).max()) for key, array in one["arrays"].items()
    }
    return {
        "moved": one["moved"],
        "apart": max(apart.values()),
        "priorities": [one["priorities"], four["priorities"]],
        "share_of_a_piece": [one["share_of_a_piece"], four["share_of_a_piece"]],
        "unrolls_in_a_loss": [one["unrolls_in_a_loss"], four["unrolls_in_a_loss"]],
        "homes": [one["homes"], four["homes"]],
    }


async def runs(folder: Path) -> dict[str, object]:
    """Return the ends of a run on four devices with inference on the last, and of its continuation on one."""
    preset = read("cartpole")

    async def run(*overrides: str) -> dict[str, object]:
        config = validate(RunConfig, apply_overrides(preset, [*SMALL, *overrides]), "")
        finished = await train(config, run_dir=folder / "run", resume="auto")
        return {"steps": finished.trained_steps, "imbalance": finished.imbalance, "reason": finished.reason}

    listed = f"training.devices=[{', '.join(FOUR)}]"
    return {
        "four": await run(listed, "serving.device=cpu:3", "training.total_steps=600"),
        "one": await run("training.devices=[cpu:1]", "serving.device=cpu:2", "training.total_steps=1200"),
    }


if __name__ == "__main__":
    report: dict[str, object] = {"devices": len(jax.local_devices())}
    report |= {name: compared(name) for name in AGENTS}
    report["runs"] = asyncio.run(runs(Path(sys.argv[1])))
    print(json.dumps(report))
