from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.telemetry.returns import EpisodeTracker
from aioseed.types import FIRST, TERMINATED, TRUNCATED, EnvironmentMetric, StepColumns

METRICS = (EnvironmentMetric("score", "sum"), EnvironmentMetric("level", "last"), EnvironmentMetric("height", "max"))


def rows(slots, flags, rewards, metrics=None):
    count = len(slots)
    return StepColumns(
        slot=np.array(slots, np.uint32),
        epoch=np.ones(count, np.uint64),
        sequence=np.zeros(count, np.uint32),
        flags=np.array(flags, np.uint8),
        reward=np.array(rewards, np.float32),
        metrics=np.zeros((count, 0), np.float32) if metrics is None else np.array(metrics, np.float32),
        observation=(),
    )


def play(tracker, slot, flags, rewards):
    """Send one slot's rows one after the other and return all episodes as (return, length)."""
    ended = []
    for flag, reward in zip(flags, rewards, strict=True):
        episodes = tracker.append(rows([slot], [flag], [reward]), 1)
        ended += zip(episodes.episode_return.tolist(), episodes.length_steps.tolist(), strict=True)
    return ended


def test_an_episode_is_the_sum_of_its_rewards_and_the_number_of_its_transitions():
    tracker = EpisodeTracker(4)
    assert play(tracker, 2, [FIRST, 0, 0, TERMINATED], [0, 1, 2, 4]) == [(7, 3)]
    assert play(tracker, 2, [FIRST, TRUNCATED, FIRST, TERMINATED], [0, 5, 0, 6]) == [(5, 1), (6, 1)]


def test_a_first_row_after_one_that_was_not_final_ends_the_episode_there():
    tracker = EpisodeTracker(4)
    assert play(tracker, 0, [FIRST, 0, 0, FIRST, 0, TERMINATED], [0, 1, 2, 0, 10, 20]) == [(3, 2), (30, 2)]


def test_an_episode_without_a_transition_is_none():
    tracker = EpisodeTracker(4)
    assert play(tracker, 0, [FIRST, FIRST, FIRST, TERMINATED], [0, 0, 0, 1]) == [(1, 1)]
    assert play(tracker, 1, [FIRST | TERMINATED, FIRST, TERMINATED], [0, 0, 1]) == [(1, 1)]


def test_metrics_are_folded_from_the_first_row_on():
    tracker = EpisodeTracker(4, METRICS)
    values = [[1, 3, -5], [2, 9, -2], [4, 7, -8]]
    for flag, value in zip([FIRST, 0, TERMINATED], values, strict=True):
        episodes = tracker.append(rows([1], [flag], [0], [value]), 1)
    assert episodes.metrics.tolist() == [[7, 7, -2]]
    assert episodes.metrics.dtype == np.float32
    tracker.append(rows([1], [FIRST], [0], [[5, 6, -9]]), 1)
    assert tracker.append(rows([1], [TERMINATED], [0], [[0, 1, -10]]), 1).metrics.tolist() == [[5, 1, -9]]


def test_metrics_of_the_last_training_episodes_are_averaged_by_name():
    tracker = EpisodeTracker(4, METRICS, window_episodes=2)
    assert tracker.metric_means == {}
    tracker.begin(np.array([2]), evaluation=True)
    for last in (10, 20, 40):
        tracker.append(rows([1, 2], [FIRST, FIRST], [0, 0], [[0, 0, 0]] * 2), 2)
        tracker.append(rows([1, 2], [TERMINATED, TERMINATED], [0, 0], [[1, last, last], [9, 9, 9]]), 2)
    assert [tracker.metric_means[metric.name] for metric in METRICS] == [1.0, 30.0, 30.0]


def test_episodes_of_one_batch_carry_their_slots():
    tracker = EpisodeTracker(6)
    tracker.append(rows([5, 0, 3], [FIRST] * 3, [0, 0, 0]), 3)
    tracker.append(rows([0, 3, 5], [0, 0, 0], [1, 2, 3]), 3)
    episodes = tracker.append(rows([3, 5, 0], [TERMINATED, FIRST, TRUNCATED], [10, 0, 20]), 3)
    assert dict(zip(episodes.slot.tolist(), episodes.episode_return.tolist(), strict=True)) == {5: 3, 3: 12, 0: 21}


def test_rows_behind_the_count_are_not_read():
    tracker = EpisodeTracker(4)
    tracker.append(rows([0, 1], [FIRST, FIRST], [0, 0]), 2)
    episodes = tracker.append(rows([0, 1], [TERMINATED, TERMINATED], [1, 1]), 1)
    assert episodes.slot.tolist() == [0]


def test_metrics_begin_with_those_of_the_first_row_wherever_that_stands_in_the_batch():
    tracker = EpisodeTracker(4, METRICS)
    tracker.append(rows([0, 1, 2], [0, FIRST, 0], [0, 0, 0], [[1, 1, 1], [2, 2, 2], [3, 3, 3]]), 3)
    ended = tracker.append(rows([1], [TERMINATED], [1], [[5, 1, 1]]), 1)
    assert ended.metrics.tolist() == [[7, 1, 2]]


