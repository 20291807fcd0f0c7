"""A perceptron followed by LSTM layers, for environments that hide part of their state (SEED RL's MLPandLSTM)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from aioseed.nets.layers import Activation, DuelingOutputs, Outputs, Torso, check_layers
from aioseed.nets.lstm import LayerState, lstm
from aioseed.nets.network import (
    Heads,
    Network,
    NetworkInputs,
    NetworkOutputs,
    PyTree,
    example_inputs,
    flatten_observation,
    refuse_action_heads,
)
from aioseed.specs import ActionSpec, ObservationSpec, Tree

State: TypeAlias = tuple[LayerState, ...]


def mlp_lstm(
    observation: ObservationSpec,
    action: ActionSpec,
    heads: Heads,
    *,
    hidden: tuple[int, ...] = (64,),
    activation: Activation = "relu",
    lstm_units: int = 64,
    layers: int = 1,
    include_previous: bool = True,
) -> Network:
    """Return dense layers on the flattened observation, then LSTM layers, then the heads.

    Args:
        observation: Any tree; see `aioseed.nets.network.flatten_observation` for how leaves become numbers.
        action: Its one-hot form is an input where `include_previous`.
        heads: Outputs, each a dense layer on the last LSTM layer. A head that takes the action has one more dense layer
            of `lstm_units` below, on the last LSTM layer and the action.
        hidden: Units of the dense layers below; may be empty.
        activation: Applied after every dense layer.
        lstm_units: Units of each LSTM layer.
        layers: Number of LSTM layers, at least 1.
        include_previous: Append the previous action (choices one-hot) and its reward to the input of the first LSTM
            layer.

    Raises:
        ValueError: An option is not one of those above.
    """
    hidden = tuple(hidden)
    check_layers(activation, hidden=hidden, lstm_units=lstm_units, layers=layers)
    module = TorsoAndLstm(Torso(hidden, activation), heads, lstm_units, activation)
    return recurrent(observation, action, module, layers=layers, include_previous=include_previous)


def mlp_dueling_lstm(
    observation: ObservationSpec,
    action: ActionSpec,
    heads: Heads,
    *,
    hidden: tuple[int, ...] = (64,),
    activation: Activation = "relu",
    lstm_units: int = 64,
    layers: int = 1,
    dueling_units: int = 64,
    include_previous: bool = True,
) -> Network:
    """Return `mlp_lstm` with dueling heads (Wang et al. 2016, arXiv:1511.06581): R2D2's network for vectors.

    Args:
        observation: As in `mlp_lstm`.
        action: As in `mlp_lstm`.
        heads: Outputs, each ``value + advantages - mean(advantages)`` (equation 9 there); none may take the
            action.
        hidden: As in `mlp_lstm`.
        activation: As in `mlp_lstm`.
        lstm_units: As in `mlp_lstm`.
        layers: Number of LSTM layers; 0 makes a network without memory.
        dueling_units: Units of the hidden layer below a head's value, and of the one below its advantages.
        include_previous: As in `mlp_lstm`.

    Raises:
        ValueError: An option is not one of those above, or a head takes the action.
    """
    hidden = tuple(hidden)
    check_layers(activation, hidden=hidden, lstm_units=lstm_units, layers=max(layers, 1), dueling_units=dueling_units)
    module = TorsoAndLstm(Torso(hidden, activation), heads, lstm_units, activation, dueling_units)
    return recurrent(observation, action, module, layers=layers, include_previous=include_previous)


def recurrent(
    observation: ObservationSpec,
    action: ActionSpec,
    module: TorsoAndLstm,
    *,
    layers: int,
    include_previous: bool,
    read: Callable[[ObservationSpec, Tree[jax.Array]], jax.Array] = flatten_observation,
) -> Network:
    """Return the network of a module with `layers` LSTM layers.

    Args:
        observation: The observation spec.
        action: The action spec.
        module: Torso, memory and heads.
        layers: Number of LSTM layers; 0 makes a network without memory.
        include_previous: Append the previous action and its reward to what the torso gives.
        read: Makes the one array that the torso takes of an observation, with any leading axes.

    Raises:
        ValueError: Heads are dueling, and one takes the action.
    """
    if module.dueling_units:
        refuse_action_heads(module.heads)

    def initial_state() -> State:
        def zeros() -> jax.Array:
            return jnp.zeros((module.lstm_units,), jnp.float32)

        return tuple((zeros(), zeros()) for _ in range(layers))

    def extra(inputs: NetworkInputs) -> jax.Array:
        previous = jnp.concatenate([inputs.reward[..., None], inputs.previous_action], axis=-1)
        return previous if include_previous else previous[..., :0]

    def run(params: PyTree, state: State, inputs: NetworkInputs) -> tuple[NetworkOutputs, State]:
        features = read(observation, inputs.observation)
        result = module.apply({"params": params}, features, extra(inputs), inputs.first, state, inputs.action)
        return cast("tuple[NetworkOutputs, State]", result)

    def init(key: jax.Array) -> PyTree:
        inputs = example_inputs(observation, action, (1, 1))
        features = read(observation, inputs.observation)
        state = jax.tree.map(lambda leaf: leaf[None], initial_state())
        return module.init(key, features, extra(inputs), inputs.first, state, inputs.action)["params"]

    def step(params: PyTree, state: PyTree, inputs: NetworkInputs) -> tuple[NetworkOutputs, PyTree]:
        outputs, state = run(params, state, jax.tree.map(lambda leaf: leaf[None], inputs))
        return {name: output[0] for name, output in outputs.items()}, state

    return Network(init, initial_state, step, run)


class TorsoAndLstm(nn.Module):
    """Run a torso on every row, LSTM layers over time, and the heads on top; dueling ones where they have units."""

    torso: nn.Module  # [..., *input] -> [..., F]
    heads: Heads
    lstm_units: int
    activation: Activation = "relu"
    dueling_units: int = 0

    @nn.compact
    def __call__(
        self, features: jax.Array, extra: jax.Array, first: jax.Array, state: State, action: jax.Array | None
    ) -> tuple[NetworkOutputs, State]:
        """Return the outputs [T+1, B, size] and the states after the last row.

        Args:
            features: What the torso takes, [T+1, B, *input].
            extra: float32[T+1, B, X], the reward and the previous action; of width 0 where they are left out.
            first: bool[T+1, B].
            state: What entered row 0, one for each LSTM layer.
            action: float32[T+1, B, A], for heads that take one.
        """
        features = jnp.concatenate([self.torso(features), extra], axis=-1)
        final = []
        for entered in state:
            features, left = Lstm(self.lstm_units)(features, first, entered)
            final.append(left)
        if self.dueling_units:
            return DuelingOutputs(self.heads, self.dueling_units)(features), tuple(final)
        return Outputs(self.heads, (self.lstm_units,), self.activation)(features, action), tuple(final)


class Lstm(nn.Module):
    """Run one LSTM layer over time (Hochreiter and Schmidhuber 1997; with forget gates, Gers et al. 2000).

    Initialised as Keras does: Glorot-uniform input kernel, orthogonal recurrent kernel, bias 1 at forget gates.
    """

    units: int

    @nn.compact
    def __call__(self, features: jax.Array, first: jax.Array, state: LayerState) -> tuple[jax.Array, LayerState]:
        """Return outputs [T+1, B, units] and the state after the last row, resetting to zero where `first` [T+1, B]."""
        # The part of the gates that does not depend on the recurrence is one large product outside the loop.
        projection = nn.Dense(4 * self.units, kernel_init=nn.initializers.glorot_uniform(), bias_init=_gate_bias)
        projected = projection(features)
        kernel = self.param("recurrent_kernel", nn.initializers.orthogonal(), (self.units, 4 * self.units), jnp.float32)
        return lstm(kernel, state, projected, first)


def _gate_bias(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Return biases of the gates in the order entered, forgotten, proposed, shown."""
    del key
    return jnp.repeat(jnp.array([0, 1, 0, 0], dtype), shape[0] // 4)
