"""The whole loss of the V-trace agent against NumPy, for a linear policy: sums, metrics and gradient.

A network with a memory sees a running sum of observations in the place of the observation.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.agents.agent import Unroll
from aioseed.agents.vtrace import agent as plugin
from aioseed.types import FIRST, TERMINATED

from .networks import remembering
from .rows import BATCH, FEATURES, SPEC, STEPS, linear, steps_of, unroll

KEEP = 0.6
KEYS = jax.random.split(jax.random.key(9), BATCH)
CONFIGS = {
    "defaults": {},
    "every term": {
        "lambda_": 0.9, "kl_cost": 0.3, "entropy_cost": 0.1, "baseline_cost": 0.7, "reward_scale": 2.0,
        "max_abs_reward": 1.5, "clip_rho": 1.2, "clip_pg_rho": None, "discount": 0.8,
    },
    "a target entropy, nothing clipped": {
        "target_entropy": 0.9, "entropy_cost": 0.1, "entropy_cost_adjustment_speed": 3.0, "clip_rho": None,
        "clip_pg_rho": None,
    },
}  # fmt: skip


def summing(observation, action, heads):
    """Make what `linear` makes, on a running sum of observations."""
    return remembering(linear(observation, action, heads), FEATURES, KEEP)


def remembered(rows: Unroll) -> Unroll:
    """Return `rows` with memories in the place of observations."""
    memory, found = np.asarray(rows.initial_state, float), []
    for t in range(STEPS + 1):
        memory = np.where((rows.flags[t] & FIRST)[:, None], 0, KEEP * memory) + rows.observation[t]
        found.append(memory)
    return rows._replace(observation=np.array(found))


def corrected(literal_vtrace, config, network, rows: Unroll) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and advantages, float64[T, B]."""
    targets, advantages = np.zeros((STEPS, BATCH)), np.zeros((STEPS, BATCH))
    for b in range(BATCH):
        mine = [row for row in steps_of(network, rows) if row[0] == b]
        reward = rows.reward[1:, b].astype(float) * config.reward_scale
        if config.max_abs_reward:
            reward = np.clip(reward, -config.max_abs_reward, config.max_abs_reward)
        discounts = [0.0 if rows.flags[t + 1, b] & TERMINATED else config.discount for t in range(STEPS)]
        bootstrap = float(rows.observation[-1, b].astype(float) @ network["value"][:, 0])
        targets[:, b], advantages[:, b] = literal_vtrace(
            [row[2] - row[3] for row in mine], discounts, reward, [*(row[5] for row in mine), bootstrap],
            [row[6] for row in mine], config.lambda_, config.clip_rho, config.clip_pg_rho,
        )  # fmt: skip
    return targets, advantages


def literal_loss(config, network, cost, frozen_cost, rows: Unroll, targets, advantages) -> dict[str, float]:
    """Return the mean loss and its parts; `frozen_cost` is the entropy cost where no gradient flows."""
    found = [row for row in steps_of(network, rows) if row[6]]
    mean_entropy = np.mean([entropy for _, _, _, _, entropy, _, _ in found])
    parts = {
        "losses/policy": -np.mean([log_pi * advantages[t, b] for b, t, log_pi, *_ in found]),
        "losses/value": config.baseline_cost * 0.5 * np.mean([(targets[r[1], r[0]] - r[5]) ** 2 for r in found]),
        "losses/entropy": -frozen_cost * mean_entropy,
        "losses/kl": config.kl_cost * np.mean([log_mu - log_pi for _, _, log_pi, log_mu, *_ in found]),
    }
    adjusted = 0.0 if config.target_entropy is None else cost * (mean_entropy - config.target_entropy)
    return {
        **parts,
        "losses/total": sum(parts.values()) + adjusted,
        "policy/entropy": mean_entropy,
        "policy/entropy_cost": frozen_cost,
        "policy/kl": np.mean([log_mu - log_pi for _, _, log_pi, log_mu, *_ in found]),
        "value/mean": np.mean([value for *_, value, _ in found]),
        "value/target": np.mean([targets[t, b] for b, t, *_ in found]),
        "vtrace/rho_clipped_share": np.mean([np.exp(r[2] - r[3]) > (config.clip_rho or np.inf) for r in found]),
    }


