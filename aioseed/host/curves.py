"""Learning curves as one picture; matplotlib is loaded only here, and only when a picture is drawn."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path

from aioseed.errors import PluginError, RunDirectoryError
from aioseed.host.suite_report import SuiteReport, TaskResult

_COLUMNS = 4


def draw_curves(report: SuiteReport, path: Path) -> None:
    """Draw the score of every task that has one over environment steps, with random and human score, as a PNG.

    Raises:
        PluginError: matplotlib is not installed; names the extra that brings it.
        RunDirectoryError: The file cannot be written.
    """
    try:
        figures = import_module("matplotlib.figure")
    except ImportError as error:
        message = f'the curves are drawn with matplotlib, which is not there ({error}): pip install "aioseed[plots]"'
        raise PluginError(message, name="matplotlib", extra="plots") from error
    shown = [result for result in report.results if result.curve.scores]
    columns = min(_COLUMNS, max(1, len(shown)))
    rows = max(1, math.ceil(len(shown) / columns))
    # A figure of its own, without pyplot: nothing looks for a display.
    figure = figures.Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    for axes, result in zip(figure.subplots(rows, columns, squeeze=False).flat, shown, strict=False):
        _draw(axes, result)
    for axes in figure.axes[len(shown) :]:
        axes.set_axis_off()
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror}", path=str(path)) from error


def _draw(axes: object, result: TaskResult) -> None:
    axes.plot(result.curve.steps, result.curve.scores, linewidth=1.2)  # type: ignore[attr-defined]
    axes.axhline(result.task.random_score, color="0.6", linestyle=":")  # type: ignore[attr-defined]
    axes.axhline(result.task.human_score, color="0.6", linestyle="--")  # type: ignore[attr-defined]
    axes.set_title(result.task.name, fontsize=9)  # type: ignore[attr-defined]
    axes.set_xlabel("environment steps", fontsize=8)  # type: ignore[attr-defined]
