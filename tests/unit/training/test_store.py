from __future__ import annotations

import json
import logging
import os
import random
import shutil

import numpy as np
import pytest

from aioseed.errors import CheckpointError
from aioseed.training import manifest as manifests
from aioseed.training import store as store_module
from aioseed.training.store import CheckpointStore, Snapshot

from .snapshots import assert_is, names, snapshot


def test_what_is_read_is_what_was_saved(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    path = store.save(snapshot(7), generation=3)
    assert path.name == "000000000007"
    checkpoint = store.newest()
    assert_is(checkpoint, snapshot(7))
    assert checkpoint.manifest.generation == 3
    assert {"aioseed", "jax", "numpy"} <= checkpoint.manifest.versions.keys()
    assert names(path) == ["MANIFEST.json", "arrays.safetensors", "state.json"]
    assert path.stat().st_mode & 0o777 == 0o700


def test_other_tools_can_read_it(tmp_path):
    from safetensors.numpy import load_file

    whole = snapshot(1)
    whole.arrays.pop("learner/params/half")
    path = CheckpointStore(tmp_path).save(whole, 1)
    np.testing.assert_array_equal(load_file(path / "arrays.safetensors")["learner/params/w"], np.ones((3, 2)))
    assert json.loads((path / "MANIFEST.json").read_text())["files"]["state.json"]["size"] > 0


def test_an_array_in_fortran_order_comes_back_right(tmp_path):
    store = CheckpointStore(tmp_path)
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    store.save(Snapshot(1, {"a": array}, {}), 1)
    np.testing.assert_array_equal(store.newest().arrays["a"], array)


def test_what_cannot_be_saved_leaves_nothing(tmp_path):
    store = CheckpointStore(tmp_path)
    for bad, said in (
        (Snapshot(1, {"a": np.array(["x"])}, {}), "array 'a' has dtype <U1, which cannot be saved$"),
        (Snapshot(1, {"a": np.zeros(1, np.complex64)}, {}), "array 'a' has dtype complex64, which cannot be saved$"),
        (Snapshot(2, {}, {"a": object()}), "object is not JSON serializable$"),
    ):
        with pytest.raises(CheckpointError, match=f"could not be saved: .*{said}"):
            store.save(bad, 1)
    assert names(tmp_path) == []


def test_before_the_first_save_there_is_none(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    assert store.newest() is None
    (tmp_path / "checkpoints" / "000000000003.tmp").mkdir(parents=True)
    (tmp_path / "checkpoints" / "000000000004").write_text("a file")
    assert store.newest() is None
    store.sweep()
    assert names(tmp_path / "checkpoints") == ["000000000004"]


def test_the_newest_sound_one_is_found_and_the_other_named(tmp_path, caplog):
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1), 1)
    store.save(snapshot(2), 1)
    (tmp_path / "000000000002" / "arrays.safetensors").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert_is(store.newest(), snapshot(1))
    assert "000000000002" in caplog.text
    assert "arrays.safetensors is not what was written" in caplog.text


def test_one_without_a_manifest_is_named_too(tmp_path, caplog):
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1), 4)
    store.save(snapshot(2), 4)
    (tmp_path / "000000000002" / "MANIFEST.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert_is(store.newest(), snapshot(1))
    assert "000000000002" in caplog.text


def test_none_sound_is_an_error_and_not_a_fresh_start(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1), 1)
    (tmp_path / "000000000001" / "state.json").unlink()
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        store.newest()


def test_one_that_its_owner_removes_while_it_is_read_is_read_from_what_came_since(tmp_path, caplog, monkeypatch):
    """With much replay to verify, reading may take longer than two saves."""
    owner, reader = CheckpointStore(tmp_path), CheckpointStore(tmp_path)
    owner.save(snapshot(1), 1)
    owner.save(snapshot(2), 1)
    read, saves = reader._read, iter((3, 4))

    def slow(path):
        for step in saves:
            owner.save(snapshot(step), 1)
        return read(path)

    monkeypatch.setattr(reader, "_read", slow)
    with caplog.at_level(logging.WARNING):
        assert_is(reader.newest(), snapshot(4))
    assert not caplog.text
    saves = iter(range(5, 100))
    monkeypatch.setattr(
        reader, "_read", lambda path: [owner.save(snapshot(next(saves)), 1) for _ in "ab"] and read(path)
    )
    with pytest.raises(CheckpointError, match=r"removed faster than they can be read: .*checkpoint\.keep=20"):
        reader.newest()


