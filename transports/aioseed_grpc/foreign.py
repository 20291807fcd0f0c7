"""What a status or an exception of gRPC means in aioseed's tree of errors."""

from __future__ import annotations

import asyncio
import re

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

_HTTP_STATUS = re.compile(r"Received http2 header with status: (\d+)")
_LAST_ERROR = re.compile(r".*; last error: \w+: \S+: (?:Failed to connect to remote host: )?")
"""What stands before gRPC's reason: the address again, in a form of its own."""
_HUNG_UP = re.compile("Socket closed|Connection reset by peer")
_IN_OUR_WORDS = (
    (
        re.compile("missing selected ALPN|NO_APPLICATION_PROTOCOL"),
        "what listens there speaks no HTTP/2 inside TLS (ALPN h2), as gRPC must",
    ),
    (re.compile("Failed parsing HTTP/2"), "what listens there speaks no HTTP/2, or wants TLS (grpcs://)"),
    (re.compile("WRONG_VERSION_NUMBER|HTTP_REQUEST"), "what listens there does not speak TLS"),
    (
        re.compile("Data frame with END_STREAM flag received"),
        "it answered with a page, as a proxy does that reaches no learner",
    ),
)


def dial_error(code: grpc.StatusCode, details: str, url: str) -> TransportError:
    """Return what a dialler is told when its call ended with `code` before it was let in."""
    if (status := _HTTP_STATUS.search(details)) is not None:
        # gRPC takes 401 for a wrong token and 404 for a method that is missing, but a learner answers with neither.
        words = "a proxy is there, and leads to no learner"
        return ConnectError(f"{url} answered with HTTP status {status[1]}: {words}", url=url)
    for pattern, words in _IN_OUR_WORDS:
        if pattern.search(details):
            return ConnectError(f"no learner at {url}: {words}", url=url)
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return AuthenticationError(f"{url} did not accept the token", url=url)
    if code is grpc.StatusCode.UNAVAILABLE and _HUNG_UP.search(details):
        plain = url.startswith("grpc:")
        hint = f": does it want TLS (grpcs{url[4:]}), or lead to a learner that is away?" if plain else ""
        return ConnectError(f"{url} hung up before it answered{hint}", url=url)
    if code is grpc.StatusCode.UNAVAILABLE:
        return ConnectError(f"nobody answers at {url}: {_LAST_ERROR.sub('', details)[:MAX_WORDS]}", url=url)
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
