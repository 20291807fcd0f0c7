"""The presets for Atari say what was published for a loss like ours."""

from __future__ import annotations

from aioseed.host.config import load_config


def test_the_optimiser_of_the_deep_network_is_one_for_a_loss_that_is_a_mean() -> None:
    """SEED RL, whose loss is a mean too, has it for the same network and algorithm in another world."""
    optimizer, seeds = (load_config(preset).training.optimizer for preset in ("vtrace-atari", "dmlab"))
    assert optimizer.model_dump(exclude={"schedule"}) == seeds.model_dump(exclude={"schedule"})
    assert optimizer.schedule.end_value == seeds.schedule.end_value == 0.0