@pytest.fixture(params=[*CONFIGS, "a memory"])
def case(request, literal_vtrace):
    """Return config, agent, parameters, what it is given, what its network looks at, and the literal corrections."""
    config = plugin.config_type(**CONFIGS.get(request.param, {}))
    given = looked = unroll()
    if request.param == "a memory":
        entered = np.random.default_rng(5).normal(size=(BATCH, FEATURES)).astype(np.float32)
        given = unroll()._replace(initial_state=entered)
        looked = remembered(given)
    built = plugin.build(config, SPEC, linear if given is looked else summing)
    params = built.init(jax.random.key(0)).params
    network = {name: np.asarray(kernel, float) for name, kernel in params["network"].items()}
    return config, built, params, network, given, looked, corrected(literal_vtrace, config, network, looked)


def test_sums_are_those_of_a_literal_computation(case) -> None:
    config, built, params, network, given, looked, (targets, advantages) = case
    found = jax.jit(built.loss)(params, (), given, KEYS)
    cost = config.entropy_cost
    wanted = literal_loss(config, network, cost, cost, looked, targets, advantages)
    assert found.count == sum(row[6] for row in steps_of(network, looked)) == STEPS * BATCH - 3
    assert found.metrics.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found.metrics[name] / found.count, value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert found.total == found.metrics["losses/total"]


def test_the_gradient_is_that_of_the_literal_loss_with_targets_and_weights_held(case) -> None:
    """By central differences, with targets, advantages and the entropy's weight as constants."""
    config, built, params, network, given, looked, (targets, advantages) = case
    gradient = jax.jit(jax.grad(lambda p: built.loss(p, (), given, KEYS).total))(params)
    count = jax.jit(built.loss)(params, (), given, KEYS).count

    def mean_loss(changed, log_cost_shift: float = 0.0) -> float:
        cost = config.entropy_cost * np.exp(config.entropy_cost_adjustment_speed * log_cost_shift)
        return literal_loss(config, changed, cost, config.entropy_cost, looked, targets, advantages)["losses/total"]

    for name, kernel in network.items():
        for index in np.ndindex(*kernel.shape):
            shift = np.zeros_like(kernel)
            shift[index] = 1e-5
            up, down = ({**network, name: kernel + sign * shift} for sign in (1, -1))
            slope = (mean_loss(up) - mean_loss(down)) / 2e-5
            if config.target_entropy is not None:
                slope -= entropy_slope(config, network, name, shift)
            np.testing.assert_allclose(gradient["network"][name][index] / count, slope, rtol=1e-3, atol=1e-4)
    if config.target_entropy is not None:
        slope = (mean_loss(network, 1e-5) - mean_loss(network, -1e-5)) / 2e-5
        np.testing.assert_allclose(gradient["entropy_cost"] / count, slope, rtol=1e-3)


def entropy_slope(config, network, name: str, shift: np.ndarray) -> float:
    """Return the part of the slope that the agent stops: the adjusting term's dependence on the policy."""
    both = []
    for sign in (1, -1):
        changed = {**network, name: network[name] + sign * shift}
        both.append(np.mean([row[4] for row in steps_of(changed, unroll()) if row[6]]))
    return config.entropy_cost * (both[0] - both[1]) / 2e-5


def test_the_entropy_cost_rises_while_the_entropy_is_below_its_target() -> None:
    def slope(target: float) -> float:
        config = plugin.config_type(target_entropy=target, entropy_cost=0.1)
        built = plugin.build(config, SPEC, linear)
        params = built.init(jax.random.key(0)).params
        return float(jax.jit(jax.grad(lambda p: built.loss(p, (), unroll(), KEYS).total))(params)["entropy_cost"])

    assert slope(2.0) < 0 < slope(0.1), "descent must raise the cost below the target and lower it above"


def test_an_adjusted_entropy_cost_stays_within_twenty_of_its_logarithm() -> None:
    built = plugin.build(plugin.config_type(target_entropy=1.0), SPEC, linear)
    state = built.init(jax.random.key(0))
    for wild, bound in ((1e3, 2.0), (-1e3, -2.0)):
        wilder = state._replace(params={**state.params, "entropy_cost": jnp.float32(wild)})
        assert built.after_update(wilder, jnp.int32(1)).params["entropy_cost"] == bound
