"""Going on with a run, and what happens when its checkpoints are damaged."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.timeout(120)


def damage(path):
    for file in path.iterdir():
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)


def test_auto_begins_a_run_once_and_goes_on_with_it_afterwards(start, small, tmp_path):
    words = ("train", "cartpole", "--json", "--run-dir", tmp_path / "run", "--resume", "auto", *small)
    first = start(*words, "--steps", 500).succeeds()
    second = start(*words, "--steps", first["trained_steps"] + 500).succeeds()
    assert second["trained_steps"] >= first["trained_steps"] + 500
    assert second["ledger_imbalance"] == 0
    assert second["trained_steps_per_s"] * second["wall_s"] < second["trained_steps"] - 400


def test_an_older_checkpoint_takes_the_place_of_a_damaged_one_and_that_is_said(start, small, copied):
    newest = max((copied / "checkpoints").iterdir())
    damage(newest)
    command = start("train", "cartpole", "--json", "--resume", copied, "--steps", 1, *small, "mode=lockstep")
    assert command.succeeds()["trained_steps"] > 0
    assert f"checkpoint {newest} is skipped" in command.err[0] and len(command.err) == 1


def test_a_run_without_a_sound_checkpoint_is_not_begun_anew(start, small, copied):
    for checkpoint in (copied / "checkpoints").iterdir():
        damage(checkpoint)
    before = (copied / "config.json").read_bytes()
    command = start("train", "cartpole", "--resume", "auto", "--run-dir", copied, *small)
    assert f"none of the 2 checkpoints in {copied / 'checkpoints'} is sound" in command.fails(2)
    assert (copied / "config.json").read_bytes() == before


WITH_REPLAY = (
    "actor.processes=1",
    "actor.groups=2",
    "actor.envs_per_group=4",
    "actor.reconnect_s=5",
    "serving.max_environments=32",
    "serving.max_batch_rows=8",
    "serving.buckets=[8]",
    "network={name: dueling_lstm, hidden: [8], lstm_units: 8, dueling_units: 8}",
    "agent.burn_in_steps=3",
    "replay.capacity_unrolls=50000",
    "replay.min_unrolls=16",
    "replay.samples_per_insert=2",
    "training.batch_unrolls=8",
    "training.total_steps=null",
    "training.checkpoint={replay: true, every_s: null, every_updates: 20}",
    "telemetry.tensorboard=false",
    "telemetry.every_s=0.2",
)


@pytest.mark.timeout(300)
def test_a_learner_killed_with_replay_goes_on_with_it_and_the_books_balance(start, tmp_path):
    """kill -9 while unrolls come and segments are written: what the newest checkpoint says is what goes on."""
    words = ("train", "catch-r2d2", "--json", "--run-dir", tmp_path / "run", "--resume", "auto", *WITH_REPLAY)
    killed = start(*words)
    checkpoints = tmp_path / "run" / "checkpoints"
    wait_until(lambda: len(sound(checkpoints)) >= 2, killed)
    killed.signal(signal.SIGKILL)
    killed.process.wait(60)
    before = json.loads((sound(checkpoints)[-1] / "state.json").read_text())
    held = before["replay"]["transitions"]
    assert held > 0
    trained = before["training"]["trained_transitions"]
    after = start(*words, "--steps", trained + 300).succeeds()
    assert after["ledger_imbalance"] == 0
    assert after["trained_steps"] >= trained + 300
    newest = json.loads((sound(checkpoints)[-1] / "state.json").read_text())
    assert newest["replay"]["inserted"] > before["replay"]["inserted"]
    assert newest["replay"]["sampled"] > before["replay"]["sampled"]
    assert newest["replay"]["segments"][: len(before["replay"]["segments"])] == before["replay"]["segments"]
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # Nothing was forgotten, so that replay holds all that was ever trained on, before and after.
    assert metrics[-1]["ledger/replay"] == after["trained_steps"] >= held + 200
    assert metrics[-1]["replay/samples_per_insert"] == pytest.approx(2, rel=0.2)


def sound(checkpoints):
    """Return the checkpoints that have their last name, oldest first."""
    return sorted(path for path in checkpoints.glob("*") if (path / "MANIFEST.json").exists() and path.suffix != ".tmp")


def wait_until(holds, command):
    ended = time.monotonic() + 150
    while not holds():
        assert command.process.poll() is None, command.text
        assert time.monotonic() < ended, command.text
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.process.wait(0.1)
