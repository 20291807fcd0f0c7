"""The ``serving`` section of a configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aioseed.validation import DeviceName

PositiveInt = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class ServingConfig(BaseModel):
    """Size the tables of the learner and set its deadlines."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_environments: PositiveInt = 4096
    """Slots: environments that may be leased at once. A lease beyond is refused (capacity)."""
    max_batch_rows: PositiveInt = 1024
    """Largest inference batch; no STEP may carry more rows."""
    buckets: tuple[PositiveInt, ...] | None = None
    """Batch sizes that `act` is compiled for, ascending; None takes `max_batch_rows`, a quarter of it
    and so on, down to 16."""
    batch_deadline_s: Seconds = 0.02
    """Longest time that a waiting step is held back for others."""
    max_batches_in_flight: PositiveInt = 2
    """Closed batches that may wait for the device or run on it."""
    step_deadline_s: Seconds = 60.0
    """Longest time an environment may take for a step before its slot is revoked; an actor may declare less."""
    ping_interval_s: Seconds = 4.0
    ping_timeout_s: Seconds = 5.0
    """A session that says nothing for interval + timeout is away, and nobody waits for it."""
    resume_grace_s: Annotated[float, Field(ge=0)] = 30.0
    """How long the slots of a session that is away are kept, so that it can go on where it was; 0 keeps none."""
    suspended_s: Seconds = 60.0
    """How long the channel of a silent session is kept open after that, so that it can join anew when it wakes."""
    hello_timeout_s: Seconds = 5.0
    messages_per_s: Annotated[float, Field(gt=0)] = 20.0
    """Messages other than steps that an actor may send in a second on average; then its session ends."""
    allow_mixed_environments: bool = False
    """Accept actors whose task configuration differs from the run's; specs must still agree."""
    inference_follows_loop: bool = True
    """Keep the inference thread on the processor of the event loop (Linux): they share the interpreter's lock, and
    small batches are served about a third faster. Switch it off where a CPU computes large networks in that thread."""
    inference_in_loop_s: Annotated[float, Field(ge=0)] = 0.001
    """The event loop serves a batch itself while one takes less than this on average, the inference thread rests and
    nothing can block: without two switches of threads, the answer to a few environments comes in about half the time.
    On a CPU only, and never in lockstep; 0 leaves every batch to the thread."""
    device: DeviceName = "default"
    """Device of inference: ``default``, or platform and index such as ``cpu:0`` or ``gpu:1``."""

    @model_validator(mode="after")
    def _buckets_ascend(self) -> ServingConfig:
        if self.buckets is not None:
            if not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
                raise ValueError("serving.buckets must be a list of different sizes in ascending order")
            if self.buckets[-1] != self.max_batch_rows:
                raise ValueError("the last of serving.buckets must equal serving.max_batch_rows")
        return self

    def bucket_sizes(self) -> tuple[int, ...]:
        """Return the batch sizes to compile, ascending; the last is `max_batch_rows`."""
        if self.buckets is not None:
            return self.buckets
        sizes = [self.max_batch_rows]
        while sizes[-1] > 16:
            sizes.append(max(16, sizes[-1] // 4))
        return tuple(sorted(set(sizes)))
