"""The state stored with an unroll is the one that entered its row 0, burn-in included: proved by a chain of hashes.

The agent here has no network. Its recurrent state is a hash of the state before and of (slot, epoch, sequence number),
and starts anew with every episode: no two rows of a run have the same, so a state from any other row is found out. Its
loss follows the chain through every unroll that is trained on and is NaN where a link is wrong, which ends the run.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import pytest
from pydantic import BaseModel

from aioseed.agents.agent import ActInput, ActOutput, Agent, AgentPlugin, LearnerState, LossOutput, PyTree, Unroll
from aioseed.errors import TrainingFailed
from aioseed.host.config import RunConfig
from aioseed.host.train import train
from aioseed.specs import ArraySpec
from aioseed.types import FIRST
from aioseed.validation import validate

pytestmark = [pytest.mark.timeout(120)]

BURN_IN, STEPS = 5, 3
WORDS = ("entering", "slot", "epoch", "sequence")


class Options(BaseModel):
    claims_row: int = 0  # of which row the stored state is claimed to be: 0 is the truth, BURN_IN is SEED RL's mistake


def link(entering: jax.Array, slot: jax.Array, epoch: jax.Array, sequence: jax.Array) -> jax.Array:
    """Return uint32[...], the next state (the mixing of MurmurHash3's finaliser)."""
    mixed = entering
    for word in (slot, epoch, sequence):
        mixed = (mixed ^ word.astype(jnp.uint32)) * jnp.uint32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
        mixed = mixed ^ (mixed >> jnp.uint32(16))
    return mixed


def act(params: PyTree, key: jax.Array, state: PyTree, rows: ActInput, greedy: bool) -> tuple[ActOutput, PyTree]:
    entering = jnp.where((rows.flags & FIRST) != 0, jnp.uint32(0), state)
    words = (entering, rows.slot.astype(jnp.uint32), rows.epoch_low, rows.sequence)
    action = (rows.sequence % 3).astype(jnp.int32)
    return ActOutput(action, dict(zip(WORDS, words, strict=True))), link(*words)


def loss(options: Options, params: PyTree, extra: PyTree, unroll: Unroll, keys: jax.Array) -> LossOutput:
    words = [unroll.extras[word] for word in WORDS]
    first = (unroll.flags[1:] & FIRST) != 0
    continued = jnp.where(first, jnp.uint32(0), link(*(word[:-1] for word in words)))
    chained = jnp.all(words[0][1:] == continued, axis=0)
    claimed = jnp.where((unroll.flags[options.claims_row] & FIRST) != 0, 0, unroll.initial_state)
    sound = chained & (claimed == words[0][options.claims_row])
    total = jnp.where(sound, params["weight"], jnp.nan).sum()
    return LossOutput(total, jnp.float32(sound.shape[0]), {}, ())


def build(options: Options, environment: object, make_network: object) -> Agent:
    return Agent(
        init=lambda key: LearnerState({"weight": jnp.float32(0)}, ()),
        initial_state=lambda: jnp.uint32(0),
        act=act,
        loss=partial(loss, options),
        after_update=lambda state, step: state,
        extras=lambda: {word: ArraySpec("uint32", ()) for word in WORDS},
        overlap_steps=BURN_IN,
        replay="required",
    )


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    module = ModuleType("hash_chain")
    module.agent = AgentPlugin(Options, build)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hash_chain", module)
    form = {
        "environment": {"name": "aioseed_gymnasium.catch:make"},
        "actor": {"processes": 2, "groups": 2, "envs_per_group": 3},
        "serving": {"max_environments": 16, "max_batch_rows": 8, "buckets": [8]},
        "experience": {"unroll_steps": STEPS},
        "agent": {"name": "hash_chain:agent"},
        "replay": {"capacity_unrolls": 500, "min_unrolls": 20, "samples_per_insert": 3, "sampling": "uniform"},
        "training": {"batch_unrolls": 16, "total_steps": 1000, "max_nonfinite_updates": 1},
        "transport": {"name": "memory"},
        "telemetry": {"tensorboard": False},
    }
    return validate(RunConfig, form, "")


async def test_every_unroll_is_stored_with_the_state_that_entered_its_first_row(
    config: RunConfig, tmp_path: Path
) -> None:
    """Unrolls of 3 steps with 5 rows of burn-in: three of a slot are open at once, borders fall anywhere."""
    result = await train(config, run_dir=tmp_path / "run")
    assert result.trained_steps >= 1000 and "nonfinite_update" not in result.dropped


async def test_a_state_that_is_off_by_the_burn_in_is_found_out(config: RunConfig, tmp_path: Path) -> None:
    claims = config.agent.model_copy(update={"claims_row": BURN_IN})
    with pytest.raises(TrainingFailed, match="not finite"):
        await train(config.model_copy(update={"agent": claims}), run_dir=tmp_path / "run")
