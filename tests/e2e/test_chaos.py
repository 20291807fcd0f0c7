"""``aioseed chaos``: one of each fault that costs no start of a learner, and SIGTERM at the end."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from aioseed.chaos.cast import trial_config
from aioseed.chaos.faults import Fault, Kind
from aioseed.chaos.trial import TERM_S, Trial
from aioseed.host.config import RunConfig
from aioseed.presets import apply_overrides, read
from aioseed.validation import validate

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")]


@pytest.fixture
def config(small):
    return trial_config(validate(RunConfig, apply_overrides(read("cartpole"), list(small)), ""), 1.0)


@pytest.fixture
def faults():
    kinds = [Fault(Kind.ACTOR_KILL, (1,), 0.0), Fault(Kind.CONNECTIONS_CUT, (), 0.0), Fault(Kind.DISK_FULL, (), 0.0)]
    return iter([*kinds, Fault(Kind.LEARNER_KILL, (), 0.0)])


async def test_a_trial_without_violations(tmp_path, config, faults, caches, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", caches["XDG_CACHE_HOME"])
    said: list[str] = []
    outcome = await Trial(tmp_path, config, faults, said.append).run(asyncio.Event())
    assert outcome.violations == [] and outcome.imbalance == 0
    assert outcome.faults == {"actor_kill": 1, "connections_cut": 1, "disk_full": 1, "learner_kill": 1}
    assert outcome.checked > 100 and outcome.steps > 0
    assert 0 < outcome.longest_end_s <= TERM_S
    assert not any("VIOLATION" in line for line in said)


def test_the_command_reports_as_json_and_ends_by_its_own_time(start, small, tmp_path):
    command = start("chaos", "cartpole", "--minutes", "0.01", "--seed", "3", "--dir", tmp_path / "c", "--json", *small)
    result = command.succeeds()
    assert result["violations"] == result["ledger_imbalance"] == 0
    assert result["invariants_checked"] > 10 and result["seed"] == 3
    assert json.loads((tmp_path / "c" / "chaos.json").read_text()) == result


def test_a_learner_that_cannot_start_is_a_violation(start, tmp_path):
    broken = ("agent={name: r2d2}", "replay=null")
    command = start("chaos", "cartpole", "--minutes", "0.01", "--dir", tmp_path / "c", "--json", *broken)
    assert command.ends() == 1, command.text
    assert json.loads(command.out[-1])["violations"] > 0
