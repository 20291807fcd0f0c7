"""How a dialler knows its learner: by an authority's signature and the name, or by the SHA-256 of its certificate.

With a fingerprint, the certificate is first fetched without trust and compared; from then on it is the only root, so
that whoever cannot use its private key is refused by the TLS library itself, before the token is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import aiohappyeyeballs

from aioseed.errors import CertificateError
from aioseed.transport.address import Address
from aioseed.transport.server_tls import no_password

_ANSWERS_WITHIN_S = 2.0
_NEXT_ADDRESS_AFTER_S = 0.25
"""What RFC 8305 recommends, and what aiohttp and gRPC take for the connection itself."""
_HOST_MISMATCH, _IP_MISMATCH = 62, 64  # X509_V_ERR_* of OpenSSL
_OURS = re.compile("ALERT_(UNKNOWN_CA|BAD_CERT|CERTIFICATE)|CERTIFICATE_REQUIRED")
_EXPIRED, _NOT_YET_VALID = 10, 9


class ClientTls(NamedTuple):
    """Say whom to trust and who we are. The files are read at each dial, so that they may change."""

    fingerprint: str | None = None
    """SHA-256 of the learner's certificate, as `parse_fingerprint` returns it; takes the place of `ca` and the name."""
    ca: Path | None = None
    """PEM file of the authorities to trust; None trusts those of the system."""
    certificate: Path | None = None
    """PEM file with our own certificate, for learners that ask for one."""
    key: Path | None = None
    """PEM file with the private key of `certificate`; None if that file holds both."""


class Pinned(NamedTuple):
    """Hold a certificate that was fetched and has the right fingerprint."""

    pem: str
    name: str  # one that it is valid for


_pinned: dict[str, Pinned] = {}
"""By fingerprint: the certificate behind one never changes, so it is fetched once a process."""


def parse_fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint as 64 small hexadecimal digits; colons and ``sha256:`` in front are let pass.

    Raises:
        ValueError: It is none.
    """
    digits = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError("a fingerprint is the SHA-256 of a certificate: 64 hexadecimal digits")
    return digits


class _HungUp(Exception):
    """Say that the peer hung up after the handshake, without a word."""


class Identity(NamedTuple):
    """Hold what a TLS library other than Python's needs, in PEM."""

    roots: bytes | None  # None: those that the library brings
    name: str  # to expect in the certificate instead of the host; empty: the host
    certificate: bytes | None
    key: bytes | None

    def __repr__(self) -> str:
        return f"Identity(name={self.name!r})"  # the key stays unseen


async def dial_context(address: Address, tls: ClientTls) -> ssl.SSLContext:
    """Return a context for dialling `address`, whose certificate is fetched first if a fingerprint is given.

    Safe to cancel.

    Raises:
        CertificateError: The fingerprint differs, or a file of ours cannot be used.
        OSError: Nobody answers, or the handshake failed.
    """
    pinned = await _fetch(address, tls) if tls.fingerprint is not None else None
    return await asyncio.to_thread(_context, tls, pinned, address.url)


async def dial_identity(address: Address, tls: ClientTls) -> Identity:
    """Return the same as `dial_context` in the form that other libraries take. Safe to cancel.

    Raises:
        CertificateError: The fingerprint differs, or a file of ours cannot be used.
        OSError: Nobody answers, or the handshake failed.
    """
    pinned = await _fetch(address, tls) if tls.fingerprint is not None else None
    return await asyncio.to_thread(_read_identity, tls, pinned, address.url)


