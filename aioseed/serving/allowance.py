"""What the holder of a token may take from a learner: so many environments, and so many messages beside steps."""

from __future__ import annotations

from collections.abc import Iterable

from aioseed.errors import RefusedError
from aioseed.serving.session import Session
from aioseed.transport.guard import Bucket
from aioseed.wire.messages import RefusalCode

BURST_S = 4.0
"""Seconds whose messages may come at once: an actor answers for each of its groups when its lease ends."""


def check_environments(session: Session, sessions: Iterable[Session], wanted: int) -> None:
    """Accept that `session` leases `wanted` environments beside those that its token has in all `sessions`.

    Raises:
        RefusedError: Its token does not allow so many; later it may, when another session of it has ended.
    """
    credential = session.channel.credential
    if credential is None or credential.max_environments is None:
        return
    held = sum(
        other.held.size
        for other in sessions
        if other.channel.credential is not None and other.channel.credential.digest == credential.digest
    )
    if held + wanted > credential.max_environments:
        raise RefusedError(
            RefusalCode.CAPACITY,
            f"{wanted} environments were asked for, the token of {credential.name} allows"
            f" {credential.max_environments} and {held} are leased with it",
            field="environments",
            ours=str(credential.max_environments - held),
            theirs=str(wanted),
            retry=held > 0,
        )


def message_bucket(per_s: float, now_s: float) -> Bucket:
    """Return what bounds the messages of one session that are no steps."""
    return Bucket(per_s, per_s * BURST_S, now_s)
