"""Tokens that are taken back, and what is said about those who were refused; here without a network."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from unittest.mock import Mock

import pytest

from aioseed.errors import AuthenticationError, ChannelClosed, UsageError
from aioseed.host.door import Door
from aioseed.telemetry.counters import Metrics
from aioseed.transport.channel import Channel, DialOptions, ListenOptions
from aioseed.transport.keyring import Keyring, parse_keys
from aioseed.transport.memory import MemoryTransport
from aioseed.transport.server_tls import ServerTls
from aioseed.transport.token import Secret

ONE, OTHER = Secret("one-canary"), Secret("other-canary")


async def hold(channel: Channel) -> None:
    while True:
        await channel.receive()


def write(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.chmod(0o600)
    draft.replace(path)


async def counted(metrics: Metrics, name: str, times: int = 1) -> None:
    async with asyncio.timeout(30):
        while metrics.counter(name).value < times:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def opened(tmp_path: Path):
    """A door before a memory network, its token file, and a way to dial."""
    file, metrics, network = tmp_path / "tokens", Metrics(), MemoryTransport()
    write(file, f"{ONE.reveal()}\n{OTHER.reveal()}\n")
    door = Door(Keyring(parse_keys(file.read_text())), file, None, 2, metrics)
    options = ListenOptions(door.keys, report=door.report)
    listener = await network.listen("memory://here", door.guarded(hold), options)
    watch = asyncio.create_task(door.watch())

    async def dial(token: Secret) -> Channel:
        return await network.dial("memory://here", DialOptions(token))

    yield file, metrics, dial
    watch.cancel()
    await listener.close(0.1)


async def test_a_token_that_is_removed_closes_its_sessions_and_no_others(opened, caplog):
    file, metrics, dial = opened
    mine, theirs = await dial(ONE), await dial(OTHER)
    await asyncio.to_thread(write, file, OTHER.reveal())
    async with asyncio.timeout(30):
        with pytest.raises(ChannelClosed, match="no longer valid"):
            await mine.receive()
    await theirs.send(b"still here")
    assert metrics.counter("transport/revoked").value == 1
    told = [record.getMessage() for record in caplog.records]
    assert told == ["closed 1 sessions whose token was taken back or has expired"]
    with pytest.raises(AuthenticationError):
        await dial(ONE)


async def test_a_token_file_that_cannot_be_used_changes_nothing(opened, caplog):
    file, metrics, dial = opened
    await asyncio.to_thread(write, file, "")
    await counted(metrics, "transport/reloads_failed")
    await (await dial(ONE)).send(b"x")
    assert "what was there before stays" in caplog.text and "canary" not in caplog.text


async def test_a_token_file_that_is_gone_and_comes_back_is_told_and_counted(opened, caplog):
    file, metrics, dial = opened
    caplog.set_level(logging.INFO)
    await asyncio.to_thread(write, file, "")  # what is told of it shows that the first look is over
    await counted(metrics, "transport/reloads_failed")
    await asyncio.to_thread(file.unlink)
    await counted(metrics, "transport/reloads_failed", 2)
    assert not metrics.counter("transport/reloads").value
    await asyncio.to_thread(write, file, "new-canary")
    await counted(metrics, "transport/reloads")
    assert "the tokens were read again" in caplog.text and "canary" not in caplog.text
    await (await dial(Secret("new-canary"))).send(b"x")


def test_a_token_file_that_is_gone_at_the_first_look_is_told(tmp_path):
    door = Door(Keyring.of(ONE), tmp_path / "none", None, 9, Metrics())
    with pytest.raises(UsageError, match="cannot be read"):
        door._read_keys()


def test_a_token_file_that_stays_as_it_was_is_read_once_and_is_no_news(tmp_path, monkeypatch):
    file, reads = tmp_path / "tokens", []
    write(file, ONE.reveal())
    monkeypatch.setattr("aioseed.host.door.read_keys", lambda path: reads.append(path) or parse_keys(path.read_text()))
    keys = Keyring.of(ONE)
    door = Door(keys, file, None, 9, Metrics())
    assert [door._read_keys() for _ in range(3)] == [False] * 3 and reads == [file]
    write(file, OTHER.reveal())
    assert [door._read_keys() for _ in range(3)] == [True, False, False] and reads == [file] * 2
    assert keys.admit(OTHER.reveal()) is not None and keys.admit(ONE.reveal()) is None
    for without in (Door(None, file, None, 9, Metrics()), Door(keys, None, None, 9, Metrics())):
        assert not without._read_keys()
    assert len(reads) == 2


async def test_one_token_opens_so_many_channels_and_a_closed_one_makes_room(opened):
    _, metrics, dial = opened
    first, _second, third = await dial(ONE), await dial(ONE), await dial(ONE)
    with pytest.raises(ChannelClosed, match="too many connections"):
        await third.receive()
    await (await dial(OTHER)).send(b"another token has its own")
    await first.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    _fourth, fifth = await dial(ONE), await dial(ONE)
    async with asyncio.timeout(30):
        with pytest.raises(ChannelClosed, match="too many connections"):
            await fifth.receive()
    assert metrics.counter("transport/too_many_connections").value == 2, "the fourth came in"


async def test_channels_without_a_token_are_not_counted_and_nothing_is_kept_of_those_that_ended():
    async def greet(channel: Channel) -> None:
        await channel.send(b"hello")
        await channel.receive()

    for keys, token, count in ((None, None, 3), (Keyring.of(ONE), ONE, 1)):
        door, network = Door(keys, None, None, 1, Metrics()), MemoryTransport()
        options = ListenOptions(keys, report=door.report)
        listener = await network.listen("memory://here", door.guarded(greet), options)
        channels = [await network.dial("memory://here", DialOptions(token)) for _ in range(count)]
        assert [await channel.receive() for channel in channels] == [b"hello"] * count
        await listener.close(0.1)
        assert not door._channels


@pytest.mark.virtual_time
async def test_an_expired_token_ends_its_sessions():
    loop, network = asyncio.get_running_loop(), MemoryTransport()
    [credential] = parse_keys("t actor=a expires=1970-01-01T00:01:00Z")
    door = Door(Keyring([credential], clock=loop.time), None, None, 9, Metrics())
    began_s = loop.time()
    assert began_s < 60
    await network.listen("memory://here", door.guarded(hold), ListenOptions(door.keys, report=door.report))
    channel = await network.dial("memory://here", DialOptions(Secret("t")))
    watch = asyncio.create_task(door.watch())
    with pytest.raises(ChannelClosed):
        await channel.receive()
    assert 60 <= loop.time() < 61
    with pytest.raises(AuthenticationError):
        await network.dial("memory://here", DialOptions(Secret("t")))
    watch.cancel()


@pytest.mark.virtual_time
async def test_a_certificate_that_nobody_renews_is_warned_of_each_day_also_when_it_has_expired(monkeypatch, caplog):
    loop, day_s = asyncio.get_running_loop(), 86_400.0
    began_s = loop.time()
    monkeypatch.setattr("aioseed.host.door.days_left", lambda pem: 15.5 - (loop.time() - began_s) / day_s)
    monkeypatch.setattr("aioseed.host.door.LOOK_S", day_s / 10)

    async def in_no_time(function, *arguments):  # a thread would take real time, in which years pass here
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", in_no_time)
    tls, metrics = Mock(spec=ServerTls, material=Mock()), Metrics()
    tls.refresh.return_value, tls.material.certificate = False, b"the same"
    watch = asyncio.create_task(Door(None, None, tls, 9, metrics).watch())
    await asyncio.sleep(17.05 * day_s)
    watch.cancel()
    told = [record.getMessage() for record in caplog.records]
    assert told[:2] == [f"the certificate is valid for {days} more days" for days in (13.5, 12.5)]
    assert told[13] == "the certificate is valid for 0.5 more days"
    assert told[14:] == ["the certificate has expired: renew it, actors that look at it do not come in any more"] * 2
    assert metrics.gauge("transport/certificate_days_left").value == pytest.approx(-1.5, abs=0.1)


@pytest.mark.virtual_time
async def test_a_new_certificate_is_taken_in_and_how_long_it_lasts_is_noted_at_once(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("aioseed.host.door.days_left", lambda pem: float(pem))

    async def in_no_time(function, *arguments):
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", in_no_time)
    tls, metrics = Mock(spec=ServerTls, material=Mock(certificate=b"90.0")), Metrics()
    left = metrics.gauge("transport/certificate_days_left")
    found: list[bool | Exception] = [False, True, UsageError("not whole yet"), False]

    def refresh() -> bool:
        news = found.pop(0) if found else False
        if isinstance(news, Exception):
            raise news
        if news:
            tls.material.certificate = b"365.0"
        return news

    tls.refresh = refresh
    watch = asyncio.create_task(Door(None, None, tls, 9, metrics).watch())
    await asyncio.sleep(0.1)
    assert left.value == 90.0
    await asyncio.sleep(0.25)
    assert (left.value, metrics.counter("transport/reloads").value) == (365.0, 1)
    await asyncio.sleep(10.0)
    watch.cancel()
    assert metrics.counter("transport/reloads_failed").value == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the certificate was read again",
        "what was there before stays: not whole yet",
    ]


@pytest.mark.virtual_time
async def test_a_certificate_of_which_nobody_can_tell_how_long_it_lasts_ends_no_watch(monkeypatch, caplog):
    def unreadable(pem: bytes) -> float:
        raise UsageError("the certificate cannot be read: its serial number is negative")

    async def in_no_time(function, *arguments):
        return function(*arguments)

    monkeypatch.setattr("aioseed.host.door.days_left", unreadable)
    monkeypatch.setattr(asyncio, "to_thread", in_no_time)
    tls = Mock(spec=ServerTls, material=Mock(certificate=b"odd"), refresh=Mock(return_value=False))
    watch = asyncio.create_task(Door(None, None, tls, 9, Metrics()).watch())
    await asyncio.sleep(10.0)
    assert not watch.done() and tls.refresh.call_count > 30
    watch.cancel()
    [record] = caplog.records
    assert record.getMessage().startswith(
        "how long the certificate lasts cannot be told: the certificate cannot be read"
    )


async def test_a_flood_of_refusals_is_counted_in_full_and_told_in_one_line(caplog):
    metrics = Metrics()
    door = Door(None, None, None, 9, metrics)
    with caplog.at_level(logging.WARNING):
        for number in range(1000):
            door.report("bad_token", f"10.0.0.{number}\n\x1b[31m")
    assert metrics.counter("transport/bad_token").value == 1000
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("refused: a wrong token or none (")
    assert "\n" not in caplog.records[0].getMessage() and "\x1b" not in caplog.records[0].getMessage()


@pytest.mark.virtual_time
async def test_a_line_tells_what_became_of_whom_and_how_often_and_each_kind_is_one_of_its_own(caplog):
    door = Door(None, None, None, 9, Metrics())
    for what in ("slow_reader", "rate_limited", "rate_limited", "of a plugin: 9%d"):
        door.report(what, "10.0.0.1:7")
    await asyncio.sleep(1.0)
    door.report("rate_limited", "10.0.0.2:7")
    assert [record.getMessage() for record in caplog.records] == [
        "cut: it does not read what it is sent ('10.0.0.1:7')",
        "read more slowly: too many bytes a second ('10.0.0.1:7')",
        "refused or cut: of a plugin: 9%d ('10.0.0.1:7')",
        "read more slowly: too many bytes a second (2 times, the last '10.0.0.2:7')",
    ]
    # What bounds the lines of one kind on a screen or in a file must not keep another from there.
    assert len({record.msg for record in caplog.records}) == 3
