"""The whole loss of the SAC agent against NumPy, for a linear policy and quadratic critics: sums and gradient.

Networks with a memory see a running sum of observations in the place of the observation.
"""

from __future__ import annotations

from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.agents.agent import LearnerState, Unroll
from aioseed.agents.sac import agent as plugin
from aioseed.agents.sac.loss import Outputs, sac_loss
from aioseed.agents.transitions import Transitions
from aioseed.nets.network import feed_forward
from aioseed.specs import ActionSpec, ArraySpec
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentSpec

from .networks import remembering

STEPS, BATCH, FEATURES, ELEMENTS, KEEP = 5, 3, 2, 2, 0.6
LOW, HIGH = np.array([-2.0, 0.0]), np.array([2.0, 3.0])
SPEC = EnvironmentSpec(
    ArraySpec("float32", (FEATURES,)),
    ActionSpec("box", ArraySpec("float32", (ELEMENTS,)), low=tuple(LOW), high=tuple(HIGH)),
)
KEYS = jax.random.split(jax.random.key(9), BATCH)
CONFIGS = {
    "defaults": {},
    "other numbers": {
        "critics": 3, "discount": 0.8, "reward_scale": 2.0, "max_abs_reward": 1.5, "entropy_cost": 0.3,
        "entropy_cost_adjustment_speed": 3.0, "target_entropy": 0.4,
        "action": {"std": "exp", "initial_std": 0.6, "min_std": 0.1},
    },
    "a fixed temperature": {"target_entropy": None, "entropy_cost": 0.2},
}  # fmt: skip


def linear(observation, action, heads):
    """Make ``x @ state`` for the policy and ``x @ state + a @ action + a^2 @ square`` for a critic."""
    ((name, head),) = heads.items()

    def init(key):
        keys = jax.random.split(key, 3)
        params = {"state": 0.7 * jax.random.normal(keys[0], (FEATURES, head.size))}
        if head.takes_action:
            params["action"] = jax.random.normal(keys[1], (ELEMENTS, head.size))
            params["square"] = jax.random.normal(keys[2], (ELEMENTS, head.size))
        return params

    def apply(params, inputs):
        found = inputs.observation @ params["state"]
        if head.takes_action:
            found = found + inputs.action @ params["action"] + inputs.action**2 @ params["square"]
        return {name: found}

    return feed_forward(init, apply)


def summing(observation, action, heads):
    """Make what `linear` makes, on a running sum of observations."""
    return remembering(linear(observation, action, heads), FEATURES, KEEP)


def with_memory(rows: Unroll, critics: int) -> Unroll:
    """Return `rows` with a state that entered them, the same for policy and critics."""
    state = np.random.default_rng(5).normal(size=(BATCH, FEATURES)).astype(np.float32)
    return rows._replace(initial_state={"policy": state, "critics": np.stack([state] * critics, axis=1)})


def seen(rows: Unroll) -> np.ndarray:
    """Return float64[T+1, B, F], what a network looks at."""
    found = rows.observation.astype(float)
    if not isinstance(rows.initial_state["policy"], tuple):
        memory = rows.initial_state["policy"].astype(float)
        for t in range(STEPS + 1):
            memory = found[t] = np.where((rows.flags[t] & FIRST)[:, None], 0, KEEP * memory) + found[t]
    return found


def unroll() -> Unroll:
    generator = np.random.default_rng(3)
    shape = (STEPS + 1, BATCH)
    flags = np.zeros(shape, np.uint8)
    flags[2, 0], flags[3, 0] = TERMINATED, FIRST
    flags[1, 1], flags[2, 1], flags[5, 1] = TRUNCATED, FIRST, TERMINATED
    flags[0, 2], flags[4, 2], flags[5, 2] = FIRST, FIRST, TRUNCATED
    return Unroll(
        observation=generator.normal(size=(*shape, FEATURES)).astype(np.float32),
        reward=generator.normal(0, 2, shape).astype(np.float32),
        flags=flags,
        previous_action=np.zeros((*shape, ELEMENTS), np.float32),
        action=generator.uniform(LOW, HIGH, (*shape, ELEMENTS)).astype(np.float32),
        policy_version=np.zeros(shape, np.int32),
        extras={},
        initial_state={"policy": (), "critics": ()},
        importance=np.ones(BATCH, np.float32),
    )


