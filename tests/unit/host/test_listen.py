from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioseed.actor.token import read_token, token_path, write_token
from aioseed.errors import ListenError, PluginError, UsageError
from aioseed.host.listen import Listeners
from aioseed.telemetry.counters import Metrics
from aioseed.transport.channel import Channel, Listener
from aioseed.transport.config import TransportConfig
from aioseed.transport.memory import MemoryTransport
from aioseed.transport.token import Secret

LOCAL = "ws://127.0.0.1:0"


async def handle(channel: Channel) -> None:
    return


@pytest.fixture(autouse=True)
def runtime_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "runtime"


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Listeners]:
    def make(token: Secret | None = None, token_file: Path | None = None, **transport: Any) -> Listeners:
        config = TransportConfig(**transport)
        return Listeners(config, tmp_path / "private", Metrics(), token=token, token_file=token_file)

    return make


@pytest.fixture
async def listeners(made):
    ours = made()
    yield ours
    await ours.close(0.1)


async def test_a_loopback_listener_leaves_a_random_token_that_only_its_user_can_read(listeners, made):
    await listeners.open([LOCAL, LOCAL], handle, ())
    assert len(set(listeners.urls)) == 2
    for url in listeners.urls:
        assert await asyncio.to_thread(read_token, token_path(url)) == listeners.token
        if os.name == "posix":
            assert stat.S_IMODE(token_path(url).stat().st_mode) == 0o600
            assert stat.S_IMODE(token_path(url).parent.stat().st_mode) == 0o700
    assert len(listeners.token.reveal()) > 40 and listeners.token != made().token
    assert [task.get_name() for task in listeners.watches] == ["aioseed-tokens"]


@pytest.mark.parametrize(
    ("url", "by_file", "watched"), [(LOCAL, True, True), (LOCAL, False, False), ("wss://127.0.0.1:0", False, True)]
)
async def test_a_token_that_is_given_is_asked_for_and_none_is_left(made, tmp_path, url, by_file, watched):
    """What may change while the learner runs is watched: a file of tokens, a certificate."""
    file, tls = tmp_path / "tokens", {"self_signed": url.startswith("wss")}
    await asyncio.to_thread(write_token, file, Secret("canary"))
    ours = made(token_file=file, tls=tls) if by_file else made(Secret("canary"), tls=tls)
    await ours.open([url], handle, ())
    assert ours.token.reveal() == "canary" and not token_path(ours.urls[0]).exists()
    assert [task.get_name() for task in ours.watches] == ["aioseed-door"] * watched
    await ours.close(0.1)


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("home", [True, False])
async def test_a_token_that_cannot_be_left_for_actors_is_in_the_run_directory(made, tmp_path, monkeypatch, home):
    (tmp_path / "file").touch()
    if home:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    else:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        monkeypatch.delenv("LOCALAPPDATA", raising=False)
        monkeypatch.setattr(Path, "home", homeless)
    ours = made()
    await ours.open([LOCAL], handle, ())
    assert ours.token_file == tmp_path / "private" / "token"
    assert await asyncio.to_thread(read_token, ours.token_file) == ours.token
    await ours.close(0.1)
    memory = made()
    await memory.open(["memory://a"], handle, [MemoryTransport()])
    assert memory.token_file is None
    await memory.close(0.1)


async def test_closing_takes_the_token_away_and_is_idempotent(listeners):
    await listeners.open([LOCAL], handle, ())
    path = token_path(listeners.urls[0])
    await listeners.close(0.1)
    await listeners.close(0.1)
    assert not path.exists() and listeners.urls == ()


