"""How long a command takes to its first update and to a solved task, with an empty compilation cache and a full one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from aioseed.errors import AioseedError


async def measure_startup(preset: str, repeats: int) -> dict[str, object]:
    """Run ``aioseed train`` to its end, once with an empty cache and `repeats` times with the one that it left.

    Safe to cancel: the run that is under way ends with its standard streams.

    Raises:
        AioseedError: A run failed; the message is its own.
    """
    with tempfile.TemporaryDirectory(prefix="aioseed-bench-") as folder:
        cold = await asyncio.to_thread(_run, preset, Path(folder), 0)
        warm = [await asyncio.to_thread(_run, preset, Path(folder), index + 1) for index in range(repeats)]
    medians = {name: round(float(np.median([run[name] for run in warm])), 3) for name in cold}
    return {"preset": preset, "repeats": repeats, "cold": cold, "warm": medians}


def _run(preset: str, folder: Path, index: int) -> dict[str, float]:
    """Return seconds: to the start of training, of training, and from the start of the process to its end."""
    began_s = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "aioseed",
            "train",
            preset,
            "--json",
            "--run-dir",
            str(folder / f"run-{index}"),
        ],
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    whole_s = time.monotonic() - began_s
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()
        raise AioseedError(said[-1] if said else f"aioseed train ended with code {done.returncode}")
    report = json.loads(lines[-1])
    wall_s = float(report["wall_s"])
    return {
        "startup_s": round(float(report["total_s"]) - wall_s, 3),
        "training_s": round(wall_s, 3),
        "whole_s": round(whole_s, 3),
    }
