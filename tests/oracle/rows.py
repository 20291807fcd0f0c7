"""Unrolls with every kind of border, a linear actor-critic, and what it says of them in NumPy."""

from __future__ import annotations

import jax
import numpy as np

from aioseed.agents.agent import Unroll
from aioseed.nets.network import feed_forward
from aioseed.specs import ArraySpec, discrete
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentSpec

STEPS, BATCH, FEATURES, CHOICES = 7, 3, 2, 3
SPEC = EnvironmentSpec(ArraySpec("float32", (FEATURES,)), discrete(CHOICES))


def linear(observation, action, heads):
    """Make the policy ``observation @ policy`` and the value ``observation @ value``."""

    def init(key):
        keys = jax.random.split(key, len(heads))
        return {
            name: jax.random.normal(k, (FEATURES, head.size))
            for k, (name, head) in zip(keys, heads.items(), strict=True)
        }

    return feed_forward(init, lambda params, inputs: {n: inputs.observation @ kernel for n, kernel in params.items()})


def unroll() -> Unroll:
    generator = np.random.default_rng(3)
    shape = (STEPS + 1, BATCH)
    flags = np.zeros(shape, np.uint8)
    flags[2, 0], flags[3, 0] = TERMINATED, FIRST
    flags[4, 1], flags[5, 1] = TRUNCATED, FIRST
    flags[0, 2], flags[6, 2], flags[7, 2] = FIRST, FIRST, TRUNCATED
    return Unroll(
        observation=generator.normal(size=(*shape, FEATURES)).astype(np.float32),
        reward=generator.normal(0, 2, shape).astype(np.float32),
        flags=flags,
        previous_action=np.zeros(shape, np.int32),
        action=generator.integers(0, CHOICES, shape).astype(np.int32),
        policy_version=np.zeros(shape, np.int32),
        extras={"behaviour_log_prob": np.log(generator.uniform(0.1, 0.9, shape)).astype(np.float32), "hidden": ()},
        initial_state=(),
        importance=np.ones(BATCH, np.float32),
    )


def steps_of(network, rows: Unroll):
    """Yield (column, step, log pi, log mu, entropy, V, valid) of every step of every unroll, in float64."""
    for b in range(BATCH):
        for t in range(STEPS):
            logits = rows.observation[t, b].astype(float) @ network["policy"]
            probabilities = np.exp(logits) / np.exp(logits).sum()
            log_pi = np.log(probabilities[rows.action[t, b]])
            entropy = -(probabilities * np.log(probabilities)).sum()
            value = float(rows.observation[t, b].astype(float) @ network["value"][:, 0])
            valid = not rows.flags[t + 1, b] & FIRST
            yield b, t, log_pi, float(rows.extras["behaviour_log_prob"][t, b]), entropy, value, valid
