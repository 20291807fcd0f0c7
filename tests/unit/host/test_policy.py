"""A policy from the disk: what it was saved with decides, and every damage is a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.errors import JaxRuntimeError

from aioseed.actor.probe import Description
from aioseed.agents.agent import ActInput
from aioseed.errors import CheckpointError, ConfigError, SpaceError, TrainingFailed
from aioseed.host.acting import build_agent
from aioseed.host.policy import _columns, load_policy
from aioseed.host.rundir import open_run
from aioseed.host.saved import load_run, with_changes
from aioseed.specs import ArraySpec, discrete
from aioseed.training.device import Placement
from aioseed.training.optimizer import make_optimizer
from aioseed.training.store import CheckpointStore, Snapshot
from aioseed.training.trees import flatten_arrays
from aioseed.training.update import init_state
from aioseed.types import FIRST, EnvironmentSpec

SPEC = EnvironmentSpec(ArraySpec("float32", (4,)), discrete(2))
DESCRIBED = {"observation": SPEC.observation.to_json(), "action": SPEC.action.to_json(), "metrics": [], "task": {}}


@pytest.fixture(scope="module")
def initial(small):
    """Return the flat training state that a run begins with; one is made for each configuration and seed."""
    made = {}

    def make(seed=0, *overrides):
        if (seed, overrides) not in made:
            config = small(*overrides)
            transforms = [section.section() for section in config.transforms]
            built = build_agent(config.agent.section(), config.network.section(), SPEC, transforms)
            optimizer = make_optimizer(config.training, config.experience.unroll_steps)
            state = init_state(built.agent, optimizer, jax.random.key(seed), Placement((jax.devices("cpu")[0],)))
            made[seed, overrides] = flatten_arrays(state)
        return made[seed, overrides]

    return make


@pytest.fixture
def saved(small, initial, tmp_path):
    """Save what a run would have saved, and return its directory."""

    def save(*overrides, described=DESCRIBED, seed=0):
        config = small(*overrides)
        opened = open_run(tmp_path / f"run-{seed}", config, "auto")
        facts = {"config": config.model_dump(mode="json"), "environment": described}
        opened.store.save(Snapshot(3, initial(seed, *overrides), facts), opened.generation)
        opened.directory.close()
        return opened.directory.path

    return save


def actions(policy, count=40):
    policy.reset()
    return [int(policy(row)) for row in np.random.default_rng(0).normal(size=(count, 4))]


def test_a_greedy_policy_acts_like_the_parameters_that_were_saved_again_and_again(saved):
    one, other = load_policy(saved(seed=1)), load_policy(saved(seed=2))
    assert one.version == 3 and one.spec == SPEC
    assert actions(one) == actions(one) != actions(other)
    gymnasium = pytest.importorskip("gymnasium")
    assert gymnasium.spaces.Discrete(2).contains(one(np.zeros(4, np.float64)))


def test_sampling_follows_its_seed(saved):
    path = saved()
    one, same, other = (actions(load_policy(path, greedy=False, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (np.zeros((2, 2), np.float32), "observation is float32[2, 2], the policy was trained on float32[4]"),
        (np.zeros((8, 4), np.float32), "observation is float32[8, 4], the policy was trained on float32[4]"),
        (np.zeros(4, np.complex64), "observation is complex64[4], the policy was trained on float32[4]"),
        ({"image": np.zeros(4)}, "observation is object[], the policy was trained on float32[4]"),
    ],
)
def test_an_observation_of_another_kind_is_refused_and_not_bent_into_shape(saved, observation, said):
    with pytest.raises(SpaceError) as caught:
        load_policy(saved())(observation)
    assert str(caught.value).startswith(f"{said}: give it one observation at a time")


def test_the_parts_of_an_observation_are_told_apart_by_name():
    image, spec = ArraySpec("uint8", (2, 3)), {"a": ArraySpec("float32", (2,)), "b": (ArraySpec("uint8", (2, 3)),)}
    columns = _columns({"b": (np.ones((2, 3), np.uint8),), "a": [1, 2]}, spec, "observation")
    assert [(column.dtype.name, column.shape) for column in columns] == [("float32", (1, 2)), ("uint8", (1, 2, 3))]
    for wrong, said in [
        ({"a": [1, 2], "c": (1,)}, "observation has the parts a, c, the policy was trained on a, b"),
        ([1, 2], "observation has no parts, the policy was trained on a, b"),
        ({"a": [1, 2], "b": ()}, "observation.b is no tuple of 1"),
        (
            {"a": [1, 2], "b": (np.full((2, 3), 300),)},
            "observation.b.0 is int64[2, 3], the policy was trained on uint8",
        ),
        ({"a": [1, 2], "b": (np.zeros((3, 2), np.uint8),)}, "observation.b.0 is uint8[3, 2]"),
    ]:
        with pytest.raises(SpaceError) as caught:
            _columns(wrong, spec, "observation")
        assert str(caught.value).startswith(said)
    assert _columns(np.zeros((2, 3), np.uint8), image, "observation")[0].shape == (1, 2, 3)


def test_a_recurrent_state_is_kept_between_calls_and_begins_anew_with_reset(saved):
    policy = load_policy(saved("network={name: lstm, lstm_units: 8}"))
    assert len(policy._state) == 2

    def states():
        seen = []
        for _ in range(3):
            policy(np.ones(4))
            seen.append(float(np.abs(policy._state[0]).sum()))
        return seen

    once = states()
    assert len(set(once)) == 3
    policy.reset()
    assert states() == once


def test_it_acts_row_by_row_as_serving_does_with_rewards_actions_and_borders(saved):
    path = saved("network={name: lstm, lstm_units: 8}", "transforms=[{name: normalize}, {name: frame_stack, n: 2}]")
    run, policy = load_run(path), load_policy(path)
    agent = run.built.agent
    act = jax.jit(agent.act, static_argnums=4)
    state = jax.tree.map(lambda leaf: np.asarray(leaf)[None], agent.initial_state())
    generator, previous = np.random.default_rng(0), np.ones(1, np.int32)
    for row in range(9):
        first = row in (0, 5)
        if first:
            policy.reset()
        observation = generator.normal(size=4).astype(np.float32)
        reward = float(generator.normal())
        rows = ActInput(
            observation=observation[None],
            reward=np.full(1, 0 if first else reward, np.float32),
            flags=np.full(1, FIRST if first else 0, np.uint8),
            previous_action=previous,
            slot=np.zeros(1, np.uint32),
            epoch_low=np.zeros(1, np.uint32),
            sequence=np.full(1, row, np.uint32),
            evaluation=np.ones(1, np.bool_),
            takes_mode=np.zeros(1, np.bool_),
        )
        answer, state = act(run.params, jax.random.key(0), state, rows, True)
        previous = np.asarray(answer.action)
        assert policy(observation, reward) == previous[0]
        for mine, its in zip(policy._state, jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6)


def test_the_checkpoint_decides_and_not_the_configuration_of_a_later_attempt(saved):
    path = saved()
    other = json.loads((path / "config.json").read_text())
    other["network"]["hidden"] = [32]
    (path / "config.json").write_text(json.dumps(other))
    assert load_run(path).config.network.section()["hidden"] == [8]


def test_what_is_no_run_is_said_so(tmp_path, small):
    with pytest.raises(CheckpointError, match="there is no run directory"):
        load_run(tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds no run"):
        load_run(tmp_path)
    open_run(tmp_path / "run", small(), "never").directory.close()
    for inside in ("checkpoints", "config.json"):
        with pytest.raises(CheckpointError, match=r"did you mean the run .*/run\?"):
            load_run(tmp_path / "run" / inside)
    with pytest.raises(CheckpointError, match="never completed a save"):
        load_run(tmp_path / "run")


def test_a_copy_of_a_checkpoint_alone_is_enough_and_one_that_is_not_there_is_named(saved, tmp_path):
    checkpoint = saved() / "checkpoints" / "000000000003"
    copied = shutil.copytree(checkpoint, tmp_path / "elsewhere" / checkpoint.name)
    assert (load_run(copied).version, load_run(copied).run_dir) == (3, copied)
    missing = checkpoint.with_name("000000000009")
    with pytest.raises(CheckpointError, match=f"^{missing} is no sound checkpoint: No such file"):
        load_run(missing)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (JaxRuntimeError("RESOURCE_EXHAUSTED: 9 bytes"), "a device ran out of memory .*9 bytes"),
        (MemoryError("Unable to allocate 3 TiB"), "this machine has too little memory .*3 TiB"),
    ],
)
def test_memory_that_does_not_suffice_is_a_failure_in_one_sentence(monkeypatch, tmp_path, error, said):
    def load_run(path):
        raise error

    monkeypatch.setattr("aioseed.host.policy.load_run", load_run)
    with pytest.raises(TrainingFailed, match=f"^the policy cannot be loaded: {said}"):
        load_policy(tmp_path)


@pytest.mark.parametrize(("where", "word"), [("000000000003", "."), ("", "000000000003"), ("", ".."), ("..", ".")])
def test_dots_stand_for_the_run_or_the_checkpoint_that_they_lead_to(saved, monkeypatch, where, word):
    path = saved()
    monkeypatch.chdir(path / "checkpoints" / where)
    run = load_run(Path(word))
    assert run.version == 3 and run.run_dir.samefile(path)


@pytest.mark.parametrize(
    ("described", "said"),
    [
        (None, "holds no configuration or no specs"),
        ({}, "the description of the environment has no observation and no action and no metrics and no task"),
        ({**DESCRIBED, "action": {"kind": "dance"}}, "an action|a dtype"),
        ({**DESCRIBED, "metrics": 5}, "no list of metrics or no task"),
        ({**DESCRIBED, "task": "dance"}, "no list of metrics or no task"),
        ({**DESCRIBED, "metrics": [{"name": "score"}]}, "a metric of the environment has no name or no fold"),
        ({**DESCRIBED, "metrics": ["score"]}, "a metric of the environment has no name or no fold"),
    ],
)
def test_a_checkpoint_without_sound_specs_is_said_so(saved, described, said):
    with pytest.raises(CheckpointError, match=f"000000000003 .*({said})"):
        load_run(saved(described=described))


def test_a_network_of_any_size_is_compared_with_the_arrays_before_memory_is_taken(small, initial, saved):
    path = saved()
    facts = {
        "config": small("network.hidden=[10000000000, 10000000000]").model_dump(mode="json"),
        "environment": DESCRIBED,
    }
    CheckpointStore(path / "checkpoints").save(Snapshot(4, initial(), facts), 9)
    with pytest.raises(CheckpointError, match="which this configuration needs"):
        load_run(path)


@pytest.fixture
def run(saved):
    return load_run(saved())


@pytest.fixture
def found(monkeypatch):
    """Return a function that says what a look at an environment finds, and the configurations that were looked at."""
    looked = []

    def finds(**parts):
        async def probe(config):
            looked.append(config)
            return Description.from_json({**DESCRIBED, **parts})

        monkeypatch.setattr("aioseed.host.saved.probe", probe)
        return looked

    return finds


async def test_a_policy_is_measured_in_another_environment_that_it_fits(run, found):
    looked = found(task={"max_episode_steps": 9}, metrics=[{"name": "laps", "fold": "sum"}])
    changed = await with_changes(run, ["environment.options.max_episode_steps=9", "actor.processes=1", "seed=8"])
    assert changed.config.environment.options == {"max_episode_steps": 9} and looked == [changed.config.environment]
    assert (changed.config.actor.processes, changed.config.seed) == (1, 8)
    assert changed.described.task == {"max_episode_steps": 9}
    assert [metric.name for metric in changed.described.metrics] == ["laps"]
    assert changed.params is run.params and changed.config.training == run.config.training


async def test_an_environment_that_stays_the_same_is_not_looked_at(run, found):
    looked = found()
    changed = await with_changes(run, ["actor.processes=1", f"environment.name={run.config.environment.name}"])
    assert not looked and changed.described is run.described


async def test_a_policy_that_does_not_fit_the_other_environment_says_where(run, found):
    found(observation=ArraySpec("float32", (6,)).to_json())
    with pytest.raises(ConfigError) as caught:
        await with_changes(run, ["environment.name=Acrobot-v1"])
    assert str(caught.value) == (
        "the policy does not fit Acrobot-v1 so configured: observation.shape.0 is 6 there, "
        "and the policy was trained with 4"
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "training.batch_unrolls=64",
            "^training belongs to the policy, which is measured as it was saved: only environ",
        ),
        ("network.hidden=[8,8]", "^network belongs to the policy"),
        ("transforms=[{name: frame_stack, n: 4}]", "^transforms belongs to the policy"),
        ("enviroment.name=x", r'^enviroment is not a known key \(did you mean "environment"\?\)'),
        ("actor.processes=0", "^actor.processes is 0: expected greater than or equal to 1"),
    ],
)
async def test_what_belongs_to_the_policy_cannot_change(run, found, override, said):
    looked = found()
    with pytest.raises(ConfigError, match=said):
        await with_changes(run, [override])
    assert not looked
