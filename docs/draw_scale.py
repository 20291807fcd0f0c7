"""Draw throughput and p99 latency against connections and environments from what two measurements printed.

::

    aioseed bench connections --json > connections.json
    aioseed bench environments --json > environments.json
    python docs/draw_scale.py connections.json environments.json docs/topics/scale.svg

It needs the dependency group ``pictures``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter


def draw(connections: dict[str, Any], environments: dict[str, Any], target: Path) -> None:
    """Write the picture, of whatever kind the ending of `target` says."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col")
    for column, (axis, rows) in enumerate(
        (("sessions", connections["connections"]), ("environments", environments["environments"]))
    ):
        _plot(axes[0][column], axis, rows)
        axes[1][column].set_xlabel("connections" if axis == "sessions" else axis)
        _plot_latency(axes[1][column], axis, rows)
    axes[0][0].set_ylabel("steps a second")
    axes[1][0].set_ylabel("p99 action latency (ms)")
    axes[0][0].legend()
    machine = connections["machine"]
    figure.suptitle(f"{machine['cpu']}, {machine['cores']} cores", fontsize=9)
    figure.savefig(target)


def _plot(axes: Axes, axis: str, rows: list[dict[str, Any]]) -> None:
    for name, label in (("echo_steps_per_s", "bare echo"), ("steps_per_s", "aioseed")):
        axes.loglog([row[axis] for row in rows], [row[name] for row in rows], marker="o", label=label)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    _tick(axes, axis, rows)


def _plot_latency(axes: Axes, axis: str, rows: list[dict[str, Any]]) -> None:
    for name in ("echo_latency_ms", "action_latency_ms"):
        axes.loglog([row[axis] for row in rows], [row[name]["p99"] for row in rows], marker="o")
    axes.yaxis.set_major_formatter("{x:g}")
    _tick(axes, axis, rows)


def _tick(axes: Axes, axis: str, rows: list[dict[str, Any]]) -> None:
    """Mark what was measured, and 1, 2 and 5 of each power of ten, in numbers as people write them."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([row[axis] for row in rows], [f"{row[axis]:,}" for row in rows])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=axes.get_ylim()[0] / 1.2)
    axes.minorticks_off()
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    first, second, picture = (Path(word) for word in sys.argv[1:])
    draw(json.loads(first.read_text()), json.loads(second.read_text()), picture)
