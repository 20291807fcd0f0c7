"""Every command that serves sets its process up: memory that large messages keep, and descriptors for many actors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from aioseed.cli import evaluate, learner, suite, train

SERVING = {
    "train": (train, ["cartpole", "--run-dir", "run"]),
    "learner": (learner, ["cartpole", "--run-dir", "run"]),
    "suite": (suite, ["own:one", "--preset", "cartpole", "--dir", "suite"]),
    "evaluate": (evaluate, ["run"]),
}
OWN = """
from aioseed.suites import Suite, SuiteTask
one = Suite("one", (SuiteTask("CartPole-v1", (), 0.0, 10.0),), "run/return_mean", capped=False)
"""


class Served(Exception):
    """Says that a command came as far as its event loop."""


@pytest.mark.parametrize("name", SERVING)
def test_a_command_that_serves_sets_its_process_up_first(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command, words = SERVING[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own.py").write_text(OWN)
    done: list[str] = []

    def serve(main: object, say: Callable[[str], None]) -> None:
        raise Served

    monkeypatch.setattr(command, "run_until_interrupted", serve)
    for step in ("keep_large_blocks", "raise_limit"):
        monkeypatch.setattr(command, step, lambda step=step: done.append(step))
    main: Callable[[Sequence[str]], int] = command.main
    with pytest.raises(Served):
        main(words)
    assert done == ["keep_large_blocks", "raise_limit"]
