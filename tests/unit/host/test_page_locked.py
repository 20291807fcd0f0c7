"""Page-locked arrays: plain NumPy arrays to everybody else, which keep the memory that they lie in alive."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import cast

import jax
import numpy as np
import pytest

from aioseed.host import page_locked as module
from aioseed.host.page_locked import LEAST_BYTES, page_locked


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> jax.Device:
    """Return what passes for an accelerator; its page-locked memory is the CPU device's."""
    cpu = jax.devices("cpu")[0]
    if all(memory.kind != module.KIND for memory in cpu.addressable_memories()):
        pytest.skip("this version of JAX has no such memory on a CPU")
    sharding = module.SingleDeviceSharding
    monkeypatch.setattr(
        module, "SingleDeviceSharding", lambda device, memory_kind: sharding(cpu, memory_kind=memory_kind)
    )
    return cast("jax.Device", SimpleNamespace(platform="gpu", addressable_memories=cpu.addressable_memories))


def test_a_cpu_reads_any_memory() -> None:
    assert page_locked(jax.devices("cpu")[0], np.zeros) is np.zeros


def test_a_device_without_such_memory_gets_what_there_is() -> None:
    device = SimpleNamespace(platform="tpu", addressable_memories=lambda: [SimpleNamespace(kind="device")])
    assert page_locked(cast("jax.Device", device), np.zeros) is np.zeros


def test_large_arrays_are_zeroed_writable_and_of_their_own(accelerator: jax.Device) -> None:
    zeros = page_locked(accelerator, np.zeros)
    shape, dtype = (LEAST_BYTES // 4, 3), np.dtype(np.float32)
    first, second = zeros(shape, dtype), zeros(shape, dtype)
    assert (first.shape, first.dtype, first.flags.writeable) == (shape, dtype, True)
    assert not first.any()
    first[...] = 7.0
    assert (first == 7.0).all() and not second.any()


def test_the_memory_lives_as_long_as_a_view_of_it(accelerator: jax.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    lent: list[weakref.ref[object]] = []
    plain = module._Lent.__init__

    def noting(self: module._Lent, lender: jax.Array, size: int) -> None:
        plain(self, lender, size)
        lent.append(weakref.ref(self))

    monkeypatch.setattr(module._Lent, "__init__", noting)
    view = page_locked(accelerator, np.zeros)((LEAST_BYTES,), np.dtype(np.uint8))[10:20]
    gc.collect()
    assert lent[0]() is not None
    del view
    gc.collect()
    assert lent[0]() is None


def test_small_arrays_are_not_worth_a_call(accelerator: jax.Device) -> None:
    made: list[tuple[int, ...]] = []

    def otherwise(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> np.ndarray:
        made.append(shape)
        return np.zeros(shape, dtype)

    page_locked(accelerator, otherwise)((LEAST_BYTES - 1,), np.dtype(np.uint8))
    assert made == [(LEAST_BYTES - 1,)]
