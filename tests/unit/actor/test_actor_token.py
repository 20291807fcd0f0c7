from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from aioseed.actor.token import (
    MAX_FILE_BYTES,
    is_loopback,
    read_keys,
    read_token,
    token_folder,
    token_of_environment,
    token_path,
    write_token,
)
from aioseed.errors import UsageError
from aioseed.transport.token import Secret

posix_only = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_both_names_of_this_machine_lead_to_one_file_a_port(runtime: Path) -> None:
    assert token_path("ws://127.0.0.1:8700") == runtime / "aioseed" / "127.0.0.1-8700.token"
    assert token_path("ws://localhost:8700") == token_path("ws://127.0.0.1:8700")
    assert token_path("ws://127.0.0.1:8701") != token_path("ws://127.0.0.1:8700")
    assert ":" not in token_path("grpc://[::1]:8701").name


def test_other_addresses_of_this_machine_have_files_of_their_own(runtime: Path) -> None:
    assert token_path("ws://127.0.0.2:8700") == runtime / "aioseed" / "127.0.0.2-8700.token"


@pytest.mark.skipif(sys.platform != "linux", reason="each system has its own directory")
def test_without_a_runtime_directory_the_cache_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token_path("ws://127.0.0.1:1") == tmp_path / ".cache" / "aioseed" / "127.0.0.1-1.token"


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1", "grpc://127.9.9.9:1", "ws://localhost:1", "ws://[::1]:1"])
def test_loopback_addresses_are_known(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize("url", ["ws://10.0.0.1:1", "ws://localhost.example.org:1", "ws://0.0.0.0:1", "memory://x"])
def test_other_addresses_are_not_loopback(url: str) -> None:
    assert not is_loopback(url)


@pytest.mark.parametrize("url", ["ws://", "ws://127.0.0.1:99999", "8700"])
def test_an_address_without_host_or_with_an_impossible_port_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        token_path(url)


def test_an_address_that_cannot_be_read_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="is not an address"):
        is_loopback("ws://[::1:1")


def test_what_is_written_is_read_and_replaces_what_was_there() -> None:
    path = token_path("ws://127.0.0.1:8700")
    write_token(path, Secret("old"))
    write_token(path, Secret("new"))
    assert read_token(path) == Secret("new")
    assert list(path.parent.iterdir()) == [path]


def test_a_token_is_on_the_disk_before_it_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced, real = token_path("ws://127.0.0.1:8700"), [], os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_size, path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_token(path, Secret("secret"))
    assert synced == [(len("secret\n"), False)]


@posix_only
def test_only_the_user_can_read_the_file_whatever_the_umask() -> None:
    path = token_path("ws://127.0.0.1:8700")
    before = os.umask(0)
    try:
        write_token(path, Secret("secret"))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused(runtime: Path, mode: int) -> None:
    path = runtime / "token"
    write_token(path, Secret("secret"))
    path.chmod(mode)
    with pytest.raises(UsageError, match="can be read by others: run chmod 600"):
        read_token(path)


def test_a_missing_or_empty_file_is_a_usage_error(runtime: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: No such file or directory$"):
        read_token(runtime / "missing")
    write_token(runtime / "empty", Secret(""))
    with pytest.raises(UsageError, match="cannot be used: it holds no token"):
        read_token(runtime / "empty")


def test_a_file_that_is_too_large_is_a_usage_error_and_never_cut(runtime: Path) -> None:
    file, line = runtime / "tokens", b"canary actor=lab environments=64\n"
    file.touch(mode=0o600)
    file.write_bytes(b"#" * (MAX_FILE_BYTES - len(line) - 1) + b"\n" + line)
    [bounded] = read_keys(file)
    assert (bounded.actor, bounded.max_environments) == ("lab", 64)
    file.write_bytes(b"#" + file.read_bytes())
    for read in (read_keys, read_token):
        with pytest.raises(UsageError, match="more than 1,048,576 bytes") as caught:
            read(file)
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_as_each_system_ends_them(runtime: Path, end: bytes) -> None:
    file = runtime / "tokens"
    file.touch(mode=0o600)
    file.write_bytes(end.join([b"# ours", b"first", b"second actor=lab", b""]))
    assert read_token(file) == Secret("first")
    assert [credential.actor for credential in read_keys(file)] == ["", "lab"]


def test_an_actor_shows_no_part_of_a_token(runtime: Path) -> None:
    for name, line in (("marked", "canary#one"), ("foreign", "canary\u00fc")):
        (runtime / name).touch(mode=0o600)
        (runtime / name).write_text(f"# ours\n{line}\n", encoding="utf-8")
        with pytest.raises(UsageError, match="cannot be used: line 2: a") as caught:
            read_token(runtime / name)
        assert "canary" not in str(caught.value)


def test_an_actor_looks_no_further_than_its_token(runtime: Path) -> None:
    write_token(runtime / "tokens", Secret("mine # of this machine\nanother environments=3"))
    assert read_token(runtime / "tokens") == Secret("mine")


def test_a_file_that_cannot_be_written_is_a_usage_error(runtime: Path) -> None:
    (runtime / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_token(runtime / "file" / "token", Secret("secret"))


def test_a_token_that_could_not_be_written_is_left_nowhere(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = runtime / "not" / "there" / "yet" / "token"
    with pytest.raises(UsageError, match=r"token cannot be written: No space left on device$"):
        write_token(path, Secret("secret"))
    assert list(path.parent.iterdir()) == []


def test_a_wrong_line_is_a_usage_error_that_names_the_file(runtime: Path) -> None:
    write_token(runtime / "tokens", Secret("canary environments=3"))
    with pytest.raises(UsageError, match="tokens cannot be used: line 1: a token with bounds"):
        read_keys(runtime / "tokens")


def test_a_user_without_a_home_directory_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    with pytest.raises(UsageError, match="set XDG_RUNTIME_DIR"):
        token_folder()


@pytest.mark.parametrize(("given", "token"), [(" right\n", Secret("right")), (" ", None), (None, None)])
def test_the_environment_may_hold_a_token(
    given: str | None, token: Secret | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is None:
        monkeypatch.delenv("AIOSEED_TOKEN", raising=False)
    else:
        monkeypatch.setenv("AIOSEED_TOKEN", given)
    assert token_of_environment() == token
