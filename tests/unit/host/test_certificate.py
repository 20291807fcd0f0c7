"""The certificate that a learner makes for itself: what a kill leaves of it keeps no learner out."""

from __future__ import annotations

from pathlib import Path

import pytest

from aioseed.errors import UsageError
from aioseed.host.certificate import CERTIFICATE, KEY, self_signed
from aioseed.training.files import Files
from aioseed.transport.server_tls import ServerTls


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
