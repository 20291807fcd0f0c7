"""What `train` and `learner` say at the end: one JSON object for programs, a few lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aioseed.cli.common import command_line
from aioseed.host.config import RunConfig
from aioseed.host.events import Finished

_TOTAL_STEPS = "training.total_steps="


def as_json(finished: Finished, total_s: float) -> dict[str, object]:
    """Return what ``--json`` prints; every command that trains prints the same fields.

    Args:
        total_s: Seconds since the command began.
    """
    return {
        "env_steps": finished.env_steps,
        "trained_steps": finished.trained_steps,
        "dropped": finished.dropped,
        "env_steps_per_s": round(finished.env_steps_per_s, 1),
        "trained_steps_per_s": round(finished.trained_steps_per_s, 1),
        "return_mean_100": finished.return_mean_100,
        "solved": finished.solved,
        "wall_s": round(finished.wall_s, 3),
        "total_s": round(total_s, 3),
        "run_dir": finished.run_dir,
        "params_sha256": finished.params_sha256,
        "reason": finished.reason,
        "ledger_imbalance": finished.imbalance,
    }


class Spoken(NamedTuple):
    """Hold what of a command its successors repeat."""

    command: str  # train or learner
    said: Sequence[str]  # all of its words
    preset: str
    overrides: Sequence[str]
    shared: Sequence[object] = ()  # flags that train and learner both have
    own: Sequence[object] = ()  # flags that only this command has: where a learner listens and who may come
    elsewhere: bool = False  # whether the environments may be such as this machine cannot make

    def anew(self) -> str:
        """Return the command as it was said."""
        return command_line(self.command, *self.said)

    def again(self, *more: object) -> str:
        """Return the command for another run, or with `more` words to go on with this one."""
        return command_line(self.command, self.preset, *self.own, *self.shared, *more, *self.overrides)


def farewell(finished: Finished, config: RunConfig, spoken: Spoken, total_s: float) -> str:
    """Return what a person is told at the end, with commands to try next that work when they are copied.

    Args:
        total_s: Seconds since the command began.
    """
    if not finished.saved:
        said = ["", "Stopped before training began; nothing was there to save."]
        commands = [spoken.anew()]
    else:
        said = _reached(finished, total_s)
        commands = _next(finished, config, spoken)
    return "\n".join([*said, "", "Next:", *(f"  {command}" for command in commands), "", ""])


def _reached(finished: Finished, total_s: float) -> list[str]:
    how = {"solved": "Solved", "total_steps": "Trained all steps", "stopped": "Stopped and saved"}[finished.reason]
    if finished.reason == "total_steps" and finished.dropped.get("nonfinite_update"):
        how = "Took all steps, and skipped updates that were not finite"
    result = "no episode has ended yet"
    if finished.return_mean_100 == finished.return_mean_100:
        of = f"{finished.return_episodes:,} episodes" if finished.return_episodes > 1 else "episode"
        result = f"mean return {finished.return_mean_100:.1f} over the last {of}"
    parts = [f"{finished.trained_steps:,} trained", *(f"{n:,} dropped ({why})" for why, n in finished.dropped.items())]
    if finished.evaluated_steps:
        parts.append(f"{finished.evaluated_steps:,} evaluated")
    if finished.held_steps:
        parts.append(f"{finished.held_steps:,} held")
    speed = f"{finished.trained_steps_per_s:,.0f} steps/s"
    return [
        "",
        f"{how}: {result}.",
        f"  {speed} for {finished.wall_s:.1f} s of training, {total_s:.1f} s in all",
        f"  {finished.env_steps:,} steps accepted = {' + '.join(parts)}",
        f"  run directory: {finished.run_dir}",
    ]


def _next(finished: Finished, config: RunConfig, spoken: Spoken) -> list[str]:
    listens = spoken.own if spoken.elsewhere else ()  # for actors that can make the environments
    evaluate = command_line("evaluate", finished.run_dir, "--episodes", 100, "--greedy", *listens)
    train = spoken if spoken.command == "train" else spoken._replace(command="train", own=())
    listening = ("--listen", "ws://127.0.0.1:8700")
    learner = spoken if spoken.command == "learner" else spoken._replace(command="learner", own=listening)
    if finished.reason == "solved":
        other = "websocket" if config.transport.name == "grpc" else "grpc"
        trained = [] if spoken.elsewhere else [train._replace(own=("--transport", other)).again()]
        return [evaluate, *trained, learner.again()]
    longer, more = spoken, ["--resume", finished.run_dir]
    if config.training.total_steps is not None:
        more += ["--steps", str(2 * config.training.total_steps)]
        # Both beside one another would be a riddle, though the flag wins.
        longer = spoken._replace(overrides=[word for word in spoken.overrides if not word.startswith(_TOTAL_STEPS)])
    go_on = longer.again(*more)
    if spoken.elsewhere:
        return [go_on, evaluate]
    return [go_on, evaluate, train.again() if spoken.command == "learner" else learner.again()]
