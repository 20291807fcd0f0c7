"""What a dialler makes of a certificate and of what OpenSSL says of it; handshakes are in integration/test_tls.py."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from aioseed.errors import CertificateError
from aioseed.transport.client_tls import (
    ClientTls,
    Identity,
    _best_name,
    _context,
    _usable,
    certificate_error,
    parse_fingerprint,
)

URL = "wss://learner:8700"
DIGITS = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text",
    [
        DIGITS,
        DIGITS.upper(),
        f" sha256:{DIGITS}\n",
        "SHA256:" + ":".join(DIGITS[at : at + 2] for at in range(0, 64, 2)),
    ],
)
def test_a_fingerprint_is_read_as_tools_write_it(text: str) -> None:
    assert parse_fingerprint(text) == DIGITS


@pytest.mark.parametrize("text", ["", DIGITS[:-1], DIGITS + "0", DIGITS[:-1] + "g", f"sha1:{DIGITS}"])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        parse_fingerprint(text)


def test_an_identity_does_not_show_its_key() -> None:
    shown = repr(Identity(b"root", "learner", b"certificate-canary", b"key-canary"))
    assert "learner" in shown and "canary" not in shown


def unverified(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (
            unverified(10, "certificate has expired"),
            "expired",
            r"certificate has expired; this machine's clock says \d",
        ),
        (unverified(9, "certificate is not yet valid"), "expired", "is not valid now: certificate is not yet valid"),
        (unverified(62, "Hostname mismatch."), "name", "for another name: Hostname mismatch$"),
        (unverified(64, "IP address mismatch."), "name", "for another name: IP address mismatch$"),
        (
            unverified(18, "self-signed certificate"),
            "foreign",
            "not trusted: self-signed certificate; .* --fingerprint",
        ),
        (unverified(99, ""), "foreign", "not trusted: .*certificate verify failed"),
        (alert("TLSV1_ALERT_UNKNOWN_CA"), "client", r"did not accept our certificate \(tlsv1 alert unknown ca\)"),
        (alert("SSLV3_ALERT_BAD_CERTIFICATE"), "client", "alert bad certificate"),
        (alert("SSLV3_ALERT_CERTIFICATE_EXPIRED"), "client", "alert certificate expired"),
        (alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "client", "alert certificate required"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_found_wherever_it_stands_among_causes(
    error: ssl.SSLError, reason: str, said: str
) -> None:
    caused, came_upon = OSError("cannot connect"), OSError("cannot connect")
    caused.__cause__, came_upon.__context__ = error, error
    # A library's own error has the type and not what it is made from: that stands behind it.
    own = ssl.SSLCertVerificationError(1, "of a library")
    for attribute in ("verify_code", "verify_message"):
        if hasattr(own, attribute):
            delattr(own, attribute)
    own.__cause__ = error
    for seen in (error, caused, came_upon, own):
        found = certificate_error(seen, URL)
        assert found is not None and found.reason == reason and found.url == URL
        with pytest.raises(CertificateError, match=said):
            raise found


def test_the_date_is_told_where_the_clock_may_be_wrong() -> None:
    found = certificate_error(unverified(10, "certificate has expired"), URL)
    days = {time.strftime("%Y-%m-%d", time.gmtime(time.time() - late_s)) for late_s in (0, 60)}
    assert str(found).rpartition(" ")[2] in days


class Elsewhere(OSError):
    """An error of another kind that has a `reason` too, as urllib's have."""

    reason = "TLSV1_ALERT_UNKNOWN_CA"


@pytest.mark.parametrize(
    "error",
    [alert("WRONG_VERSION_NUMBER"), alert("SSLV3_ALERT_HANDSHAKE_FAILURE"), ssl.SSLError(1, "no reason"), Elsewhere()],
)
def test_other_failures_say_nothing_of_a_certificate(error: OSError) -> None:
    assert certificate_error(error, URL) is None


@pytest.mark.parametrize(
    ("names", "subject", "best"),
    [
        ([("IP Address", "10.0.0.1"), ("DNS", "learner"), ("DNS", "other")], [], "learner"),
        ([("IP Address", "0:0:0:0:0:0:0:1")], [(("commonName", "name"),)], "::1"),
        ([("URI", "spiffe://x"), ("IP Address", "10.0.0.1")], [], "10.0.0.1"),
        ([], [(("countryName", "CH"),), (("commonName", "learner"),)], "learner"),
        ([], [], ""),
    ],
)
def test_the_name_that_other_libraries_compare_is_one_before_a_number(
    names: list[tuple[str, str]], subject: list[tuple[tuple[str, str], ...]], best: str
) -> None:
    assert _best_name(names, subject) == best


def test_nothing_older_than_tls_12_is_spoken_and_the_authorities_of_the_system_are_trusted_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[ssl.SSLContext] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda self: loaded.append(self))
    context = _context(ClientTls(), None, URL)
    assert loaded == [context] and context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED


def test_files_that_cannot_be_used_are_named_and_those_that_are_not_given_are_not() -> None:
    for paths, named in (((Path("a"), None), "in a for"), ((Path("a"), Path("b")), "in a and b for")):
        with pytest.raises(CertificateError, match=f"{named} {URL} cannot be used: broken$"), _usable(URL, *paths):
            raise ValueError("broken")
