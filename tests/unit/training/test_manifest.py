"""What a manifest may hold, whoever wrote it."""

from __future__ import annotations

import pytest

from aioseed.training import manifest as manifests
from aioseed.training.manifest import Manifest, Unsound

WHOLE = Manifest(7, 3, {"aioseed": "1"}, {"state.json": manifests.entry(b"{}")})


def test_what_is_read_is_what_was_written() -> None:
    assert manifests.decode(manifests.encode(WHOLE)) == WHOLE


@pytest.mark.parametrize("field", ["step", "generation"])
@pytest.mark.parametrize("value", [True, 7.0, "7", None])
def test_a_count_that_is_no_whole_number_is_not_sound_though_its_digest_is_right(field: str, value: object) -> None:
    with pytest.raises(Unsound, match="is not what was written"):
        manifests.decode(manifests.encode(WHOLE._replace(**{field: value})))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": 1, "files": []}', b"[" * 100_000, b"\xff"])
def test_what_is_no_manifest_cannot_be_read(data: bytes) -> None:
    with pytest.raises(Unsound):
        manifests.decode(data)
