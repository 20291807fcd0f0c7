"""What an exception of aiohttp or of the operating system means in aioseed's tree of errors."""

from __future__ import annotations

import errno
import os
import ssl

import aiohttp

from aioseed.errors import AuthenticationError, ChannelClosed, ConnectError, TransportError
from aioseed.transport.client_tls import certificate_error

FOREIGN = (aiohttp.ClientError, aiohttp.WebSocketError, aiohttp.WSMessageTypeError, OSError, TimeoutError, ValueError)
"""Everything that dialling or using a WebSocket may raise."""

MAX_WORDS = 200
"""So much of what the other side says is told."""

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
"""What OpenSSL calls an answer that is no TLS."""

_SAID_BY_PROXIES = {
    200: "that is a page and no learner; does a proxy there lead / elsewhere?",
    404: "does a proxy there lead / elsewhere, or change the path?",
    502: "a proxy is there, and reaches no learner",
    503: "a proxy there reaches no learner, or the learner has as many connections as it may",
    504: "a proxy is there, and reaches no learner",
}


def dial_error(error: BaseException, url: str, connect_timeout_s: float) -> TransportError:
    """Return what a dialler is told when opening a channel raised `error`."""
    if (about_certificate := certificate_error(error, url)) is not None:
        return about_certificate
    if isinstance(error, aiohttp.ClientResponseError):
        if not isinstance(error, aiohttp.WSServerHandshakeError):
            # aiohttp could not read it, and shows the bytes.
            return ConnectError(f"what answers at {url} speaks no HTTP, so it is no learner's WebSocket", url=url)
        return _refusal(error, url)
    if isinstance(error, TimeoutError):
        return ConnectError(f"{url} did not answer within {connect_timeout_s:g} s", url=url)
    if (words := _tls_words(error)) is not None:
        return ConnectError(f"no secure connection to {url}: {words}", url=url)
    if _hung_up(error):
        hint = f": does it want TLS (wss{url[2:]}), or lead to a learner that is away?" if url.startswith("ws:") else ""
        return ConnectError(f"{url} hung up before it answered{hint}", url=url)
    return ConnectError(f"nobody answers at {url}: {_reason(error)}", url=url)


def _refusal(error: aiohttp.WSServerHandshakeError, url: str) -> TransportError:
    """Return what a status other than 101 means."""
    headers = error.headers if error.headers is not None else {}
    challenge = (headers.get("WWW-Authenticate", "").split() or [""])[0]
    if error.status == 401 and challenge.lower() in ("", "bearer"):
        return AuthenticationError(f"{url} did not accept the token", url=url)
    words = f"{url} answered with HTTP status {error.status} ({error.message[:MAX_WORDS]})"
    if error.status == 401:
        # A learner asks for nothing of that kind.
        words += f": a proxy there asks for a login ({challenge[:40]!r}), which no actor has"
    elif 300 <= error.status < 400 and (leads_to := headers.get("Location")):
        words += f" and leads to {leads_to[:MAX_WORDS]!r}, which is not followed: dial where the learner is"
    elif error.status == 400:
        words += f": does a proxy there pass Upgrade on{_or_tls(url)}?"
    elif error.status in _SAID_BY_PROXIES:
        words += f": {_SAID_BY_PROXIES[error.status]}"
    return ConnectError(words, url=url)


def _or_tls(url: str) -> str:
    return f", or want TLS (wss{url[2:]})" if url.startswith("ws:") else ", or want a certificate of ours (--tls-cert)"


def _tls_words(error: BaseException) -> str | None:
    """Return what TLS says of a failed handshake, None if `error` is about something else."""
    cause = _cause(error)
    if isinstance(cause, ssl.SSLError):
        if cause.reason in _NO_TLS:
            return "what listens there does not speak TLS"
        return cause.reason.lower().replace("_", " ") if cause.reason else str(cause)
    return str(cause) if isinstance(error, aiohttp.ClientSSLError) else None


def _hung_up(error: BaseException) -> bool:
    """Say whether somebody took the connection and let it go without a word."""
    cause = _cause(error)
    return isinstance(cause, (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError)) or (
        isinstance(cause, OSError) and cause.errno in (errno.ECONNRESET, errno.EPIPE)
    )


def _cause(error: BaseException) -> BaseException:
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error


def _reason(error: BaseException) -> str:
    """Return the system's words, such as "Connection refused", where aiohttp wraps them in its own and the address."""
    cause = _cause(error)
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno)
    words = cause.strerror if isinstance(cause, OSError) else None  # of a name that is not known
    return words or str(cause) or type(cause).__name__


def broken(error: BaseException) -> ChannelClosed:
    """Return how a channel ended whose use raised `error`."""
    return ChannelClosed(f"the connection broke: {str(error) or type(error).__name__}"[:MAX_WORDS], clean=False)
