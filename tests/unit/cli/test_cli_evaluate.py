from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aioseed.cli.evaluate import _invitation

LISTENERS: Any = SimpleNamespace(urls=("ws://127.0.0.1:8720",), token_file=None, fingerprint=None)


def test_actors_are_invited_with_the_configuration_of_the_run(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    [line] = _invitation(tmp_path / "config.json", LISTENERS)
    assert line.endswith(f"actor ws://127.0.0.1:8720 --preset {tmp_path}/config.json --role evaluate")


def test_a_copied_checkpoint_names_no_file_that_is_not_there(tmp_path):
    line, told = _invitation(tmp_path / "config.json", LISTENERS)
    assert line.endswith("--preset PRESET --role evaluate") and told.startswith("PRESET is that of the run")