async def why_refused(address: Address, tls: ClientTls, until_s: float) -> CertificateError | None:
    """Shake hands once more with Python's own TLS and return what is wrong with a certificate, None if nothing is.

    For libraries that tell less. Safe to cancel.

    Args:
        until_s: When to give up, on the clock of the event loop: what was not found by then is None too.
    """
    try:
        async with asyncio.timeout_at(until_s):
            context = await dial_context(address, tls)
            context.set_alpn_protocols(["http/1.1", "h2"])
            try:
                await _greet(address, context)
            except _HungUp:
                return await _wants_ours(address, tls, context)
    except CertificateError as error:
        return error
    except OSError as error:
        found = certificate_error(error, address.url)
        if found is not None and found.reason == "foreign" and _pinned.pop(tls.fingerprint or "", None) is not None:
            return await why_refused(address, tls, until_s)  # which fetches it anew, and so tells its fingerprint
        return found
    return None


async def _wants_ours(address: Address, tls: ClientTls, context: ssl.SSLContext) -> CertificateError | None:
    """Say that who hung up after the handshake wants another certificate of ours, unless it hangs up on everybody.

    Since TLS 1.3 a client's handshake is over before the server looks at its certificate, and not every library says
    why it then hangs up. In TLS 1.2 it looks before that. So who shakes hands there hangs up for another reason, as a
    proxy does whose far end is away.

    Raises:
        OSError: Nobody answers any more.
    """
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        await _greet(address, context, answer=False)
    except (ssl.SSLError, ConnectionResetError):
        did = "did not accept our certificate" if tls.certificate is not None else "wants a certificate of ours"
        return CertificateError("client", f"{address.url} {did} (--tls-cert and --tls-key)", url=address.url)
    return None


def certificate_error(error: BaseException, url: str) -> CertificateError | None:
    """Return what `error`, or an exception that it was made from, says about a certificate; None if nothing."""
    seen: BaseException | None = error
    while seen is not None:
        # aiohttp's own has the type and stands before the one that says what it is.
        if isinstance(seen, ssl.SSLCertVerificationError) and hasattr(seen, "verify_code"):
            return _unverified(seen, url)
        reason = getattr(seen, "reason", None)
        if isinstance(seen, ssl.SSLError) and isinstance(reason, str) and _OURS.search(reason):
            words = f"{url} did not accept our certificate ({reason.lower().replace('_', ' ')})"
            return CertificateError("client", words, url=url)
        seen = seen.__cause__ or seen.__context__
    return None


def _unverified(error: ssl.SSLCertVerificationError, url: str) -> CertificateError:
    words = (error.verify_message or str(error)).rstrip(".")
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        today = time.strftime("%Y-%m-%d", time.gmtime())
        told = f"the certificate of {url} is not valid now: {words}; this machine's clock says {today}"
        return CertificateError("expired", told, url=url)
    if error.verify_code in (_HOST_MISMATCH, _IP_MISMATCH):
        return CertificateError("name", f"the certificate of {url} is for another name: {words}", url=url)
    hint = "trust its authority with --tls-ca, or itself with --fingerprint"
    return CertificateError("foreign", f"the certificate of {url} is not trusted: {words}; {hint}", url=url)


async def _fetch(address: Address, tls: ClientTls) -> Pinned:
    wanted = tls.fingerprint or ""
    if wanted in _pinned:
        return _pinned[wanted]
    careless = await asyncio.to_thread(_context, tls._replace(ca=None), None, address.url, verify=False)
    careless.set_alpn_protocols(["http/1.1", "h2"])
    der, _ = await _greet(address, careless, answer=False)
    found = hashlib.sha256(der).hexdigest()
    if found != wanted:
        raise CertificateError(
            "fingerprint",
            f"the certificate of {address.url} has the fingerprint {found}, not {wanted}",
            url=address.url,
        )
    pem = ssl.DER_cert_to_PEM_cert(der)
    # Once more, now with trust, since only a verified certificate is decoded.
    trusting = await asyncio.to_thread(_context, tls, Pinned(pem, ""), address.url)
    trusting.set_alpn_protocols(["http/1.1", "h2"])
    _, name = await _greet(address, trusting, answer=False)
    _pinned[wanted] = Pinned(pem, name or address.host)
    return _pinned[wanted]


