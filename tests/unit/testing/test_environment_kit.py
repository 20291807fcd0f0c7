"""The environment kit passes a sound environment, and each of its checks catches an environment made wrong for it."""

from __future__ import annotations

import numpy as np
import pytest

from aioseed.errors import EnvironmentFailed
from aioseed.specs import ActionSpec, ArraySpec, discrete, multi_discrete
from aioseed.testing.environment_kit import CheckFailed, EnvironmentKitWarning, check_env
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentMetric, EnvironmentSpec


class Sound:
    """Keep all rules: a walk in each row, moved by the action and by seeded noise; ends beyond 4 or after 9 steps."""

    spec = EnvironmentSpec({"count": ArraySpec("uint8", ()), "place": ArraySpec("float32", (2,))}, discrete(3))
    metrics = (EnvironmentMetric("distance", "last"),)

    def __init__(self, count):
        self.count = count
        self.rngs = [np.random.default_rng(0) for _ in range(count)]
        self.place = np.zeros((count, 2), np.float32)
        self.age = np.zeros(count, np.uint8)
        self.final = np.zeros(count, bool)

    def reset(self, rows, seeds, columns):
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            self.rngs[row] = np.random.default_rng(seed)
            self.begin(row)
            self.write(row, FIRST, 0.0, columns)

    def step(self, actions, columns):
        for row in range(self.count):
            if self.final[row]:
                self.begin(row)
                self.write(row, FIRST, 0.0, columns)
            else:
                self.move(row, actions[row])
                self.write(row, self.outcome(row), 1.0, columns)

    def begin(self, row):
        self.place[row] = self.rngs[row].uniform(-1, 1, 2)
        self.age[row] = 0
        self.final[row] = False

    def move(self, row, action):
        self.place[row] += (np.sum(action) - 1) / 2 + self.rngs[row].uniform(-0.5, 0.5, 2)
        self.age[row] += 1

    def outcome(self, row):
        out, late = np.abs(self.place[row]).max() > 4, self.age[row] >= 9
        self.final[row] = out or late
        return TERMINATED if out else TRUNCATED if late else 0

    def write(self, row, flags, reward, columns):
        columns.flags[row], columns.reward[row] = flags, reward
        columns.metrics[row] = np.abs(self.place[row]).max()
        columns.observation[0][row] = self.age[row]
        columns.observation[1][row] = self.place[row]

    def close(self):
        pass


def test_a_sound_environment_passes():
    check_env(Sound)


@pytest.mark.parametrize(
    "action",
    [multi_discrete([3, 2]), ActionSpec("box", ArraySpec("float32", (2,)), low=(-1, -np.inf), high=(1, np.inf))],
)
def test_every_kind_of_action_is_tried(action):
    class Moved(Sound):
        spec = Sound.spec._replace(action=action)

        def move(self, row, taken):
            assert taken.shape == action.array.shape
            super().move(row, taken)

    check_env(Moved, steps=60)


@pytest.mark.parametrize(
    ("low", "high", "least", "most"),
    [
        (5.0, 10.0, 5.0, 10.0),
        (-100.0, -50.0, -100.0, -50.0),
        (-np.inf, np.inf, -1.0, 1.0),
        (-1e308, 1e308, -1.0, 1.0),
        (7.0, np.inf, 7.0, 9.0),
        (-np.inf, -7.0, -9.0, -7.0),
        (-3e38, 3e38, -3e38, 3e38),
    ],
)
def test_actions_are_drawn_from_the_whole_box_and_nothing_else(low, high, least, most):
    taken = []

    class Moved(Sound):
        spec = Sound.spec._replace(action=ActionSpec("box", ArraySpec("float32", (1,)), low=(low,), high=(high,)))

        def move(self, row, action):
            taken.append(float(action[0]))
            super().move(row, np.zeros(1))

    check_env(Moved, steps=60)
    assert least <= min(taken) < 0.9 * least + 0.1 * most
    assert 0.1 * least + 0.9 * most < max(taken) <= most


class WrongCount(Sound):
    def __init__(self, count):
        super().__init__(max(count, 2))

    def step(self, actions, columns): ...


class SpecsDependOnCount(Sound):
    def __init__(self, count):
        super().__init__(count)
        self.spec = self.spec._replace(action=discrete(2 + count))


class EmptySpec(Sound):
    spec = Sound.spec._replace(action=discrete(0))


