"""Find the devices that a configuration names, say what lies where on them, and put copies of arrays there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from aioseed.errors import ConfigError, TrainingFailed

Tree = TypeVar("Tree")
UNROLLS = "unrolls"
"""Name of the only axis of the mesh: each device holds a share of every piece's unrolls."""
NO_MEMORY = "RESOURCE_EXHAUSTED"
"""How XLA begins to say that the memory of a device ran out; tables of what lies there may follow on lines of their
own."""
NEEDS_LESS = (
    "a smaller training.micro_unrolls or more training.devices need less of it for training, smaller "
    "serving.max_batch_rows and serving.max_environments less for inference, which may also have a serving.device of "
    "its own, and smaller observations, frame stacks or networks less for both"
)
"""What a user can do about it."""
HOST_NEEDS_LESS = (
    "smaller serving.max_environments, experience.unroll_steps, training.batch_unrolls or replay.capacity_unrolls need "
    "less of it, and so do smaller observations and frame stacks"
)
"""The same where it is the memory of the machine, in which unrolls and replay lie."""


class Placement(NamedTuple):
    """Say which devices a program runs on: unrolls are shared out among them, everything else is on each."""

    devices: tuple[jax.Device, ...]

    @property
    def mesh(self) -> Mesh | None:
        """Return the mesh of several devices, None for one."""
        return Mesh(np.array(self.devices), (UNROLLS,)) if len(self.devices) > 1 else None

    @property
    def replicated(self) -> Sharding:
        """Return the sharding of what each device holds whole."""
        return self._sharding()

    def sharded(self, axis: int) -> Sharding:
        """Return the sharding of arrays whose axis `axis` is that of the unrolls of a piece."""
        return self._sharding(*[None] * axis, UNROLLS)

    def _sharding(self, *axes: str | None) -> Sharding:
        # For one device the plain form: its calls cost less, and NumPy arrays are read on a CPU where they lie.
        if (mesh := self.mesh) is None:
            return SingleDeviceSharding(self.devices[0])
        return NamedSharding(mesh, spec(*axes))


spec: Callable[..., PartitionSpec] = PartitionSpec
"""Say for each axis of an array which axis of the mesh divides it, None for none."""


def find_device(name: str, path: str) -> jax.Device:
    """Return the device called `name`: ``default``, or platform and index such as ``gpu:1``.

    Raises:
        ConfigError: This machine has no such device; `path` is the key that names it.
    """
    if name == "default":
        return jax.local_devices()[0]
    platform, _, index = name.partition(":")
    try:
        return jax.local_devices(backend=platform)[int(index)]
    except (RuntimeError, IndexError, ValueError) as error:
        known = ", ".join(f"{device.platform}:{device.id}" for device in jax.local_devices())
        message = f"{path} is {name!r}, but this machine has only {known}"
        raise ConfigError(message, path=path, value=name, expected=known) from error


def find_devices(names: Sequence[str], path: str = "training.devices") -> Placement:
    """Return the placement on the devices called `names`, in that order.

    Raises:
        ConfigError: This machine lacks one, two names mean the same one, or they are of different platforms.
    """
    devices = tuple(find_device(name, f"{path}.{place}") for place, name in enumerate(names))
    for place, (name, device) in enumerate(zip(names, devices, strict=True)):
        if device in devices[:place]:
            message = f"{path}.{place} is {name!r}, which is the same device as {names[devices.index(device)]!r}"
            raise ConfigError(message, path=f"{path}.{place}", value=name)
        if device.platform != devices[0].platform:
            message = f"{path}.{place} is {name!r}: devices that share a batch must be of one platform"
            raise ConfigError(message, path=f"{path}.{place}", value=name, expected=devices[0].platform)
    return Placement(devices)


def processor_beside(device: jax.Device) -> jax.Device:
    """Return where small work on arrays of the host is done: the processor, or `device` where JAX may not use that.

    On an accelerator such work would wait behind whole updates, and its inputs and results would cross over.
    """
    try:
        return device if device.platform == "cpu" else jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the processor out
        return device


def owned(tree: Tree, placement: Placement) -> Tree:
    """Return `tree` as arrays on every device of `placement`, in memory of their own.

    What is donated must be ours alone: JAX takes a NumPy array on the CPU without a copy, and an agent may put the same
    array into its state twice (a target network at the start).
    """
    sharding = placement.replicated
    copies: Tree = jax.tree.map(lambda leaf: jax.device_put(jnp.array(leaf, copy=True), sharding), tree)
    return copies


def failure_said(error: BaseException) -> str:
    """Return what failed as a part of one sentence; where memory ran out, also what needs less of it."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, MemoryError):
        return f"this machine has too little memory ({said}): {HOST_NEEDS_LESS}"
    if is_out_of_memory(error):
        return f"a device ran out of memory ({said.splitlines()[0].rstrip('.')}): {NEEDS_LESS}"
    return said


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out, that of a device or that of the machine."""
    return isinstance(error, MemoryError) or (isinstance(error, JaxRuntimeError) and NO_MEMORY in str(error))


@contextmanager
def devices_may_fail(what: str) -> Iterator[None]:
    """Let what devices and compilers raise inside end as an error of ours that begins with `what`.

    Raises:
        TrainingFailed: A device failed, or there is too little memory on one or on the host.
    """
    try:
        yield
    except (JaxRuntimeError, MemoryError) as error:
        raise TrainingFailed(f"{what}: {failure_said(error)}") from error


def wait_until_ready(tree: Tree) -> Tree:
    """Return `tree` once all its arrays are computed."""
    wait: Callable[[Tree], Tree] = jax.block_until_ready
    return wait(tree)
