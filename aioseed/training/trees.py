"""Trees of arrays as flat, named arrays and back: what a checkpoint's array file holds.

Names are the path in the tree, parts joined by ``/``: ``learner/params/network/torso/0/kernel``. A PRNG key is stored
as its uint32 key data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from aioseed.agents.agent import PyTree
from aioseed.errors import CheckpointError

NamedArrays: TypeAlias = dict[str, np.ndarray]


def flatten_arrays(tree: PyTree) -> NamedArrays:
    """Return a copy of every leaf by its name, in C order, in host memory that JAX knows nothing of.

    A view would be cheaper, but a buffer of which a view lives is not donated, silently.

    Raises:
        ValueError: Two leaves have the same name (a dictionary with both 1 and "1", or with ``/`` in its keys).
    """
    arrays: NamedArrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = _name(path)
        if name in arrays:
            raise ValueError(f"two leaves of the tree are called {name!r}")
        arrays[name] = np.array(_plain(leaf), copy=True, order="C")
    return arrays


def restore_arrays(template: PyTree, arrays: Mapping[str, np.ndarray], *, path: str = "") -> PyTree:
    """Return `arrays` as a tree like `template`, leaves in host memory (PRNG keys as JAX arrays).

    Args:
        template: A tree whose structure, shapes and dtypes the arrays must have: of arrays, or what `jax.eval_shape`
            returns.
        arrays: What `flatten_arrays` returned.
        path: Where they were read from, for the message.

    Raises:
        CheckpointError: A name, shape or dtype differs; the message says the first difference.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    expected = {_name(leaf_path): leaf for leaf_path, leaf in leaves}
    for name in expected.keys() - arrays.keys():
        raise CheckpointError(f"the checkpoint lacks array {name!r}, which this configuration needs", path=path)
    for name in sorted(arrays.keys() - expected.keys()):
        raise CheckpointError(f"the checkpoint has array {name!r}, which this configuration does not know", path=path)
    return jax.tree.unflatten(structure, [_leaf(name, leaf, arrays[name], path) for name, leaf in expected.items()])


def subtree(arrays: Mapping[str, np.ndarray], prefix: str) -> NamedArrays:
    """Return the arrays below `prefix`, for example ``learner/params``, under the rest of their names."""
    start = prefix + "/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def _leaf(
    name: str, template: jax.Array | jax.ShapeDtypeStruct, array: np.ndarray, path: str
) -> np.ndarray | jax.Array:
    plain = template if isinstance(template, jax.ShapeDtypeStruct) else _plain(template)
    ours = f"{np.dtype(plain.dtype).name}{list(plain.shape)}"
    theirs = f"{array.dtype.name}{list(array.shape)}"
    if ours != theirs:
        message = f"array {name!r} is {theirs} in the checkpoint, this configuration needs {ours}"
        raise CheckpointError(message, path=path)
    if plain is template or not isinstance(template, jax.Array):
        return array
    key: jax.Array = jax.random.wrap_key_data(jnp.array(array, copy=True), impl=jax.random.key_impl(template))
    return key


def _plain(leaf: jax.Array) -> jax.Array | np.ndarray:
    """Return the leaf itself, or the data of a PRNG key."""
    if isinstance(leaf, jax.Array):
        return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    return np.asarray(leaf)


def _name(path: tuple[object, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
