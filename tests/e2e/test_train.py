"""``aioseed train``: one command, one result, over whatever transport."""

from __future__ import annotations

import json
import math

import pytest

pytestmark = pytest.mark.timeout(120)

FIELDS = [
    "env_steps",
    "trained_steps",
    "dropped",
    "env_steps_per_s",
    "trained_steps_per_s",
    "return_mean_100",
    "solved",
    "wall_s",
    "total_s",
    "run_dir",
    "params_sha256",
]


def test_the_json_object_says_all_that_is_promised(trained):
    folder, result = trained
    assert [name for name in result if name in FIELDS] == FIELDS
    assert result["trained_steps"] >= 1500 and result["solved"] is False
    assert result["env_steps"] == result["trained_steps"] + sum(result["dropped"].values())
    assert math.isclose(result["trained_steps_per_s"], result["trained_steps"] / result["wall_s"], rel_tol=0.01)
    assert 0 < result["wall_s"] < result["total_s"]
    assert (folder.parent / result["run_dir"]).samefile(folder)
    assert len(result["params_sha256"]) == 64


def test_the_run_directory_holds_configuration_metrics_checkpoints_and_log(trained):
    folder, result = trained
    assert json.loads((folder / "config.json").read_text())["mode"] == "lockstep"
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["ledger/consumed"] == result["trained_steps"] and last["ledger/held"] == 0
    assert len(list((folder / "checkpoints").iterdir())) == 2
    assert "joined run run with 8 environments" in (folder / "learner.log").read_text()


@pytest.mark.parametrize("transport", ["grpc", "memory"])
def test_lockstep_gives_equal_bits_over_every_transport(trained, start, small, transport):
    words = ("train", "cartpole", "--json", "--steps", 1500, "--run-dir", "run", "--transport", transport)
    command = start(*words, *small, "mode=lockstep")
    result = command.succeeds()
    assert result["params_sha256"] == trained[1]["params_sha256"]
    for figure in ("env_steps", "trained_steps", "dropped", "return_mean_100"):
        assert result[figure] == trained[1][figure]
    assert command.err == [] and len(command.out) == 1
