"""Slow, literal implementations from the papers, as fixtures: no code of aioseed, float64 throughout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


def literal_vtrace(
    log_rhos, discounts, rewards, values, valid, lambda_, clip_rho, clip_pg_rho
) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and advantages of Espeholt et al. 2018 by the sums and products of equation 1.

    The rule for borders is applied as it is written: delta, c and gamma are 0 where a transition is no transition.
    """
    steps = len(rewards)
    rho = [min(np.exp(x), np.inf if clip_rho is None else clip_rho) for x in log_rhos]
    pg_rho = [min(np.exp(x), np.inf if clip_pg_rho is None else clip_pg_rho) for x in log_rhos]
    c = [lambda_ * min(np.exp(x), 1.0) if ok else 0.0 for x, ok in zip(log_rhos, valid, strict=True)]
    gamma = [g if ok else 0.0 for g, ok in zip(discounts, valid, strict=True)]
    delta = [rho[t] * (rewards[t] + gamma[t] * values[t + 1] - values[t]) if valid[t] else 0.0 for t in range(steps)]
    targets = [
        values[s] + sum(np.prod([gamma[i] * c[i] for i in range(s, t)]) * delta[t] for t in range(s, steps))
        for s in range(steps)
    ]
    after = [*targets[1:], values[-1]]
    advantages = [pg_rho[s] * (rewards[s] + gamma[s] * after[s] - values[s]) if valid[s] else 0.0 for s in range(steps)]
    return np.array(targets), np.array(advantages)


def literal_advantages(log_rhos, discounts, rewards, values, valid, lambda_, clip_rho) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and advantages of Schulman et al. 2016 by the sum of equation 16, each later term weighed by the
    importance of all actions on the way to it. The rule for borders is that of `literal_vtrace`.
    """
    steps = len(rewards)
    rho = [
        (1.0 if clip_rho is None else min(np.exp(x), clip_rho)) if ok else 0.0
        for x, ok in zip(log_rhos, valid, strict=True)
    ]
    gamma = [g if ok else 0.0 for g, ok in zip(discounts, valid, strict=True)]
    delta = [rewards[t] + gamma[t] * values[t + 1] - values[t] if valid[t] else 0.0 for t in range(steps)]
    advantages = [
        sum(np.prod([gamma[i] * lambda_ * rho[i + 1] for i in range(s, t)]) * delta[t] for t in range(s, steps))
        for s in range(steps)
    ]
    targets = [values[t] + rho[t] * advantages[t] for t in range(steps)]
    return np.array(targets), np.array(advantages)


@pytest.fixture(name="literal_advantages")
def _literal_advantages() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return `literal_advantages`; test modules cannot import one another."""
    return literal_advantages


@pytest.fixture(name="literal_vtrace")
def _literal_vtrace() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return `literal_vtrace`; test modules cannot import one another."""
    return literal_vtrace