class SameMetrics(Sound):
    metrics = Sound.metrics * 2


class WrongFold(Sound):
    metrics = (EnvironmentMetric("distance", "mean"),)


class ResetWithoutFirst(Sound):
    def reset(self, rows, seeds, columns):
        super().reset(rows, seeds, columns)
        columns.flags[rows] = 0


class ResetWithReward(Sound):
    def reset(self, rows, seeds, columns):
        super().reset(rows, seeds, columns)
        columns.reward[rows] = 1


class NaNAtReset(Sound):
    def reset(self, rows, seeds, columns):
        super().reset(rows, seeds, columns)
        columns.observation[1][rows] = np.nan


class NaNInStep(Sound):
    def step(self, actions, columns):
        super().step(actions, columns)
        columns.reward[columns.flags == TRUNCATED] = np.inf


class WritesSlot(Sound):
    def step(self, actions, columns):
        super().step(actions, columns)
        columns.slot[:] = 0


class NoFirstAfterFinal(Sound):
    def step(self, actions, columns):
        super().step(actions, columns)
        columns.flags[:] &= ~FIRST


class SameStep(Sound):
    """Give the first observation in the step that ends the episode, and go on at once."""

    def outcome(self, row):
        flags = super().outcome(row)
        if flags:
            self.begin(row)
        return flags


class FirstOutOfTheBlue(Sound):
    def outcome(self, row):
        flags = super().outcome(row)
        return FIRST if self.age[row] == 5 and not flags else flags


class FirstAndFinal(Sound):
    def step(self, actions, columns):
        super().step(actions, columns)
        columns.flags[columns.flags == FIRST] |= TERMINATED


class RewardAtFirst(Sound):
    def step(self, actions, columns):
        super().step(actions, columns)
        columns.reward[:] = 1


class UnknownFlag(Sound):
    def step(self, actions, columns):
        super().step(actions, columns)
        columns.flags[:] |= 8


class ForgetsALeaf(Sound):
    def write(self, row, flags, reward, columns):
        before = columns.observation[0][row].copy()
        super().write(row, flags, reward, columns)
        if self.age[row] == 4:
            columns.observation[0][row] = before


class ForgetsTheMetric(Sound):
    def write(self, row, flags, reward, columns):
        before = columns.metrics[row].copy()
        super().write(row, flags, reward, columns)
        columns.metrics[row] = before


class Unseeded(Sound):
    def begin(self, row):
        self.rngs[row] = np.random.default_rng()
        super().begin(row)


class HeedsTheActionAfterTheEnd(Sound):
    def step(self, actions, columns):
        ended = self.final.copy()
        super().step(actions, columns)
        self.place[ended] += actions[ended, None]
        columns.observation[1][ended] = self.place[ended]


class ChangesItsActions(Sound):
    def step(self, actions, columns):
        np.clip(actions, 0, 1, out=actions)
        super().step(actions, columns)


class RowsMix(Sound):
    def step(self, actions, columns):
        super().step(actions, columns)
        columns.observation[1][3] = columns.observation[1][0]


class ResetsAll(Sound):
    def reset(self, rows, seeds, columns):
        super().reset(np.arange(self.count), [*seeds] * self.count if len(rows) < self.count else seeds, columns)


class ResetsOthersInSecret(Sound):
    def reset(self, rows, seeds, columns):
        super().reset(rows, seeds, columns)
        if len(rows) < self.count:
            self.place[:] = 0


class ForgetsFirstOfASubset(Sound):
    def reset(self, rows, seeds, columns):
        super().reset(rows, seeds, columns)
        if len(rows) < self.count:
            columns.flags[rows] = 0


class FirstTwice(Sound):
    def reset(self, rows, seeds, columns):
        super().reset(rows, seeds, columns)
        self.final[rows] = len(rows) < self.count


