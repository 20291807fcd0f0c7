"""What a status or an exception of gRPC means in aioseed's tree of errors."""

from __future__ import annotations

import asyncio

import grpc

from aioseed.errors import AuthenticationError, ChannelClosed, ConnectError, TransportError

FOREIGN = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
"""Everything that reading from, writing to or ending a call may raise."""


MAX_WORDS = 200
"""So much of what the other side says is told."""

_THE_CONNECTION = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL})
"""What gRPC gives a call whose connection has ended under it: no peer of ours says so."""

_SAYS_NOTHING = "Internal error from Core"
"""Its words where an end meets a read or a write that has just begun."""


def dial_error(code: grpc.StatusCode, details: str, url: str) -> TransportError:
    """Return what a dialler is told when its call ended with `code` before it was let in."""
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return AuthenticationError(f"{url} did not accept the token", url=url)
    if code is grpc.StatusCode.UNAVAILABLE:
        return ConnectError(f"nobody answers at {url}: {details[:MAX_WORDS]}", url=url)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ConnectError(f"{url} is a gRPC server, but not one of aioseed", url=url)
    return ConnectError(f"{url} did not open a channel ({code.name}: {details[:MAX_WORDS]})", url=url)


def ended(code: grpc.StatusCode, reason: str) -> ChannelClosed:
    """Return how a channel ended whose call has the status `code`; `reason` is the peer's, or the status details."""
    if code in _THE_CONNECTION:
        reason = "the connection broke" if reason in ("", _SAYS_NOTHING) else f"the connection broke: {reason}"
    return ChannelClosed(reason[:MAX_WORDS], clean=code is grpc.StatusCode.OK)


def broken(error: BaseException) -> ChannelClosed:
    """Return how a channel ended whose use raised `error`."""
    if isinstance(error, grpc.aio.AioRpcError):
        return ended(error.code(), error.details() or error.code().name)
    return ChannelClosed(f"the connection broke: {str(error) or type(error).__name__}"[:MAX_WORDS], clean=False)
