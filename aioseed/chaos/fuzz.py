"""Whatever bytes a peer sends, reading them ends in a message or in a documented error.

Payloads of every kind are mutated at random and shown to what reads them: the codec, the decision on a HELLO, a
learner's intake and an actor's session, the last two with the state that real messages have left. Plain random
mutation instead of a strategy: millions of inputs in minutes.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from aioseed.actor.group import Group
from aioseed.actor.session import ActorSession
from aioseed.chaos.invariants import Violation
from aioseed.errors import ProtocolError, RefusedError, SpaceError, UsageError
from aioseed.serving.groups import CarefulReply, KnownGroup
from aioseed.serving.handshake import Contract, judge
from aioseed.serving.inference import action_table
from aioseed.serving.intake import ClosedBatch, Intake
from aioseed.serving.rule import Limits
from aioseed.serving.slots import SlotTable
from aioseed.specs import ArraySpec, Json, discrete, observation_to_json
from aioseed.types import FIRST, EnvironmentMetric, EnvironmentSpec
from aioseed.wire import packing
from aioseed.wire.columns import ACTION_TYPE, STEP_TYPE, ActionLayout, StepLayout, StepMessage, step_views
from aioseed.wire.messages import (
    CONTROL_BYTE,
    Bye,
    Drain,
    Error,
    Hello,
    Lease,
    Metric,
    Ping,
    Pong,
    Refused,
    RefusedRow,
    Revoke,
    Starting,
    Task,
    Welcome,
    decode_control,
)
from aioseed.wire.packing import PACKED_STEP_TYPE

SPEC = EnvironmentSpec(
    {"image": ArraySpec("uint8", (3, 2)), "rest": (ArraySpec("float32", ()), ArraySpec("int16", (2,)))}, discrete(5)
)
METRICS = (EnvironmentMetric("score", "sum"),)
CONTRACT = Contract(SPEC, Task(name="Fuzz-v0", config={"a": [1, 2.5, None]}), METRICS, frozenset({"train"}))
SLOTS = 4
MAX_ROWS = 8

_SNIPPETS = (
    b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 400, b"null", b"true", b"{}", b"[]", b'""', b'"\\ud800"', b"\xff",
    b"\xef\xbb\xbf", b"\0", b'{"type":', b'"type":"bye",', b"[" * 300, b"18446744073709551616", b"1.5", b" ",
    b"\x00\x00\x00\x80", b"\xff\xff\xff\xff", b"\x01\x01\x00\x00", b"\x02\x01\x00\x00",
)  # fmt: skip
_DOCUMENTED = (ProtocolError, RefusedError, SpaceError, UsageError)


class Fuzzed(NamedTuple):
    """Report what became of the inputs."""

    inputs: int
    outcomes: dict[str, int]  # what reading them ended in -> how often


class UndocumentedError(Violation):
    """Report an input that led to another exception than the documented ones."""

    def __init__(self, payload: bytes, reader: str, error: BaseException) -> None:
        super().__init__(f"{reader} raised {type(error).__name__} ({error}) on {payload.hex()}")
        self.payload = payload


def fuzz(seed: int, inputs: int) -> Fuzzed:
    """Show `inputs` mutated payloads to the readers.

    Raises:
        UndocumentedError: With the payload.
    """
    rng = random.Random(seed)  # noqa: S311
    corpus = _corpus()
    steps = [payload for payload in corpus if payload[0] in (STEP_TYPE, PACKED_STEP_TYPE)]
    readers: tuple[tuple[str, Callable[[bytes], object], list[bytes]], ...] = (
        ("codec", _Codec().read, corpus),
        ("handshake", _greet, [_hello().encode()]),
        ("intake", _Learner().read, steps),
        ("actor", _Actor().read, corpus),
    )
    outcomes: Counter[str] = Counter()
    for number in range(inputs):
        name, read, originals = readers[number % len(readers)]
        payload = mutated(rng, originals)
        try:
            read(payload)
        except _DOCUMENTED as error:
            outcomes[f"{name}: {type(error).__name__} {getattr(error, 'code', '')}".strip()] += 1
        except Exception as error:
            raise UndocumentedError(payload, name, error) from error
        else:
            outcomes[f"{name}: read"] += 1
    return Fuzzed(inputs, dict(outcomes))


def mutated(rng: random.Random, corpus: list[bytes]) -> bytes:
    """Return a payload of the corpus after a few cuts, flips, insertions, repetitions or a value exchanged."""
    original = rng.choice(corpus)
    if original[0] == CONTROL_BYTE and rng.random() < 0.3:
        return _exchanged(rng, original)
    payload = bytearray(original)
    for _ in range(rng.randint(0, 4)):
        at = rng.randint(0, len(payload))
        end = min(len(payload), at + rng.randint(0, 12))
        match rng.randrange(6):
            case 0:
                del payload[at:end]
            case 1 if at < len(payload):
                payload[at] ^= rng.randint(1, 255)
            case 2:
                payload[at:at] = rng.choice(_SNIPPETS)
            case 3:
                payload[at:at] = payload[at:end] * rng.randint(1, 50)
            case 4:
                del payload[at:]
            case _:
                payload[at:end] = rng.randbytes(end - at)
    return bytes(payload)


def _exchanged(rng: random.Random, payload: bytes) -> bytes:
    message = json.loads(payload)
    node = message
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return payload
        key = rng.choice(keys)
        child = node[key]
        if isinstance(child, dict | list) and child and rng.random() < 0.7:
            node = child
            continue
        values: tuple[Json, ...] = (
            None,
            True,
            -1,
            0,
            2**31,
            2**64,
            10**30,
            1.5,
            "",
            "x" * 600,
            [],
            {},
            [[]] * 200,
            child,
        )
        node[key] = rng.choice(values)
        return json.dumps(message).encode()


def _hello() -> Hello:
    return Hello(
        library="fuzz",
        actor_id="fuzz",
        environments=SLOTS,
        observation=observation_to_json(SPEC.observation),
        action=SPEC.action.to_json(),
        task=CONTRACT.task,
        metrics=[Metric(name="score", fold="sum")],
    )


def _welcome() -> Welcome:
    return Welcome(
        library="fuzz", run_id="fuzz", slots=list(range(SLOTS)), epochs=[2**32 + 1] * SLOTS, max_step_rows=MAX_ROWS,
        max_message_bytes=2**20, step_deadline_s=60.0, ping_interval_s=5.0, ping_timeout_s=5.0, resume_token="1.x",  # noqa: S106
        packings=[packing.DEFLATE],
    )  # fmt: skip


def _step(layout: StepLayout, rows: int, sequence: int) -> bytes:
    message = StepMessage(layout, rows)
    message.columns.slot[:] = np.arange(rows)
    message.columns.epoch[:] = 2**32 + 1
    message.columns.sequence[:] = sequence
    message.columns.flags[:] = FIRST if sequence == 0 else 0
    return message.tobytes()


def _corpus() -> list[bytes]:
    steps, actions = StepLayout(SPEC.observation, len(METRICS)), ActionLayout(SPEC.action)
    row = RefusedRow(slot=1, epoch=2**32 + 1, sequence=3, code="stale_epoch")
    messages = [
        _hello(), Starting(message="compiling"), _welcome(), Refused(code="capacity", message="full", retry=True),
        Lease(slots=[1], epochs=[2**32 + 2]), Revoke(slots=[1], epochs=[2**32 + 1]), Ping(number=1), Pong(number=1),
        Drain(reason="enough"), Bye(code="shutdown"), Error(code="malformed", rows=[row]),
    ]  # fmt: skip
    stepped = [_step(steps, rows, sequence) for rows in (1, 2, SLOTS) for sequence in range(4)]
    packed = [packing.pack(steps, payload, steps.rows(payload)) for payload in stepped]
    answers = [
        actions.encode(rows, payload[8 : steps.identity_bytes(rows)], bytes(4 * rows))
        for payload in stepped
        for rows in [steps.rows(payload)]
    ]
    return [*(message.encode() for message in messages), _hello().encode(), *stepped, *packed, *answers]


class _Codec:
    """Read payloads without any state."""

    def __init__(self) -> None:
        self._steps, self._actions = StepLayout(SPEC.observation, len(METRICS)), ActionLayout(SPEC.action)

    def read(self, payload: bytes) -> None:
        kind = payload[0] if payload else -1
        if kind == STEP_TYPE:
            step_views(self._steps, payload)
        elif kind == PACKED_STEP_TYPE:
            packing.unpack(self._steps, payload, packing.packed_rows(self._steps, payload, MAX_ROWS, 2**20))
        elif kind == ACTION_TYPE:
            self._actions.decode(payload)
        else:
            message = decode_control(payload)
            if decode_control(message.encode()) != message:
                raise Violation(f"{message} does not survive being written")


def _greet(payload: bytes) -> None:
    message = decode_control(payload)
    if isinstance(message, Hello):
        judge(message, CONTRACT, 2**20)


class _Peer:
    """Be a session to the intake."""

    number = 1

    def __init__(self) -> None:
        self.groups: dict[bytes, KnownGroup] = {}
        self.careful: dict[bytes, CarefulReply] = {}

    def answer(self, payload: bytes) -> None:
        """Drop the answer."""

    def count_vain(self, now_s: float) -> None:
        """Let any number through."""


class _Learner:
    """Take STEPs in as a learner does, with leases and batches that are answered at once."""

    def __init__(self) -> None:
        table = SlotTable(SLOTS, 1)
        table.lease(_Peer.number, SLOTS, 0.0)
        steps, actions = StepLayout(SPEC.observation, len(METRICS)), action_table(SLOTS, SPEC.action.array)
        limits = Limits(MAX_ROWS, 2, 1.0)
        self._peer = _Peer()
        self._intake = Intake(steps, ActionLayout(SPEC.action), table, actions, limits, self._serve)
        self._now_s = 0.0

    def read(self, payload: bytes) -> None:
        self._now_s += 0.5
        if payload[:1] == bytes([PACKED_STEP_TYPE]):
            self._intake.take_packed(self._peer, payload, self._now_s, 2**20)
        else:
            self._intake.take(self._peer, payload, self._now_s)
        self._intake.poll(self._now_s)

    def _serve(self, batch: ClosedBatch) -> None:
        batch.rows.release()
        self._intake.answer(batch, bytes(4 * batch.count), 4, self._now_s)


class _Actor:
    """Hear messages as an actor does; a session that has ended is followed by another."""

    def __init__(self) -> None:
        self._message = StepMessage(StepLayout(SPEC.observation, len(METRICS)), SLOTS)
        self._actions = ActionLayout(SPEC.action)
        self._hello, self._welcome = _hello(), _welcome().encode()
        self._begin()

    def read(self, payload: bytes) -> None:
        try:
            outcome = self._session.receive(payload)
        except Exception:
            self._begin()
            raise
        self._heard += 1
        if outcome.end is not None or self._heard > 20:
            self._begin()

    def _begin(self) -> None:
        self._heard = 0
        groups: list[Group] = []
        self._session = ActorSession([self._message], self._actions, groups, packs=0.9)
        self._session.open(self._hello)
        self._session.receive(self._welcome)
