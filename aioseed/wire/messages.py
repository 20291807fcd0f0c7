"""Control messages: small JSON objects, one class each.

Keys that a class does not know are ignored, so that a later minor version can add some; a wrong type or a missing key
is a protocol error. docs/reference/wire.md documents every field.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import from_json, to_json

from aioseed.errors import ProtocolError, UsageError

MAX_CONTROL_BYTES = 256 * 2**10
"""Largest control message: a WELCOME for several thousand slots."""
MAX_TASK_BYTES = 16 * 2**10
MAX_ERROR_ROWS = 1024
"""Rows that one ERROR can name."""
MAX_JSON_VALUES = 20_000
MAX_JSON_DEPTH = 100
"""Bounds of a spec and of each value in a task configuration."""


def _json(value: JsonValue) -> JsonValue:
    """Return a value that JSON can say and that is cheap to walk through.

    Pydantic's own check takes ten times as long, on the event loop.
    """
    level, seen = [value], 0
    for _ in range(MAX_JSON_DEPTH):
        seen += len(level)
        if seen > MAX_JSON_VALUES:
            raise ValueError(f"more than {MAX_JSON_VALUES} values")
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return value
    raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")


def _children(value: JsonValue) -> Collection[JsonValue]:
    if value is None or isinstance(value, str | int):
        return ()
    if isinstance(value, float) and math.isfinite(value):
        return ()
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return value.values()
    raise ValueError("a value that JSON does not have")


def _task_config(config: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if len(to_json(config)) > MAX_TASK_BYTES:
        raise ValueError(f"the task configuration is larger than {MAX_TASK_BYTES} bytes")
    return config


Slot = Annotated[int, Field(ge=0, lt=2**32)]
Epoch = Annotated[int, Field(ge=0, lt=2**64)]
Sequence32 = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1, lt=2**32)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
ShortText = Annotated[str, Field(max_length=512)]
AnyJson = Annotated[JsonValue, PlainValidator(_json)]


class RefusalCode(StrEnum):
    """Name why a HELLO is refused."""

    VERSION = "version"  # no protocol version in common
    OBSERVATION = "observation"  # the observation spec differs
    ACTION = "action"  # the action spec differs
    ENVIRONMENT = "environment"  # name or task configuration of the environment differs
    METRICS = "metrics"  # the list of metrics differs
    CAPACITY = "capacity"  # no slots left; asking again later can help
    DRAINING = "draining"  # the learner is going down; asking again later can help
    RUN_OVER = "run_over"  # the run has ended; nothing is left to do
    ROLE = "role"  # this learner does not serve that role
    RESUME_TOKEN = "resume_token"  # noqa: S105 - a word of the protocol; the token is used, expired or foreign
    SIZE = "size"  # the specs make messages larger than the transport carries
    HELLO = "hello"  # the HELLO itself is malformed


class ErrorCode(StrEnum):
    """Name what was wrong with a message; an ERROR carries it."""

    TRUNCATED = "truncated"
    UNKNOWN_MESSAGE = "unknown_message"
    UNEXPECTED_MESSAGE = "unexpected_message"
    MALFORMED = "malformed"
    VERSION = "version"
    ROW_COUNT = "row_count"
    SIZE_MISMATCH = "size_mismatch"
    STALE_EPOCH = "stale_epoch"
    SEQUENCE_GAP = "sequence_gap"
    NOT_LEASED = "not_leased"
    NOT_FIRST = "not_first"
    DUPLICATE_SLOT = "duplicate_slot"
    UNANSWERED = "unanswered"
    ACTION_ROWS = "action_rows"


class Message(BaseModel):
    """Base of the control messages."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    kind: ClassVar[str]

    def encode(self) -> bytes:
        """Return the bytes that travel: UTF-8 JSON whose first byte is ``{``.

        Raises:
            UsageError: The message is larger than a peer would read.
        """
        payload = self.model_dump_json().encode()
        if len(payload) > MAX_CONTROL_BYTES:
            raise UsageError(f"this {self.kind} has {len(payload)} bytes, more than the {MAX_CONTROL_BYTES} allowed")
        return payload


class _Leases(Message):
    """Share the check of messages that name slots and their epochs."""

    type: str
    slots: Annotated[list[Slot], FailFast()]
    epochs: Annotated[list[Epoch], FailFast()]
    """One for each slot. Ordered: a later lease of a slot has a larger one."""

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.slots) != len(self.epochs) or len({*self.slots}) != len(self.slots):
            raise ValueError("every slot stands once and has one epoch")
        return self


class Metric(BaseModel):
    """Name a float32 scalar of which every STEP carries a column, and its fold over an episode."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    name: Annotated[str, Field(min_length=1, max_length=64)]
    fold: Literal["sum", "last", "max"]


class Task(BaseModel):
    """Name an environment and what it was made with: constructor arguments and wrappers, nothing that may differ."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    name: Annotated[str, Field(max_length=256)]
    config: Annotated[dict[str, AnyJson], AfterValidator(_task_config)] = {}


class Hello(Message):
    """Ask for a session (actor to learner, the first message)."""

    kind = "hello"
    type: Literal["hello"] = "hello"
    protocol: Annotated[list[Annotated[int, Field(ge=0, lt=2**16)]], Field(min_length=1, max_length=16)] = [1]
    library: ShortText
    actor_id: Annotated[str, Field(min_length=1, max_length=128)]
    actor_index: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Place among the actors of one command; lockstep orders slots by it."""
    role: Literal["train", "evaluate"] = "train"
    environments: Annotated[int, Field(ge=1, le=2**20)]
    observation: AnyJson
    action: AnyJson
    task: Task | None = None
    """None from an actor started with an environment of its own: it is judged by its specs alone."""
    metrics: Annotated[list[Metric], Field(max_length=64)] = []
    resume_token: ShortText | None = None
    acknowledged_rows: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Transitions of this run that this actor has seen answered so far."""
    step_deadline_s: Seconds = 60.0

    @field_validator("metrics")
    @classmethod
    def _distinct(cls, metrics: list[Metric]) -> list[Metric]:
        if len({metric.name for metric in metrics}) != len(metrics):
            raise ValueError("two metrics have one name")
        return metrics


