"""What a person sees while a run goes on: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aioseed.host.config import RunConfig
from aioseed.host.events import Event, Finished, Listening, Progress, Ready, Saved, Trouble

_PLAIN_EVERY_S = 5.0


class RunView:
    """Show the events of a run (a context manager; thread: the event loop alone).

    Args:
        quiet: Show nothing but troubles: standard output belongs to ``--json``.
    """

    def __init__(self, config: RunConfig, *, quiet: bool = False) -> None:
        self._config = config
        self._quiet = quiet
        self._console = Console(stderr=quiet)
        self._live: Live | None = None
        self._next_line_s = 0.0
        self._notes: list[str] = []

    def __enter__(self) -> RunView:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(Text("starting"), console=self._console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Trouble):
            self.say(event.message, always=True)
        elif isinstance(event, Saved):
            self._notes = [f"saved {event.path}"]
        elif isinstance(event, Ready):
            self.say(f"compiled in {event.startup_s:.1f} s")
        elif isinstance(event, Listening):
            self.say(f"listening at {', '.join(event.urls)}")
        elif isinstance(event, Finished):
            self.say(f"{event.reason} after {event.wall_s:.1f} s of training")

    def say(self, line: str, *, always: bool = False) -> None:
        """Print one line above the panel; when quiet only if `always`, and to standard error."""
        if self._live is not None:
            self._live.console.print(line, highlight=False, soft_wrap=True)
        elif always and self._quiet:
            sys.stderr.write(line + "\n")
        elif not self._quiet:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def _progress(self, event: Progress) -> None:
        if self._live is not None:
            self._live.update(self._panel(event))
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + _PLAIN_EVERY_S
            dropped = sum(event.dropped.values())
            self.say(
                f"{event.wall_s:7.1f} s  {event.trained_steps:>11,} steps  {event.trained_steps_per_s:>9,.0f}/s  "
                f"return {_number(event.return_mean)}  lag {event.policy_lag:.0f}  dropped {dropped}  {event.verdict}"
            )

    def _panel(self, event: Progress) -> Group:
        table = Table.grid(padding=(0, 2))
        for _ in range(4):
            table.add_column()
        rate = f"{event.trained_steps_per_s:,.0f}/s"
        table.add_row(
            "trained steps",
            f"{event.trained_steps:,}",
            "speed",
            f"{rate} trained, {event.env_steps_per_s:,.0f}/s stepped",
        )
        goal = self._config.stop.return_mean
        wanted = f" of {goal:g} wanted" if goal is not None else ""
        table.add_row("episode return", f"{_number(event.return_mean)}{wanted}", "episodes", f"{event.episodes:,}")
        table.add_row("policy lag", f"{event.policy_lag:.0f} updates", "batch fill", f"{event.batch_rows:.0f} rows")
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in event.dropped.items()) or "none"
        table.add_row("environments", f"{event.environments:,} of {event.actors} actors", "dropped steps", dropped)
        parts: list[Text | Table] = [table, Text(event.verdict, style="bold")]
        parts += [Text(note, style="dim") for note in self._notes]
        return Group(self._bar(event), *parts)

    def _bar(self, event: Progress) -> Table:
        row = Table.grid(padding=(0, 2))
        share = event.share_done
        if share is None:
            row.add_row(
                f"{event.wall_s:,.0f} s",
                ProgressBar(total=None, width=40, pulse=True),
                "until stopped" if self._config.stop.return_mean is None else "until solved",
            )
            return row
        total = self._config.training.total_steps or 0
        left = (total - event.trained_steps) / event.trained_steps_per_s if event.trained_steps_per_s > 0 else math.inf
        eta = f"{left:,.0f} s left" if math.isfinite(left) else "waiting"
        row.add_row(f"{share:4.0%}", ProgressBar(total=1.0, completed=share, width=40), eta)
        return row


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
