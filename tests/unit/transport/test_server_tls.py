"""Files of a listener's certificate as they are found in the world; handshakes are in integration/test_tls.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aioseed.errors import UsageError
from aioseed.transport.server_tls import ServerTls

COMMENT = "# NetLock Arany (Class Gold) Főtanúsítvány\n".encode()


def commented(path: Path, folder: Path) -> Path:
    copy = folder / path.name
    copy.write_bytes(COMMENT + path.read_bytes() + COMMENT)
    copy.chmod(0o600)
    return copy


def test_comments_around_certificates_have_whatever_letters(authority: Any, tmp_path: Path) -> None:
    """As in the bundles that are copied from systems and browsers."""
    issued = authority.issue("127.0.0.1")
    plain = ServerTls(*issued, authority.file).material
    found = ServerTls(*(commented(path, tmp_path) for path in (*issued, authority.file))).material
    assert found.fingerprint == plain.fingerprint
    assert found.context.get_ca_certs() == plain.context.get_ca_certs() != []


@pytest.mark.parametrize("text", [b"", COMMENT, b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"-----END CERTIFICATE-----\n"])
def test_a_file_without_a_certificate_is_said_so(authority: Any, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "none.pem").write_bytes(text)
    with pytest.raises(UsageError, match=r"none\.pem .*cannot be used: it holds no certificate in PEM form"):
        ServerTls(tmp_path / "none.pem", authority.issue("127.0.0.1").key)


def test_files_that_do_not_belong_together_are_told_in_plain_words(authority: Any) -> None:
    one, other = authority.issue("127.0.0.1"), authority.issue("127.0.0.1")
    with pytest.raises(UsageError, match=f"in {one.certificate} and {other.key} cannot be used: key values mismatch$"):
        ServerTls(one.certificate, other.key)


def test_a_file_that_is_gone_for_a_while_is_told_once_and_its_certificate_stays(authority: Any) -> None:
    issued = authority.issue("127.0.0.1")
    tls = ServerTls(*issued)
    before, data = tls.material, issued.certificate.read_bytes()
    assert tls.refresh() is False
    issued.certificate.unlink()
    with pytest.raises(UsageError, match=f"the file {issued.certificate} cannot be read: No such file or directory$"):
        tls.refresh()
    assert tls.refresh() is False and tls.material is before
    issued.certificate.write_bytes(data)
    assert tls.refresh() is True and tls.material.fingerprint == before.fingerprint
    assert str(issued.key.read_bytes()) not in repr(tls.material)
