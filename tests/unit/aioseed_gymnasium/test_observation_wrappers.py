"""Observations made fit to be sent and learned from: MiniGrid's without its text, screens small and grey."""

from __future__ import annotations

import numpy as np
import pytest
from aioseed_gymnasium import plugin
from aioseed_gymnasium.observation_wrappers import DropMission, OneHotGrid, Screen
from gymnasium import spaces

from aioseed.errors import ConfigError, SpaceError

GRID = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (2, 2, 3), np.uint8),
        "direction": spaces.Discrete(4),
        "mission": spaces.Text(20),
    }
)
SEEN = {"image": np.array([[[2, 5, 0], [5, 1, 2]], [[0, 0, 0], [10, 0, 3]]], np.uint8), "direction": 3, "mission": "go"}
ONE = spaces.Discrete(2)


def observed(wrapped):
    observation, _ = wrapped.reset()
    assert wrapped.observation_space.contains(observation)
    np.testing.assert_equal(wrapped.step(0)[0], observation)
    return observation


def test_the_mission_is_dropped_and_all_else_stays(constant):
    observation = observed(DropMission(constant(GRID, SEEN, ONE)))
    assert sorted(observation) == ["direction", "image"]
    assert observation["image"] is SEEN["image"] and observation["direction"] == 3


def test_a_grid_becomes_planes_of_kind_colour_and_state(constant):
    observation = observed(OneHotGrid(constant(GRID, SEEN, ONE)))
    assert observation["mission"] == "go"
    np.testing.assert_array_equal(observation["direction"], [0, 0, 0, 1])
    planes = observation["image"]
    assert planes.shape == (2, 2, 21) and planes.dtype == np.int8
    for row in range(2):
        for column in range(2):
            kind, colour, state = (int(index) for index in SEEN["image"][row, column])
            assert np.flatnonzero(planes[row, column]).tolist() == [kind, 11 + colour, 17 + state]


def test_a_grid_without_a_direction_is_taken(constant):
    space, seen = spaces.Dict({"image": GRID["image"]}), {"image": SEEN["image"]}
    assert sorted(observed(OneHotGrid(constant(space, seen, ONE)))) == ["image"]


@pytest.mark.parametrize(
    ("wrapper", "space", "sentence"),
    [
        (DropMission, ONE, "^drop_mission takes a Dict with the key mission"),
        (DropMission, spaces.Dict({"image": ONE}), "^drop_mission takes a Dict with the key mission"),
        (OneHotGrid, ONE, "^one_hot_grid takes a Dict with the key image"),
        (OneHotGrid, spaces.Dict({"image": ONE}), r"^one_hot_grid takes an image of uint8\[height, width, 3\]"),
        (Screen, ONE, "^screen takes a picture"),
        (Screen, spaces.Dict({"camera": ONE}), "^screen takes a Dict with the key screen"),
        (Screen, spaces.Box(0, 1, (90, 90, 3), np.float32), "^screen takes a picture"),
        (
            Screen,
            spaces.Box(0, 255, (50, 90, 3), np.uint8),
            "^screen makes a picture smaller: 60 x 80 is not within 50",
        ),
    ],
)
def test_another_observation_is_refused(constant, wrapper, space, sentence):
    with pytest.raises(SpaceError, match=sentence):
        wrapper(constant(space, space.sample(), ONE))


def literal_means(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Average each block of whole pixels in plain loops; float64[height, width]."""
    rows, columns = picture.shape
    means = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            top, bottom = i * rows // height, (i + 1) * rows // height
            left, right = j * columns // width, (j + 1) * columns // width
            means[i, j] = picture[top:bottom, left:right].mean()
    return means


@pytest.mark.parametrize(("height", "width"), [(6, 8), (5, 7), (12, 16), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("grey", [True, False])
def test_each_pixel_of_a_small_screen_is_the_mean_of_its_block(constant, height, width, channels, grey):
    picture = np.random.default_rng(1).integers(0, 256, (12, 16, channels), np.uint8)
    space = spaces.Dict({"screen": spaces.Box(0, 255, picture.shape, np.uint8), "ammo": ONE})
    small = observed(Screen(constant(space, {"screen": picture, "ammo": 1}, ONE), height, width, grey))
    planes = [picture[..., channel].astype(float) for channel in range(channels)]
    if grey and channels == 3:
        planes = [0.299 * planes[0] + 0.587 * planes[1] + 0.114 * planes[2]]
    assert small.shape == (height, width, len(planes))
    for channel, plane in enumerate(planes):
        # Half a step of rounding, and brightness in 256ths.
        assert np.abs(small[..., channel] - literal_means(plane, height, width)).max() <= 0.5 + 255 * 4e-3


def test_white_stays_white_and_black_black(constant):
    for level in (0, 255):
        picture = np.full((240, 320, 3), level, np.uint8)
        env = constant(spaces.Box(0, 255, picture.shape, np.uint8), picture, ONE)
        assert (observed(Screen(env, 64, 64)) == level).all()


def test_a_wrapper_for_single_environments_says_so():
    with pytest.raises(
        ConfigError, match=r"wrappers\.0\.name is screen, which wraps single .* set .*vectorized=false$"
    ):
        plugin.make("CartPole-v1", {"vectorized": True, "wrappers": [{"name": "screen"}]}, 1)


def test_a_wrapper_that_is_no_function_says_so(local_module):
    local_module("no_wrapper_at_all", "wrapper = 3\n")
    with pytest.raises(
        ConfigError, match=r"wrappers\.0\.name is no_wrapper_at_all:wrapper, which is no class and no fun"
    ):
        plugin.make("CartPole-v1", {"wrappers": [{"name": "no_wrapper_at_all:wrapper"}]}, 1)
