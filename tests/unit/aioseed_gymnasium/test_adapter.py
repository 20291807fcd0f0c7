"""Plain environments in columns: NEXT_STEP autoreset, casts, nested observations, actions with a start, failures."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from aioseed_gymnasium.adapter import PlainEnvironment
from aioseed_gymnasium.options import GymnasiumOptions
from gymnasium import spaces

from aioseed.errors import EnvironmentFailed, SpaceError
from aioseed.types import FIRST, TERMINATED, TRUNCATED

DISCRETE = spaces.Discrete(3)
BOX = spaces.Box(-10, 10, (2,), np.float32)


def made(build, count=2, **options):
    return PlainEnvironment(build, count, "Test-v0", GymnasiumOptions(**options))


def test_a_reset_writes_first_rows_with_the_rows_own_seeds(group, ladder):
    run = group(made(ladder))
    run.reset(seeds=[7, 8])
    assert run.flags == [FIRST, FIRST]
    assert run.observations == [[7, 0, 0], [8, 0, 0]]


def test_a_reset_of_one_row_leaves_the_others_alone(group, ladder):
    run = group(made(ladder))
    run.reset()
    run.step(1, 2)
    run.reset([1], [99])
    assert run.flags == [0, FIRST]
    assert run.rewards == [0.5, 0.0]
    assert run.observations == [[10, 1, 1], [99, 0, 0]]
    run.step(3, 3)
    assert run.observations == [[10, 2, 3], [99, 1, 3]]


@pytest.mark.parametrize(("truncates", "flag"), [(False, TERMINATED), (True, TRUNCATED)])
def test_a_final_row_is_followed_by_a_first_row_that_ignores_the_action(group, ladder, truncates, flag):
    run = group(made(lambda: ladder(length=2, truncates=truncates), count=1))
    run.reset()
    seen = []
    for action in (1, 2, 4, 3):
        run.step(action)
        seen.append((run.flags[0], run.rewards[0], run.observations[0]))
    assert seen == [
        (0, 0.5, [10, 1, 1]),
        (flag, 1.0, [10, 2, 2]),
        (FIRST, 0.0, [10, 0, 0]),
        (0, 0.5, [10, 1, 3]),
    ]


def test_a_row_that_terminates_and_truncates_is_terminated(group, ladder):
    class Both(ladder):
        def step(self, action):
            observation, reward, *_ = super().step(action)
            return observation, reward, True, True, {}

    run = group(made(Both, count=1))
    run.reset()
    run.step()
    assert run.flags == [TERMINATED]


def test_rows_end_and_begin_independently(group, ladder):
    lengths = iter((1, 3))
    run = group(made(lambda: ladder(length=next(lengths))))
    run.reset()
    flags = []
    for _ in range(4):
        run.step()
        flags.append(run.flags)
    assert flags == [[2, 0], [1, 0], [2, 2], [1, 1]]


def test_a_row_that_was_never_reset_begins_with_its_first_step(group, ladder):
    run = group(made(ladder))
    run.reset([0], [7])
    run.step(2, 2)
    assert run.flags == [0, FIRST]
    run.step(2, 2)
    assert run.flags == [0, 0]


@pytest.mark.parametrize(
    ("space", "sent", "given"),
    [
        (spaces.Discrete(3), 2, 2),
        (spaces.Discrete(3, start=-5), 2, -3),
        (spaces.MultiDiscrete([2, 3]), [1, 2], np.array([1, 2])),
        (spaces.MultiDiscrete([2, 3], start=[10, 20]), [1, 2], np.array([11, 22])),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), [1, 2, 3, 4], np.array([[1, 2], [3, 4]])),
        (spaces.MultiBinary(2), [1, 0], np.array([1, 0], np.int8)),
        (spaces.Box(-1, 1, (2,), np.float64), [0.5, -0.5], np.array([0.5, -0.5])),
    ],
)
def test_an_environment_gets_actions_as_its_space_has_them(group, constant, space, sent, given):
    envs = [constant(BOX, np.zeros(2, np.float32), space) for _ in range(2)]
    run = group(made(iter(envs).__next__))
    run.reset()
    run.step(sent, sent)
    for env in envs:
        assert space.contains(np.int64(env.taken[0]) if isinstance(space, spaces.Discrete) else env.taken[0])
        np.testing.assert_array_equal(env.taken[0], given)


def test_read_only_columns_of_actions_are_taken(group, ladder):
    run = group(made(ladder))
    run.reset()
    run.env.step(np.frombuffer(np.array([3, 4], np.int32).tobytes(), np.int32), run.columns)
    assert [row[2] for row in run.observations] == [3, 4]


@pytest.mark.parametrize(
    ("space", "observation", "leaves"),
    [
        (spaces.Box(-9, 9, (2,), np.float64), np.array([1.5, -2.5]), [[1.5, -2.5]]),
        (spaces.Box(0, 9, (), np.int64), np.int64(4), [4]),
        (spaces.Box(0, 1, (2,), np.bool_), np.array([True, False]), [[1, 0]]),
        (spaces.Box(0, 255, (2, 1), np.uint8), np.array([[3], [4]], np.uint8), [[[3], [4]]]),
        (spaces.Discrete(9, start=4), np.int64(6), [2]),
        (spaces.Discrete(9), 6, [6]),
        (spaces.MultiDiscrete([5, 5], start=[1, 2]), np.array([3, 3]), [[2, 1]]),
        (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [[1, 0, 1]]),
        (spaces.Dict(b=spaces.Discrete(3), a=BOX), {"b": 2, "a": np.array([1, 2], np.float32)}, [[1, 2], 2]),
        (
            spaces.Tuple([spaces.Dict(c=BOX), spaces.Discrete(2)]),
            ({"c": np.array([1, 2], np.float32)}, True),
            [[1, 2], 1],
        ),
    ],
)
def test_observations_are_cast_and_taken_apart_in_resets_and_steps(group, constant, space, observation, leaves):
    run = group(made(lambda: constant(space, observation, DISCRETE)))
    run.reset()
    assert [leaf.tolist() for leaf in run.columns.observation] == [[leaf, leaf] for leaf in leaves]
    for leaf in run.columns.observation:
        leaf.fill(0)
    run.step()
    assert [leaf.tolist() for leaf in run.columns.observation] == [[leaf, leaf] for leaf in leaves]


@pytest.mark.parametrize("shares_from", [0, 1])
def test_environments_that_share_one_array_do_not_overwrite_one_another(group, ladder, shares_from):
    shared = np.zeros(3, np.float32)

    def into_shared(env, step):
        if step < shares_from:
            return None
        shared[:] = env.seed, step, 0
        return shared

    run = group(made(lambda: ladder(faults=into_shared)))
    run.reset()
    for step in (1, 2):
        run.step()
        assert run.observations == [[10, step, 0], [11, step, 0]]


def test_columns_may_change_from_step_to_step(group, ladder):
    run = group(made(ladder))
    run.reset()
    other = group(run.env)
    run.step(1, 1)
    other.step(2, 2)
    assert [row[1:] for row in run.observations] == [[1, 1]] * 2
    assert [row[1:] for row in other.observations] == [[2, 2]] * 2


def test_columns_of_another_spec_are_refused(group, ladder):
    run = group(made(ladder))
    wrong = run.columns._replace(observation=(np.zeros((2, 4), np.float32),))
    with pytest.raises(ValueError, match="the column of observation must be"):
        run.env.reset(np.arange(2), [1, 2], wrong)


def test_columns_in_another_memory_order_are_refused(group, ladder):
    run = group(made(ladder))
    wrong = run.columns._replace(observation=(np.zeros((3, 2), np.float32).T,))
    with pytest.raises(ValueError, match="must be a C-contiguous"):
        run.env.reset(np.arange(2), [1, 2], wrong)


def test_a_space_without_a_number_is_refused(constant):
    empty = spaces.Box(0, 1, (0,), np.float32)
    with pytest.raises(SpaceError, match=r"observation is empty \(shape \(0,\)\)"):
        made(lambda: constant(empty, np.zeros(0, np.float32), DISCRETE))


def test_an_environment_that_raises_is_rebuilt_and_its_row_is_first(group, ladder, caplog):
    built = []

    def build():
        once = len(built) == 1
        built.append(ladder(length=9, faults=raises_at(2) if once else never))
        return built[-1]

    run = group(made(build))
    run.reset()
    run.step(1, 1)
    with caplog.at_level(logging.WARNING):
        run.step(1, 1)
    assert run.flags == [0, FIRST]
    assert run.rewards == [1.0, 0.0]
    assert run.observations[0] == [10, 2, 1]
    assert run.observations[1][1:] == [0, 0]
    assert run.observations[1][0] not in (-1, 11), "with the same seed it would raise at the same place again"
    assert "environment 1 (Test-v0) failed and is built anew (1 of 3): RuntimeError: boom" in caplog.text
    assert built[1].closed == 1
    run.step(1, 1)
    assert run.flags == [0, 0]


def test_rebuilt_environments_are_seeded_alike_in_every_run(group, ladder):
    seeds = []
    for _ in range(2):
        run = group(made(lambda: ladder(faults=raises_at(1)), count=1))
        run.reset(seeds=[5])
        run.step()
        seeds.append(run.observations[0][0])
    assert seeds[0] == seeds[1]


def test_the_failures_of_a_life_are_bounded(group, ladder):
    run = group(made(lambda: ladder(faults=raises_at(1)), count=1, max_rebuilds=2))
    run.reset()
    for _ in range(2):
        run.step()
        assert run.flags == [FIRST]
    with pytest.raises(EnvironmentFailed) as caught:
        run.step()
    assert str(caught.value) == "environment 0 (Test-v0) failed 3 times, the last time: RuntimeError: boom"
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_each_environment_has_its_own_bound(group, ladder):
    faults = iter((raises_at(1), never))
    run = group(made(lambda: ladder(length=9, faults=next(faults, raises_at(1))), max_rebuilds=1))
    run.reset()
    run.step()
    with pytest.raises(EnvironmentFailed, match="environment 0"):
        run.step()


def test_a_reset_that_raises_costs_a_rebuild(group, ladder):
    faults = iter((raises_at(0), raises_at(0), never))
    run = group(made(lambda: ladder(faults=next(faults)), count=1))
    run.reset()
    assert run.flags == [FIRST]
    run.step()
    assert run.flags == [0]


def test_one_that_was_built_anew_and_cannot_be_reset_is_closed(group, ladder):
    built = []

    def build():
        built.append(ladder(faults=raises_at(0) if len(built) < 3 else never))
        return built[-1]

    run = group(made(build, count=1))
    run.reset()
    assert [env.closed for env in built] == [1, 1, 1, 0]


def test_lengths_that_add_up_are_wrong_nevertheless(group, ladder):
    lengths = iter((2, 4))
    run = group(made(lambda: ladder(faults=returns_at(1, np.zeros(next(lengths), np.float32)))))
    run.reset()
    with pytest.raises(EnvironmentFailed, match=r"environment 0 .*has the shape \(2,\)"):
        run.step()


def test_a_reset_that_always_raises_ends_it(group, ladder):
    run = group(made(lambda: ladder(faults=raises_at(0)), count=1, max_rebuilds=0))
    with pytest.raises(EnvironmentFailed, match=r"^environment 0 \(Test-v0\) failed: RuntimeError: boom$"):
        run.reset()


def test_a_builder_that_fails_later_counts_as_failure(group, ladder):
    envs = iter([ladder(faults=raises_at(1))])
    run = group(made(lambda: next(envs), count=1, max_rebuilds=3))
    run.reset()
    with pytest.raises(EnvironmentFailed, match=r"4 times, the last time: StopIteration"):
        run.step()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_number_that_is_not_finite_costs_a_rebuild(group, ladder, number):
    bad = np.array([0, number, 0], np.float32)
    faults = iter((returns_at(2, bad), never, never))
    run = group(made(lambda: ladder(faults=next(faults))))
    run.reset()
    run.step(1, 1)
    run.step(1, 1)
    assert run.flags == [FIRST, 0]
    assert np.isfinite(run.columns.observation[0]).all()


def test_a_reward_that_is_not_finite_costs_a_rebuild(group, ladder):
    class Reckless(ladder):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, float("nan"), *rest

    run = group(made(Reckless, count=1, max_rebuilds=1))
    run.reset()
    run.step()
    assert (run.flags, run.rewards) == ([FIRST], [0.0])
    with pytest.raises(EnvironmentFailed, match="it returned a reward that is not finite"):
        run.step()


def test_a_reset_to_numbers_that_are_not_finite_ends_it_at_last(group, ladder):
    bad = np.full(3, np.nan, np.float32)
    run = group(made(lambda: ladder(faults=returns_at(0, bad)), count=1))
    with pytest.raises(EnvironmentFailed, match=r"failed 4 times, the last time: NotFiniteError"):
        run.reset()


@pytest.mark.parametrize(
    ("observation", "fault"),
    [
        (np.zeros(4, np.float32), r"observation has the shape \(4,\), the space says \(3,\)"),
        (np.zeros((3, 1), np.float32), r"observation has the shape \(3, 1\), the space says \(3,\)"),
        (np.float32(0), r"observation has the shape \(\), the space says \(3,\)"),
        (np.zeros(3, np.complex64), "observation has the dtype complex64, the space says float32"),
        ([[1], [1, 2]], "observation is not an array of fixed shape"),
    ],
)
@pytest.mark.parametrize("step", [0, 2])
def test_another_shape_or_kind_than_the_spaces_ends_it(group, ladder, observation, fault, step):
    faults = iter((never, returns_at(step, observation)))
    run = group(made(lambda: ladder(faults=next(faults))))
    with pytest.raises(EnvironmentFailed, match=rf"^environment 1 \(Test-v0\) returned a wrong observation: {fault}$"):
        run.reset()
        run.step()
        run.step()


@pytest.mark.parametrize("in_reset", [True, False])
def test_real_numbers_are_not_cut_to_whole_ones(group, constant, in_reset):
    env = constant(spaces.Box(0, 9, (2,), np.int32), np.array([0, 1]), DISCRETE)
    run = group(made(lambda: env, count=1))
    run.reset()
    env.observation = np.array([0.5, 1.5])
    with pytest.raises(EnvironmentFailed, match="observation has the dtype float64, the space says int32"):
        (run.reset if in_reset else run.step)()


def test_a_missing_key_is_told_by_its_path(group, constant):
    space = spaces.Dict(a=BOX, b=DISCRETE)
    envs = [constant(space, {"a": np.zeros(2, np.float32), "b": 1}, DISCRETE) for _ in range(2)]
    run = group(made(iter(envs).__next__))
    run.reset()
    del envs[1].observation["b"]
    with pytest.raises(EnvironmentFailed, match=r"environment 1 .* observation\.b is not there"):
        run.step()


@pytest.mark.parametrize("reward", ["much", np.zeros(2), {}])
def test_a_reward_that_is_no_number_ends_it(group, ladder, reward):
    class Odd(ladder):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, reward, *rest

    run = group(made(Odd))
    run.reset()
    with pytest.raises(EnvironmentFailed, match=r"^environment 0 \(Test-v0\) returned a reward that is not one number"):
        run.step()


def test_environments_with_other_spaces_than_the_first_are_refused_and_closed(ladder):
    envs = [ladder(), ladder(action_space=spaces.Discrete(2))]
    with pytest.raises(SpaceError, match=r"environment 1 \(Test-v0\) has other spaces than environment 0"):
        made(iter(envs).__next__)
    assert [env.closed for env in envs] == [1, 1]


def test_what_was_built_is_closed_when_a_later_one_cannot_be(ladder):
    envs = [ladder()]

    def build():
        if len(envs) > 1:
            raise EnvironmentFailed("no more")
        envs.append(ladder())
        return envs[0]

    with pytest.raises(EnvironmentFailed, match="no more"):
        made(build)
    assert envs[0].closed == 1


def test_close_is_idempotent_and_survives_what_an_environment_raises(group, ladder, caplog):
    class Stuck(ladder):
        def close(self):
            super().close()
            raise RuntimeError("stuck")

    envs = [Stuck(), ladder()]
    run = group(made(iter(envs).__next__))
    with caplog.at_level(logging.WARNING):
        run.env.close()
        run.env.close()
    assert [env.closed for env in envs] == [1, 1]
    assert "environment 0 (Test-v0) could not be closed: RuntimeError: stuck" in caplog.text


def never(env, step):
    return None


def raises_at(step):
    def faults(env, now):
        if now == step:
            raise RuntimeError("boom")

    return faults


def returns_at(step, observation):
    return lambda env, now: observation if now == step else None
