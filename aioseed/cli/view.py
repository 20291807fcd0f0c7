"""What a person sees while a run goes on: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import math
import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aioseed.host.config import RunConfig
from aioseed.host.events import Event, Listening, Progress, Ready, Saved, Trouble

PLAIN_EVERY_S = 5.0

log = logging.getLogger("aioseed.cli")


class RunView:
    """Show the events of a run (a context manager).

    Thread: `show` the event loop's; `say` and `warn` any.

    Args:
        quiet: Show nothing but warnings, and those on standard error: standard output belongs to ``--json``.
        console: Where to show it; None takes the terminal of standard output.
    """

    def __init__(self, config: RunConfig, *, quiet: bool = False, console: Console | None = None) -> None:
        self._config = config
        self._quiet = quiet
        self._console = console or Console()
        self._live: Live | None = None
        self._next_line_s = 0.0
        self._saved = ""

    def __enter__(self) -> RunView:
        if not self._quiet and self._console.is_terminal:
            waiting = Text("starting: JAX compiles what acts and what learns")
            self._live = Live(waiting, console=self._console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
            self._live = None

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Progress():
                self._progress(event)
            case Listening(urls):
                self.say(f"listening at {', '.join(urls)}")
            case Ready(startup_s, notes):
                for note in notes:
                    self.say(note)
                endless = self._config.training.total_steps is None and self._config.stop.return_mean is None
                until = " and goes on until Ctrl-C, since no end is set" if endless else ""
                self.say(f"ready after {startup_s:.1f} s; training begins{until}")
            case Saved(_, path):
                self._saved = f"saved {path}"
            case Trouble(message):
                self.warn(message)
            case _:
                return

    def say(self, line: str, *, always: bool = False) -> None:
        """Print one line, above the panel where there is one; when quiet only if `always`, and to standard error."""
        if self._live is not None:
            self._live.console.print(Text(line), soft_wrap=True)
        elif self._quiet and always:
            _write(sys.stderr, line)
        elif not self._quiet:
            _write(sys.stdout, line)

    def warn(self, line: str) -> None:
        """Print a line that nobody should miss: above the panel where there is one, else to standard error."""
        if self._live is not None:
            self._live.console.print(Text(line, style="yellow"), soft_wrap=True)
        else:
            _write(sys.stderr, line)

    def _progress(self, event: Progress) -> None:
        if self._live is not None:
            self._live.update(panel(event, self._config, self._saved))
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + PLAIN_EVERY_S
            self.say(plain_line(event, self._config))


def plain_line(event: Progress, config: RunConfig) -> str:
    """Return a report as one line."""
    share = "" if event.share_done is None else f" ({event.share_done:.0%}, {_time_left(event, config)})"
    parts = [
        f"{event.wall_s:6.0f} s",
        f"{event.trained_steps:,} steps{share}",
        f"{event.trained_steps_per_s:,.0f}/s",
        f"return {_number(event.return_mean)}",
        f"lag {event.policy_lag:.0f}",
        f"batch {_number(event.batch_rows, 0)}",
        f"dropped {_dropped(event)}",
        event.verdict,
    ]
    return " | ".join(parts)


def panel(event: Progress, config: RunConfig, note: str = "") -> Group:
    """Return a report as a panel of a few lines."""
    table = Table.grid(padding=(0, 2))
    for style in ("dim", "", "dim", ""):
        table.add_column(style=style)
    goal = f" of {config.stop.return_mean:g}" if config.stop.return_mean is not None else ""
    speed = f"{event.trained_steps_per_s:,.0f}/s trained, {event.env_steps_per_s:,.0f}/s stepped"
    environments = f"{event.environments:,} of {event.actors} actor{'' if event.actors == 1 else 's'}"
    fill = f"{_number(event.batch_rows, 0)} of {config.serving.max_batch_rows} rows"
    table.add_row("trained steps", f"{event.trained_steps:,}", "speed", speed)
    table.add_row("return", f"{_number(event.return_mean)}{goal}", "episodes", f"{event.episodes:,}")
    table.add_row("policy lag", f"{event.policy_lag:.0f} updates", "batch fill", fill)
    table.add_row("environments", environments, "dropped", _dropped(event))
    lines: list[Text | Table] = [_bar(event, config), table, Text(event.verdict, style="bold")]
    if note:
        lines.append(Text(note, style="dim"))
    return Group(*lines)


def _bar(event: Progress, config: RunConfig) -> Table:
    row = Table.grid(padding=(0, 2))
    share, goal = event.share_done, config.stop.return_mean
    if share is not None:
        row.add_row(f"{event.wall_s:,.0f} s", _progress_bar(share), f"{share:.0%}, {_time_left(event, config)}")
    elif goal is not None and goal > 0:
        reached = 0.0 if math.isnan(event.return_mean) else min(max(event.return_mean / goal, 0.0), 1.0)
        row.add_row(f"{event.wall_s:,.0f} s", _progress_bar(reached), f"{reached:.0%} of the return that ends the run")
    else:
        row.add_row(f"{event.wall_s:,.0f} s", ProgressBar(total=None, width=40, pulse=True), "until it is stopped")
    return row


def _progress_bar(share: float) -> ProgressBar:
    return ProgressBar(total=1.0, completed=share, width=40)


def _time_left(event: Progress, config: RunConfig) -> str:
    total = config.training.total_steps or 0
    if event.trained_steps_per_s <= 0:
        return "waiting"
    seconds = max(0, round((total - event.trained_steps) / event.trained_steps_per_s))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min left"
    return f"{minutes} min {seconds % 60} s left" if minutes else f"{seconds} s left"


def _dropped(event: Progress) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in event.dropped.items()) or "0"


def _number(value: float, digits: int = 1) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _write(stream: TextIO, line: str) -> None:
    try:
        stream.write(f"{line}\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # Output into a file on a full disk: a run does not end for the sake of a line.
        log.warning("a line could not be shown: %s", error.strerror)
