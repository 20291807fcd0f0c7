"""No status and no exception of gRPC is without a place in our tree."""

from __future__ import annotations

import asyncio
import inspect

import grpc
import pytest
from aioseed_grpc.foreign import FOREIGN, broken, dial_error, ended

from aioseed.errors import AuthenticationError, ConnectError

EXCEPTIONS = [
    grpc.RpcError,
    *(kind for _, kind in inspect.getmembers(grpc.aio, inspect.isclass) if issubclass(kind, Exception)),
]


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_every_status_ends_a_dial_and_a_channel_with_an_error_of_ours(code: grpc.StatusCode) -> None:
    error = dial_error(code, "told", "grpc://host:1")
    expected = AuthenticationError if code is grpc.StatusCode.UNAUTHENTICATED else ConnectError
    assert type(error) is expected
    assert error.url == "grpc://host:1"
    closed = ended(code, "told" * 100)
    assert closed.clean is (code is grpc.StatusCode.OK)
    assert len(closed.reason) == 200


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED])
def test_of_a_long_text_of_the_other_side_the_beginning_is_told(code: grpc.StatusCode) -> None:
    assert str(dial_error(code, "x" * 8000, "grpc://host:1")).count("x") == 200


HTTP = "Received http2 header with status: {}"
CONNECTING = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:8701: "


@pytest.mark.parametrize(
    ("code", "details", "said"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, HTTP.format(401), "h:1 answered with HTTP status 401: a proxy"),
        (grpc.StatusCode.UNIMPLEMENTED, HTTP.format(404), "h:1 answered with HTTP status 404: a proxy"),
        (grpc.StatusCode.UNAVAILABLE, HTTP.format(502), "h:1 answered with HTTP status 502: a proxy"),
        (
            grpc.StatusCode.INTERNAL,
            "Stream removed (Data frame with END_STREAM flag received) (RST_STREAM (error code 0))",
            "it answered with a page",
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            CONNECTING + "Failed parsing HTTP/2 (Expected SETTINGS frame as the first frame, got frame type 80)",
            "speaks no HTTP/2, or wants TLS",
        ),
        (grpc.StatusCode.UNAVAILABLE, CONNECTING + "Cannot check peer: missing selected ALPN property.", "ALPN h2"),
        (
            grpc.StatusCode.UNAVAILABLE,
            CONNECTING + "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:100000f7:SSL"
            " routines:OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid certificate verification context: OK",
            "does not speak TLS",
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            CONNECTING + "recvmsg:Connection reset by peer",
            "grpc://h:1 hung up before it answered: does it want TLS (grpcs://h:1)",
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            CONNECTING + "Failed to connect to remote host: connect: Connection refused (111)",
            "nobody answers at grpc://h:1: connect: Connection refused (111)",
        ),
    ],
)
def test_what_stands_before_a_learner_is_told_in_a_sentence(code: grpc.StatusCode, details: str, said: str) -> None:
    """The details are those of grpcio 1.85 before nginx, haproxy and stunnel."""
    error = dial_error(code, details, "grpc://h:1")
    assert type(error) is ConnectError
    assert said in str(error)
    assert len(str(error)) < 120


def test_the_list_of_exceptions_is_not_empty() -> None:
    assert {grpc.aio.AioRpcError, grpc.aio.UsageError, grpc.aio.AbortError} <= set(EXCEPTIONS)


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_every_exception_of_grpc_is_caught(kind: type[Exception]) -> None:
    assert issubclass(kind, FOREIGN)


@pytest.mark.parametrize("error", [grpc.RpcError(), asyncio.InvalidStateError("RPC already finished.")])
def test_exceptions_break_a_channel(error: Exception) -> None:
    closed = broken(error)
    assert not closed.clean
    assert closed.reason.rstrip(".")[-1].isalpha()  # without words of its own it has its name


def test_status_in_an_exception_is_told() -> None:
    metadata = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, metadata, metadata, details="too large")
    assert broken(error).reason == "too large"
    assert not broken(error).clean


@pytest.mark.parametrize(
    ("code", "told", "said"),
    [
        (grpc.StatusCode.INTERNAL, "Internal error from Core", "the connection broke"),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", "the connection broke: Socket closed"),
        (grpc.StatusCode.ABORTED, "the peer does not read", "the peer does not read"),
    ],
)
def test_a_connection_that_ended_is_told_as_such_and_a_peer_in_its_own_words(code, told, said) -> None:
    assert ended(code, told).reason == said
