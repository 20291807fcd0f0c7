"""Going on with a run, and what happens when its checkpoints are damaged."""

from __future__ import annotations

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
