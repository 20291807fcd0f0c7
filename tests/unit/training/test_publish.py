from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.training.publish import PolicyBoard, compile_copy
from aioseed.types import PolicySource


@pytest.fixture
def board():
    params = {"w": jnp.arange(64.0)}
    return PolicyBoard(compile_copy(params, jax.devices()[0]), params)


def test_it_serves_the_port(board):
    source: PolicySource = board
    assert source.current().version == 0


def test_a_published_policy_outlives_the_donated_parameters(board):
    params = {"w": jnp.arange(64.0) + 1}
    board.publish(params, 1)
    jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0, tree), donate_argnums=0)(params)
    assert params["w"].is_deleted()
    np.testing.assert_array_equal(board.current().params["w"], np.arange(64.0) + 1)


def test_publication_leaves_the_parameters_donatable(board):
    params = {"w": jnp.arange(64.0)}
    board.publish(params, 1)
    address = params["w"].unsafe_buffer_pointer()
    assert board.current().params["w"].unsafe_buffer_pointer() != address
    new = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)(params)
    assert new["w"].unsafe_buffer_pointer() == address


def test_versions_only_grow(board):
    board.publish({"w": jnp.zeros(64)}, 3)
    with pytest.raises(ValueError, match="not newer"):
        board.publish({"w": jnp.zeros(64)}, 3)


def test_waiting_ends_with_the_version(board):
    outcomes = []
    waiter = threading.Thread(target=lambda: outcomes.append(board.wait_for(2, 3600.0)))
    waiter.start()
    board.publish({"w": jnp.zeros(64)}, 1)
    board.publish({"w": jnp.zeros(64)}, 2)
    waiter.join()
    assert outcomes == [True]


def test_closing_wakes_those_who_wait_in_vain(board):
    outcomes = []
    waiter = threading.Thread(target=lambda: outcomes.append(board.wait_for(9, 3600.0)))
    waiter.start()
    board.close()
    waiter.join()
    assert outcomes == [False]
    assert not board.wait_for(0, 0.0)


def test_nobody_goes_on_with_the_last_version(board):
    outcomes = []
    waiter = threading.Thread(target=lambda: outcomes.append(board.wait_for(1, 3600.0)))
    waiter.start()
    board.publish({"w": jnp.zeros(64)}, 1, last=True)
    waiter.join()
    assert outcomes == [False] and board.current().version == 1


def test_waiting_gives_up_after_its_time(board):
    assert not board.wait_for(1, 0.0)