def _context(tls: ClientTls, pinned: Pinned | None, url: str, *, verify: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if pinned is not None:
        # The certificate itself is the trust, whoever signed it and whatever name it bears.
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=pinned.pem)
    elif not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca is not None:
        with _usable(url, tls.ca):
            context.load_verify_locations(tls.ca)
    else:
        context.load_default_certs()
    if tls.certificate is not None:
        with _usable(url, tls.certificate, tls.key):
            context.load_cert_chain(tls.certificate, tls.key, password=no_password)
    return context


def _read_identity(tls: ClientTls, pinned: Pinned | None, url: str) -> Identity:
    # Made to be thrown away: it says what is wrong with a file, where gRPC prints lines of its own or ends the process.
    _context(tls, pinned, url)
    roots = pinned.pem.encode() if pinned is not None else None
    if roots is None and tls.ca is not None:
        with _usable(url, tls.ca):
            roots = tls.ca.read_bytes()
    certificate = key = None
    if tls.certificate is not None:
        with _usable(url, tls.certificate, tls.key):
            certificate = tls.certificate.read_bytes()
            key = certificate if tls.key is None else tls.key.read_bytes()
    return Identity(roots, pinned.name if pinned is not None else "", certificate, key)


@contextlib.contextmanager
def _usable(url: str, *paths: Path | None) -> Iterator[None]:
    """Name the files that are read inside when they cannot be used."""
    try:
        yield
    except (OSError, ValueError) as error:
        names = " and ".join(str(path) for path in paths if path is not None)
        if isinstance(error, ssl.SSLError):
            # OpenSSL gives no reason where it found nothing of what it looked for.
            reason = (error.reason or "no certificate, or no private key, in PEM form").lower().replace("_", " ")
        else:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        words = f"the certificate in {names} for {url} cannot be used: {reason}"
        raise CertificateError("files", words, url=url) from error


async def _greet(address: Address, context: ssl.SSLContext, *, answer: bool = True) -> tuple[bytes, str]:
    """Shake hands and return the peer's certificate (DER) and a name that it is valid for.

    With `answer`, wait a moment for the first byte: since TLS 1.3 a server says after the handshake that it wants
    another certificate of a client.

    Raises:
        OSError: Nobody answers, or the handshake failed.
        _HungUp: It did not, but no answer will come.
    """
    connected = await _connect(address)
    reader, writer = await asyncio.open_connection(
        sock=connected, ssl=context, ssl_handshake_timeout=10.0, server_hostname=address.host
    )
    try:
        connection = writer.get_extra_info("ssl_object")
        if answer:
            try:
                async with asyncio.timeout(_ANSWERS_WITHIN_S):
                    if not await reader.read(1):
                        raise _HungUp
            except ConnectionResetError as error:
                raise _HungUp from error
            except TimeoutError:
                pass
        shown = connection.getpeercert() or {}
        return connection.getpeercert(binary_form=True), _best_name(
            shown.get("subjectAltName", ()), shown.get("subject", ())
        )
    finally:
        writer.close()


async def _connect(address: Address) -> socket.socket:
    """Connect to whichever of the host's addresses answers: one may swallow all that is sent there. Safe to cancel.

    Not by asyncio's own `happy_eyeballs_delay`, which uvloop lacks.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER_S, interleave=1)


def _best_name(names: Iterable[tuple[str, str]], subject: Iterable[Iterable[tuple[str, str]]]) -> str:
    """Return one that every TLS library can compare: a name before a number, which Python writes in a way of its own.

    The common name of the subject counts where there is no other.
    """
    common = [("DNS", value) for part in subject for kind, value in part if kind == "commonName"]
    for kind, value in sorted(names or common, key=lambda name: name[0] != "DNS"):
        with contextlib.suppress(ValueError):
            return value if kind == "DNS" else str(ipaddress.ip_address(value))
    return ""
