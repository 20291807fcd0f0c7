"""V-trace against a literal implementation of the paper, against rlax, and episode by episode."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aioseed.agents.transitions import transitions
from aioseed.agents.vtrace.config import VtraceConfig
from aioseed.ops.vtrace import Vtrace, vtrace
from aioseed.types import FIRST, TERMINATED, TRUNCATED

SETTINGS = [(1.0, 1.0, 1.0), (0.8, 1.0, 1.0), (0.8, None, 2.2), (0.0, 3.7, None), (1.0, None, None)]
RLAX = json.loads((Path(__file__).parent / "vectors" / "rlax_vtrace.json").read_text())


@cache
def compiled(lambda_: float, clip_rho: float | None, clip_pg_rho: float | None):
    return jax.jit(partial(vtrace, lambda_=lambda_, clip_rho=clip_rho, clip_pg_rho=clip_pg_rho))


def ours(log_rhos, discounts, rewards, values, valid, lambda_, clip_rho, clip_pg_rho) -> Vtrace:
    columns = [np.asarray(column, np.float32) for column in (log_rhos, discounts, rewards, values)]
    return compiled(lambda_, clip_rho, clip_pg_rho)(*columns, np.asarray(valid, bool))


def close(given_: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(given_, wanted, rtol=2e-5, atol=2e-5 * max(1, np.max(np.abs(wanted), initial=0)))


numbers = partial(st.floats, allow_nan=False, width=32)
step = st.tuples(numbers(-3, 3), st.sampled_from([0.0, 0.9, 1.0]), numbers(-5, 5), numbers(-5, 5), st.booleans())


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("steps", [1, 6])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_vtrace_is_equation_1_of_the_paper(literal_vtrace, setting, steps, data) -> None:
    rows = data.draw(st.lists(step, min_size=steps, max_size=steps))
    bootstrap = data.draw(numbers(-5, 5))
    log_rhos, discounts, rewards, values, valid = (np.array(column) for column in zip(*rows, strict=True))
    columns = (log_rhos, discounts, rewards, np.append(values, bootstrap), valid)
    found = ours(*columns, *setting)
    targets, advantages = literal_vtrace(*columns, *setting)
    close(found.targets, targets)
    close(found.advantages, advantages)
    close(found.errors, targets - values)


@pytest.mark.parametrize("case", RLAX["cases"], ids=lambda case: f"{case['lambda']}-{len(case['rewards'])}")
def test_vtrace_answers_as_rlax_does(case) -> None:
    valid = [True] * len(case["rewards"])
    setting = (case["lambda"], case["clip_rho"], case["clip_pg_rho"])
    found = ours(case["log_rhos"], case["discounts"], case["rewards"], case["values"], valid, *setting)
    close(found.errors, np.array(case["errors"]))
    if case["lambda"] == 1:
        close(found.advantages, np.array(case["advantages"]))


ends = st.sampled_from([TERMINATED, TRUNCATED, TERMINATED | TRUNCATED, np.uint8(0)])


@pytest.mark.parametrize("setting", SETTINGS[:3])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.tuples(st.integers(0, 4), ends), min_size=1, max_size=5),
    seed=st.integers(0, 2**20),
    begins=st.booleans(),
)
def test_episodes_laid_end_to_end_give_the_answers_of_each_alone(
    literal_vtrace, setting, lengths, seed, begins
) -> None:
    """An end of 0 is a rebuilt environment: a first row follows a row that was not final."""
    rows = 26
    flags = np.zeros(rows, np.uint8)
    spans, start = [], 0
    for length, end in lengths:
        flags[start] |= FIRST if start or begins else 0
        flags[start + length] |= end
        spans.append((start, start + length, end))
        start += length + 1
    flags[start] = FIRST
    spans.append((start, rows - 1, np.uint8(0)))

    generator = np.random.default_rng(seed)
    log_rhos, reward, values = generator.normal(0, 1, (3, rows)).astype(np.float32)
    config = VtraceConfig(discount=0.9)
    steps = jax.tree.map(np.asarray, transitions(config, reward[:, None], flags[:, None]))
    found = ours(log_rhos[:-1], steps.discounts[:, 0], steps.rewards[:, 0], values, steps.valid[:, 0], *setting)

    for begin, end, flag in spans:
        discounts = np.full(end - begin, 0.9)
        if flag & TERMINATED and end > begin:
            discounts[-1] = 0
        alone = (log_rhos[begin:end], discounts, reward[begin + 1 : end + 1], values[begin : end + 1])
        targets, advantages = literal_vtrace(*alone, [True] * (end - begin), *setting)
        close(found.targets[begin:end], targets)
        close(found.advantages[begin:end], advantages)
        if end < rows - 1:
            assert found.targets[end] == values[end], "the target at a final row is the network's own value"
            assert found.errors[end] == found.advantages[end] == 0
