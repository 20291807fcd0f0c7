"""The whole loss of the R2D2 agent against NumPy, for a linear network with a memory: sums, priorities and gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.agents.agent import LearnerState, Unroll
from aioseed.agents.r2d2 import agent as plugin
from aioseed.specs import ArraySpec, discrete
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentSpec

from .networks import scanned

BURN_IN, STEPS, BATCH, FEATURES, CHOICES = 3, 6, 4, 2, 3
ROWS, KEEP = BURN_IN + STEPS + 1, 0.6
SPEC = EnvironmentSpec(ArraySpec("float32", (FEATURES,)), discrete(CHOICES))
KEYS = jax.random.split(jax.random.key(9), BATCH)
CONFIGS = {
    "defaults": {},
    "other numbers": {
        "discount": 0.8, "n_steps": 2, "reward_scale": 2.0, "max_abs_reward": 1.5, "priority_max_share": 0.3,
        "rescaling_epsilon": 0.05,
    },
    "one step without a discount": {"discount": 1.0, "n_steps": 1},
}  # fmt: skip


def linear(observation, action, heads):
    """Make ``memory = KEEP memory + x @ seen + a @ done + r paid`` and the values ``memory @ value``."""
    ((name, head),) = heads.items()

    def init(key):
        keys = jax.random.split(key, 4)
        shapes = {"seen": (FEATURES, 2), "done": (CHOICES, 2), "paid": (2,), "value": (2, head.size)}
        return {part: jax.random.normal(k, shape) for k, (part, shape) in zip(keys, shapes.items(), strict=True)}

    def step(params, memory, inputs):
        memory = jnp.where(inputs.first[:, None], 0.0, memory)
        seen = inputs.observation @ params["seen"] + inputs.previous_action @ params["done"]
        memory = KEEP * memory + seen + inputs.reward[:, None] * params["paid"]
        return {name: memory @ params["value"]}, memory

    return scanned(init, 2, step)


def unroll() -> Unroll:
    """Return unrolls with borders within the burn-in, across its end, next to one another and at the last row."""
    generator = np.random.default_rng(4)
    shape = (ROWS, BATCH)
    flags = np.zeros(shape, np.uint8)
    flags[1, 0], flags[2, 0], flags[6, 0], flags[7, 0] = TERMINATED, FIRST, TRUNCATED, FIRST
    flags[BURN_IN, 1], flags[BURN_IN + 1, 1], flags[ROWS - 1, 1] = TRUNCATED, FIRST, TERMINATED
    flags[0, 2], flags[4, 2], flags[5, 2], flags[6, 2], flags[7, 2] = FIRST, TERMINATED, FIRST, TERMINATED, FIRST
    flags[BURN_IN, 3], flags[8, 3], flags[ROWS - 1, 3] = FIRST, TRUNCATED, FIRST
    return Unroll(
        observation=generator.normal(size=(*shape, FEATURES)).astype(np.float32),
        reward=generator.normal(0, 2, shape).astype(np.float32),
        flags=flags,
        previous_action=generator.integers(0, CHOICES, shape).astype(np.int32),
        action=generator.integers(0, CHOICES, shape).astype(np.int32),
        policy_version=np.zeros(shape, np.int32),
        extras={"q_values": np.zeros((*shape, CHOICES), np.float32)},
        initial_state=generator.normal(size=(BATCH, 2)).astype(np.float32),
        importance=generator.uniform(0.2, 1, BATCH).astype(np.float32),
    )


def paid(config, reward: float) -> float:
    scaled = reward * config.reward_scale
    return float(np.clip(scaled, -config.max_abs_reward, config.max_abs_reward)) if config.max_abs_reward else scaled


def values(config, network, burning, b: int) -> np.ndarray:
    """Return float64[STEPS + 1, CHOICES]; `burning` is the network where the burn-in goes through it."""
    rows, found = unroll(), []
    memory = rows.initial_state[b].astype(float)
    for t in range(ROWS):
        used = burning if t < BURN_IN else network
        seen = rows.observation[t, b].astype(float) @ used["seen"]
        if rows.flags[t, b] & FIRST:
            memory = seen  # neither an action nor a reward came before
        else:
            done = used["done"][rows.previous_action[t, b]]
            memory = KEEP * memory + seen + done + paid(config, float(rows.reward[t, b])) * used["paid"]
        if t >= BURN_IN:
            found.append(memory @ used["value"])
    return np.array(found)


def rescaled(x: float, epsilon: float) -> float:
    return np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + epsilon * x


def unrescaled(y: float, epsilon: float) -> float:
    root = np.sqrt(1 + 4 * epsilon * (abs(y) + 1 + epsilon))
    return np.sign(y) * (((root - 1) / (2 * epsilon)) ** 2 - 1)


def wanted(config, online, target, b: int) -> list[float | None]:
    """Return what Q of the action taken from each row of the suffix should be; None where there is no transition."""
    rows, found = unroll(), []
    flags, reward = rows.flags[BURN_IN:, b], rows.reward[BURN_IN:, b]
    for t in range(STEPS):
        total, weight, row = 0.0, 1.0, t
        while row < STEPS and row - t < config.n_steps and not flags[row + 1] & FIRST:
            total += weight * paid(config, float(reward[row + 1]))
            weight *= 0.0 if flags[row + 1] & TERMINATED else config.discount
            row += 1
        total += weight * unrescaled(target[row][int(np.argmax(online[row]))], config.rescaling_epsilon)
        found.append(None if flags[t + 1] & FIRST else rescaled(total, config.rescaling_epsilon))
    return found


def literal(config, network, held) -> tuple[dict[str, float], list[float]]:
    """Return the sums over unrolls and their priorities; `held` are the networks where no gradient flows."""
    rows, sums, priorities = unroll(), dict.fromkeys(("losses/total", "q/mean", "q/td_error"), 0.0), []
    for b in range(BATCH):
        goals = wanted(
            config,
            values(config, held["online"], held["online"], b),
            values(config, held["target"], held["target"], b),
            b,
        )
        online = values(config, network, held["online"], b)
        actions = rows.action[BURN_IN:, b]
        taken = [online[t][actions[t]] for t, goal in enumerate(goals) if goal is not None]
        errors = [goal - q for goal, q in zip((goal for goal in goals if goal is not None), taken, strict=True)]
        sums["losses/total"] += float(rows.importance[b]) * sum(0.5 * error**2 for error in errors)
        sums["q/mean"] += np.mean([unrescaled(q, config.rescaling_epsilon) for q in taken])
        sums["q/td_error"] += np.mean(np.abs(errors))
        sizes, share = np.abs(errors), config.priority_max_share
        priorities.append(share * sizes.max() + (1 - share) * sizes.mean())
    return {
        **sums,
        "replay/new_priority": sum(priorities),
        "replay/importance": float(rows.importance.sum()),
    }, priorities


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def case(request):
    """Return config, agent, state and the float64 networks; the target network is another one."""
    config = plugin.config_type(burn_in_steps=BURN_IN, **request.param)
    built = plugin.build(config, SPEC, linear)
    params, other = built.init(jax.random.key(0)).params, built.init(jax.random.key(1)).params["network"]
    online, target = ({n: np.asarray(leaf, float) for n, leaf in net.items()} for net in (params["network"], other))
    return config, built, LearnerState(params, {"target": other}), {"online": online, "target": target}


def test_sums_and_priorities_are_those_of_a_literal_computation(case) -> None:
    config, built, state, held = case
    found = jax.jit(built.loss)(*state, unroll(), KEYS)
    wanted, priorities = literal(config, held["online"], held)
    assert found.count == BATCH
    assert found.metrics.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found.metrics[name], value, rtol=1e-4, err_msg=name)
    assert found.total == found.metrics["losses/total"]
    np.testing.assert_allclose(found.aux["priorities"], priorities, rtol=1e-4)


def test_the_gradient_is_that_of_q_of_the_taken_actions_behind_the_burn_in_alone(case) -> None:
    """By central differences: neither what is wanted nor the state that the burn-in leaves moves with the network."""
    config, built, state, held = case
    gradient = jax.jit(jax.grad(lambda params: built.loss(params, state.extra, unroll(), KEYS).total))(state.params)
    online = held["online"]
    for name, leaf in online.items():
        for index in np.ndindex(*leaf.shape):
            shift = np.zeros_like(leaf)
            shift[index] = 1e-5
            up, down = (literal(config, {**online, name: leaf + sign * shift}, held)[0] for sign in (1, -1))
            slope = (up["losses/total"] - down["losses/total"]) / 2e-5
            np.testing.assert_allclose(gradient["network"][name][index], slope, rtol=1e-3, atol=1e-3)
