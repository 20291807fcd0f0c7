"""No exception of aiohttp is without a place in our tree."""

from __future__ import annotations

import inspect
import socket
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import client_exceptions
from aioseed_websocket.foreign import FOREIGN, broken, dial_error
from multidict import CIMultiDict, CIMultiDictProxy

from aioseed.errors import AuthenticationError, ConnectError

CLASSES = [
    kind
    for _, kind in inspect.getmembers(client_exceptions, inspect.isclass)
    if issubclass(kind, BaseException) and kind.__module__ == client_exceptions.__name__
]


def example(kind: type[BaseException]) -> BaseException:
    if issubclass(kind, aiohttp.ClientResponseError):
        return kind(Mock(), (), status=500, message="told")
    if issubclass(kind, aiohttp.ClientConnectorCertificateError):
        return kind(Mock(host="host", port=1, is_ssl=True), ValueError("told"))
    if issubclass(kind, client_exceptions.UnixClientConnectorError):
        return kind("/path", Mock(), OSError(111, "told"))
    if issubclass(kind, aiohttp.ClientConnectorError):
        return kind(Mock(host="host", port=1, ssl=True), OSError(111, "told"))
    if issubclass(kind, aiohttp.ServerFingerprintMismatch):
        return kind(b"", b"", "host", 1)
    return kind("told")


def test_the_list_is_not_empty() -> None:
    assert {aiohttp.ClientConnectionResetError, aiohttp.WSServerHandshakeError} <= set(CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_client_exception_is_caught_and_becomes_ours(kind: type[BaseException]) -> None:
    assert issubclass(kind, FOREIGN)
    error = dial_error(example(kind), "ws://host:1", 5.0)
    assert type(error) is ConnectError
    assert error.url == "ws://host:1"
    closed = broken(example(kind))
    assert not closed.clean
    assert len(closed.reason) <= 200


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), OSError(1, "x"), ValueError("bad header")])
def test_exceptions_of_the_system_become_ours_too(error: Exception) -> None:
    assert isinstance(error, FOREIGN)
    assert type(dial_error(error, "ws://host:1", 5.0)) is ConnectError
    assert broken(error).reason[-1].isalpha()  # without words of its own it has its name


def test_of_a_long_text_of_the_other_side_the_beginning_is_told() -> None:
    error = aiohttp.WSServerHandshakeError(Mock(), (), status=403, message="x" * 8000)
    assert str(dial_error(error, "ws://host:1", 5.0)).count("x") == 200


def test_status_401_is_a_wrong_token_and_others_are_told() -> None:
    def told(status: int) -> Exception:
        error = aiohttp.WSServerHandshakeError(Mock(), (), status=status, message="Invalid response status")
        return dial_error(error, "ws://host:1", 5.0)

    assert type(told(401)) is AuthenticationError
    assert type(told(403)) is ConnectError
    assert "403" in str(told(403))


@pytest.mark.parametrize(
    ("status", "headers", "url", "said"),
    [
        (200, {}, "ws://host:1", "a page and no learner"),
        (301, {"Location": "https://host/"}, "ws://host:1", "leads to 'https://host/', which is not followed"),
        (302, {}, "ws://host:1", "HTTP status 302 (told)"),
        (400, {}, "ws://host:1", "pass Upgrade on, or want TLS (wss://host:1)?"),
        (400, {}, "wss://host:1", "pass Upgrade on, or want a certificate of ours (--tls-cert)?"),
        (401, {"WWW-Authenticate": 'Basic realm="x"'}, "ws://host:1", "asks for a login ('Basic'), which no actor has"),
        (404, {}, "ws://host:1", "change the path?"),
        (502, {}, "ws://host:1", "a proxy is there, and reaches no learner"),
        (503, {}, "ws://host:1", "or the learner has as many connections as it may"),
        (504, {}, "ws://host:1", "a proxy is there, and reaches no learner"),
    ],
)
def test_a_status_says_what_a_proxy_there_may_do_wrong(
    status: int, headers: dict[str, str], url: str, said: str
) -> None:
    answer = CIMultiDictProxy(CIMultiDict(headers))
    error = aiohttp.WSServerHandshakeError(Mock(), (), status=status, message="told", headers=answer)
    told = dial_error(error, url, 5.0)
    assert type(told) is ConnectError
    assert str(told).startswith(f"{url} answered with HTTP status {status} (told)")
    assert said in str(told)


def test_what_a_peer_says_of_itself_is_shown_in_part_and_without_control_characters() -> None:
    for name, status in (("Location", 301), ("WWW-Authenticate", 401)):
        answer = CIMultiDictProxy(CIMultiDict({name: "\x1b[2J" + "x" * 1000}))
        error = aiohttp.WSServerHandshakeError(Mock(), (), status=status, message="told", headers=answer)
        assert "\x1b" not in str(dial_error(error, "ws://host:1", 5.0))
        assert len(str(dial_error(error, "ws://host:1", 5.0))) < 400


def test_a_wrong_token_is_one_also_where_it_is_asked_for_by_name() -> None:
    answer = CIMultiDictProxy(CIMultiDict({"WWW-Authenticate": "Bearer"}))
    error = aiohttp.WSServerHandshakeError(Mock(), (), status=401, message="told", headers=answer)
    assert type(dial_error(error, "ws://host:1", 5.0)) is AuthenticationError


def test_a_name_that_nobody_knows_is_told_in_the_words_of_the_system() -> None:
    unknown = aiohttp.ClientConnectorDNSError(
        Mock(host="host", port=1, ssl=True), socket.gaierror(-2, "Name or service not known")
    )
    told = dial_error(unknown, "ws://host:1", 5.0)
    assert str(told) == "nobody answers at ws://host:1: Name or service not known"


def test_late_answer_names_the_time_out() -> None:
    assert str(dial_error(TimeoutError(), "ws://host:1", 2.5)) == "ws://host:1 did not answer within 2.5 s"
