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
