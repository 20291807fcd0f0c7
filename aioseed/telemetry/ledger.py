"""The ledger: where every accepted environment transition is, or how it ended.

The unit is the environment transition: one row that is not the first of an episode. Book-keeping is double entry: a
transition enters once (`accept`), rests in one account at a time, and leaves once: consumed, evaluated or dropped. So

    accepted = consumed + evaluated + held + sum of dropped

holds after every single call, and a reader in another thread never sees it broken. What the terms mean to a user stands
in docs/topics/ledger.md.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from aioseed.errors import AioseedError, CheckpointError
from aioseed.specs import Json


class Reason(StrEnum):
    """Say why transitions were dropped."""

    PARTIAL_UNROLL = "partial_unroll"
    """The run ended before the unroll was full."""
    LEASE_ENDED = "lease_ended"
    """The session was gone before the unroll was full."""
    NONFINITE = "nonfinite"
    """The environment sent a reward or an observation that is not finite."""
    NONFINITE_UPDATE = "nonfinite_update"
    """The update that would have trained on them was not finite and was skipped."""
    RESTART = "restart"
    """The checkpoint from which the run goes on was written while they were held."""
    SHUTDOWN = "shutdown"
    """The run ended while their unroll waited for an update."""


class Account(StrEnum):
    """Say where a held transition rests."""

    OPEN = "open"
    """In an unroll that is not full yet."""
    QUEUED = "queued"
    """In a finished unroll that no update has taken yet."""
    TRAINING = "training"
    """In the batch that an update works on."""
    REPLAY = "replay"
    """In replay, to be trained on again and again."""


class LedgerSnapshot(NamedTuple):
    """Hold the ledger as it was at one moment; all counts are environment transitions."""

    accepted: int
    consumed: int
    evaluated: int
    open: int
    queued: int
    training: int
    replay: int
    dropped: dict[str, int]  # reason -> count, reasons that never occurred are absent
    lost_after_checkpoint: int  # outside the formula

    @property
    def held(self) -> int:
        """Return what is on its way to training: the sum of the accounts."""
        return self.open + self.queued + self.training + self.replay

    @property
    def trained(self) -> int:
        """Return what was trained on: consumed, or still in replay."""
        return self.consumed + self.replay

    @property
    def on_the_way(self) -> int:
        """Return what is held and was never trained on."""
        return self.held - self.replay

    @property
    def imbalance(self) -> int:
        """Return accepted minus all that is accounted for; anything but 0 is a fault of aioseed."""
        return self.accepted - (self.consumed + self.evaluated + self.held + sum(self.dropped.values()))


class Ledger:
    """Account for every accepted transition.

    Thread: any. Each call holds one lock for a few additions; call it a handful of times a batch, never once a row.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accepted = 0
        self._consumed = 0
        self._evaluated = 0
        self._held = dict.fromkeys(Account, 0)
        self._dropped: dict[Reason, int] = {}
        self._lost_after_checkpoint = 0

    def accept(self, count: int, evaluated: int = 0) -> None:
        """Enter `count` new transitions into OPEN and `evaluated` more, which no unroll will hold, as evaluated."""
        _check_count(count)
        _check_count(evaluated)
        with self._lock:
            self._accepted += count + evaluated
            self._evaluated += evaluated
            self._held[Account.OPEN] += count

    def finish(self, count: int) -> None:
        """Move `count` transitions from OPEN to QUEUED: their unrolls are full."""
        with self._lock:
            self._withdraw(Account.OPEN, count)
            self._held[Account.QUEUED] += count

    def begin_training(self, count: int) -> None:
        """Move `count` transitions from QUEUED to TRAINING: an update has taken them."""
        with self._lock:
            self._withdraw(Account.QUEUED, count)
            self._held[Account.TRAINING] += count

    def remember(self, count: int) -> None:
        """Move `count` transitions from TRAINING to REPLAY: they will be trained on until they are forgotten."""
        with self._lock:
            self._withdraw(Account.TRAINING, count)
            self._held[Account.REPLAY] += count

    def consume(self, count: int, account: Account = Account.TRAINING) -> None:
        """Close the books on `count` transitions of `account`: they were trained on, or replay has forgotten them."""
        with self._lock:
            self._withdraw(account, count)
            self._consumed += count

    def drop(self, count: int, reason: Reason, account: Account) -> None:
        """Take `count` transitions out of `account` as dropped for `reason`."""
        with self._lock:
            self._withdraw(account, count)
            if count:
                self._dropped[reason] = self._dropped.get(reason, 0) + count

    def lose_after_checkpoint(self, count: int) -> None:
        """Note `count` transitions that an earlier process accepted after the checkpoint this run goes on from.

        They were never accepted by this ledger, so they stay outside the formula.
        """
        _check_count(count)
        with self._lock:
            self._lost_after_checkpoint += count

    def snapshot(self) -> LedgerSnapshot:
        """Return all counts as of one moment."""
        with self._lock:
            return LedgerSnapshot(
                accepted=self._accepted,
                consumed=self._consumed,
                evaluated=self._evaluated,
                open=self._held[Account.OPEN],
                queued=self._held[Account.QUEUED],
                training=self._held[Account.TRAINING],
                replay=self._held[Account.REPLAY],
                dropped={reason.value: count for reason, count in self._dropped.items()},
                lost_after_checkpoint=self._lost_after_checkpoint,
            )

    def audit(self, recounted: Mapping[Account, int]) -> None:
        """Compare accounts with what their rooms count when they look at their own arrays.

        Meaningful only while nothing moves between the recount and this call.

        Raises:
            AioseedError: An account says something else, or the books do not balance.
        """
        with self._lock:
            held = dict(self._held)
        for account, count in recounted.items():
            if held[account] != count:
                raise AioseedError(
                    f"the ledger has {held[account]} transitions in account {account}, a recount finds {count}"
                )
        imbalance = self.snapshot().imbalance
        if imbalance:
            raise AioseedError(f"the ledger is out of balance by {imbalance} transitions")

    def to_json(self) -> dict[str, Json]:
        """Return the form that a checkpoint carries."""
        state = self.snapshot()
        return {
            "accepted": state.accepted,
            "consumed": state.consumed,
            "evaluated": state.evaluated,
            "held": state.held,
            "dropped": dict[str, Json](state.dropped),
            "lost_after_checkpoint": state.lost_after_checkpoint,
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Json], *, path: str = "", replay: int = 0) -> Ledger:
        """Return the ledger with which a run goes on from a checkpoint.

        What was held when the checkpoint was written is dropped{restart}: open unrolls and queues are not saved. Only
        the `replay` transitions of a saved replay are held again.

        Args:
            form: What `to_json` returned.
            path: File that it was read from, for the message.
            replay: Transitions in the saved replay.

        Raises:
            CheckpointError: The form is not one that `to_json` makes, or it does not balance.
        """
        ledger = cls()
        try:
            ledger._accepted = _saved_count(form["accepted"])
            ledger._consumed = _saved_count(form["consumed"])
            ledger._evaluated = _saved_count(form["evaluated"])
            ledger._lost_after_checkpoint = _saved_count(form["lost_after_checkpoint"])
            held, dropped = _saved_count(form["held"]), form["dropped"]
            if not isinstance(dropped, dict):
                raise TypeError("dropped is not an object")
            ledger._dropped = {Reason(reason): _saved_count(count) for reason, count in dropped.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError("the saved ledger cannot be read", path=path) from error
        if replay > held:
            raise CheckpointError(
                f"the saved replay has {replay} transitions, the saved ledger holds {held}", path=path
            )
        ledger._held[Account.REPLAY] = replay
        if held > replay:
            ledger._dropped[Reason.RESTART] = ledger._dropped.get(Reason.RESTART, 0) + held - replay
        if ledger.snapshot().imbalance:
            raise CheckpointError("the saved ledger does not balance", path=path)
        return ledger

    def _withdraw(self, account: Account, count: int) -> None:
        _check_count(count)
        if self._held[account] < count:
            raise AioseedError(
                f"{count} transitions were to leave account {account}, which holds {self._held[account]}"
            )
        self._held[account] -= count


def _check_count(count: int) -> None:
    if count < 0:
        raise AioseedError(f"the ledger cannot move {count} transitions")


def _saved_count(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value
