"""The PPO agent keeps the contract, and several passes over a batch do not carry its policy away."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import jax
import numpy as np
import pytest
from pydantic import ValidationError

from aioseed.agents.ppo import PpoConfig, agent
from aioseed.agents.vtrace import VtraceConfig
from aioseed.errors import SpaceError
from aioseed.nets.mlp import mlp
from aioseed.nets.recurrent import mlp_lstm
from aioseed.specs import ActionSpec, ArraySpec, discrete
from aioseed.testing.agent_kit import CHECKS, AgentUnderTest
from aioseed.types import FIRST, EnvironmentSpec

VECTOR = EnvironmentSpec(ArraySpec("float32", (4,)), discrete(2))
BOX = EnvironmentSpec(
    ArraySpec("float32", (4,)), ActionSpec("box", ArraySpec("float32", (2,)), low=(-1.0, 0.5), high=(1.0, 3.0))
)
CONFIG = PpoConfig(entropy_cost=0.01, reward_scale=0.5)
SUBJECTS = {
    "lstm": (CONFIG, VECTOR, partial(mlp_lstm, hidden=(), lstm_units=8)),
    "box": (PpoConfig(clip_rho=1.0, target_entropy=0.5, entropy_cost=0.01), BOX, partial(mlp, hidden=(16,))),
}


@cache
def subject(name: str) -> AgentUnderTest:
    config, spec, network = SUBJECTS[name]
    return AgentUnderTest(agent.build(config, spec, network), spec)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_agent_keeps_the_contract(name: str, check: Callable[[AgentUnderTest], None]) -> None:
    check(subject(name))


@pytest.mark.parametrize("name", ["lstm", "box"])
def test_unrolling_its_own_steps_finds_the_policy_and_the_values_that_acted(name: str) -> None:
    acted = subject(name)
    unroll = acted.unroll(np.random.default_rng(0))
    assert np.sum(np.asarray(unroll.flags[1:]) & FIRST) > 20
    found = acted.gradient(unroll)
    assert np.abs(found.metrics["policy/kl"]) < 1e-3
    assert found.metrics["ppo/ratio_clipped_share"] == 0
    # The scale is unknown yet: values are what the network says.
    steps = (np.asarray(unroll.flags[1:]) & FIRST) == 0
    said = np.asarray(unroll.extras["value"])[:-1][steps]
    np.testing.assert_allclose(found.metrics["value/mean"], said.sum(), rtol=1e-3, atol=1e-3)


def test_what_the_agents_share_is_alike_and_defaults_are_the_papers() -> None:
    shared = set(VtraceConfig.model_fields) & set(PpoConfig.model_fields)
    assert shared >= {"discount", "entropy_cost", "baseline_cost", "reward_scale", "action", "lambda_", "clip_rho"}
    config = PpoConfig()
    assert (config.lambda_, config.clip_ratio, config.clip_rho, config.entropy_cost) == (0.95, 0.2, None, 0.0)


@pytest.mark.parametrize(
    "wrong", [{"clip_ratio": 0}, {"clip_ratio": 1}, {"lambda_": 1.5}, {"clip_rho": 0.0}, {"kl_cost": 0.1},
              {"target_entropy": 1.0}]
)  # fmt: skip
def test_a_wrong_option_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        PpoConfig(**wrong)


def test_a_box_without_bounds_is_refused() -> None:
    box = ActionSpec("box", ArraySpec("float32", (1,)), low=(-np.inf,), high=(1.0,))
    with pytest.raises(SpaceError, match="needs finite bounds"):
        agent.build(CONFIG, EnvironmentSpec(ArraySpec("float32", (4,)), box), mlp)


def test_it_does_not_learn_from_replay_which_is_too_old_for_it() -> None:
    assert subject("box").agent.replay == "never"
    assert jax.tree.leaves(subject("box").learner.extra)
