from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.errors import CheckpointError
from aioseed.training import manifest as manifests
from aioseed.training import store as store_module
from aioseed.training.files import Files
from aioseed.training.store import CheckpointStore, Snapshot


def snapshot(step: int, fill: float = 1.0) -> Snapshot:
    arrays = {
        "learner/params/w": np.full((3, 2), fill, np.float32),
        "learner/params/half": np.asarray(jnp.array([1.5, -2.0, fill], jnp.bfloat16)),
        "step": np.array(step, np.int32),
        "key": np.array([1, 2**32 - 1], np.uint32),
        "empty": np.zeros((0, 4), np.uint8),
        "flag": np.array(True),
    }
    return Snapshot(step, arrays, {"training": {"version": step}, "ledger": {"accepted": 2**60}})


def assert_is(checkpoint, expected: Snapshot):
    assert checkpoint is not None
    assert checkpoint.manifest.step == expected.step
    assert checkpoint.state == expected.state
    assert checkpoint.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        found = checkpoint.arrays[name]
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def names(store_path):
    return sorted(path.name for path in store_path.iterdir())


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
    for bad in (Snapshot(1, {"a": np.array(["x"])}, {}), Snapshot(2, {}, {"a": object()})):
        with pytest.raises(CheckpointError):
            store.save(bad, 1)
    assert names(tmp_path) == []


