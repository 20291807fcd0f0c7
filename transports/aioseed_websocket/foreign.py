"""What an exception of aiohttp or of the operating system means in aioseed's tree of errors."""

from __future__ import annotations

import os

import aiohttp

from aioseed.errors import AuthenticationError, ChannelClosed, ConnectError, TransportError
from aioseed.transport.client_tls import certificate_error

FOREIGN = (aiohttp.ClientError, aiohttp.WebSocketError, aiohttp.WSMessageTypeError, OSError, TimeoutError, ValueError)
"""Everything that dialling or using a WebSocket may raise."""


def dial_error(error: BaseException, url: str, connect_timeout_s: float) -> TransportError:
    """Return what a dialler is told when opening a channel raised `error`."""
    if (about_certificate := certificate_error(error, url)) is not None:
        return about_certificate
    if isinstance(error, aiohttp.ClientResponseError):
        if error.status == 401:
            return AuthenticationError(f"{url} did not accept the token", url=url)
        return ConnectError(f"{url} answered with HTTP status {error.status} ({error.message})", url=url)
    if isinstance(error, TimeoutError):
        return ConnectError(f"{url} did not answer within {connect_timeout_s:g} s", url=url)
    if isinstance(error, aiohttp.ClientSSLError):
        return ConnectError(f"no secure connection to {url}: {error}", url=url)
    return ConnectError(f"nobody answers at {url}: {_reason(error)}", url=url)


def _reason(error: BaseException) -> str:
    """Return the system's words, such as "Connection refused", where aiohttp wraps them in its own and the address."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno)
    return str(cause) or type(cause).__name__


def broken(error: BaseException) -> ChannelClosed:
    """Return how a channel ended whose use raised `error`."""
    return ChannelClosed(f"the connection broke: {error or type(error).__name__}"[:200], clean=False)
