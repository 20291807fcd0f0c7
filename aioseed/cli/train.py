"""``aioseed train``: a learner and its local actors in one command."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aioseed.cli.common import (
    Parser,
    add_overrides,
    guarded,
    log_to,
    print_json,
    run_until_interrupted,
    split_overrides,
)
from aioseed.cli.view import RunView
from aioseed.errors import UsageError
from aioseed.host.config import RunConfig, load_config
from aioseed.host.events import Finished
from aioseed.host.rundir import Resume, new_run_path
from aioseed.host.train import train


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    began_s = time.monotonic()
    return guarded("train", lambda: _train(argv, began_s))


def parser() -> Parser:
    """Return the parser of the command."""
    words = Parser(prog="aioseed train", description="Train with local actor processes until the run is over.")
    words.add_argument(
        "config", metavar="PRESET-or-FILE", help="see `aioseed presets`; YAML, TOML and JSON files work too"
    )
    add_overrides(words)
    words.add_argument("--transport", help="how actors reach the learner: websocket, grpc or memory")
    words.add_argument("--run-dir", type=Path, help="where the run lives (default: a new folder under runs/)")
    words.add_argument("--seed", type=int)
    words.add_argument("--steps", type=int, help="end after this many trained environment steps")
    words.add_argument(
        "--resume",
        metavar="RUN_DIR|auto",
        help="go on with a run; auto goes on with --run-dir, or begins one there if it holds none",
    )
    words.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return words


def _train(argv: Sequence[str], began_s: float) -> int:
    words = parser().parse_intermixed_args(argv)
    overrides = split_overrides(words.overrides)
    for path, value in (
        ("transport.name", words.transport),
        ("seed", words.seed),
        ("training.total_steps", words.steps),
    ):
        if value is not None:
            overrides.append(f"{path}={value}")
    config = load_config(words.config, overrides)
    run_dir, resume = where(words.run_dir, words.resume, Path(words.config).stem)
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_to(run_dir / "learner.log")
    with RunView(config, quiet=words.json) as view:
        finished = run_until_interrupted(
            lambda stop: train(config, run_dir=run_dir, resume=resume, stop=stop, on_event=view.show)
        )
    total_s = time.monotonic() - began_s
    if words.json:
        print_json(as_json(finished, total_s))
    else:
        sys.stdout.write(farewell(finished, config, words.config, total_s))
    return 0


def where(run_dir: Path | None, resume: str | None, name: str) -> tuple[Path, Resume]:
    """Return the run directory and how to open it, from the words --run-dir and --resume."""
    if resume is None:
        return run_dir or new_run_path(name), "never"
    if resume == "auto":
        if run_dir is None:
            raise UsageError("--resume auto goes on with the run in --run-dir, so name that")
        return run_dir, "auto"
    if run_dir is not None and run_dir.resolve() != Path(resume).resolve():
        raise UsageError("--resume names a run directory already; leave --run-dir away")
    return Path(resume), "require"


def as_json(finished: Finished, total_s: float) -> dict[str, object]:
    """Return what --json prints."""
    wall_s = max(finished.wall_s, 1e-9)
    return {
        "env_steps": finished.env_steps,
        "trained_steps": finished.trained_steps,
        "dropped": finished.dropped,
        "env_steps_per_s": round(finished.env_steps / wall_s, 1),
        "trained_steps_per_s": round(finished.trained_steps / wall_s, 1),
        "return_mean_100": finished.return_mean_100,
        "solved": finished.solved,
        "wall_s": round(finished.wall_s, 3),
        "total_s": round(total_s, 3),
        "run_dir": finished.run_dir,
        "params_sha256": finished.params_sha256,
        "reason": finished.reason,
        "ledger_imbalance": finished.imbalance,
    }


def farewell(finished: Finished, config: RunConfig, preset: str, total_s: float) -> str:
    """Return what a person is told at the end, with three commands to try next."""
    wall_s = max(finished.wall_s, 1e-9)
    how = {"solved": "Solved", "total_steps": "Trained all steps", "stopped": "Stopped and saved"}[finished.reason]
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in finished.dropped.items()) or "none"
    trained = f"{finished.trained_steps:,} steps trained in {finished.wall_s:.1f} s"
    lines = [
        "",
        f"{how}: mean return {finished.return_mean_100:.1f} over the last {config.stop.episodes} episodes.",
        f"  {trained} ({finished.trained_steps / wall_s:,.0f}/s), {total_s:.1f} s in all",
        f"  {finished.env_steps:,} steps accepted = {finished.trained_steps:,} trained + dropped ({dropped})",
        f"  run directory: {finished.run_dir}",
        "",
        "Next:",
        f"  aioseed evaluate {finished.run_dir} --episodes 100 --greedy",
        f"  aioseed train {preset} --transport grpc",
        f"  aioseed learner {preset} --listen ws://127.0.0.1:8700",
        "",
    ]
    return "\n".join(lines)
