"""The certificate of a listener, read again when its files change."""

from __future__ import annotations

import hashlib
import os
import ssl
import stat
from pathlib import Path
from typing import NamedTuple

from aioseed.errors import UsageError

_Signature = tuple[tuple[int, int, int], ...]


class Material(NamedTuple):
    """Hold what was read at one moment."""

    context: ssl.SSLContext
    certificate: bytes  # PEM, the leaf first
    key: bytes  # PEM
    client_ca: bytes | None  # PEM; None asks no certificate of a client
    fingerprint: str  # SHA-256 of the leaf, 64 hexadecimal digits

    def __repr__(self) -> str:
        return f"Material(fingerprint={self.fingerprint})"  # the key stays unseen


class ServerTls:
    """Give listeners the certificate to show now. TLS 1.2 is the least; sessions are not resumed by tickets.

    A ticket would let a client back in whose certificate was meanwhile taken from the list of authorities.

    Thread: `refresh` in one at a time; `material` may be read in any.

    Args:
        certificate: PEM file with the certificate, and what leads from it to an authority.
        key: PEM file with its private key, which only its owner may read.
        client_ca: PEM file with the authorities whose certificates clients must show; None asks for none.

    Raises:
        UsageError: A file cannot be read, or they do not belong together.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._seen = self._signature()
        self.material = self._read()
        """What was read last."""

    def refresh(self) -> bool:
        """Read the files again if they changed, and say whether there is something new. Reads files: not in a loop.

        Raises:
            UsageError: They cannot be used; the certificate from before stays. Said once for each change.
        """
        signature = self._signature()
        if signature == self._seen:
            return False
        # Noted before reading: what changes meanwhile is read at the next call.
        self._seen = signature
        self.material = self._read()
        return True

    def _files(self) -> list[Path]:
        return [path for path in (self._certificate, self._key, self._client_ca) if path is not None]

    def _signature(self) -> _Signature:
        found = []
        for path in self._files():
            try:
                status = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def _read(self) -> Material:
        certificate, key = _bytes(self._certificate), _bytes(self._key, private=True)
        client_ca = None if self._client_ca is None else _bytes(self._client_ca)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        try:
            leaf = ssl.PEM_cert_to_DER_cert(_first_certificate(certificate))
            # An encrypted key would ask for its password on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=no_password)
            if client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(cadata=_text(client_ca))
        except (OSError, ValueError) as error:
            names = " and ".join(str(path) for path in self._files())
            raise UsageError(f"the certificate in {names} cannot be used: {_words(error)}") from error
        return Material(context, certificate, key, client_ca, hashlib.sha256(leaf).hexdigest())


def _bytes(path: Path, *, private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            if private and os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise UsageError(f"the private key {path} can be read by others: run chmod 600 {path}")
            return file.read()
    except OSError as error:
        raise UsageError(f"the file {path} cannot be read: {error.strerror or error}") from error


def _text(pem: bytes) -> str:
    """Return PEM as text without the letters beyond ASCII that comments may have: OpenSSL passes comments over."""
    return pem.decode("ascii", "ignore")


def _first_certificate(pem: bytes) -> str:
    text, end = _text(pem), "-----END CERTIFICATE-----"
    begin = text.find("-----BEGIN CERTIFICATE-----")
    if begin < 0 or end not in text:
        raise ValueError("it holds no certificate in PEM form")
    return text[begin : text.index(end, begin) + len(end)]


def no_password() -> str:
    """Be asked for the password of a key; nobody sits before a learner or an actor who could type it.

    Raises:
        ValueError: Always.
    """
    raise ValueError("its key is encrypted")


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error)
