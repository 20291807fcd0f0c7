from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aioseed.cli.evaluate import _how_far, _invitation
from aioseed.host.evaluate import EvaluationProgress

LISTENERS: Any = SimpleNamespace(urls=("ws://127.0.0.1:8720",), token_file=None, fingerprint=None)


def test_actors_are_invited_with_the_configuration_of_the_run(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    [line] = _invitation(tmp_path / "config.json", LISTENERS, ["environment.name=Long-v0", "serving.buckets=[8]"])
    joining = f"actor ws://127.0.0.1:8720 --preset {tmp_path}/config.json --role evaluate environment.name=Long-v0"
    assert line.endswith(joining)


def test_a_copied_checkpoint_names_no_file_that_is_not_there(tmp_path):
    line, told = _invitation(tmp_path / "config.json", LISTENERS, [])
    assert line.endswith("--preset PRESET --role evaluate") and told.startswith("PRESET is that of the run")


def test_how_far_it_is_tells_an_episode_that_never_ends():
    assert _how_far(EvaluationProgress(0, 100, 0)) == "0 of 100 episodes have ended"
    told = _how_far(EvaluationProgress(99, 100, 1234567))
    assert told == "99 of 100 episodes have ended; the longest that goes on has 1,234,567 steps"
