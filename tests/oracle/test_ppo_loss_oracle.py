"""The whole loss of the PPO agent against NumPy, for a linear policy: sums, metrics, gradient, and its scale."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.agents.agent import LearnerState, Unroll
from aioseed.agents.ppo import agent as plugin
from aioseed.agents.ppo.scale import Scale
from aioseed.types import FIRST, TERMINATED

from .rows import BATCH, SPEC, STEPS, linear, steps_of, unroll

KEYS = jax.random.split(jax.random.key(9), BATCH)
SCALE = Scale(*map(jnp.float32, (0.5, -0.4, 2.25, 0.64)))
DEVIATION, SIZE = 1.5, 0.8
CONFIGS = {
    "defaults": {},
    "every term": {
        "lambda_": 0.7, "clip_ratio": 0.4, "entropy_cost": 0.1, "baseline_cost": 0.7, "reward_scale": 2.0,
        "max_abs_reward": 1.5, "clip_rho": 1.2, "discount": 0.8,
    },
}  # fmt: skip


def estimated(literal_advantages, config, rows: Unroll, values: np.ndarray, log_rhos) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and advantages, float64[T, B], of values [T+1, B]."""
    targets, advantages = np.zeros((STEPS, BATCH)), np.zeros((STEPS, BATCH))
    for b in range(BATCH):
        reward = rows.reward[1:, b].astype(float) * config.reward_scale
        if config.max_abs_reward:
            reward = np.clip(reward, -config.max_abs_reward, config.max_abs_reward)
        discounts = [0.0 if rows.flags[t + 1, b] & TERMINATED else config.discount for t in range(STEPS)]
        valid = [not rows.flags[t + 1, b] & FIRST for t in range(STEPS)]
        targets[:, b], advantages[:, b] = literal_advantages(
            log_rhos[:, b], discounts, reward, values[:, b], valid, config.lambda_, config.clip_rho
        )
    return targets, advantages


def literal_loss(config, network, rows: Unroll, targets, advantages) -> dict[str, float]:
    """Return the mean loss and its parts; targets and advantages are as they were estimated."""
    found = [row for row in steps_of(network, rows) if row[6]]
    surrogate, outside = [], []
    for b, t, log_pi, log_mu, *_ in found:
        ratio, advantage = np.exp(log_pi - log_mu), advantages[t, b] / SIZE
        surrogate.append(
            min(ratio * advantage, np.clip(ratio, 1 - config.clip_ratio, 1 + config.clip_ratio) * advantage)
        )
        outside.append(not 1 - config.clip_ratio <= ratio <= 1 + config.clip_ratio)
    entropy = np.mean([entropy for _, _, _, _, entropy, _, _ in found])
    wanted = {(b, t): (targets[t, b] + 0.4) / DEVIATION for b, t, *_ in found}
    parts = {
        "losses/policy": -np.mean(surrogate),
        "losses/value": config.baseline_cost * 0.5 * np.mean([(wanted[r[0], r[1]] - r[5]) ** 2 for r in found]),
        "losses/entropy": -config.entropy_cost * entropy,
    }
    return {
        **parts,
        "losses/total": sum(parts.values()),
        "policy/entropy": entropy,
        "policy/entropy_cost": config.entropy_cost,
        "policy/kl": np.mean([log_mu - log_pi for _, _, log_pi, log_mu, *_ in found]),
        "ppo/ratio_clipped_share": np.mean(outside),
        "value/mean": np.mean([-0.4 + DEVIATION * value for *_, value, _ in found]),
        "value/target": np.mean([targets[t, b] for b, t, *_ in found]),
    }


@pytest.fixture(params=CONFIGS)
def case(request, literal_advantages):
    """Return config, agent, parameters, rows, and the literal targets and advantages."""
    config, rows = plugin.config_type(**CONFIGS[request.param]), unroll()
    built = plugin.build(config, SPEC, linear)
    params = built.init(jax.random.key(0)).params
    network = {name: np.asarray(kernel, float) for name, kernel in params["network"].items()}
    log_rhos, values = np.zeros((STEPS, BATCH)), np.zeros((STEPS + 1, BATCH))
    for b, t, log_pi, log_mu, *_ in steps_of(network, rows):
        log_rhos[t, b] = log_pi - log_mu
    values[...] = -0.4 + DEVIATION * (rows.observation.astype(float) @ network["value"])[..., 0]
    return config, built, params, network, rows, estimated(literal_advantages, config, rows, values, log_rhos)


