"""What a learner tells whoever embeds it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Listening(NamedTuple):
    """Report that actors may connect; they wait until `Ready`."""

    urls: tuple[str, ...]


class Ready(NamedTuple):
    """Report that everything is compiled and actors are welcomed."""

    startup_s: float


class Progress(NamedTuple):
    """Report where a run stands. Rates are over the time since the report before."""

    env_steps: int  # transitions accepted
    trained_steps: int  # transitions consumed by training
    evaluated_steps: int
    held_steps: int
    dropped: dict[str, int]  # by reason
    lost_after_checkpoint: int
    env_steps_per_s: float
    trained_steps_per_s: float
    return_mean: float  # of the last 100 training episodes; NaN before the first
    episodes: int
    policy_lag: float  # optimiser steps, median
    batch_rows: float  # environments an inference batch served, median
    action_latency_ms: float  # median
    environments: int  # leased now
    actors: int
    policy_version: int
    wall_s: float  # since training began
    share_done: float | None  # of training.total_steps, or of stop.return_mean
    verdict: str
    metrics: dict[str, float]  # of the newest update


class Saved(NamedTuple):
    """Report a checkpoint that was written and verified."""

    version: int
    path: str


class Trouble(NamedTuple):
    """Report something that the run survived and a user should know."""

    message: str


class Finished(NamedTuple):
    """Report the end of a run."""

    reason: str  # solved, total_steps, stopped
    env_steps: int
    trained_steps: int
    dropped: dict[str, int]
    held_steps: int
    imbalance: int
    return_mean_100: float
    solved: bool
    wall_s: float
    run_dir: str
    params_sha256: str


Event: TypeAlias = Listening | Ready | Progress | Saved | Trouble | Finished