async def test_a_token_that_was_removed_meanwhile_is_left_again(listeners, monkeypatch, runtime_directory, caplog):
    """Systems empty a user's runtime directory at the last logout; a learner may live for weeks after it."""
    monkeypatch.setattr("aioseed.host.listen.KEEP_S", 0.001)
    await listeners.open([LOCAL], handle, ())
    path = token_path(listeners.urls[0])

    async def until(so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not so():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    path.unlink()
    path.parent.rmdir()
    runtime_directory.rmdir()
    runtime_directory.touch()
    await until(lambda: "do not find the token" in caplog.text)
    runtime_directory.unlink()
    await until(path.exists)
    assert await asyncio.to_thread(read_token, path) == listeners.token
    await listeners.close(0.1)
    assert not path.exists() and caplog.text.count("do not find the token") == 1


async def test_a_token_file_is_gone_before_another_learner_can_take_the_port_and_leave_its_own(made):
    class Successor(MemoryTransport):
        """Let the next learner in while a listener that has freed its port waits for its sessions."""

        schemes = ("ws",)

        async def listen(self, url, handler, options):
            return Slow(url)

    class Slow(Listener):
        def __init__(self, url: str) -> None:
            self._url = url

        @property
        def url(self) -> str:
            return self._url

        async def close(self, grace_s: float = 2.0) -> None:
            if successors:
                await successors.pop().open([self._url], handle, [Successor()])

    url, first, second = "ws://127.0.0.1:8700", made(), made()
    successors = [second]
    await first.open([url], handle, [Successor()])
    await first.close(0.1)
    assert await asyncio.to_thread(read_token, token_path(url)) == second.token
    await second.close(0.1)
    assert not token_path(url).exists()


@pytest.mark.parametrize("url", ["ws://0.0.0.0:0", "grpc://10.0.0.1:8701", "ws://[::]:0"])
@pytest.mark.parametrize(
    ("token", "lacking"), [(None, "a token (--token-file) and TLS"), (Secret("secret"), "lacks TLS")]
)
async def test_a_listener_that_others_can_reach_wants_a_token_and_tls(made, url, token, lacking):
    listeners = made(token)
    with pytest.raises(ListenError) as caught:
        await listeners.open([url], handle, ())
    said = str(caught.value)
    assert caught.value.url == url and lacking in said and "--tls self-signed" in said and "--insecure-listen" in said
    assert listeners.urls == ()


async def test_tls_without_a_token_is_refused_too_unless_a_token_is_made_with_the_certificate(made, authority):
    issued = await asyncio.to_thread(authority.issue, "127.0.0.1")
    tls = {"certificate": issued.certificate, "key": issued.key}
    with pytest.raises(ListenError, match=r"lacks a token \(--token-file\)"):
        await made(tls=tls).open(["wss://0.0.0.0:0"], handle, ())


async def test_only_a_certificate_that_was_made_here_is_shown_by_its_fingerprint(made, authority):
    issued = await asyncio.to_thread(authority.issue, "127.0.0.1")
    listeners = made(Secret("x"), tls={"certificate": issued.certificate, "key": issued.key})
    await listeners.open(["wss://127.0.0.1:0"], handle, ())
    assert listeners.fingerprint is None
    await listeners.close(0.1)


@pytest.mark.parametrize(
    ("token", "lacking"),
    [(None, "lacks a token (--token-file) and a certificate"), (Secret("x"), "lacks a certificate")],
)
async def test_tls_without_a_certificate_says_at_once_what_makes_both(made, token, lacking):
    with pytest.raises(ListenError) as caught:
        await made(token).open(["wss://0.0.0.0:0"], handle, ())
    assert f"{lacking} (--tls self-signed makes one and a token, or --tls-cert and --tls-key)" in str(caught.value)


@pytest.mark.parametrize("token", [None, Secret("secret")])
async def test_a_flag_in_plain_words_lets_it_listen_and_no_file_is_left(made, runtime_directory, token):
    listeners = made(token, allow_insecure=True)
    await listeners.open(["ws://0.0.0.0:0"], handle, ())
    assert listeners.urls and not runtime_directory.exists()
    await listeners.close(0.1)


async def test_self_signed_makes_certificate_and_token_once(made, tmp_path):
    shown = []
    for _ in range(2):
        listeners = made(tls={"self_signed": True})
        await listeners.open(["wss://0.0.0.0:0", "ws://127.0.0.1:0"], handle, ())
        shown.append((listeners.fingerprint, listeners.token))
        assert listeners.token_file == tmp_path / "private" / "token"
        await listeners.close(0.1)
    assert shown[0] == shown[1] and len(shown[0][0]) == 64
    if os.name == "posix":
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "private").iterdir()}
        assert modes == {"certificate.pem": 0o600, "key.pem": 0o600, "token": 0o600}
        assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700


async def test_tls_at_an_address_without_a_certificate_says_how_to_get_one(listeners):
    with pytest.raises(ListenError, match="say --tls self-signed"):
        await listeners.open(["wss://127.0.0.1:0"], handle, ())


async def test_a_port_in_use_is_said_so(listeners, made):
    await listeners.open([LOCAL], handle, ())
    second = made()
    with pytest.raises(ListenError) as caught:
        await second.open([listeners.urls[0]], handle, ())
    assert caught.value.url == listeners.urls[0]
    await second.close()
    assert await asyncio.to_thread(read_token, token_path(listeners.urls[0])) == listeners.token


@pytest.mark.parametrize(("url", "said"), [("8700", "is no address"), ("http://127.0.0.1:1", "no transport takes")])
async def test_what_is_no_address_is_said_so(listeners, url, said):
    with pytest.raises(PluginError, match=said):
        await listeners.open([url], handle, ())


async def test_an_instance_is_used_for_its_schemes_and_memory_needs_no_token(listeners, made, runtime_directory):
    memory = MemoryTransport()
    await listeners.open(["memory://a"], handle, [memory])
    assert listeners.urls == ("memory://a",) and not runtime_directory.exists()
    with pytest.raises(ListenError):
        await made().open(["memory://a"], handle, [memory])


async def test_a_token_file_that_others_can_read_is_refused(made, tmp_path):
    await asyncio.to_thread(write_token, tmp_path / "tokens", Secret("secret"))
    (tmp_path / "tokens").chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        await made(token_file=tmp_path / "tokens").open([LOCAL], handle, ())
