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
