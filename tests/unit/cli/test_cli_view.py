from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from aioseed.cli.view import RunView, panel, plain_line
from aioseed.host.config import load_config
from aioseed.host.events import Listening, Progress, Ready, Saved, Trouble
from aioseed.telemetry.verdict import RunShares

PROGRESS = Progress(
    env_steps=61_000,
    trained_steps=60_000,
    evaluated_steps=0,
    held_steps=900,
    replay_steps=0,
    dropped={"lease_ended": 60, "shutdown": 40},
    lost_after_checkpoint=0,
    env_steps_per_s=12_000.0,
    trained_steps_per_s=10_000.0,
    return_mean=118.75,
    evaluation_return_mean=math.nan,
    episodes=321,
    policy_lag=1.0,
    batch_rows=64.0,
    action_latency_ms=1.5,
    environments=128,
    actors=2,
    policy_version=60,
    wall_s=6.0,
    share_done=None,
    verdict="learner-bound: 92 % busy; actors wait 40 ms",
    shares=RunShares(128, 0.92, 0.3, 0.0, 0.2, 1.5, 10.7, 0.3, 0.5),
    metrics={},
)


@pytest.fixture(scope="module")
def config():
    return load_config("cartpole")


def limited(config, steps=120_000):
    return config.model_copy(update={"training": config.training.model_copy(update={"total_steps": steps})})


def drawn(renderable, width=100):
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(renderable)
    return console.file.getvalue()


def test_the_panel_shows_what_a_user_asks_for(config):
    text = drawn(panel(PROGRESS, config, "saved runs/x/checkpoints/000000000060"))
    for shown in (
        "60,000", "10,000/s trained, 12,000/s stepped", "118.8 of 485", "321", "1 updates", "64 of 128 rows",
        "128 of 2 actors", "60 lease_ended, 40 shutdown", PROGRESS.verdict, "24% of the return that ends the run",
        "saved runs/x",
    ):  # fmt: skip
        assert shown in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_run_with_a_number_of_steps_shows_when_it_ends(config):
    text = drawn(panel(PROGRESS._replace(share_done=0.5), limited(config)))
    assert "50%, 6 s left" in text
    slow = PROGRESS._replace(share_done=0.5, trained_steps_per_s=5.0)
    assert "50%, 3 h 20 min left" in drawn(panel(slow, limited(config)))
    assert "50%, waiting" in drawn(panel(slow._replace(trained_steps_per_s=0.0), limited(config)))


def test_before_the_first_episode_there_is_no_return(config):
    assert "- of 485" in drawn(panel(PROGRESS._replace(return_mean=math.nan), config))


def test_before_the_first_batch_it_has_no_size(config):
    waiting = PROGRESS._replace(batch_rows=math.nan)
    assert "- of 128 rows" in drawn(panel(waiting, config)) and "| batch - |" in plain_line(waiting, config)


def test_a_plain_line_has_it_all_in_one(config):
    line = plain_line(PROGRESS._replace(share_done=0.5), limited(config))
    assert line.split(" | ") == [
        "     6 s", "60,000 steps (50%, 6 s left)", "10,000/s", "return 118.8", "lag 1", "batch 64",
        "dropped 60 lease_ended, 40 shutdown", PROGRESS.verdict,
    ]  # fmt: skip


EVENTS = [
    Listening(("ws://a:1",)),
    Ready(1.5, ("replay: 3 KiB",)),
    PROGRESS,
    PROGRESS,
    Saved(3, "x"),
    Trouble("an actor died"),
]


def test_without_a_terminal_there_are_lines_and_progress_now_and_then(config, capsys):
    with RunView(config, console=Console(file=io.StringIO())) as view:
        for event in EVENTS:
            view.show(event)
    out, err = capsys.readouterr()
    assert [line[:9] for line in out.splitlines()] == ["listening", "replay: 3", "ready aft", "     6 s |"[:9]]
    assert err == "an actor died\n"


def test_a_run_that_has_no_end_says_so_as_it_begins(config, capsys):
    endless = config.model_copy(update={"stop": config.stop.model_copy(update={"return_mean": None})})
    for configured in (endless, limited(endless), config):
        RunView(configured).show(Ready(1.5))
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "ready after 1.5 s; training begins and goes on until Ctrl-C, since no end is set"
    assert others == ["ready after 1.5 s; training begins"] * 2


def test_quiet_shows_warnings_alone_and_leaves_standard_output_to_json(config, capsys):
    with RunView(config, quiet=True) as view:
        for event in EVENTS:
            view.show(event)
        view.say("hidden")
        view.say("where to join", always=True)
    assert capsys.readouterr() == ("", "an actor died\nwhere to join\n")


def test_on_a_terminal_lines_stand_above_the_panel_and_the_panel_goes_at_the_end(config):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with RunView(config, console=console) as view:
        for event in EVENTS:
            view.show(event)
    text = console.file.getvalue()
    assert "an actor died" in text and "trained steps" in text
    assert text.rstrip().endswith("\x1b[2K")