@pytest.mark.parametrize("what", ["a link to a disk that is not mounted", "a file"])
def test_checkpoints_that_cannot_be_listed_are_an_error_and_not_a_fresh_start(tmp_path, what):
    directory = tmp_path / "checkpoints"
    if what == "a file":
        directory.touch()
    else:
        directory.symlink_to(tmp_path / "disk" / "checkpoints")
    with pytest.raises(CheckpointError, match=r"checkpoints cannot be listed: .*is its disk there\?"):
        CheckpointStore(directory).newest()


def test_a_checkpoint_under_another_name_is_not_sound(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1), 1)
    (tmp_path / "000000000001").rename(tmp_path / "000000000005")
    with pytest.raises(CheckpointError):
        store.newest()


@pytest.mark.parametrize("names", [["../state.json"], ["state.json", "more.json"], []])
def test_a_manifest_names_the_files_of_a_checkpoint_and_no_others(tmp_path, caplog, names):
    path = CheckpointStore(tmp_path).save(snapshot(1), 1) / "MANIFEST.json"
    manifest = manifests.decode(path.read_bytes())
    entry = manifest.files["state.json"]
    files = {"arrays.safetensors": manifest.files["arrays.safetensors"]} | dict.fromkeys(names, entry)
    path.write_bytes(manifests.encode(manifest._replace(files=files)))
    with pytest.raises(CheckpointError), caplog.at_level(logging.WARNING):
        CheckpointStore(tmp_path).newest()
    assert "its manifest names other files" in caplog.text


def test_another_format_is_said_so(tmp_path, caplog):
    store = CheckpointStore(tmp_path)
    path = store.save(snapshot(1), 1) / "MANIFEST.json"
    path.write_bytes(manifests.encode(manifests.decode(path.read_bytes())._replace(format=2)))
    with pytest.raises(CheckpointError), caplog.at_level(logging.WARNING):
        store.newest()
    assert "its format is 2, this version of aioseed reads 1" in caplog.text


def test_a_later_generation_is_newer_than_a_later_step(tmp_path):
    store = CheckpointStore(tmp_path, keep=9)
    store.save(snapshot(300), 1)
    store.save(snapshot(200), 2)
    assert_is(store.newest(), snapshot(200))


def test_the_same_step_can_be_saved_again(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(snapshot(5, fill=1.0), 1)
    assert store.save(snapshot(5, fill=2.0), 1).name == "000000000005.1"
    assert_is(store.newest(), snapshot(5, fill=2.0))


def test_only_the_newest_that_verify_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2, 3):
        store.save(snapshot(step), 1)
    assert names(tmp_path) == ["000000000002", "000000000003"]


def test_a_corrupt_one_does_not_count_among_those_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    store.save(snapshot(1), 1)
    store.save(snapshot(2), 1)
    (tmp_path / "000000000002" / "state.json").write_bytes(b"{}")
    store.save(snapshot(3), 1)
    assert names(tmp_path) == ["000000000001", "000000000002", "000000000003"]
    store.save(snapshot(4), 1)
    assert names(tmp_path) == ["000000000003", "000000000004"]


@pytest.mark.parametrize("name", ["MANIFEST.json", "arrays.safetensors", "state.json", "."])
def test_links_are_refused_wherever_they_lead(tmp_path, caplog, name):
    store = CheckpointStore(tmp_path / "checkpoints")
    store.save(snapshot(1), 1)
    victim = store.save(snapshot(2), 1) / name
    elsewhere = tmp_path / "elsewhere"
    victim.rename(elsewhere)
    victim.symlink_to(elsewhere)
    with caplog.at_level(logging.WARNING):
        assert_is(store.newest(), snapshot(1))
    assert "symbolic link" in caplog.text


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    store = CheckpointStore(tmp_path)
    victim = store.save(snapshot(1), 1) / "state.json"
    victim.unlink()
    os.mkfifo(victim)
    with pytest.raises(CheckpointError):
        store.newest()


def test_a_size_is_looked_at_before_anything_is_read(tmp_path, caplog, monkeypatch):
    store = CheckpointStore(tmp_path)
    path = store.save(snapshot(1), 1)
    os.truncate(path / "arrays.safetensors", 2**40)  # sparse: reading it would take all memory
    with pytest.raises(CheckpointError), caplog.at_level(logging.WARNING):
        store.newest()
    assert f"it has {2**40} bytes" in caplog.text
    huge = store.save(snapshot(2), 1)
    monkeypatch.setitem(store_module._LIMITS_BYTES, "state.json", 10)
    with pytest.raises(CheckpointError), caplog.at_level(logging.WARNING):
        store.newest()
    assert f"checkpoint {huge} is skipped: state.json has " in caplog.text


