"""Specs: what an observation and an action look like, agreed once so that nothing is parsed per step.

An observation is a tree of arrays: a single array, a dict of trees or a tuple of trees. Rooms between the socket and
the network never see the tree: they carry its *leaves*, in one fixed order (dict keys sorted, tuples in order). An
action is a single array. JSON forms are part of the wire, version 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np

from aioseed.errors import SpaceError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A value that JSON can carry."""

NUMERIC_DTYPES = frozenset(
    {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"}
)
"""Names of the dtypes that may appear in a spec. Others cannot be named on the wire, so none can be allocated."""

MAX_RANK = 8
MAX_LEAVES = 64
MAX_TREE_DEPTH = 8
MAX_ELEMENTS = 2**31
"""Largest number of elements of an array, length of a dimension and number of choices of an action."""
MAX_SPEC_BYTES = 32 * 2**10
"""Largest JSON form of the two specs together: a HELLO has room for it."""

Leaf = TypeVar("Leaf")
Tree: TypeAlias = "Leaf | dict[str, Tree[Leaf]] | tuple[Tree[Leaf], ...]"


class ArraySpec(NamedTuple):
    """Describe one array without its leading axes."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """Return the little-endian NumPy dtype."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def size(self) -> int:
        """Return the number of elements in one row."""
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Return the number of bytes in one row."""
        return self.size * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Json]:
        """Return the JSON form."""
        return {"dtype": self.dtype, "shape": list(self.shape)}


ObservationSpec: TypeAlias = "ArraySpec | dict[str, ObservationSpec] | tuple[ObservationSpec, ...]"
"""A tree whose leaves are `ArraySpec`."""


class ActionSpec(NamedTuple):
    """Describe the action of one environment.

    Attributes:
        kind: ``discrete`` (one integer), ``multi_discrete`` (several) or ``box`` (real numbers).
        array: dtype and shape of one action as it travels; int32 for the discrete kinds, float32 for ``box``.
        sizes: Number of choices of each component for the discrete kinds, else empty. Actions start at 0 on the wire;
            an actor adds the ``start`` of its own space.
        low: Lowest value of each element of a ``box`` in C order, else empty.
        high: Highest value of each element of a ``box`` in C order, else empty.
    """

    kind: Literal["discrete", "multi_discrete", "box"]
    array: ArraySpec
    sizes: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def nearest_to_zero(self) -> np.ndarray:
        """Return the legal action, of the dtype and shape of `array`, whose numbers are nearest to 0."""
        zero = np.zeros(self.array.shape, self.array.numpy_dtype)
        if self.kind != "box":
            return zero
        low, high = (np.reshape(bound, self.array.shape) for bound in (self.low, self.high))
        return np.clip(zero, low, high).astype(zero.dtype)

    def to_json(self) -> dict[str, Json]:
        """Return the JSON form; infinities become null."""
        form: dict[str, Json] = {"kind": self.kind, **self.array.to_json()}
        if self.kind == "box":
            form["low"] = [value if math.isfinite(value) else None for value in self.low]
            form["high"] = [value if math.isfinite(value) else None for value in self.high]
        else:
            form["sizes"] = list(self.sizes)
        return form


def discrete(choices: int) -> ActionSpec:
    """Return the spec of one integer action in ``[0, choices)``."""
    return ActionSpec("discrete", ArraySpec("int32", ()), sizes=(int(choices),))


def multi_discrete(sizes: Sequence[int]) -> ActionSpec:
    """Return the spec of ``len(sizes)`` integer actions, component i in ``[0, sizes[i])``."""
    return ActionSpec("multi_discrete", ArraySpec("int32", (len(sizes),)), sizes=tuple(int(size) for size in sizes))


def flatten(tree: Tree[Leaf]) -> list[Leaf]:
    """Return the leaves of a tree in the one order that wire, unrolls and networks share: dict keys sorted."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in flatten(tree[key])]
    if isinstance(tree, tuple) and not hasattr(tree, "_fields"):
        return [leaf for branch in tree for leaf in flatten(branch)]
    return [cast("Leaf", tree)]


def spec_leaves(spec: ObservationSpec) -> tuple[ArraySpec, ...]:
    """Return the leaf specs of an observation in the order of `flatten`."""
    if isinstance(spec, ArraySpec):
        return (spec,)
    branches = [spec[key] for key in sorted(spec)] if isinstance(spec, dict) else spec
    return tuple(leaf for branch in branches for leaf in spec_leaves(branch))


def unflatten(spec: ObservationSpec, leaves: Sequence[Leaf]) -> Tree[Leaf]:
    """Return `leaves`, given in the order of `flatten`, as a tree of the structure of `spec`.

    Raises:
        ValueError: The number of leaves is not that of `spec`.
    """
    expected = len(spec_leaves(spec))
    if len(leaves) != expected:
        raise ValueError(f"the spec has {expected} leaves, {len(leaves)} were given")
    return _build(spec, iter(leaves))


def _build(node: ObservationSpec, remaining: Iterator[Leaf]) -> Tree[Leaf]:
    # No function inside `unflatten`: one that calls itself is a cycle, which holds the leaves until Python seeks those.
    if isinstance(node, dict):
        return {key: _build(node[key], remaining) for key in sorted(node)}
    if isinstance(node, tuple) and not isinstance(node, ArraySpec):
        return tuple(_build(branch, remaining) for branch in node)
    return next(remaining)


def leaf_paths(spec: ObservationSpec, prefix: str = "observation") -> list[str]:
    """Return one dotted path a leaf, for messages to the user, in the order of `flatten`."""
    if isinstance(spec, dict):
        return [path for key in sorted(spec) for path in leaf_paths(spec[key], f"{prefix}.{key}")]
    if isinstance(spec, tuple) and not isinstance(spec, ArraySpec):
        return [path for i, branch in enumerate(spec) for path in leaf_paths(branch, f"{prefix}.{i}")]
    return [prefix]


def observation_to_json(spec: ObservationSpec) -> Json:
    """Return the JSON form.

    A leaf is ``{"dtype": ..., "shape": [...]}``, a dict ``{"dict": {...}}``, a tuple ``{"tuple": [...]}``.
    """
    if isinstance(spec, dict):
        return {"dict": {key: observation_to_json(spec[key]) for key in sorted(spec)}}
    if isinstance(spec, ArraySpec):
        return spec.to_json()
    return {"tuple": [observation_to_json(branch) for branch in spec]}


def observation_from_json(form: Json, *, depth: int = 0) -> ObservationSpec:
    """Return the spec that `form` describes.

    Raises:
        SpaceError: The form is not one that `observation_to_json` makes, or it is too deep.
    """
    if not isinstance(form, dict) or depth > MAX_TREE_DEPTH:
        raise SpaceError(f"an observation spec is an object at most {MAX_TREE_DEPTH} deep")
    if "dict" in form:
        branches = form["dict"]
        if not isinstance(branches, dict) or not branches:
            raise SpaceError("a dict of observations needs at least one entry")
        return {str(key): observation_from_json(branch, depth=depth + 1) for key, branch in sorted(branches.items())}
    if "tuple" in form:
        items = form["tuple"]
        if not isinstance(items, list) or not items:
            raise SpaceError("a tuple of observations needs at least one entry")
        return tuple(observation_from_json(branch, depth=depth + 1) for branch in items)
    return _array_from_json(form)


def action_from_json(form: Json) -> ActionSpec:
    """Return the action spec that `form` describes.

    Raises:
        SpaceError: The form is not one that `ActionSpec.to_json` makes.
    """
    if not isinstance(form, dict):
        raise SpaceError("an action spec is an object")
    kind, array = form.get("kind"), _array_from_json(form)
    if kind == "box":
        return _box_from_json(form, array)
    sizes = form.get("sizes")
    if kind not in ("discrete", "multi_discrete") or not isinstance(sizes, list) or array.size != len(sizes):
        raise SpaceError(f"an action spec of kind {_shown(kind)} with {_shown(sizes)} of sizes cannot be read")
    counts = tuple(_positive_int(size, "a number of choices") for size in sizes)
    spec = discrete(counts[0]) if kind == "discrete" else multi_discrete(counts)
    # Taking another dtype or shape for ours would let two peers agree on actions of different sizes.
    if spec.array != array:
        raise SpaceError(f"an action of kind {kind} is int32 of shape {spec.array.shape}, not {array.dtype}")
    return spec


def first_difference(
    ours: Mapping[str, Json], theirs: Mapping[str, Json], prefix: str = ""
) -> tuple[str, Json, Json] | None:
    """Return (path, our value, their value) at the first place where two JSON objects differ, or None.

    A missing key equals null, and numbers are equal by value, since other languages write 1.0 as 1; true is not 1.
    """
    for key in sorted({*ours, *theirs}):
        path = f"{prefix}.{key}" if prefix else key
        difference = _value_difference(ours.get(key), theirs.get(key), path)
        if difference is not None:
            return difference
    return None


def check_servable(observation: ObservationSpec, action: ActionSpec) -> None:
    """Raise `SpaceError` unless the wire can say these specs and wire and unrolls can carry what they describe."""
    leaves = spec_leaves(observation)
    if not 1 <= len(leaves) <= MAX_LEAVES:
        raise SpaceError(f"an observation has between 1 and {MAX_LEAVES} arrays, this one has {len(leaves)}")
    for spec, path in zip([*leaves, action.array], [*leaf_paths(observation), "action"], strict=True):
        if spec.size == 0:
            raise SpaceError(f"{path} is empty (shape {spec.shape}): there is nothing to send")
        if spec.dtype not in NUMERIC_DTYPES or len(spec.shape) > MAX_RANK:
            raise SpaceError(f"{path} is {spec.dtype} of {len(spec.shape)} dimensions, which cannot be sent")
    if any(size < 1 for size in action.sizes):
        raise SpaceError(f"an action with {min(action.sizes)} choices cannot be taken")
    observation_form, action_form = observation_to_json(observation), action.to_json()
    if observation_from_json(observation_form) != observation or action_from_json(action_form) != action:
        raise SpaceError("a name, a dimension or a bound of these spaces cannot be written as JSON")
    if _json_bytes([observation_form, action_form]) > MAX_SPEC_BYTES:
        raise SpaceError(f"the description of these spaces is longer than {MAX_SPEC_BYTES} bytes")


def zeros(spec: ArraySpec, leading: tuple[int, ...]) -> np.ndarray:
    """Return a zeroed array of shape ``leading + spec.shape``; pages are touched only when written."""
    return np.zeros(leading + spec.shape, spec.numpy_dtype)


def wire_dtype(dtype: np.dtype[np.generic]) -> str:
    """Return the dtype in which an array travels: float64 becomes float32, int64 int32, bool int8, all else stays."""
    name = np.dtype(dtype).name
    # Not uint8: networks take that for pixels and divide it by 255, which would make 1 as good as 0.
    return {"float64": "float32", "int64": "int32", "uint64": "uint32", "bool": "int8"}.get(name, name)


def _array_from_json(form: Mapping[str, Json]) -> ArraySpec:
    dtype, shape = form.get("dtype"), form.get("shape")
    if not isinstance(dtype, str) or dtype not in NUMERIC_DTYPES:
        raise SpaceError(f"{_shown(dtype)} is not a dtype that can be sent")
    if not isinstance(shape, list) or len(shape) > MAX_RANK:
        raise SpaceError(f"a shape is a list of at most {MAX_RANK} numbers, this one is {_shown(shape)}")
    sizes = tuple(_positive_int(size, "a dimension") for size in shape)
    if math.prod(sizes) > MAX_ELEMENTS:
        raise SpaceError(f"an array of shape {sizes} is too large to send")
    return ArraySpec(dtype, sizes)


def _box_from_json(form: Mapping[str, Json], array: ArraySpec) -> ActionSpec:
    if array.dtype != "float32":
        raise SpaceError(f"an action of kind box is float32, not {array.dtype}")
    low = _bounds(form.get("low"), array.size, -math.inf)
    high = _bounds(form.get("high"), array.size, math.inf)
    if any(least > most for least, most in zip(low, high, strict=True)):
        raise SpaceError("a box has a lowest value above the highest")
    return ActionSpec("box", array, low=low, high=high)


def _positive_int(value: Json, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ELEMENTS:
        raise SpaceError(f"{what} must be a positive integer up to {MAX_ELEMENTS}, got {_shown(value)}")
    return value


def _bounds(form: Json, size: int, missing: float) -> tuple[float, ...]:
    if not isinstance(form, list) or len(form) != size:
        raise SpaceError(f"a box of {size} numbers needs {size} bounds")
    return tuple(missing if value is None else _finite(value) for value in form)


def _finite(value: Json) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # JSON has integers that no float holds
            number = math.inf
        if math.isfinite(number):
            return number
    raise SpaceError(f"a bound must be a finite number or null, got {_shown(value)}")


def _value_difference(mine: Json, other: Json, path: str) -> tuple[str, Json, Json] | None:
    if isinstance(mine, dict) and isinstance(other, dict):
        return first_difference(mine, other, path)
    if isinstance(mine, list) and isinstance(other, list) and len(mine) == len(other):
        pairs = enumerate(zip(mine, other, strict=True))
        found = (_value_difference(*pair, f"{path}.{index}") for index, pair in pairs)
        return next((difference for difference in found if difference is not None), None)
    same = mine == other and isinstance(mine, bool) == isinstance(other, bool)
    return None if same else (path, mine, other)


def _json_bytes(form: Json) -> int:
    try:
        return len(json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        raise SpaceError("a name in these spaces is not valid Unicode") from None


def _shown(value: Json) -> str:
    """Return a few characters that tell what a peer sent; writing out a long integer would raise."""
    if isinstance(value, str):
        return ascii(value[:40])
    if isinstance(value, int | float) and abs(value) < 1e18:
        return repr(value)
    return {list: "a list", dict: "an object", type(None): "nothing"}.get(type(value), "a number out of range")
