"""What the host puts between inference and training: how many updates lockstep waits for, and first priorities."""

from __future__ import annotations

from functools import partial
from itertools import count

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aioseed.agents.r2d2 import R2d2Config
from aioseed.agents.r2d2 import agent as r2d2
from aioseed.errors import ConfigError
from aioseed.experience.layout import allocate_buffer
from aioseed.experience.replay.config import ReplayConfig
from aioseed.experience.replay.limiter import SamplesPerInsert
from aioseed.host.acting import BuiltAgent, layout_of
from aioseed.host.config import RunConfig
from aioseed.host.experience import UpdatesAllowed, build_experience, first_priorities
from aioseed.nets.mlp import mlp
from aioseed.specs import ArraySpec, discrete
from aioseed.telemetry.counters import Metrics
from aioseed.types import FIRST, ActColumns, CopiedRows, EnvironmentSpec, StepColumns
from aioseed.validation import validate

SPEC = EnvironmentSpec(ArraySpec("float32", (3,)), discrete(2))
numbers = st.integers(1, 20)


@given(
    ratio=st.sampled_from([0.3, 1.0, 1.5, 4.0]),
    insert=numbers,
    sample=numbers,
    minimum=numbers,
    before=st.integers(0, 30),
    batches=st.lists(st.integers(0, 9), max_size=9),
)
@example(ratio=1.0, insert=1, sample=1, minimum=1, before=1, batches=[0])  # a call is owed before anything comes
def test_lockstep_waits_for_exactly_the_updates_that_training_makes(
    ratio, insert, sample, minimum, before, batches
) -> None:
    """Also where a run goes on in the middle of what it owes."""
    limiter = SamplesPerInsert(ratio, min_unrolls=minimum, insert_unrolls=insert, sample_unrolls=sample)
    for _ in range(before):
        if limiter.may_sample():
            limiter.sample()
        else:
            limiter.insert()
    allowed = UpdatesAllowed(limiter, updates_per_call=3)
    calls = inserted = 0
    for more in batches:
        waiting = more
        while limiter.may_sample() or waiting:
            if limiter.may_sample():
                limiter.sample()
                calls += 1
            else:
                assert limiter.may_insert()
                limiter.insert()
                waiting -= 1
        inserted += more
        assert allowed(inserted) == 3 * calls


@pytest.fixture(scope="module")
def built() -> BuiltAgent:
    return BuiltAgent(r2d2.build(R2d2Config(burn_in_steps=2), SPEC, partial(mlp, hidden=(4,))), SPEC)


def test_first_priorities_are_those_of_the_agent(built: BuiltAgent) -> None:
    layout, generator = layout_of(built, 5), np.random.default_rng(0)
    columns = allocate_buffer(layout, 3).batch.columns
    columns.reward[...] = generator.normal(size=columns.reward.shape)
    columns.extras[0][...] = generator.normal(size=columns.extras[0].shape)
    columns.flags[5, 1] = FIRST
    function = first_priorities(built, layout, ReplayConfig(), 3, jax.devices()[0])
    assert function is not None
    found = function(columns)
    assert found.shape == (3,) and found.dtype == np.float32 and np.all(found > 0)
    columns.extras[0][2:, 2] += 1
    assert list(function(columns) != found) == [False, False, True]
    columns.reward[:2] = 99
    assert function(columns)[0] == found[0], "the burn-in has no errors"


def test_without_priorities_there_is_no_function(built: BuiltAgent) -> None:
    layout, device = layout_of(built, 5), jax.devices()[0]
    assert first_priorities(built, layout, ReplayConfig(sampling="uniform"), 3, device) is None
    plain = built._replace(agent=built.agent._replace(priorities=None))
    assert first_priorities(plain, layout, ReplayConfig(), 3, device) is None


def test_each_step_of_a_call_has_importance_weights_of_its_own(built: BuiltAgent) -> None:
    """What a step learns does not depend on how many others are compiled into one call with it."""
    form = {
        "environment": {"name": "none"},
        "serving": {"max_environments": 8, "max_batch_rows": 8, "buckets": [8]},
        "experience": {"unroll_steps": 1},
        "replay": {"capacity_unrolls": 64, "min_unrolls": 32, "samples_per_insert": None, "insert_unrolls": 8},
        "training": {"batch_unrolls": 4, "updates_per_call": 6},
    }
    device, generator = jax.devices()[0], np.random.default_rng(0)
    made = build_experience(validate(RunConfig, form, ""), built, layout_of(built, 1), None, Metrics(), device, device)
    made.assembler.begin(np.arange(8), evaluation=False)
    for sequence in count():
        steps = StepColumns(
            slot=np.arange(8, dtype=np.uint32),
            epoch=np.ones(8, np.uint64),
            sequence=np.full(8, sequence, np.uint32),
            flags=np.full(8, FIRST if sequence == 0 else 0, np.uint8),
            reward=generator.exponential(size=8).astype(np.float32),
            metrics=np.zeros((8, 0), np.float32),
            observation=(np.zeros((8, 3), np.float32),),
        )
        acts = ActColumns(np.zeros(8, np.int32), np.zeros(8, np.int32), (np.zeros((8, 2), np.float32),), 0)
        made.assembler.append(steps, acts, 8, lambda which: [], CopiedRows(8))
        batch = made.source.take(0.0)
        if batch is not None:
            break
    importance = batch.columns.importance.reshape(6, 4)
    np.testing.assert_array_equal(importance.max(axis=1), np.ones(6, np.float32))
    assert np.all(importance.min(axis=1) < 1), "the weights reach what is learned from"


def test_several_passes_over_what_comes_back_from_replay_anyway_are_refused(built: BuiltAgent) -> None:
    form = {"environment": {"name": "none"}, "replay": {}, "training": {"passes": 2}}
    device = jax.devices()[0]
    with pytest.raises(ConfigError, match=r"leave training\.passes at 1") as caught:
        build_experience(validate(RunConfig, form, ""), built, layout_of(built, 1), None, Metrics(), device, device)
    assert (caught.value.path, caught.value.value) == ("training.passes", "2")


@pytest.mark.parametrize(("total_steps", "told"), [(None, False), (161, False), (160, True)])
def test_a_run_that_hardly_learns_before_replay_has_its_minimum_is_told(
    built: BuiltAgent, total_steps: int | None, told: bool
) -> None:
    form = {
        "environment": {"name": "none"},
        "serving": {"max_environments": 8, "max_batch_rows": 8, "buckets": [8]},
        "replay": {"capacity_unrolls": 64, "min_unrolls": 32},
        "training": {"batch_unrolls": 4, "total_steps": total_steps},
    }
    device = jax.devices()[0]
    made = build_experience(validate(RunConfig, form, ""), built, layout_of(built, 5), None, Metrics(), device, device)
    assert made.notes[0].startswith("replay: 64 unrolls of ")
    late = (
        "replay: nothing is learned before it has 32 unrolls (replay.min_unrolls), 160 steps; with "
        "training.total_steps at 160 the run ends at the first update"
    )
    assert made.notes[1:] == ((late,) if told else ())
