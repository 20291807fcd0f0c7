"""The thirty levels of DMLab-30, with what random and human players score, and the suite that they make."""

from __future__ import annotations

from aioseed.suites import Suite, SuiteTask

LEVELS: dict[str, tuple[float, float]] = {
    "rooms_collect_good_objects_train": (0.073, 10.0),
    "rooms_exploit_deferred_effects_train": (8.501, 85.65),
    "rooms_select_nonmatching_object": (0.312, 65.9),
    "rooms_watermaze": (4.065, 54.0),
    "rooms_keys_doors_puzzle": (4.135, 53.8),
    "language_select_described_object": (-0.07, 389.5),
    "language_select_located_object": (1.929, 280.7),
    "language_execute_random_task": (-5.913, 254.05),
    "language_answer_quantitative_question": (-0.33, 184.5),
    "lasertag_one_opponent_small": (-0.224, 12.65),
    "lasertag_three_opponents_small": (-0.214, 18.55),
    "lasertag_one_opponent_large": (-0.083, 18.6),
    "lasertag_three_opponents_large": (-0.102, 31.5),
    "natlab_fixed_large_map": (2.173, 36.9),
    "natlab_varying_map_regrowth": (2.989, 24.45),
    "natlab_varying_map_randomized": (7.346, 42.35),
    "skymaze_irreversible_path_hard": (0.1, 100.0),
    "skymaze_irreversible_path_varied": (14.4, 100.0),
    "psychlab_arbitrary_visuomotor_mapping": (0.163, 58.75),
    "psychlab_continuous_recognition": (0.224, 58.3),
    "psychlab_sequential_comparison": (0.129, 39.5),
    "psychlab_visual_search": (0.085, 78.5),
    "explore_object_locations_small": (3.575, 74.45),
    "explore_object_locations_large": (4.673, 65.65),
    "explore_obstructed_goals_small": (6.76, 206.0),
    "explore_obstructed_goals_large": (2.61, 119.5),
    "explore_goal_locations_small": (7.66, 267.5),
    "explore_goal_locations_large": (3.14, 194.5),
    "explore_object_rewards_few": (2.073, 77.7),
    "explore_object_rewards_many": (2.438, 106.7),
}
"""Random and human score of each level, as published with IMPALA (Espeholt et al. 2018, arXiv:1802.01561).

The names are those that are trained on; two levels are scored on a variant of their own, see `scored_level`.
"""

_FOLDER = "contributed/dmlab30"
_TUNED: dict[str, tuple[str, ...]] = {
    "explore_goal_locations_small": ("9.705614902108625e-4", "0.95", "2.2587896096859582e-4", "3.125e-9"),
    "lasertag_three_opponents_small": ("1.3043623417080615e-3", "0.9", "3.98313170083425e-4", "3.125e-11"),
    "rooms_keys_doors_puzzle": ("0.002", "0.922", "1.0e-4", "3.125e-11"),
    "rooms_watermaze": ("1.0e-5", "0.99", "1.0e-4", "1.0e-3"),
}
"""Entropy cost, lambda, learning rate and Adam's epsilon of the levels for which SEED RL published them."""
_TUNED_PATHS = ("agent.entropy_cost", "agent.lambda_", "training.optimizer.learning_rate", "training.optimizer.epsilon")


def scored_level(name: str) -> str:
    """Return the level on which one that was trained on `name` is scored."""
    if name.endswith("_train"):
        return name.removesuffix("_train") + "_test"
    return name


def level_path(name: str, *, test: bool) -> str:
    """Return the path by which the engine knows a level; a name with slashes is such a path already."""
    if "/" in name:
        return name
    return f"{_FOLDER}/{scored_level(name) if test else name}"


def _task(name: str) -> SuiteTask:
    random_score, human_score = LEVELS[name]
    tuned = [f"{path}={value}" for path, value in zip(_TUNED_PATHS, _TUNED.get(name, ()), strict=False)]
    return SuiteTask(name, (f"environment.name={name}", *tuned), random_score, human_score)


dmlab30 = Suite("dmlab30", tuple(_task(name) for name in LEVELS), "run/return_mean", capped=True)
"""DMLab-30: the mean of its human-normalised scores counts each at most as human."""