def test_before_the_first_save_there_is_none(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints")
    assert store.newest() is None
    (tmp_path / "checkpoints" / "000000000003.tmp").mkdir(parents=True)
    assert store.newest() is None
    store.sweep()
    assert names(tmp_path / "checkpoints") == []


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


def test_contents_reach_the_disk_before_names_do(tmp_path, faulty_files):
    files = faulty_files()
    CheckpointStore(tmp_path, files=files).save(snapshot(1), 1)
    assert files.names == ["sync", "make_directory", *["write", "sync"] * 3, "sync", "rename", "sync"]


def test_a_directory_whose_maker_died_before_its_name_was_on_the_disk_is_named_by_the_next(tmp_path):
    synced = []

    class Watched(Files):
        def sync_directory(self, path):
            synced.append(path)
            super().sync_directory(path)

    (tmp_path / "checkpoints").mkdir()
    store = CheckpointStore(tmp_path / "checkpoints", files=Watched())
    for step in (1, 2):
        store.save(snapshot(step), 1)
    assert synced.count(tmp_path) == 1 and synced[0] == tmp_path


def test_a_save_whose_sync_failed_is_never_trusted_even_if_it_cannot_be_removed(tmp_path):
    """Its contents read well, from memory; after a power cut they may be gone."""

    class Failing(Files):
        names_on_disk = True
        removes = True

        def sync_directory(self, path):
            if not self.names_on_disk and path == tmp_path:
                raise OSError(errno.EIO, "the disk says no")
            super().sync_directory(path)

        def rename(self, old, new):
            if not self.removes and old.name == "000000000003":
                raise OSError(errno.EIO, "the disk says no")
            super().rename(old, new)

    files = Failing()
    store = CheckpointStore(tmp_path, keep=2, files=files)
    for step in (1, 2):
        store.save(snapshot(step), 1)
    files.names_on_disk = files.removes = False
    with pytest.raises(CheckpointError, match="the disk says no"):
        store.save(snapshot(3), 1)
    files.names_on_disk = True
    store.save(snapshot(4), 1)
    assert names(tmp_path) == ["000000000002", "000000000003", "000000000004"]  # 3 is none of the two that are kept
    files.removes = True
    store.save(snapshot(5), 1)
    assert names(tmp_path) == ["000000000004", "000000000005"]


def test_the_step_of_a_save_that_failed_can_be_saved_again(tmp_path):
    class Failing(Files):
        names_on_disk = False

        def sync_directory(self, path):
            if not self.names_on_disk and path == tmp_path:
                raise OSError(errno.EIO, "the disk says no")
            super().sync_directory(path)

    files = Failing()
    store = CheckpointStore(tmp_path, files=files)
    with pytest.raises(CheckpointError, match="the disk says no"):
        store.save(snapshot(1), 1)
    assert names(tmp_path) == []
    files.names_on_disk = True
    store.save(snapshot(1), 1)
    assert_is(store.newest(), snapshot(1))


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


def test_a_state_that_is_no_object_is_not_sound(tmp_path):
    for state in ([1], "deep"):
        path = tmp_path / str(state)
        CheckpointStore(path).save(Snapshot(1, {}, state), 1)
        with pytest.raises(CheckpointError):
            CheckpointStore(path).newest()


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


def test_a_leftover_that_cannot_be_removed_is_named_and_the_others_go(tmp_path, caplog):
    class Stuck(Files):
        def remove_tree(self, path):
            if path.name == "a.tmp":
                raise PermissionError(errno.EACCES, "not yours")
            super().remove_tree(path)

    for name in ("a.tmp", "b.tmp"):
        (tmp_path / name).mkdir()
    CheckpointStore(tmp_path, files=Stuck()).sweep()
    assert names(tmp_path) == ["a.tmp"] and "a.tmp could not be removed" in caplog.text


def test_findings_name_every_checkpoint_and_what_is_wrong_with_it(tmp_path):
    store = CheckpointStore(tmp_path)
    assert list(CheckpointStore(tmp_path / "none").findings()) == []
    sound, broken = store.save(snapshot(1), 1), store.save(snapshot(2), 1)
    (broken / "state.json").write_bytes(b"{}")
    newest, older = store.findings()
    assert (newest.path, newest.checkpoint) == (broken, None) and "state.json is not what was written" in newest.fault
    assert (older.path, older.fault) == (sound, "")
    assert_is(older.checkpoint, snapshot(1))


def test_a_kill_at_any_operation_leaves_the_one_before_or_the_new_one(tmp_path, faulty_files, killed):
    before = tmp_path / "before"
    store = CheckpointStore(before, keep=2)
    for step in (1, 2):
        store.save(snapshot(step), 1)
    counting = faulty_files()
    shutil.copytree(before, tmp_path / "count")
    CheckpointStore(tmp_path / "count", keep=2, files=counting).save(snapshot(3), 1)
    assert counting.calls >= 10

    outcomes = []
    for call in range(1, counting.calls + 1):
        directory = tmp_path / f"killed at {call}"
        shutil.copytree(before, directory)
        with pytest.raises(killed):
            CheckpointStore(directory, keep=2, files=faulty_files(call)).save(snapshot(3), 1)
        after = CheckpointStore(directory, keep=2)
        for path in directory.glob("*[0-9]"):
            after._verify(path)
        outcomes.append(after.newest().manifest.step)
        assert_is(after.newest(), snapshot(outcomes[-1]))
        after.sweep()
        after.save(snapshot(4), 2)
        assert_is(after.newest(), snapshot(4))
        assert not list(directory.glob("*.tmp"))
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {2, 3}


def test_a_kill_in_the_very_first_save_leaves_no_checkpoint_and_no_error(tmp_path, faulty_files, killed):
    for call in (1, 2, 3, 4, 6):
        directory = tmp_path / str(call) / "checkpoints"
        directory.parent.mkdir()
        with pytest.raises(killed):
            CheckpointStore(directory, files=faulty_files(call)).save(snapshot(1), 1)
        assert CheckpointStore(directory).newest() is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_is_reported_and_leaves_nothing_behind(tmp_path, faulty_files, code):
    store = CheckpointStore(tmp_path)
    store.save(snapshot(1), 1)
    counting = faulty_files()
    CheckpointStore(tmp_path, files=counting).save(snapshot(2), 1)
    shutil.rmtree(tmp_path / "000000000002")
    for call in range(1, counting.calls + 1):
        files = faulty_files(call, OSError(code, "the disk says no"))
        with pytest.raises(CheckpointError, match=r"could not be saved: the disk says no$") as caught:
            CheckpointStore(tmp_path, files=files).save(snapshot(2), 1)
        assert isinstance(caught.value.__cause__, OSError)
        assert names(tmp_path) == ["000000000001"]
        assert_is(store.newest(), snapshot(1))


def test_a_disk_that_changes_what_it_is_given_is_noticed_at_once(tmp_path):
    class Forgetful(Files):
        def write(self, path, data):
            super().write(path, data.replace(b"accepted", b"ACCEPTED"))

    with pytest.raises(CheckpointError, match=r"state\.json is not what was written"):
        CheckpointStore(tmp_path, files=Forgetful()).save(snapshot(1), 1)
    assert names(tmp_path) == []


def test_a_failure_to_remove_old_ones_does_not_fail_the_save(tmp_path, caplog):
    caplog.set_level("INFO", logger="aioseed")

    class Stuck(Files):
        def remove_tree(self, path):
            raise PermissionError("no")

    CheckpointStore(tmp_path, keep=1).save(snapshot(1), 1)
    CheckpointStore(tmp_path, keep=1, files=Stuck()).save(snapshot(2), 1)
    assert_is(CheckpointStore(tmp_path).newest(), snapshot(2))
    assert "no" in caplog.text


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