def standard_normals() -> np.ndarray:
    """Return float64[T+1, B, A]: the quantiles of the uniforms of each unroll's key."""
    uniforms = np.stack([jax.random.uniform(key, (STEPS + 1, ELEMENTS)) for key in KEYS], axis=1).astype(float)
    return np.vectorize(NormalDist().inv_cdf)(uniforms + 2.0**-24)


def proposed(config, policy, observation, noise) -> tuple[np.ndarray, float]:
    """Return the policy's action in [-1, 1] and its log-probability, by the change of variables."""
    numbers = observation @ policy["state"]
    loc, raw = numbers[:ELEMENTS], numbers[ELEMENTS:]
    action = config.action
    if action.std == "exp":
        std = (action.initial_std - action.min_std) * np.exp(raw) + action.min_std
    else:
        start = np.log(np.exp(action.initial_std - action.min_std) - 1)
        std = np.log(1 + np.exp(raw + start)) + action.min_std
    drawn = loc + std * noise
    squashed = np.tanh(drawn)
    density = np.exp(-0.5 * ((drawn - loc) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    return squashed, float(np.sum(np.log(density) - np.log(1 - squashed**2)))


def values(critics, observation, action) -> np.ndarray:
    """Return float64[N], what each critic says of an action in [-1, 1]."""
    return np.array([
        observation @ critics["state"][i][:, 0] + action @ critics["action"][i][:, 0]
        + action**2 @ critics["square"][i][:, 0]
        for i in range(len(critics["state"]))
    ])  # fmt: skip


def literal(config, rows: Unroll, policy, critics, held, cost: float) -> dict[str, float]:
    """Return means over valid steps; `held` are the networks and the temperature where no gradient flows."""
    observation, noise = seen(rows), standard_normals()
    found: dict[str, list[float]] = {name: [] for name in ("critic", "policy", "entropy", "value", "target", "spread")}
    for b in range(BATCH):
        for t in range(STEPS):
            if rows.flags[t + 1, b] & FIRST:
                continue
            now, after = observation[t, b], observation[t + 1, b]
            reward = rows.reward[t + 1, b] * config.reward_scale
            if config.max_abs_reward:
                reward = np.clip(reward, -config.max_abs_reward, config.max_abs_reward)
            next_action, next_log_prob = proposed(config, held["policy"], after, noise[t + 1, b])
            soft = values(held["target"], after, next_action).min() - held["cost"] * next_log_prob
            target = reward + (0 if rows.flags[t + 1, b] & TERMINATED else config.discount) * soft
            taken = values(critics, now, (rows.action[t, b] - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2))
            action, log_prob = proposed(config, policy, now, noise[t, b])
            found["critic"].append(np.mean((taken - target) ** 2))
            found["policy"].append(held["cost"] * log_prob - values(held["critics"], now, action).min())
            found["entropy"].append(-proposed(config, held["policy"], now, noise[t, b])[1])
            found["value"].append(taken.mean())
            found["target"].append(target)
            found["spread"].append(np.ptp(taken))
    means = {name: float(np.mean(numbers)) for name, numbers in found.items()}
    wanted = -ELEMENTS if config.target_entropy == "auto" else config.target_entropy
    parts = {"losses/critic": means["critic"], "losses/policy": means["policy"]}
    if wanted is not None:
        parts["losses/temperature"] = cost * (means["entropy"] - wanted)
    return {
        **parts,
        "losses/total": sum(parts.values()),
        "policy/entropy": means["entropy"],
        "policy/entropy_cost": cost,
        "critic/value": means["value"],
        "critic/target": means["target"],
        "critic/disagreement": means["spread"],
        "count": float(len(found["critic"])),
    }


@pytest.fixture(params=[*CONFIGS, "a memory"])
def case(request):
    """Return config, agent, state, unroll and the float64 networks; the targets differ from the critics."""
    config = plugin.config_type(**CONFIGS.get(request.param, {}))
    remembers = request.param == "a memory"
    built = plugin.build(config, SPEC, summing if remembers else linear)
    rows = with_memory(unroll(), config.critics) if remembers else unroll()
    params = built.init(jax.random.key(0)).params
    other = built.init(jax.random.key(1)).params["critics"]
    network = {
        "policy": {"state": np.asarray(params["policy"]["state"], float)},
        "critics": {name: np.asarray(leaf, float) for name, leaf in params["critics"].items()},
    }
    held = {**network, "target": {n: np.asarray(leaf, float) for n, leaf in other.items()}, "cost": config.entropy_cost}
    return config, built, LearnerState(params, {"critics": other}), rows, network, held


def test_sums_are_those_of_a_literal_computation(case) -> None:
    config, built, state, rows, network, held = case
    found = jax.jit(built.loss)(*state, rows, KEYS)
    wanted = literal(config, rows, **network, held=held, cost=config.entropy_cost)
    assert found.count == wanted.pop("count") == STEPS * BATCH - 3
    assert found.metrics.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found.metrics[name] / found.count, value, rtol=2e-4, atol=2e-5, err_msg=name)
    assert found.total == found.metrics["losses/total"]


def test_the_gradient_is_that_of_each_loss_with_everything_else_held(case) -> None:
    """By central differences: targets do not move with critics or policy, nor the critics with the policy's loss."""
    config, built, state, rows, network, held = case

    def loss(params):
        found = built.loss(params, state.extra, rows, KEYS)
        return found.total, found.count

    gradient, count = jax.jit(jax.grad(loss, has_aux=True))(state.params)

    def total(changed=network, log_cost: float = 0.0) -> float:
        cost = config.entropy_cost * np.exp(config.entropy_cost_adjustment_speed * log_cost)
        return literal(config, rows, **changed, held=held, cost=cost)["losses/total"]

    for part, leaves in network.items():
        for name, leaf in leaves.items():
            for index in np.ndindex(*leaf.shape):
                shift = np.zeros_like(leaf)
                shift[index] = 1e-5
                up, down = ({**network, part: {**leaves, name: leaf + sign * shift}} for sign in (1, -1))
                slope = (total(up) - total(down)) / 2e-5
                np.testing.assert_allclose(gradient[part][name][index] / count, slope, rtol=2e-3, atol=2e-4)
    if config.target_entropy is not None:
        slope = (total(log_cost=1e-5) - total(log_cost=-1e-5)) / 2e-5
        np.testing.assert_allclose(gradient["entropy_cost"] / count, slope, rtol=1e-3)


def test_the_temperature_rises_while_the_entropy_is_below_its_target() -> None:
    nothing = jnp.zeros((2, 1, 1))
    steps = Transitions(nothing[0], nothing[0], jnp.ones((1, 1), jnp.bool_))
    found = Outputs(nothing, nothing, jnp.ones((1, 1)), nothing, nothing[0])  # an entropy of -1

    def slope(target: float) -> float:
        return float(jax.grad(lambda cost: sac_loss(steps, found, cost, target).total)(jnp.float32(0.1)))

    assert slope(2.0) < 0 < slope(-20.0), "descent must raise the cost below the target and lower it above"


def test_a_temperature_stays_within_twenty_of_its_logarithm() -> None:
    built = plugin.build(plugin.config_type(), SPEC, linear)
    state = built.init(jax.random.key(0))
    for wild, bound in ((1e3, 20.0), (-1e3, -20.0)):
        wilder = state._replace(params={**state.params, "entropy_cost": jnp.float32(wild)})
        assert built.after_update(wilder, jnp.int32(1)).params["entropy_cost"] == bound
