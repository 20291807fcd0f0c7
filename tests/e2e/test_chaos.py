"""``aioseed chaos`` on a small run: a disk that is full for a while, and SIGTERM at the end."""

from __future__ import annotations

import json
import sys

import pytest

pytestmark = pytest.mark.timeout(300)

SEED = 19
"""Its first fault is a full disk; the time is over after that one."""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the files of another process")
def test_a_full_disk_costs_saves_and_nothing_else(start, small, tmp_path):
    words = ("--minutes", "0.01", "--seed", SEED, "--checkpoint-s", "1", "--dir", tmp_path / "c", "--json", *small)
    command = start("chaos", "cartpole", *words)
    command.process.wait(240)
    result = command.succeeds()
    assert result["violations"] == result["ledger_imbalance"] == 0, command.text
    assert (result["faults"], result["faults_injected"], result["seed"]) == ({"disk_full": 1}, 1, SEED)
    assert result["invariants_checked"] > 20
    assert 0 < result["longest_end_s"] <= 20
    assert json.loads((tmp_path / "c" / "chaos.json").read_text()) == result


@pytest.mark.chaos
def test_a_learner_that_cannot_start_is_a_violation(start, tmp_path):
    command = start(
        "chaos", "cartpole", "--minutes", "0.01", "--dir", tmp_path / "c", "--json", "training.devices=[gpu:99]"
    )
    assert command.ends() == 1, command.text
    assert json.loads(command.out[-1])["violations"] > 0