class ClosesOnce(Sound):
    closed = False

    def close(self):
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class Raises(Sound):
    def step(self, actions, columns):
        raise EnvironmentFailed("environment 0 failed")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (WrongCount, "count is 2 where 1 environments were asked for"),
        (SpecsDependOnCount, "the specs depend on the number of environments"),
        (EmptySpec, "the specs cannot be served: an action with 0 choices cannot be taken"),
        (SameMetrics, "two metrics have one name: distance, distance"),
        (WrongFold, "the metric distance has the fold 'mean', which is none of sum, last and max"),
        (ResetWithoutFirst, "after a reset every row is FIRST (1), the flags are [0, 0, 0, 0]"),
        (ResetWithReward, "the reward of a FIRST row is 0, after a reset it is [1.0, 1.0, 1.0, 1.0]"),
        (NaNAtReset, "observation.place is not finite after a reset"),
        (NaNInStep, "reward is not finite after step 9"),
        (WritesSlot, "step 1 wrote into the column slot, which belongs to the actor"),
        (NoFirstAfterFinal, "the row after a final row is not FIRST"),
        (SameStep, "the row after a final row is not FIRST"),
        (FirstOutOfTheBlue, "a row is FIRST although the row before it was not final"),
        (FirstAndFinal, "a FIRST row is final at once"),
        (RewardAtFirst, "the reward of a FIRST row is 0, here it is 1.0"),
        (UnknownFlag, "the flags are 8, which no combination of FIRST, TERMINATED and TRUNCATED is"),
        (ForgetsALeaf, "observation.count was not written in step 4"),
        (ForgetsTheMetric, "metrics was not written in a reset"),
        (Unseeded, "with the same seeds and actions, row 0 differs between two runs in a reset"),
        (HeedsTheActionAfterTheEnd, "the action after a final row was not ignored"),
        (ChangesItsActions, "it raised ValueError: output array is read-only"),
        (RowsMix, "an action of row 0 changed row 3"),
        (ResetsAll, "a reset of row 1 alone wrote into row 0"),
        (ResetsOthersInSecret, "a reset of row 1 alone changed what row 0 did next"),
        (ForgetsFirstOfASubset, "a reset of row 1 alone left its flags at 0, not FIRST"),
        (FirstTwice, "after a reset of row 1 alone, its next step was FIRST once more"),
        (ClosesOnce, "the second close() raised RuntimeError: closed already"),
        (Raises, "it raised EnvironmentFailed: environment 0 failed"),
    ],
)
@pytest.mark.filterwarnings("ignore::aioseed.testing.environment_kit.EnvironmentKitWarning")
def test_a_broken_rule_is_caught(wrong, sentence):
    with pytest.raises(CheckFailed) as caught:
        check_env(wrong, steps=60)
    assert any(sentence in finding for finding in caught.value.findings), caught.value.findings


def test_every_check_speaks_before_it_fails():
    class TwiceWrong(ResetWithReward, ClosesOnce):
        pass

    with pytest.raises(CheckFailed) as caught:
        check_env(TwiceWrong, steps=60)
    assert len(caught.value.findings) == 2
    assert str(caught.value) == "\n".join(caught.value.findings)


def test_what_an_environment_raised_stands_before_what_follows_from_it():
    class Raises(ResetWithReward):
        def close(self):
            raise RuntimeError("the cause")

    with pytest.raises(CheckFailed) as caught:
        check_env(Raises, steps=60)
    assert caught.value.findings[0] == "it raised RuntimeError: the cause"


class ResetsAsAWhole(Sound):
    """Reset all rows when some are asked for, and tell so in the next step."""

    def __init__(self, count):
        super().__init__(count)
        self.restarted = np.zeros(count, bool)

    def reset(self, rows, seeds, columns):
        super().reset(rows, seeds, columns)
        self.restarted = np.isin(np.arange(self.count), rows, invert=True) & (len(rows) < self.count)

    def step(self, actions, columns):
        self.final |= self.restarted
        self.restarted[:] = False
        super().step(actions, columns)


def test_environments_that_reset_as_a_whole_pass_only_when_they_are_declared_so():
    check_env(ResetsAsAWhole, steps=60, resets_rows=False)
    with pytest.raises(CheckFailed, match="a reset of row 1 alone changed what row 0 did next"):
        check_env(ResetsAsAWhole, steps=60)
    with pytest.raises(CheckFailed, match="a reset of row 1 alone changed what row 0 did next"):
        check_env(ResetsOthersInSecret, steps=60, resets_rows=False)


def test_a_seed_that_changes_nothing_is_warned_of():
    class OneSeed(Sound):
        def reset(self, rows, seeds, columns):
            super().reset(rows, [0] * len(seeds), columns)

    with pytest.warns(EnvironmentKitWarning, match="two seeds gave the same rows"):
        check_env(OneSeed, steps=60)


def test_episodes_that_do_not_end_are_warned_of():
    with pytest.warns(EnvironmentKitWarning, match="no episode ended within 3 steps"):
        check_env(Sound, steps=3)
