"""What the tests of the store save, and how they look at what they find."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from aioseed.training.store import Snapshot


def snapshot(step: int, fill: float = 1.0) -> Snapshot:
    arrays = {
        "learner/params/w": np.full((3, 2), fill, np.float32),
        "learner/params/half": np.asarray(jnp.array([1.5, -2.0, fill], jnp.bfloat16)),
        "step": np.array(step, np.int32),
        "key": np.array([1, 2**32 - 1], np.uint32),
        "empty": np.zeros((0, 4), np.uint8),
        "flag": np.array(True),
    }
    return Snapshot(step, arrays, {"training": {"version": step}, "ledger": {"accepted": 2**60}})


def assert_is(checkpoint, expected: Snapshot):
    assert checkpoint is not None
    assert checkpoint.manifest.step == expected.step
    assert checkpoint.state == expected.state
    assert checkpoint.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        found = checkpoint.arrays[name]
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def names(store_path):
    return sorted(path.name for path in store_path.iterdir())
