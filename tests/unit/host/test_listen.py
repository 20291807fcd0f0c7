from __future__ import annotations

import asyncio
import os
import stat

import pytest

from aioseed.actor.token import read_token, token_path
from aioseed.errors import ListenError, PluginError
from aioseed.host.listen import Listeners
from aioseed.transport.channel import Channel
from aioseed.transport.memory import MemoryTransport


async def handle(channel: Channel) -> None:
    return


@pytest.fixture(autouse=True)
def runtime_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
async def listeners():
    made = Listeners(None, 2**20)
    yield made
    await made.close(0.1)


async def test_a_loopback_listener_leaves_a_random_token_that_only_its_user_can_read(listeners):
    await listeners.open(["ws://127.0.0.1:0", "ws://127.0.0.1:0"], handle, ())
    assert len(set(listeners.urls)) == 2
    for url in listeners.urls:
        assert await asyncio.to_thread(read_token, token_path(url)) == listeners.token
        if os.name == "posix":
            assert stat.S_IMODE(token_path(url).stat().st_mode) == 0o600
    assert len(listeners.token) > 40 and listeners.token != Listeners(None, 2**20).token


async def test_closing_takes_the_token_away_and_is_idempotent(listeners):
    await listeners.open(["ws://127.0.0.1:0"], handle, ())
    path = token_path(listeners.urls[0])
    await listeners.close(0.1)
    await listeners.close(0.1)
    assert not path.exists() and listeners.urls == ()


@pytest.mark.parametrize("url", ["ws://0.0.0.0:0", "grpc://10.0.0.1:8701", "ws://[::]:0"])
async def test_a_listener_that_others_can_reach_wants_a_token(listeners, url):
    with pytest.raises(ListenError, match="give a token with --token-file") as caught:
        await listeners.open([url], handle, ())
    assert caught.value.url == url


async def test_with_a_token_it_may_and_leaves_no_file(runtime_directory):
    listeners = Listeners("secret", 2**20)
    await listeners.open(["ws://0.0.0.0:0"], handle, ())
    assert listeners.token == "secret" and not list(runtime_directory.iterdir())
    await listeners.close(0.1)


async def test_a_port_in_use_is_said_so(listeners):
    await listeners.open(["ws://127.0.0.1:0"], handle, ())
    second = Listeners(None, 2**20)
    with pytest.raises(ListenError) as caught:
        await second.open([listeners.urls[0]], handle, ())
    assert caught.value.url == listeners.urls[0]
    await second.close()
    assert await asyncio.to_thread(read_token, token_path(listeners.urls[0])) == listeners.token


@pytest.mark.parametrize(("url", "said"), [("8700", "is no address"), ("http://127.0.0.1:1", "no transport takes")])
async def test_what_is_no_address_is_said_so(listeners, url, said):
    with pytest.raises(PluginError, match=said):
        await listeners.open([url], handle, ())


async def test_an_instance_is_used_for_its_schemes_and_memory_needs_no_token(listeners, runtime_directory):
    memory = MemoryTransport()
    await listeners.open(["memory://a"], handle, [memory])
    assert listeners.urls == ("memory://a",) and not list(runtime_directory.iterdir())
    with pytest.raises(ListenError):
        await Listeners(None, 2**20).open(["memory://a"], handle, [memory])
