"""How much memory replay takes, and what to say when it does not fit."""

from __future__ import annotations

from aioseed.errors import ConfigError
from aioseed.experience.layout import unroll_bytes
from aioseed.machine import memory_bytes
from aioseed.types import UnrollLayout

_SHARE = 0.75


def check_memory(capacity_unrolls: int, layout: UnrollLayout, max_bytes: int | None, spare_share: float = 0.0) -> str:
    """Return the sentence that says what replay will take: to be printed at the start.

    Args:
        capacity_unrolls: Most unrolls that are held.
        layout: Shape of the unrolls.
        max_bytes: Bound; None: three quarters of what this process may use.
        spare_share: Memory beyond the capacity's, as a share of that, for saving while unrolls go.

    Raises:
        ConfigError: It is more than the bound; the sentence says what would fit.
    """
    limit = max_bytes if max_bytes is not None else int(memory_bytes() * _SHARE)
    each = unroll_bytes(layout) * (1 + spare_share)
    needed, fits = int(capacity_unrolls * each), int(limit / each)
    what = f"{capacity_unrolls:,} unrolls of {layout.rows - 1} steps of {_form(layout)} = {_size(needed)}"
    if needed > limit:
        where = "for replay.max_bytes" if max_bytes is not None else "for this machine"
        raise ConfigError(
            f"replay: {what}: too large {where}, the largest that fits is {fits:,}",
            path="replay.capacity_unrolls",
            value=str(capacity_unrolls),
        )
    return f"replay: {what}"


def _form(layout: UnrollLayout) -> str:
    forms = ["x".join(map(str, spec.shape)) or "1" for spec in layout.observation]
    return " + ".join(forms)


def _size(count: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 2**10:.3g} KiB"
