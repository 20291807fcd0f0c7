"""A certificate for trying out listeners on loopback; its key is in every copy of aioseed and protects nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from aioseed.transport.server_tls import ServerTls

_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBbjCCARWgAwIBAgIBATAKBggqhkjOPQQDAjAgMR4wHAYDVQQDDBVhaW9zZWVk
IHRyYW5zcG9ydCBraXQwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBa
MCAxHjAcBgNVBAMMFWFpb3NlZWQgdHJhbnNwb3J0IGtpdDBZMBMGByqGSM49AgEG
CCqGSM49AwEHA0IABE4N8tZE3+EGW6DjbXMtdExA6BTzZeqqm3qwKE9FU8eI9S3h
V4JOLxl4bsDTNnAoaUpxcCa09tb4jNxI6yYkEpCjPjA8MCwGA1UdEQQlMCOCCWxv
Y2FsaG9zdIcEfwAAAYcQAAAAAAAAAAAAAAAAAAAAATAMBgNVHRMBAf8EAjAAMAoG
CCqGSM49BAMCA0cAMEQCIFXXJicG1q9hOuOJYiQBZ+gXlvvipnY91or3FiJ/cGqc
AiB79p+ffN218Y48u2UhtEjuY92pEMDwILzuOh9k8qO4PQ==
-----END CERTIFICATE-----
"""
_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3XnvXGjuz5HyIVo+
Ex+sVL+EEgG0/umsfhsMzrgD82qhRANCAARODfLWRN/hBlug421zLXRMQOgU82Xq
qpt6sChPRVPHiPUt4VeCTi8ZeG7A0zZwKGlKcXAmtPbW+IzcSOsmJBKQ
-----END PRIVATE KEY-----
"""


def loopback_tls() -> ServerTls:
    """Return a certificate for ``localhost``, 127.0.0.1 and ::1, signed by itself. Uses files: not in a loop."""
    with tempfile.TemporaryDirectory() as directory:
        certificate, key = Path(directory, "certificate.pem"), Path(directory, "key.pem")
        certificate.write_text(_CERTIFICATE)
        key.touch(mode=0o600)
        key.write_text(_KEY)
        return ServerTls(certificate, key)
