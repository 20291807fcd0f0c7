"""Which distribution stands over which actions."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from pydantic import ValidationError

from aioseed.agents.actions import ActionConfig, action_distribution
from aioseed.ops.distributions import Sample
from aioseed.specs import ActionSpec, ArraySpec, discrete, multi_discrete

BOX = ActionSpec("box", ArraySpec("float32", (1, 2)), low=(-1.0, 0.0), high=(1.0, 9.0))


@pytest.mark.parametrize("action", [discrete(3), multi_discrete((3, 2)), BOX], ids=lambda action: action.kind)
def test_actions_have_the_dtype_and_shape_of_their_spec(action: ActionSpec) -> None:
    distribution = action_distribution(action, ActionConfig())
    params = jnp.zeros((2, 7, distribution.parameter_size))
    uniforms = jnp.zeros((2, 7, distribution.uniforms_per_action))
    for sample in (distribution.sample(params, uniforms), distribution.mode(params)):
        assert sample.action.shape == (2, 7, *action.array.shape) and sample.action.dtype == action.array.dtype
        assert [leaf.shape for leaf in sample.hidden] == [(2, 7, *part.shape) for part in distribution.hidden]


def test_squash_chooses_what_happens_at_the_bounds() -> None:
    beyond, params = Sample(jnp.zeros((1, 2)), (jnp.array([2.0, -2.0]),)), jnp.zeros(4)
    clipped = action_distribution(BOX, ActionConfig(squash="clip")).log_prob(params, beyond)
    assert clipped == pytest.approx(2 * -1.84102, rel=1e-4), "the logarithm of the tail beyond one standard deviation"
    squashed = action_distribution(BOX, ActionConfig()).log_prob(params, beyond)
    assert squashed == pytest.approx(2 * (-0.918939 - 2 + 2.650005), rel=1e-4)


def test_options_reach_the_distribution() -> None:
    config = ActionConfig(std="exp", initial_std=0.5, min_std=0.1)
    sample = action_distribution(BOX, config).sample(jnp.zeros(4), jnp.array([0.8413447, 0.5]))
    assert sample.hidden[0][0] == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("wrong", [{"min_std": 1.0}, {"min_std": 0}, {"squash": "sigmoid"}, {"initial_std": 1e-4}])
def test_a_wrong_option_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ActionConfig.model_validate(wrong)
