"""Draw the mean return over environment steps of one or several runs.

::

    python docs/draw_curve.py TITLE PICTURE RUN_DIR [RUN_DIR ...]

It needs the dependency group ``pictures``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure


def draw(title: str, picture: Path, runs: list[Path]) -> None:
    """Write the picture, of whatever kind the ending of `picture` says."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        steps, returns = curve(run)
        axes.plot(steps, returns, linewidth=1.2, label=run.name)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("mean return of the last episodes")
    axes.grid(alpha=0.3)
    if len(runs) > 1:
        axes.legend()
    figure.savefig(picture, dpi=110)


def curve(run: Path) -> tuple[list[float], list[float]]:
    """Return environment steps and mean returns of a run, from the first finished episode on."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    points = [(line["run/env_steps"], line["run/return_mean"]) for line in lines if line.get("run/episodes")]
    return [float(steps) for steps, _ in points], [float(mean) for _, mean in points]


if __name__ == "__main__":
    draw(sys.argv[1], Path(sys.argv[2]), [Path(word) for word in sys.argv[3:]])
