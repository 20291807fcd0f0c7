"""Published networks for images: DQN's, IMPALA's shallow and deep one, and R2D2's.

Each is a torso of convolutions, with LSTM layers and heads on top; `aioseed.nets.recurrent` has those. The torso
computes in float32 or, on accelerators, bfloat16; parameters, memories and heads are float32 always.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, cast, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from aioseed.nets.convolutions import Initializer
from aioseed.nets.layers import Outputs, check_layers
from aioseed.nets.network import (
    Heads,
    Network,
    NetworkInputs,
    NetworkOutputs,
    PyTree,
    example_inputs,
    feed_forward,
)
from aioseed.nets.recurrent import TorsoAndLstm, recurrent
from aioseed.nets.torsos import AnyTorso, NatureTorso, ResidualTorso, ShallowTorso
from aioseed.specs import ActionSpec, ArraySpec, ObservationSpec, Tree

Dtype: TypeAlias = Literal["float32", "bfloat16"]
KernelInit: TypeAlias = Literal["glorot_uniform", "lecun_normal", "fan_in_uniform"]
_INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "lecun_normal": nn.initializers.lecun_normal(),
    "fan_in_uniform": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
}


def dqn(
    observation: ObservationSpec,
    action: ActionSpec,
    heads: Heads,
    *,
    hidden_units: int = 512,
    dtype: Dtype = "float32",
    kernel_init: KernelInit = "fan_in_uniform",
) -> Network:
    """Return DQN's network: three convolutions and a dense layer, no memory (Mnih et al. 2015, Nature 518).

    The published initialiser draws uniformly within one over the square root of the inputs of a unit.

    Args:
        observation: One image [H, W, C]; put a `frame_stack` in front.
        action: Not used, but by heads that take an action.
        heads: Outputs, each a dense layer on the last hidden one.
        hidden_units: Units of the dense layer.
        dtype: What the torso computes in, float32 or bfloat16.
        kernel_init: How its kernels begin: glorot_uniform, lecun_normal or fan_in_uniform.

    Raises:
        ValueError: An option is not one of those above, or the observation is no such image.
    """
    check_layers("relu", hidden_units=hidden_units)
    torso = NatureTorso(hidden_units, *_precision(dtype, kernel_init))
    return _without_memory(observation, action, torso, heads, hidden_units)


def r2d2(
    observation: ObservationSpec,
    action: ActionSpec,
    heads: Heads,
    *,
    hidden_units: int = 512,
    lstm_units: int = 512,
    dueling_units: int = 512,
    include_previous: bool = True,
    dtype: Dtype = "float32",
    kernel_init: KernelInit = "glorot_uniform",
) -> Network:
    """Return R2D2's network: DQN's torso, an LSTM layer, dueling heads (Kapturowski et al. 2019), as in SEED RL.

    Args:
        observation: One image [H, W, C].
        action: Its one-hot form is an input where `include_previous`.
        heads: Outputs, each ``value + advantages - mean(advantages)``; none may take the action.
        hidden_units: Units of the dense layer below the memory.
        lstm_units: Units of the LSTM layer.
        dueling_units: Units of the hidden layer below a head's value, and of the one below its advantages.
        include_previous: Append the previous action (choices one-hot) and its reward to the input of the memory.
        dtype: What the torso computes in, float32 or bfloat16.
        kernel_init: How its kernels begin: glorot_uniform, lecun_normal or fan_in_uniform.

    Raises:
        ValueError: An option is not one of those above, the observation is no such image, or a head takes the action.
    """
    check_layers("relu", hidden_units=hidden_units, lstm_units=lstm_units, dueling_units=dueling_units)
    torso = NatureTorso(hidden_units, *_precision(dtype, kernel_init))
    module = TorsoAndLstm(torso, heads, lstm_units, dueling_units=dueling_units)
    return _with_memory(observation, action, module, include_previous)


def impala_shallow(
    observation: ObservationSpec,
    action: ActionSpec,
    heads: Heads,
    *,
    hidden_units: int = 256,
    lstm_units: int = 256,
    include_previous: bool = True,
    dtype: Dtype = "float32",
    kernel_init: KernelInit = "lecun_normal",
) -> Network:
    """Return IMPALA's shallow network: two convolutions, a dense layer, an LSTM layer (Espeholt et al. 2018, fig. 3).

    Args:
        observation: One image [H, W, C].
        action: Its one-hot form is an input where `include_previous`.
        heads: Outputs, each a dense layer on the last one below.
        hidden_units: Units of the dense layer.
        lstm_units: Units of the LSTM layer; 0 leaves it out, and with it the previous action.
        include_previous: Append the previous action (choices one-hot) and its reward to the input of the memory.
        dtype: What the torso computes in, float32 or bfloat16.
        kernel_init: How its kernels begin: glorot_uniform, lecun_normal or fan_in_uniform.

    Raises:
        ValueError: An option is not one of those above, or the observation is no such image.
    """
    check_layers("relu", hidden_units=hidden_units)
    torso = ShallowTorso(hidden_units, *_precision(dtype, kernel_init))
    return _impala(observation, action, torso, heads, lstm_units, include_previous)


def impala_deep(
    observation: ObservationSpec,
    action: ActionSpec,
    heads: Heads,
    *,
    channels: tuple[int, ...] = (16, 32, 32),
    hidden_units: int = 256,
    lstm_units: int = 256,
    include_previous: bool = True,
    dtype: Dtype = "float32",
    kernel_init: KernelInit = "lecun_normal",
) -> Network:
    """Return IMPALA's deep network: a residual network and an LSTM layer (Espeholt et al. 2018, figure 3).

    Args:
        observation: One image [H, W, C].
        action: Its one-hot form is an input where `include_previous`.
        heads: Outputs, each a dense layer on the last one below.
        channels: Of the stacks, each of which halves the image and has five convolutions.
        hidden_units: Units of the dense layer.
        lstm_units: Units of the LSTM layer; 0 leaves it out, and with it the previous action.
        include_previous: Append the previous action (choices one-hot) and its reward to the input of the memory.
        dtype: What the torso computes in, float32 or bfloat16.
        kernel_init: How its kernels begin: glorot_uniform, lecun_normal or fan_in_uniform.

    Raises:
        ValueError: An option is not one of those above, or the observation is no such image.
    """
    check_layers("relu", channels=channels, hidden_units=hidden_units)
    torso = ResidualTorso(channels, hidden_units, *_precision(dtype, kernel_init))
    return _impala(observation, action, torso, heads, lstm_units, include_previous)


def read_image(observation: ObservationSpec, seen: Tree[jax.Array]) -> jax.Array:
    """Return float32[..., H, W, C]; uint8 is divided by 255, all other dtypes are taken for the numbers they are."""
    del observation
    image = cast("jax.Array", seen)
    numbers = image.astype(jnp.float32)
    return numbers * jnp.float32(1 / 255) if image.dtype == jnp.uint8 else numbers


def _impala(
    observation: ObservationSpec,
    action: ActionSpec,
    torso: AnyTorso,
    heads: Heads,
    lstm_units: int,
    include_previous: bool,
) -> Network:
    if lstm_units == 0:
        return _without_memory(observation, action, torso, heads, torso.hidden_units)
    check_layers("relu", lstm_units=lstm_units)
    return _with_memory(observation, action, TorsoAndLstm(torso, heads, lstm_units), include_previous)


def _with_memory(
    observation: ObservationSpec, action: ActionSpec, module: TorsoAndLstm, include_previous: bool
) -> Network:
    _check_image(observation)
    return recurrent(observation, action, module, layers=1, include_previous=include_previous, read=read_image)


def _without_memory(
    observation: ObservationSpec, action: ActionSpec, torso: AnyTorso, heads: Heads, units: int
) -> Network:
    _check_image(observation)
    module = _TorsoAndHeads(torso, heads, units)
    example = example_inputs(observation, action)

    def init(key: jax.Array) -> PyTree:
        return module.init(key, read_image(observation, example.observation), example.action)["params"]

    def apply(params: PyTree, inputs: NetworkInputs) -> NetworkOutputs:
        image = read_image(observation, inputs.observation)
        return cast("NetworkOutputs", module.apply({"params": params}, image, inputs.action))

    return feed_forward(init, apply)


class _TorsoAndHeads(nn.Module):
    torso: nn.Module
    heads: Heads
    units: int

    @nn.compact
    def __call__(self, image: jax.Array, action: jax.Array | None) -> NetworkOutputs:
        outputs: NetworkOutputs = Outputs(self.heads, (self.units,), "relu")(self.torso(image), action)
        return outputs


def _precision(dtype: str, kernel_init: str) -> tuple[jnp.dtype, Initializer]:
    if dtype not in get_args(Dtype):
        raise ValueError(f"dtype must be one of {', '.join(get_args(Dtype))}, not {dtype!r}")
    if kernel_init not in _INITIALIZERS:
        raise ValueError(f"kernel_init must be one of {', '.join(_INITIALIZERS)}, not {kernel_init!r}")
    return jnp.dtype(dtype), _INITIALIZERS[kernel_init]


def _check_image(observation: ObservationSpec) -> None:
    if not isinstance(observation, ArraySpec) or len(observation.shape) != 3:
        shown = observation.shape if isinstance(observation, ArraySpec) else "several arrays"
        raise ValueError(f"the observation must be one image [height, width, channels], not {shown}")
