"""The noise of a step is a function of key, slot, epoch and sequence number alone, and looks like noise."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.ops.rng import slot_uniforms

uniforms = jax.jit(slot_uniforms, static_argnums=4)


def words(*columns) -> list[jax.Array]:
    return [jnp.asarray(np.array(column, np.uint32)) for column in columns]


def test_a_row_is_the_same_in_any_company_and_any_place() -> None:
    slot, epoch, sequence = words(range(64), [7] * 64, range(100, 164))
    whole = uniforms(jax.random.key(1), slot, epoch, sequence, 3)
    order = np.random.default_rng(0).permutation(64)
    np.testing.assert_array_equal(
        uniforms(jax.random.key(1), slot[order], epoch[order], sequence[order], 3), whole[order]
    )
    np.testing.assert_array_equal(uniforms(jax.random.key(1), slot[5:6], epoch[5:6], sequence[5:6], 3), whole[5:6])


@pytest.mark.parametrize("changed", ["key", "slot", "epoch", "sequence"])
def test_each_word_changes_the_noise(changed: str) -> None:
    rows = {"slot": [3], "epoch": [4], "sequence": [5]}
    before = uniforms(jax.random.key(1), *words(*rows.values()), 8)
    seed = 2 if changed == "key" else 1
    rows = {name: [value[0] + (name == changed)] for name, value in rows.items()}
    assert not np.any(uniforms(jax.random.key(seed), *words(*rows.values()), 8) == before)


def test_words_do_not_stand_in_for_one_another() -> None:
    """Swapped, moved or xor-ed words must not give the noise of another step, nor the next seed that of this one."""
    grid = [(s, e, q) for s in range(4) for e in range(4) for q in range(4)]
    noise = np.concatenate([uniforms(jax.random.key(seed), *words(*zip(*grid, strict=True)), 2) for seed in range(4)])
    assert len(np.unique(noise[:, 0])) == len(noise)


def test_noise_is_uniform_and_uncorrelated_over_slots_and_steps() -> None:
    slot, sequence = np.divmod(np.arange(64 * 256), 256)
    noise = np.asarray(uniforms(jax.random.key(3), *words(slot, slot * 0, sequence), 1)).reshape(64, 256)
    assert noise.dtype == np.float32 and noise.min() >= 0 and noise.max() < 1
    counts, _ = np.histogram(noise, 16, (0, 1))
    assert np.sum((counts - 1024) ** 2 / 1024) < 37.7, "chi-squared of 15 degrees, one in a thousand"
    for axis in (0, 1):
        centred = noise - 0.5
        correlation = np.mean(centred * np.roll(centred, 1, axis)) * 12
        assert abs(correlation) < 4 / np.sqrt(noise.size)


def test_raw_and_typed_keys_give_the_same_noise_and_other_kinds_are_refused() -> None:
    draw = partial(slot_uniforms, slot=jnp.arange(3), epoch_low=words([1] * 3)[0], sequence=words([2] * 3)[0], count=1)
    np.testing.assert_array_equal(draw(jax.random.key(5)), draw(jax.random.PRNGKey(5)))
    with pytest.raises(ValueError, match="Threefry"):
        draw(jax.random.key(5, impl="rbg"))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_noise_is_that_of_jax_random_with_the_words_folded_in(count: int) -> None:
    key, rng = jax.random.key(9), np.random.default_rng(1)
    slot, epoch, sequence = words(*rng.integers(0, 2**32, (3, 33), np.uint64))
    run = jax.random.key_data(jax.random.fold_in(key, 0))

    def row(slot: jax.Array, epoch: jax.Array, sequence: jax.Array) -> jax.Array:
        mine = jax.random.wrap_key_data(jnp.stack([slot ^ run[0], epoch ^ run[1]]), impl="threefry2x32")
        return jax.random.uniform(jax.random.fold_in(mine, sequence), (count,), jnp.float32)

    np.testing.assert_array_equal(uniforms(key, slot, epoch, sequence, count), jax.vmap(row)(slot, epoch, sequence))


def test_words_of_other_shapes_are_refused_and_not_spread_over_the_rows() -> None:
    slot, epoch, sequence = words(range(3), [7] * 3, range(3))
    with pytest.raises(ValueError, match="slot must have 1 axes"):
        slot_uniforms(jax.random.key(1), slot[:, None], epoch[:, None], sequence[:, None], 1)
    with pytest.raises(ValueError, match="epoch_low must be 3 long"):
        slot_uniforms(jax.random.key(1), slot, epoch[:1], sequence, 1)
