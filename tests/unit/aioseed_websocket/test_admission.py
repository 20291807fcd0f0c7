from __future__ import annotations

import base64

import pytest
from aioseed_websocket.admission import admission
from multidict import CIMultiDict

from aioseed.transport import Keyring, ListenOptions
from aioseed.transport.address import Address

LOOPBACK = Address("ws", "127.0.0.1", 8700)
PUBLIC = Address("ws", "0.0.0.0", 8700)


def ask(
    *headers: tuple[str, str],
    token: str | None = "right",
    bound: Address = LOOPBACK,
    method: str = "GET",
    path: str = "/",
    origins: frozenset[str] = frozenset(),
) -> int | None:
    options = ListenOptions(None if token is None else Keyring.of(token), allowed_origins=origins)
    return admission(method, path, CIMultiDict([("Host", "127.0.0.1:8700"), *headers]), options, bound).status


def as_subprotocol(token: str) -> str:
    return "aioseed.token." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def test_right_token_in_the_header_is_let_in() -> None:
    assert ask(("Authorization", "Bearer right")) is None


@pytest.mark.parametrize("token", ["right", "a?>~", "schlüssel", ""])
def test_token_may_come_as_a_subprotocol(token: str) -> None:
    assert ask(("Sec-WebSocket-Protocol", f"aioseed.v1, {as_subprotocol(token)}"), token=token) is None


@pytest.mark.parametrize(
    "header",
    [
        ("X-Nothing", ""),
        ("Authorization", "Bearer wrong"),
        ("Authorization", "right"),
        ("Authorization", "Basic right"),
        ("Sec-WebSocket-Protocol", "aioseed.v1"),
        ("Sec-WebSocket-Protocol", f"aioseed.v1, {as_subprotocol('wrong')}"),
        ("Sec-WebSocket-Protocol", "aioseed.v1, aioseed.token.!!!"),
        ("Sec-WebSocket-Protocol", "aioseed.v1, aioseed.token._w"),
        ("Sec-WebSocket-Protocol", f"aioseed.v1, {as_subprotocol('right')}!!!!"),
        ("Sec-WebSocket-Protocol", f"aioseed.v1, {as_subprotocol('right')}é"),
    ],
)
def test_no_token_or_another_is_401(header: tuple[str, str]) -> None:
    assert ask(header) == 401


def test_token_alone_without_the_version_is_400() -> None:
    assert ask(("Sec-WebSocket-Protocol", as_subprotocol("right"))) == 400
    assert ask(("Sec-WebSocket-Protocol", "chat"), token=None) == 400


@pytest.mark.parametrize("bound", [LOOPBACK, PUBLIC])
def test_request_of_a_page_in_a_browser_is_403_whatever_it_shows(bound: Address) -> None:
    assert ask(("Authorization", "Bearer right"), ("Origin", "http://127.0.0.1:8700"), bound=bound) == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:8700", "LOCALHOST"])
def test_loopback_listener_knows_its_names(host: str) -> None:
    assert admission("GET", "/", CIMultiDict(Host=host), ListenOptions(), LOOPBACK).status is None


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8700", "", "[::1", "localhost@evil.example"])
def test_rebound_name_is_403_on_loopback(host: str) -> None:
    assert admission("GET", "/", CIMultiDict(Host=host), ListenOptions(), LOOPBACK).status == 403


def test_a_token_in_the_header_comes_through_a_proxy_under_its_name_and_one_of_a_page_does_not() -> None:
    options, proxied = ListenOptions(Keyring.of("right")), ("Host", "learner.example:443")

    def status(*headers: tuple[str, str]) -> int | None:
        return admission("GET", "/", CIMultiDict([proxied, *headers]), options, LOOPBACK).status

    assert status(("Authorization", "Bearer right")) is None
    assert status(("Authorization", "Bearer wrong")) == 401
    assert status() == 401
    of_a_page = ("Sec-WebSocket-Protocol", f"aioseed.v1, {as_subprotocol('right')}")
    assert status(of_a_page) == 403
    assert status(of_a_page, ("Authorization", "Basic x")) == 403


def test_bound_name_is_known_and_a_public_listener_takes_any() -> None:
    assert admission("GET", "/", CIMultiDict(Host="lab.example"), ListenOptions(), PUBLIC).status is None
    named = Address("ws", "127.0.0.2", 1)
    for host in ("127.0.0.2:1", "127.0.0.1:1"):
        assert admission("GET", "/", CIMultiDict(Host=host), ListenOptions(), named).status is None


@pytest.mark.parametrize(
    ("origins", "status"),
    [
        (["https://lab.example"], None),
        (["https://lab.example:444"], 403),
        (["http://lab.example"], 403),
        (["null"], 403),
    ],
)
def test_an_origin_that_is_listed_may_and_its_neighbours_may_not(origins: list[str], status: int | None) -> None:
    shown = [("Origin", origin) for origin in origins]
    assert ask(("Authorization", "Bearer right"), *shown, origins=frozenset({"https://lab.example"})) == status


def test_two_origins_are_none() -> None:
    origins = [("Origin", "https://lab.example")] * 2
    assert ask(("Authorization", "Bearer right"), *origins, origins=frozenset({"https://lab.example"})) == 403


def test_a_listed_origin_still_needs_the_token_and_our_host() -> None:
    listed = frozenset({"https://lab.example"})
    assert ask(("Origin", "https://lab.example"), origins=listed) == 401
    headers = CIMultiDict([("Host", "evil.example"), ("Origin", "https://lab.example")])
    assert admission("GET", "/", headers, ListenOptions(allowed_origins=listed), LOOPBACK).status == 403


@pytest.mark.parametrize("path", ["/other", "/?x=1", "//", "http://host/"])
def test_there_is_one_path_and_only_friends_learn_that(path: str) -> None:
    assert ask(("Authorization", "Bearer right"), path=path) == 404
    assert ask(path=path) == 401


def test_only_get_opens_a_websocket() -> None:
    assert ask(("Authorization", "Bearer right"), method="POST") == 400
