"""What a serving benchmark sends: so many sessions, each with one group of environments of a made-up spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from aioseed.errors import UsageError
from aioseed.specs import ArraySpec, discrete
from aioseed.types import EnvironmentSpec
from aioseed.wire.columns import ActionLayout, StepLayout

MAX_MESSAGE_BYTES = 64 * 2**20


class Traffic(NamedTuple):
    """Describe the load of a run; every session keeps one STEP of all its environments under way."""

    transport: str
    sessions: int
    envs_per_session: int
    observation_bytes: int  # of one environment

    def check(self) -> Traffic:
        """Return itself.

        Raises:
            UsageError: A number is out of range, or one STEP is larger than a message may be.
        """
        for name in ("sessions", "envs_per_session", "observation_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1")
        if self.step_bytes > MAX_MESSAGE_BYTES:
            raise UsageError(f"one STEP would have {self.step_bytes} bytes, at most {MAX_MESSAGE_BYTES} are measured")
        return self

    @property
    def environments(self) -> int:
        """Return the environments of all sessions."""
        return self.sessions * self.envs_per_session

    @property
    def spec(self) -> EnvironmentSpec:
        """Return the specs: one observation leaf of bytes, two actions."""
        return EnvironmentSpec(ArraySpec("uint8", (self.observation_bytes,)), discrete(2))

    @property
    def steps(self) -> StepLayout:
        """Return the layout of its STEPs."""
        return StepLayout(self.spec.observation, 0)

    @property
    def actions(self) -> ActionLayout:
        """Return the layout of the answers."""
        return ActionLayout(self.spec.action)

    @property
    def step_bytes(self) -> int:
        """Return the bytes of one STEP."""
        return self.steps.size_bytes(self.envs_per_session)

    @property
    def action_bytes(self) -> int:
        """Return the bytes of its answer."""
        return self.actions.size_bytes(self.envs_per_session)

    @classmethod
    def from_json(cls, form: Mapping[str, object]) -> Traffic:
        """Return what ``_asdict`` gave."""
        return cls(str(form["transport"]), *(int(str(form[name])) for name in cls._fields[1:]))


class Turn(NamedTuple):
    """Report one turn of one road, as the load saw it."""

    messages: int  # answered
    seconds: float
    p50_ms: float  # from sending a STEP to having its answer
    p99_ms: float
    load_cpu_s: float  # that the load process spent

    @property
    def messages_per_s(self) -> float:
        """Return the rate."""
        return self.messages / self.seconds

    @classmethod
    def from_json(cls, form: Mapping[str, object]) -> Turn:
        """Return what ``_asdict`` gave."""
        messages, *others = (float(str(form[name])) for name in cls._fields)
        return cls(int(messages), *others)
