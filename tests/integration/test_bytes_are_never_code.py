"""While hostile bytes are handled, nothing is imported, compiled, executed or unpickled: Python itself reports it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest

from aioseed.errors import ProtocolError, RefusedError
from aioseed.serving.handshake import contract_of
from aioseed.specs import ArraySpec, discrete, observation_to_json
from aioseed.wire import packing
from aioseed.wire.columns import ActionLayout, StepLayout, StepMessage
from aioseed.wire.messages import Hello, Ping, Task, decode_control

FRAMES = 20_000
CODE = ("import", "compile", "exec", "pickle.find_class", "marshal.loads", "marshal.load", "code.__new__", "os.system")
CODE += ("subprocess.Popen", "ctypes.dlopen", "os.exec", "os.posix_spawn", "open")

_events: list[str] = []
_listening = False


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    # An audit hook cannot be taken away again, so it is switched off instead.
    if _listening and event in CODE:
        _events.append(f"{event} {str(arguments)[:100]}")


@pytest.fixture
def events() -> Iterator[list[str]]:
    global _listening
    if not getattr(sys, "_aioseed_hears", False):
        sys.addaudithook(_hear)
        sys._aioseed_hears = True  # type: ignore[attr-defined]
    _events.clear()
    _listening = True
    yield _events
    _listening = False


SPEC = ArraySpec("float32", (4,))
ACTION = discrete(2)
LAYOUT = StepLayout(SPEC, 0)
HOSTILE = [
    b"cos\nsystem\n(S'true'\ntR.",  # a pickle
    b"\x80\x04\x95\x17\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    b"__import__('os').system('true')",
    b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    b"!!python/object/apply:os.system ['true']",
    b'{"type":"hello","__class__":"os.system"}',
    b"\x28\xb5\x2f\xfd" + bytes(64),
]


def seeds() -> list[bytes]:
    hello = {"library": "x", "actor_id": "x", "environments": 1, "action": ACTION.to_json()}
    observation = observation_to_json(SPEC)
    tasks = [None, Task(name="os:system", config={"entry_point": "os:system", "wrappers": [["os.system", "true"]]})]
    hellos = [Hello(observation=observation, task=task, **hello).encode() for task in tasks]
    odd = [
        Hello(observation={"dtype": dtype, "shape": [1]}, **hello).encode() for dtype in ("object", "O", "|V8", "U4")
    ]
    step = StepMessage(LAYOUT, 1).tobytes()
    return [*HOSTILE, *hellos, *odd, Ping(number=1).encode(), step, packing.pack(LAYOUT, step, 1)]


def mutated(random_: random.Random, frames: list[bytes]) -> bytes:
    frame = bytearray(random_.choice(frames))
    for _ in range(random_.randrange(4)):
        if frame:
            frame[random_.randrange(len(frame))] = random_.randrange(256)
    cut = random_.randrange(len(frame) + 1)
    return bytes(frame[:cut] if random_.random() < 0.2 else frame)


def handle(frame: bytes, actions: ActionLayout) -> None:
    """Do with a frame what either side does before anything of it is believed."""
    for read in (decode_control, LAYOUT.rows, actions.rows):
        try:
            message = read(frame)
        except ProtocolError:
            continue
        if isinstance(message, Hello):
            try:
                contract_of(message, frozenset({"train"}))
            except RefusedError:
                continue


def test_hostile_frames_make_nothing_run(events: list[str]) -> None:
    random_, frames, actions = random.Random(5), seeds(), ActionLayout(ACTION)
    for frame in frames:
        handle(frame, actions)  # what is imported at first use is imported
    events.clear()
    for _ in range(FRAMES):
        handle(mutated(random_, frames), actions)
    assert events == []


def test_the_ear_is_open(events: list[str]) -> None:
    exec("1 + 1")
    assert any(event.startswith("exec") for event in events)