def test_sums_are_those_of_a_literal_computation(case) -> None:
    config, built, params, network, rows, (targets, advantages) = case
    found = jax.jit(built.loss)(params, SCALE, rows, KEYS)
    wanted = literal_loss(config, network, rows, targets, advantages)
    assert found.count == STEPS * BATCH - 3
    assert found.metrics.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found.metrics[name] / found.count, value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert 0 < wanted["ppo/ratio_clipped_share"] < 1


def test_the_gradient_is_that_of_the_literal_loss_with_targets_and_advantages_held(case) -> None:
    """By central differences."""
    config, built, params, network, rows, held = case
    gradient = jax.jit(jax.grad(lambda p: built.loss(p, SCALE, rows, KEYS).total))(params)
    count = jax.jit(built.loss)(params, SCALE, rows, KEYS).count
    for name, kernel in network.items():
        for index in np.ndindex(*kernel.shape):
            shift = np.zeros_like(kernel)
            shift[index] = 1e-6
            both = [literal_loss(config, {**network, name: kernel + sign * shift}, rows, *held) for sign in (1, -1)]
            slope = (both[0]["losses/total"] - both[1]["losses/total"]) / 2e-6
            np.testing.assert_allclose(gradient["network"][name][index] / count, slope, rtol=1e-3, atol=1e-4)


def test_what_stands_at_a_border_does_not_spoil_the_gradient(case) -> None:
    _, built, params, _, rows, _ = case
    grad = jax.jit(jax.grad(lambda p, rows: built.loss(p, SCALE, rows, KEYS).total))
    log_probs = rows.extras["behaviour_log_prob"].copy()
    log_probs[:-1][(rows.flags[1:] & FIRST) != 0] = np.nan
    extras = {**rows.extras, "behaviour_log_prob": log_probs}
    jax.tree.map(np.testing.assert_array_equal, grad(params, rows._replace(extras=extras)), grad(params, rows))


def test_the_scale_is_that_of_all_that_was_seen_each_step_weighing_a_hundredth_less(case, literal_advantages) -> None:
    """As the policy that acted valued it: what its network said comes along."""
    config, built, params, _, rows, _ = case
    generator, scale, batches = np.random.default_rng(1), built.init(jax.random.key(0)).extra, []
    observe = jax.jit(built.observe)
    for turn in range(5):
        said = generator.normal(size=(STEPS + 1, BATCH)).astype(np.float32)
        flags = np.full_like(rows.flags, FIRST) if turn in (0, 3) else rows.flags  # no step at all in these
        now = rows._replace(
            flags=flags,
            reward=rows.reward + np.float32(turn),
            extras={**rows.extras, "value": said},
        )
        deviation = max(np.sqrt(float(scale.variance)), 0.01)
        values = float(scale.mean) + deviation * said.astype(float)
        targets, advantages = estimated(literal_advantages, config, now, values, np.zeros((STEPS, BATCH)))
        valid = (flags[1:] & FIRST) == 0
        if valid.any():
            batches.append((targets[valid], advantages[valid]))
        scale = observe(LearnerState(params, scale), now).extra
        weights = 0.99 ** np.arange(len(batches))[::-1]
        if not batches:
            assert scale == Scale.unknown()
            continue
        mean = np.average([t.mean() for t, _ in batches], weights=weights)
        variance = np.average([np.mean((t - mean) ** 2) for t, _ in batches], weights=weights)
        square = np.average([np.mean(a**2) for _, a in batches], weights=weights)
        np.testing.assert_allclose(scale[1:], [mean, variance, square], rtol=1e-4)


def test_a_scale_of_nothing_but_equal_returns_keeps_noise_small() -> None:
    scale, zeros = Scale.unknown(), jnp.zeros((3, 2))
    for _ in range(3):
        scale = scale.after(zeros + 5, zeros, jnp.ones((3, 2), bool))
    assert scale.mean == 5 and scale.variance == 0 and scale.square == 0
    assert scale.said(jnp.float32(5.001)) <= 0.11
    assert scale.advantages(jnp.float32(0.001)) <= 0.11
    np.testing.assert_allclose(scale.values(scale.said(jnp.float32(5.5))), 5.5)
