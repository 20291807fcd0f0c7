"""The certificate that a learner makes for itself: what a kill leaves of it keeps no learner out."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from aioseed.errors import UsageError
from aioseed.host import certificate as made
from aioseed.host.certificate import CERTIFICATE, KEY, LIFE_DAYS, WARN_DAYS, self_signed
from aioseed.training.files import Files
from aioseed.transport.server_tls import ServerTls


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_nobody_else_can_look_at_the_key_or_into_its_directory(tmp_path: Path) -> None:
    directory = tmp_path / "run" / "private"
    before = os.umask(0)
    try:
        _, key = self_signed(directory, [])
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert key.stat().st_mode & 0o777 == 0o600


def test_it_names_the_hosts_once_and_holds_since_yesterday_for_clocks_that_are_late(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    path, _ = self_signed(tmp_path, ["10.0.0.1", "lab.example", "localhost"])
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    begins = now - certificate.not_valid_before_utc
    assert datetime.timedelta(hours=23) < begins < datetime.timedelta(hours=25)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"lab.example", "localhost"} <= {*names.get_values_for_type(x509.DNSName)}
    assert {*map(ipaddress.ip_address, ("10.0.0.1", "127.0.0.1", "::1"))} <= {
        *names.get_values_for_type(x509.IPAddress)
    }
    assert len([*names]) == len({*names})


@pytest.mark.parametrize(("days", "stays"), [(LIFE_DAYS - WARN_DAYS - 1, True), (LIFE_DAYS - WARN_DAYS + 1, False)])
def test_it_stays_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float, stays: bool) -> None:
    before = ServerTls(*self_signed(tmp_path, [])).material.fingerprint
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    monkeypatch.setattr(made, "_now", lambda: later)
    assert (ServerTls(*self_signed(tmp_path, [])).material.fingerprint == before) is stays


@pytest.mark.parametrize("lost", [CERTIFICATE, KEY])
def test_one_of_which_a_part_is_lost_is_made_anew(tmp_path: Path, lost: str) -> None:
    self_signed(tmp_path, [])
    (tmp_path / lost).unlink()
    assert ServerTls(*self_signed(tmp_path, [])).material.fingerprint


@pytest.mark.parametrize("writes", [0, 1])
def test_a_kill_while_one_is_renewed_leaves_no_two_parts_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    self_signed(tmp_path, [])
    replace, left = Files.replace, iter(range(writes))

    def dies(self: Files, path: Path, data: bytes) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        replace(self, path, data)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("aioseed.host.certificate.WARN_DAYS", 1e6)
        patched.setattr(Files, "replace", dies)
        self_signed(tmp_path, [])
    assert ServerTls(*self_signed(tmp_path, [])).material.fingerprint


def test_one_that_is_damaged_is_named_with_what_to_do(tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path, [])
    certificate.write_bytes(b"")
    with pytest.raises(UsageError, match=r"certificate\.pem is damaged: remove it, and another is made"):
        self_signed(tmp_path, [])


def test_of_a_version_that_is_none_nobody_can_tell_how_long_it_lasts(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, [])
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    of_another = der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020101"), 1)
    certificate.write_text(ssl.DER_cert_to_PEM_cert(of_another))
    tls = ServerTls(certificate, key)  # OpenSSL does not look at it
    with pytest.raises(UsageError, match="the certificate cannot be read: 1 is not a valid X509 version"):
        made.days_left(tls.material.certificate)
