"""What an actor does on each message of one session: decisions without I/O, thread or clock.

`ActorSession` shows every message to the `SessionMachine`, routes rows to their groups and says what to send, which
worker gets what, and how the session ends. ACTIONs are matched by the slots in them, never by their order.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from aioseed.actor.group import Group, Job, Reaction, Work
from aioseed.actor.seeds import environment_seed
from aioseed.errors import AioseedError, ChannelClosed, ProtocolError, RefusedError, TransportError, UsageError
from aioseed.wire.columns import ACTION_TYPE, PROTOCOL_VERSION, ActionLayout, StepMessage
from aioseed.wire.messages import (
    CONTROL_BYTE,
    Bye,
    ControlMessage,
    Drain,
    Error,
    ErrorCode,
    Hello,
    Lease,
    Ping,
    Pong,
    RefusalCode,
    Refused,
    RefusedRow,
    Revoke,
    Starting,
    Welcome,
    clip,
    decode_control,
)
from aioseed.wire.packing import DEFLATE, Packer
from aioseed.wire.session import SessionMachine, Side, State

_SLOT = struct.Struct("<I")
_LEASE_ENDED = frozenset({ErrorCode.STALE_EPOCH, ErrorCode.NOT_LEASED})


class ActorEvent(NamedTuple):
    """Tell the user of an actor what happened, in one sentence."""

    kind: Literal[
        "waiting",
        "starting",
        "welcomed",
        "lost",
        "refused",
        "rows_refused",
        "revoked",
        "leased",
        "draining",
        "pace",
        "over",
        "error",
    ]
    message: str


class End(NamedTuple):
    """Say how a session ended: the run is over, the learner is to be dialled again, or there is no use in that."""

    outcome: Literal["run_over", "retry", "failed"]
    error: AioseedError | None = None
    may_resume: bool = False
    """True when the learner may still keep the slots, for a session that goes on with them."""


Jobs: TypeAlias = list[tuple[int, Job]]
"""Jobs with the index of the group that each is for."""


@dataclass(slots=True)
class Outcome:
    """Collect what one message makes necessary, in order."""

    sends: list[bytes] = field(default_factory=list)
    jobs: Jobs = field(default_factory=list)
    events: list[ActorEvent] = field(default_factory=list)
    end: End | None = None


class ActorSession:
    """Decide what an actor says and does from HELLO to BYE.

    Args:
        messages: One STEP a group, in the order in which the groups take slots.
        actions: Layout of the answers.
        groups: Those of the session that this one goes on with, or an empty list, which WELCOME fills.
        packs: Share of its size down to which a STEP must come for the next to be packed too, if the learner unpacks
            them; None to pack none.
    """

    def __init__(
        self, messages: Sequence[StepMessage], actions: ActionLayout, groups: list[Group], *, packs: float | None = None
    ) -> None:
        self._messages = messages
        self._actions = actions
        self._packs = packs
        self._machine = SessionMachine(Side.ACTOR)
        self._groups = groups
        # slot -> index of the group that has or last had it
        self._group_of = {slot: index for index, group in enumerate(groups) for slot in group.slots}
        self._acknowledged_before = sum(group.acknowledged_rows for group in groups)
        self._pings = 0
        self._complaint = ""
        self.answers = 0
        """Messages of the learner that are no PING: those it also sends when it hears nothing of this actor."""
        self.welcome: Welcome | None = None
        """What the learner granted; None before that."""
        self._looks, self._stepping = 0, 0.0  # since the last PONG
        self.step_bytes = 0
        """Bytes of the STEPs that were sent in this session."""

    @property
    def acknowledged_rows(self) -> int:
        """Return the transitions that were answered in this session."""
        return sum(group.acknowledged_rows for group in self._groups) - self._acknowledged_before

    @property
    def working(self) -> list[int]:
        """Return the indices of groups whose workers have a job."""
        return [index for index, group in enumerate(self._groups) if group.is_working]

    @property
    def stepping_share(self) -> float:
        """Return the share of the groups that step or reset at this moment."""
        return len(self.working) / len(self._messages)

    def look(self) -> None:
        """Note, at regular moments, which groups step: the learner is told with each PONG."""
        if self.welcome is not None:
            self._looks += 1
            self._stepping += self.stepping_share

    @property
    def idle(self) -> bool:
        """Return True when the learner wants nothing of this actor at present."""
        return self._machine.state is State.ACTIVE and not any(group.leased_rows for group in self._groups)

    def open(self, hello: Hello) -> bytes:
        """Return the first message."""
        return self._say(hello)

    def ping(self) -> bytes | None:
        """Return a PING, or None when it may not be said."""
        self._pings += 1
        return self._say(Ping(number=self._pings)) if self._machine.may_send("ping") else None

    def leave(self, code: Literal["leaving", "failed", "protocol"], reason: str) -> bytes | None:
        """Return the BYE that ends the session, or None when it has ended."""
        return self._say(Bye(code=code, reason=clip(reason))) if self._machine.may_send("bye") else None

    def receive(self, payload: bytes) -> Outcome:
        """Take a message of the learner.

        Raises:
            ProtocolError: The learner broke the rules.
            UsageError: The learner cannot take this actor's messages as they are cut.
        """
        kind = payload[0] if payload else -1
        if kind == ACTION_TYPE:
            return self._on_action(payload)
        if kind != CONTROL_BYTE:
            return self._complain(ProtocolError("unknown_message", f"message type {kind} is not known", fatal=False))
        try:
            message = decode_control(payload)
        except ProtocolError as error:
            if error.fatal:
                raise
            return self._complain(error)
        self._machine.received(message.kind)
        self.answers += not isinstance(message, Ping)
        return self._on_control(message)

    def stepped(self, group: int, work: Work) -> Outcome:
        """Take what a worker did in this session."""
        return self._collect(Outcome(), group, self._groups[group].stepped(work))

    def _on_action(self, payload: bytes) -> Outcome:
        self._machine.received("action")
        self.answers += 1
        rows = self._actions.rows(payload)
        (first,) = _SLOT.unpack_from(payload, self._actions.offsets(rows).columns[1][0])
        index = self._group_of.get(first)
        if index is None:
            raise ProtocolError("action_rows", f"an ACTION names slot {first}, which was never leased here")
        return self._collect(Outcome(), index, self._groups[index].answered(payload, rows))

    def _on_control(self, message: ControlMessage) -> Outcome:
        match message:
            case Ping():
                return Outcome(sends=[self._say(self._pong(message.number))])
            case Starting():
                return Outcome(events=[ActorEvent("starting", "the learner is making ready")])
            case Welcome():
                return self._on_welcome(message)
            case Refused():
                return _on_refused(message)
            case Lease():
                return self._on_lease(message)
            case Revoke():
                return self._on_revoke(message)
            case Error():
                return self._on_error(message)
            case Drain():
                words = f"the learner is going down{_because(message.reason)}"
                return Outcome(events=[ActorEvent("draining", words)])
            case Bye():
                return Outcome(end=self._on_bye(message))
            case _:  # PONG; the table lets nothing else come here
                return Outcome()

    def _pong(self, number: int) -> Pong:
        share = round(self._stepping / self._looks, 4) if self._looks else None
        self._looks, self._stepping = 0, 0.0
        return Pong(number=number, stepping_share=share)

    def _on_welcome(self, welcome: Welcome) -> Outcome:
        counts = [message.rows for message in self._messages]
        self._check_welcome(welcome, counts)
        self.welcome = welcome
        if self._groups:
            return self._go_on(welcome)

        def seed(slot: int, epoch: int) -> int:
            return environment_seed(welcome.seed, slot, epoch)

        outcome, start = Outcome(), 0
        for index, count in enumerate(counts):
            slots, epochs = welcome.slots[start : start + count], welcome.epochs[start : start + count]
            start += count
            group = Group(self._messages[index], self._actions, seed)
            group.packer = self._packer(index)
            self._groups.append(group)
            self._group_of.update(dict.fromkeys(slots, index))
            outcome.jobs.append((index, group.begin(slots, epochs)))
        outcome.events.append(ActorEvent("welcomed", f"joined run {clip(welcome.run_id)} with {start} environments"))
        return outcome

    def _go_on(self, welcome: Welcome) -> Outcome:
        """Go on under the leases that were granted again, and begin the others."""
        granted = dict(zip(welcome.slots, welcome.epochs, strict=True))
        words = f"went on in run {clip(welcome.run_id)} with {len(granted)} environments"
        outcome = Outcome(events=[ActorEvent("welcomed", words)])
        for index, group in enumerate(self._groups):
            group.packer = self._packer(index)
            group.keep(granted)
        for slot, epoch in granted.items():
            if not any(group.holds(slot, epoch) for group in self._groups):
                self._groups[self._place(slot)].reserve(slot, epoch)
        for index, group in enumerate(self._groups):
            self._collect(outcome, index, group.again())
        return outcome

    def _packer(self, index: int) -> Packer | None:
        if self._packs is None or self.welcome is None or DEFLATE not in self.welcome.packings:
            return None
        return Packer(self._messages[index].layout, self._packs)

    def _check_welcome(self, welcome: Welcome, counts: Sequence[int]) -> None:
        if welcome.protocol != PROTOCOL_VERSION:
            raise ProtocolError(
                "version", f"the learner speaks protocol version {welcome.protocol}, not {PROTOCOL_VERSION}"
            )
        if len(welcome.slots) != sum(counts):
            raise ProtocolError(
                "malformed", f"the learner leased {len(welcome.slots)} slots to {sum(counts)} environments"
            )
        if max(counts) > welcome.max_step_rows:
            raise UsageError(
                f"a group of {max(counts)} environments is too large for this learner, which takes"
                f" {welcome.max_step_rows} rows in a message: use more groups"
            )
        largest = max(message.layout.size_bytes(message.rows) for message in self._messages)
        if largest > welcome.max_message_bytes:
            raise UsageError(
                f"a message of {largest} bytes is too large for this learner, which takes"
                f" {welcome.max_message_bytes} bytes: use more groups"
            )

    def _on_lease(self, message: Lease) -> Outcome:
        outcome = Outcome(events=[ActorEvent("leased", f"the learner gave {len(message.slots)} slots")])
        for slot, epoch in zip(message.slots, message.epochs, strict=True):
            index = self._place(slot)
            self._collect(outcome, index, self._groups[index].lease(slot, epoch))
        return outcome

    def _place(self, slot: int) -> int:
        """Return the index of the group that takes `slot`: the one that had it, else one with a free row."""
        index = self._group_of.get(slot)
        if index is None or slot not in self._groups[index].slots:
            index = self._vacant_group(slot)
        self._group_of[slot] = index
        return index

    def _vacant_group(self, slot: int) -> int:
        for index, group in enumerate(self._groups):
            if group.free_rows:
                return index
        raise ProtocolError("not_leased", f"slot {slot} was leased, but every environment here has a slot")

    def _on_revoke(self, message: Revoke) -> Outcome:
        words = f"the learner took {len(message.slots)} slots{_because(message.reason)}"
        outcome = Outcome(events=[ActorEvent("revoked", words)])
        for slot, epoch in zip(message.slots, message.epochs, strict=True):
            index = self._group_of.get(slot)
            if index is not None:
                self._collect(outcome, index, self._groups[index].revoke(slot, epoch))
        return outcome

    def _on_error(self, message: Error) -> Outcome:
        self._complaint = clip(message.message or message.code)
        words = f"the learner refused a message ({clip(message.code)}){_because(message.message)}"
        outcome = Outcome(events=[ActorEvent("rows_refused" if message.rows else "error", words)])
        by_group: dict[int, list[RefusedRow]] = {}
        for row in message.rows:
            index = self._group_of.get(row.slot)
            if index is not None:
                by_group.setdefault(index, []).append(row)
        for index, rows in by_group.items():
            self._collect(outcome, index, self._groups[index].refused(rows))
        if any(row.code not in _LEASE_ENDED for row in message.rows):
            # The two ends disagree about what was said on this channel; a new session settles it.
            outcome.end = End("retry", TransportError(words))
        return outcome

    def _on_bye(self, message: Bye) -> End:
        why = _because(message.reason or self._complaint)
        match message.code:
            case "run_over":
                return End("run_over")
            case "protocol":
                return End("failed", ProtocolError("unexpected_message", f"the learner ended the session{why}"))
            case _:
                return End("retry", ChannelClosed(f"the learner ended the session ({message.code}){why}", clean=True))

    def _complain(self, error: ProtocolError) -> Outcome:
        sends = [self._say(Error(code=error.code, message=clip(str(error))))] if self._machine.may_send("error") else []
        return Outcome(sends=sends, events=[ActorEvent("error", str(error))])

    def _collect(self, outcome: Outcome, group: int, reaction: Reaction) -> Outcome:
        # A step that is ready while the learner drains would not be answered; it is not sent.
        if reaction.sends and self._machine.state is State.ACTIVE:
            self._machine.sent("step")
            outcome.sends.extend(reaction.sends)
            self.step_bytes += sum(map(len, reaction.sends))
        if reaction.job is not None:
            outcome.jobs.append((group, reaction.job))
        return outcome

    def _say(self, message: ControlMessage) -> bytes:
        self._machine.sent(message.kind)
        return message.encode()


def _on_refused(refused: Refused) -> Outcome:
    if refused.code == "run_over":
        return Outcome(end=End("run_over"))
    error = RefusedError(
        refused.code,
        f"the learner refused this actor: {clip(refused.message, 512)}",
        field=clip(refused.field),
        ours=clip(refused.theirs),
        theirs=clip(refused.ours),
        retry=refused.retry,
    )
    if refused.retry:
        return Outcome(end=End("retry", error, may_resume=refused.code != RefusalCode.RESUME_TOKEN))
    return Outcome(end=End("failed", error))


def _because(reason: str) -> str:
    return f": {clip(reason)}" if reason else ""