def test_episodes_that_end_together_are_told_apart_by_their_roles():
    tracker = EpisodeTracker(4)
    tracker.begin(np.array([1]), evaluation=True)
    tracker.append(rows([0, 1], [FIRST, FIRST], [0, 0]), 2)
    tracker.append(rows([0, 1], [TERMINATED, TERMINATED], [3, 8]), 2)
    assert (tracker.return_mean, tracker.evaluation_return_mean, tracker.episodes) == (3, 8, 1)


def test_the_training_figure_is_the_mean_of_the_newest_episodes_without_those_of_evaluation():
    tracker = EpisodeTracker(4, window_episodes=3)
    assert math.isnan(tracker.return_mean) and math.isnan(tracker.evaluation_return_mean)
    tracker.begin(np.array([3]), evaluation=True)
    for value in (1, 2, 3, 4):
        play(tracker, 0, [FIRST, TERMINATED], [0, value])
    tracker.append(rows([3], [FIRST], [0]), 1)
    assert tracker.append(rows([3], [TERMINATED], [100]), 1).evaluation.tolist() == [True]
    assert (tracker.return_mean, tracker.window_count, tracker.episodes) == (3, 3, 4)
    assert tracker.evaluation_return_mean == 100
    play(tracker, 3, [FIRST, TERMINATED], [0, 50])
    assert tracker.evaluation_return_mean == 75


def test_the_longest_episode_that_goes_on_is_that_of_the_slots_asked_for():
    tracker = EpisodeTracker(4)
    play(tracker, 0, [FIRST, 0, 0, 0, TERMINATED], [0] * 5)
    play(tracker, 1, [FIRST, 0, 0], [0] * 3)
    play(tracker, 2, [FIRST, 0], [0] * 2)
    masks = [[slot in chosen for slot in range(5)] for chosen in ({0, 1, 2}, {0, 2}, {0}, set())]
    assert [tracker.longest_steps(np.array(mask)) for mask in masks] == [2, 1, 0, 0]


def test_a_flag_of_a_later_version_ends_nothing():
    assert play(EpisodeTracker(4), 0, [FIRST, 8, TERMINATED | 8], [0, 1, 2]) == [(3, 2)]


def test_an_episode_that_an_old_lease_left_unfinished_is_none():
    tracker = EpisodeTracker(4)
    play(tracker, 1, [FIRST, 0, 0], [0, 1, 1])
    tracker.begin(np.array([1]), evaluation=False)
    assert play(tracker, 1, [FIRST, TERMINATED], [0, 5]) == [(5, 1)]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0, 0, 0, 1, 2, 4]), st.integers(-5, 5)), min_size=1, max_size=60
    )
)
def test_batches_of_any_cut_give_the_episodes_of_single_rows(script):
    single, batched = EpisodeTracker(4), EpisodeTracker(4)
    expected, got = [], []
    pending: dict[int, tuple[int, int]] = {}

    def flush() -> None:
        columns = list(zip(*((slot, *row) for slot, row in pending.items()), strict=True))
        episodes = batched.append(rows(*columns), len(pending))
        got.extend(zip(episodes.slot, episodes.episode_return, episodes.length_steps, strict=True))
        pending.clear()

    begun: set[int] = set()
    for slot, flag, reward in script:
        flag = flag if slot in begun else 1
        begun.add(slot)
        if flag & FIRST:
            reward = 0
        episodes = single.append(rows([slot], [flag], [reward]), 1)
        expected.extend(zip(episodes.slot, episodes.episode_return, episodes.length_steps, strict=True))
        if slot in pending:
            flush()
        pending[slot] = (flag, reward)
    flush()
    assert sorted(got) == sorted(expected)
    assert [episode for episode in got if episode[0] == 0] == [episode for episode in expected if episode[0] == 0]


def test_the_window_mean_does_not_drift():
    tracker = EpisodeTracker(1)
    for _ in range(300):
        play(tracker, 0, [FIRST, TERMINATED], [0, 0.1])
    assert tracker.return_mean == pytest.approx(np.float32(0.1))
    assert tracker.window_count == 100


@pytest.mark.parametrize("slots", [[1, 2, 3], [3, 1, 2], [1, 3, 4], [2], []], ids=str)
def test_neighbours_and_scattered_slots_are_counted_alike(slots):
    tracker = EpisodeTracker(5, METRICS)
    values = [[slot, slot + 1, -slot] for slot in slots]
    kept = np.array(values, np.float32).reshape(-1, 3)
    for flag in (FIRST, 0, TERMINATED):
        episodes = tracker.append(rows(slots, [flag] * len(slots), slots, kept), len(slots))
    assert episodes.slot.tolist() == slots
    assert episodes.episode_return.tolist() == [2 * slot for slot in slots]
    assert episodes.length_steps.tolist() == [2] * len(slots)
    assert episodes.metrics.tolist() == [[3 * slot, slot + 1, -slot] for slot in slots]
