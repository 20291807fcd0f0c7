"""Certificates of a learner: one that it makes for itself, and how long any of them still lasts."""

from __future__ import annotations

import datetime
import ipaddress
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from aioseed.errors import UsageError
from aioseed.training.files import Files

if TYPE_CHECKING:
    from cryptography import x509

CERTIFICATE = "certificate.pem"
KEY = "key.pem"
LIFE_DAYS = 825
WARN_DAYS = 14.0
_CLOCK_SKEW = datetime.timedelta(days=1)


def self_signed(directory: Path, hosts: Iterable[str]) -> tuple[Path, Path]:
    """Return the paths of a certificate and its key in `directory`, made anew if one is missing or does not last.

    They are on the disk before they have their names, and whoever is killed meanwhile leaves no two that do not fit.
    The directory gets mode 0700 and the key 0600. An actor knows the certificate by its fingerprint, so the names in it
    matter only to other software.

    Args:
        directory: Private directory of the run.
        hosts: Names and addresses to put into it beside those of this machine.

    Raises:
        UsageError: The directory cannot be written, or the certificate is damaged.
    """
    certificate, key = directory / CERTIFICATE, directory / KEY
    try:
        if key.exists() and certificate.exists() and _days_left_of(certificate) > WARN_DAYS:
            return certificate, key
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        certificate_pem, key_pem = _make([*hosts, socket.gethostname(), "localhost", "127.0.0.1", "::1"])
        certificate.unlink(missing_ok=True)
        Files().replace(key, key_pem)
        Files().replace(certificate, certificate_pem)
    except OSError as error:
        raise UsageError(f"no certificate can be made in {directory}: {error.strerror or error}") from error
    return certificate, key


def _days_left_of(certificate: Path) -> float:
    try:
        return days_left(certificate.read_bytes())
    except UsageError as error:
        message = (
            f"{certificate} is damaged: remove it, and another is made, with a --fingerprint that actors must know"
        )
        raise UsageError(message) from error


def days_left(certificate: bytes) -> float:
    """Return for how many days the first certificate in a PEM text is still valid; negative once it has expired.

    Raises:
        UsageError: It holds none, or one that cannot be read.
    """
    from cryptography import x509

    try:
        ends = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    except (ValueError, x509.InvalidVersion) as error:
        raise UsageError(f"the certificate cannot be read: {error}") from error
    return (ends - _now()) / datetime.timedelta(days=1)


def _make(hosts: list[str]) -> tuple[bytes, bytes]:
    # Here, since a learner without TLS does not need the library.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "aioseed learner")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _CLOCK_SKEW)
        .not_valid_after(_now() + datetime.timedelta(days=LIFE_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hosts)]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.encode("idna").decode())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
