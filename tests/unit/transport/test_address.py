from __future__ import annotations

import pytest

from aioseed.transport.address import Address, parse_url, peer_name, resolve


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://127.0.0.1:8700", Address("ws", "127.0.0.1", 8700)),
        ("ws://LocalHost:0/", Address("ws", "localhost", 0)),
        ("wss://[::1]:443", Address("wss", "::1", 443)),
    ],
)
def test_url_is_scheme_host_and_port(url: str, address: Address) -> None:
    assert parse_url(url, ("ws", "wss")) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("grpc://host:1", "begins with ws://"),
        ("host:1", "begins with ws://"),
        ("ws://host", "a host and a port"),
        ("ws://:80", "a host and a port"),
        ("ws://host:99999", "(?i)port"),
        ("ws://secret@host:1", "secret"),
        ("ws://host:1/path", "nothing may follow"),
        ("ws://host:1?token=x", "nothing may follow"),
        ("ws://[::1:1", "(?i)invalid"),
    ],
)
def test_anything_else_in_a_url_is_an_error(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_url(url, ("ws",))


def test_url_of_an_address_can_be_parsed_again() -> None:
    for address in (Address("ws", "::1", 5), Address("ws", "host", 5)):
        assert parse_url(address.url, ("ws",)) == address


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback_is_known_by_address_and_name(host: str, loopback: bool) -> None:
    assert Address("ws", host, 1).is_loopback is loopback


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("10.0.0.1", "10.0.0.1:5"),
        ("::ffff:10.0.0.1", "10.0.0.1:5"),
        ("fd00::1", "[fd00::1]:5"),
        ("::ffff:0:1", "[::ffff:0:1]:5"),
    ],
)
def test_a_peer_has_the_name_that_urls_give_it(host: str, name: str) -> None:
    assert peer_name(host, 5) == name


async def test_localhost_resolves_to_one_ipv4_address() -> None:
    assert await resolve(Address("ws", "localhost", 0)) == "127.0.0.1"


async def test_unknown_host_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r".+"):
        await resolve(Address("ws", "no-such-host.invalid", 0))