def test_a_manifest_has_a_size_that_is_looked_at_first_too(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    size = (store.save(snapshot(1), 1) / manifests.NAME).stat().st_size
    monkeypatch.setattr("aioseed.training.reading.MANIFEST_LIMIT_BYTES", size)
    assert_is(store.newest(), snapshot(1))
    monkeypatch.setattr("aioseed.training.reading.MANIFEST_LIMIT_BYTES", size - 1)
    [finding] = store.findings()
    assert finding.fault == f"MANIFEST.json has {size} bytes"


def test_a_state_that_is_no_object_is_not_sound(tmp_path):
    for state in ([1], "deep"):
        path = tmp_path / str(state)
        CheckpointStore(path).save(Snapshot(1, {}, state), 1)
        with pytest.raises(CheckpointError):
            CheckpointStore(path).newest()


FOREIGN_DTYPE = b'{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("arrays.safetensors", b"dust"),
        ("arrays.safetensors", len(FOREIGN_DTYPE).to_bytes(8, "little") + FOREIGN_DTYPE + b"\0"),
        ("state.json", b"{"),
        ("state.json", b"\xff"),
        ("state.json", b"[" * 100_000),
        ("state.json", b"[]"),
    ],
)
def test_what_was_written_whole_but_by_other_rules_is_not_sound(tmp_path, name, data):
    store = CheckpointStore(tmp_path)
    path = store.save(snapshot(1), 1)
    written = manifests.decode((path / manifests.NAME).read_bytes())
    (path / name).write_bytes(data)
    files = {**written.files, name: manifests.entry(data)}
    (path / manifests.NAME).write_bytes(manifests.encode(written._replace(files=files)))
    with pytest.raises(CheckpointError, match="is no sound checkpoint: it was written by other rules: "):
        store.at(path.name)
    [finding] = store.findings()
    assert finding.checkpoint is None and finding.fault.startswith("it was written by other rules: ")


def test_a_checkpoint_that_is_not_there_is_told_in_the_systems_words(tmp_path):
    with pytest.raises(CheckpointError, match=r"000000000001 is no sound checkpoint: No such file or directory$"):
        CheckpointStore(tmp_path).at("000000000001")


def test_one_checkpoint_is_read_by_its_name_which_a_copy_keeps(tmp_path):
    store = CheckpointStore(tmp_path)
    path = store.save(snapshot(1), 1)
    assert_is(store.at(path.name), snapshot(1))
    shutil.copytree(path, tmp_path / "best")
    with pytest.raises(CheckpointError, match=r"best is called otherwise than a checkpoint: a copy keeps its name$"):
        store.at("best")


def test_what_its_owner_removes_meanwhile_is_no_finding(tmp_path):
    store = CheckpointStore(tmp_path)
    older, newer = (store.save(snapshot(step), 1) for step in (1, 2))
    findings = store.findings()
    assert next(findings).path == newer
    shutil.rmtree(older)
    assert list(findings) == []


def test_findings_name_every_checkpoint_and_what_is_wrong_with_it(tmp_path):
    store = CheckpointStore(tmp_path)
    assert list(CheckpointStore(tmp_path / "none").findings()) == []
    sound, broken = store.save(snapshot(1), 1), store.save(snapshot(2), 1)
    (broken / "state.json").write_bytes(b"{}")
    newest, older = store.findings()
    assert (newest.path, newest.checkpoint) == (broken, None) and "state.json is not what was written" in newest.fault
    assert (older.path, older.fault) == (sound, "")
    assert_is(older.checkpoint, snapshot(1))


def test_every_changed_byte_is_noticed(tmp_path):
    store = CheckpointStore(tmp_path)
    path = store.save(snapshot(1), 1)
    rng = random.Random(1)
    files = sorted(path.iterdir())
    for number in range(200):
        victim = files[number % len(files)]
        sound = victim.read_bytes()
        place, bit = rng.randrange(len(sound)), rng.randrange(8)
        victim.write_bytes(sound[:place] + bytes([sound[place] ^ (1 << bit)]) + sound[place + 1 :])
        with pytest.raises(CheckpointError):
            store.newest()
        victim.write_bytes(sound)
    assert_is(store.newest(), snapshot(1))


def test_every_truncation_is_noticed(tmp_path):
    store = CheckpointStore(tmp_path)
    path = store.save(snapshot(1), 1)
    for victim in sorted(path.iterdir()):
        sound = victim.read_bytes()
        for length in (0, len(sound) // 2, len(sound) - 1):
            victim.write_bytes(sound[:length])
            with pytest.raises(CheckpointError):
                store.newest()
        victim.write_bytes(sound)
