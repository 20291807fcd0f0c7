"""``aioseed doctor`` on the directory of a finished run, sound and damaged."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.timeout(120)


def test_a_finished_run_is_sound_and_a_flipped_bit_is_found(start, copied):
    command = start("doctor", copied)
    assert command.ends() == 0, command.text
    assert command.out[-1] == f"{copied} is sound"
    newest = max((copied / "checkpoints").iterdir())
    data = bytearray((newest / "arrays.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "arrays.safetensors").write_bytes(data)

    command = start("doctor", copied, "--json")
    assert command.ends() == 1, command.text
    said = json.loads(command.out[-1])
    (trouble,) = [one for one in said["found"] if one["level"] == "trouble"]
    assert not said["sound"] and trouble["subject"] == f"checkpoints/{newest.name}"
    assert trouble["text"] == "is not sound: arrays.safetensors is not what was written"


def test_a_folder_that_is_not_there_is_one_sentence(start, tmp_path):
    assert (
        start("doctor", tmp_path / "none").fails(2) == f"aioseed doctor: there is no run directory {tmp_path / 'none'}"
    )