class Starting(Message):
    """Tell a waiting actor that the learner is still making ready (learner to actor, any number of times)."""

    kind = "starting"
    type: Literal["starting"] = "starting"
    message: ShortText = ""


class Welcome(_Leases):
    """Grant a session and its slots (learner to actor)."""

    kind = "welcome"
    type: Literal["welcome"] = "welcome"
    protocol: int = 1
    library: ShortText
    run_id: ShortText
    credit: Count = 1
    """Unanswered steps that a slot may have."""
    max_step_rows: Count
    max_message_bytes: Count
    step_deadline_s: Seconds
    ping_interval_s: Seconds
    ping_timeout_s: Seconds
    resume_token: ShortText
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the run; an environment is seeded from (seed, slot, epoch)."""
    packings: Annotated[list[ShortText], Field(max_length=16)] = []
    """Ways to pack a STEP that this learner unpacks."""


class Refused(Message):
    """Refuse a HELLO and say why (learner to actor, then the channel closes)."""

    kind = "refused"
    type: Literal["refused"] = "refused"
    code: ShortText
    message: ShortText
    field: ShortText = ""
    ours: ShortText = ""
    theirs: ShortText = ""
    retry: bool = False


class Lease(_Leases):
    """Give slots to a living session (learner to actor); each begins with a reset environment."""

    kind = "lease"
    type: Literal["lease"] = "lease"


class Revoke(_Leases):
    """Take slots from a living session (learner to actor)."""

    kind = "revoke"
    type: Literal["revoke"] = "revoke"
    reason: ShortText = ""


class Ping(Message):
    """Ask for a PONG with the same number (either side)."""

    kind = "ping"
    type: Literal["ping"] = "ping"
    number: Annotated[int, Field(ge=0, lt=2**53)]


class Pong(Message):
    """Answer a PING (either side)."""

    kind = "pong"
    type: Literal["pong"] = "pong"
    number: Annotated[int, Field(ge=0, lt=2**53)]
    stepping_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the time since its last PONG in which an actor's environments stepped; None from who does not know."""


class Drain(Message):
    """Tell an actor that no further step will be answered and a BYE follows (learner to actor)."""

    kind = "drain"
    type: Literal["drain"] = "drain"
    reason: ShortText = ""


class Bye(Message):
    """End a session on purpose (either side, the last message)."""

    kind = "bye"
    type: Literal["bye"] = "bye"
    code: Literal["run_over", "shutdown", "leaving", "unresponsive", "replaced", "protocol", "failed"]
    """``run_over``: do not come back. ``shutdown``: the learner restarts perhaps; come back. Others: see the reason."""
    reason: ShortText = ""


class RefusedRow(BaseModel):
    """Name one row of a STEP that was refused."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    slot: Slot
    epoch: Epoch
    sequence: Sequence32
    code: Annotated[str, Field(max_length=32)]


class Error(Message):
    """Say that a message was refused (either side). Nothing of it was applied.

    The session lives unless a BYE follows. Of more refused rows than fit, the first are named.
    """

    kind = "error"
    type: Literal["error"] = "error"
    code: ShortText
    message: ShortText = ""
    rows: Annotated[list[RefusedRow], Field(max_length=MAX_ERROR_ROWS), FailFast()] = []


Control = Annotated[
    Hello | Starting | Welcome | Refused | Lease | Revoke | Ping | Pong | Drain | Bye | Error,
    Field(discriminator="type"),
]
_CONTROL: TypeAdapter[Hello | Starting | Welcome | Refused | Lease | Revoke | Ping | Pong | Drain | Bye | Error] = (
    TypeAdapter(Control)
)

ControlMessage = Hello | Starting | Welcome | Refused | Lease | Revoke | Ping | Pong | Drain | Bye | Error

CONTROL_BYTE = ord("{")


def clip(text: str, limit: int = 200) -> str:
    """Return `text` shortened to `limit` characters and with control characters escaped, fit for a log line."""
    printable = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:limit])
    return printable[:limit]


def decode_control(payload: bytes) -> ControlMessage:
    """Return the control message that `payload` holds.

    Raises:
        ProtocolError: Too large, not JSON, an unknown type (then not fatal), or a field that is missing or wrong.
    """
    if len(payload) > MAX_CONTROL_BYTES:
        raise ProtocolError("malformed", f"a control message has at most {MAX_CONTROL_BYTES} bytes, not {len(payload)}")
    if not payload.startswith(b"{"):
        raise ProtocolError("malformed", "a control message is a JSON object, whose first byte is {")
    try:
        form = from_json(payload, allow_inf_nan=False)
    except ValueError as error:
        raise ProtocolError("malformed", clip(f"control message: {error}")) from None
    try:
        # Not from the bytes at once: each missing key would then keep a copy of the whole message.
        return _CONTROL.validate_python(form, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "union_tag_invalid":
            raise ProtocolError("unknown_message", "this message type is not known here", fatal=False) from None
        where = ".".join(str(part) for part in first["loc"])
        raise ProtocolError("malformed", clip(f"control message: {where}: {first['msg']}")) from None
