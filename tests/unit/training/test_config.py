from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import jax
import jax.numpy as jnp
import optax
import pytest
from pydantic import ValidationError

from aioseed.errors import ConfigError
from aioseed.training.config import OptimizerConfig, TrainingConfig
from aioseed.training.device import find_device, find_devices, processor_beside
from aioseed.training.optimizer import make_optimizer
from aioseed.training.trees import flatten_arrays, restore_arrays
from aioseed.validation import validate


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"batch_unrolls": 10, "micro_unrolls": 4}, "micro_unrolls must divide batch_unrolls, which is 10"),
        ({"optimizer": {"schedule": {"kind": "linear"}}}, "needs optimizer.schedule.updates or total_steps"),
        ({"batch_unroll": 3}, "batch_unroll"),
        ({"optimizer": {"learning_rate": -1}}, "learning_rate"),
        ({"devices": []}, "devices names none"),
        ({"devices": ["cpu:0", "cpu:0"]}, "devices names a device twice"),
        ({"devices": ["gpu:0", "gpu:1"], "batch_unrolls": 7}, "make batch_unrolls a multiple of 2"),
        (
            {"devices": ["gpu:0", "gpu:1"], "batch_unrolls": 6, "micro_unrolls": 3},
            "2 devices cannot share 3 unrolls evenly: make micro_unrolls a multiple of 2",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(values, said):
    with pytest.raises(ValidationError) as caught:
        TrainingConfig.model_validate(values)
    assert said in str(caught.value)


def test_a_linear_schedule_ends_after_total_steps():
    config = TrainingConfig.model_validate(
        {
            "batch_unrolls": 10,
            "total_steps": 2000,
            "optimizer": {"learning_rate": 1.0, "schedule": {"kind": "linear", "end_value": 0.5}},
        }
    )
    rate = make_optimizer(config, unroll_steps=20).learning_rate
    assert [float(rate(jnp.int32(step))) for step in (0, 5, 10, 99)] == [1.0, 0.75, 0.5, 0.5]
    often = make_optimizer(config, unroll_steps=20, samples_per_insert=4).learning_rate
    assert [float(often(jnp.int32(step))) for step in (0, 20, 40, 99)] == [1.0, 0.75, 0.5, 0.5], "out of replay"
    thrice = make_optimizer(config.model_copy(update={"passes": 3}), unroll_steps=20).learning_rate
    assert [float(thrice(jnp.int32(step))) for step in (0, 15, 30, 99)] == [1.0, 0.75, 0.5, 0.5], "in several passes"
    short = make_optimizer(config.model_copy(update={"total_steps": 1}), unroll_steps=20).learning_rate
    assert [float(short(jnp.int32(step))) for step in (0, 1)] == [1.0, 0.5], "less than one optimiser step"


def test_a_schedule_that_falls_until_nobody_knows_when_is_refused():
    values = {"total_steps": 2000, "optimizer": {"schedule": {"kind": "linear"}}}
    with pytest.raises(ConfigError, match=r"schedule\.updates is null: .* replay\.samples_per_insert") as caught:
        make_optimizer(TrainingConfig.model_validate(values), unroll_steps=20, samples_per_insert=None)
    assert caught.value.path == "training.optimizer.schedule.updates"
    values["optimizer"]["schedule"]["updates"] = 5
    make_optimizer(TrainingConfig.model_validate(values), unroll_steps=20, samples_per_insert=None)
    make_optimizer(TrainingConfig(), unroll_steps=20, samples_per_insert=None)


@pytest.mark.parametrize(
    ("kind", "wanted"), [("polynomial", [1.0, 0.25, 0.0]), ("linear", [1.0, 0.5, 0.0]), ("constant", [1.0, 1.0, 1.0])]
)
def test_only_a_polynomial_schedule_has_a_power_and_a_constant_one_no_length(kind: str, wanted: list[float]):
    config = TrainingConfig.model_validate(
        {"optimizer": {"learning_rate": 1.0, "schedule": {"kind": kind, "power": 2, "updates": 4}}}
    )
    rate = make_optimizer(config, unroll_steps=20).learning_rate
    assert [float(rate(jnp.int32(step))) for step in (0, 2, 4)] == wanted


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_the_rate_of_a_schedule_that_is_over_is_its_end_also_when_compiled(power: float):
    for updates in (15, 22, 36, 57, 78, 1304):
        config = TrainingConfig.model_validate(
            {"optimizer": {"schedule": {"kind": "polynomial", "power": power, "updates": updates}}}
        )
        rate = jax.jit(make_optimizer(config, unroll_steps=20).learning_rate)
        assert [float(rate(jnp.int32(step))) for step in (updates + 1, 2**31 - 1)] == [0.0, 0.0]
        assert float(rate(jnp.int32(updates - 1))) > 0


@pytest.mark.parametrize("own", [{"total_steps": 10**12}, {"schedule_updates": 10**11}])
def test_a_schedule_may_be_longer_than_steps_are_counted(own: dict[str, int]):
    schedule = {"kind": "linear", "updates": own.get("schedule_updates")}
    config = TrainingConfig.model_validate(
        {
            "batch_unrolls": 1,
            "total_steps": own.get("total_steps"),
            "optimizer": {"learning_rate": 1.0, "schedule": schedule},
        }
    )
    assert float(make_optimizer(config, unroll_steps=2).learning_rate(jnp.int32(7))) == pytest.approx(1.0)


def test_a_run_that_goes_on_may_clip_or_no_longer_clip():
    def state(clip_norm: float | None) -> optax.OptState:
        config = TrainingConfig(optimizer=OptimizerConfig(clip_norm=clip_norm))
        return make_optimizer(config, unroll_steps=20).transformation.init({"place": jnp.ones(2)})

    for before, after in ((None, 0.5), (0.5, None)):
        restored = restore_arrays(state(after), flatten_arrays(state(before)))
        assert jax.tree.structure(restored) == jax.tree.structure(state(after))


@pytest.mark.parametrize("name", ["gpu", "cuda:0", "cpu:-1", "gpu:0 "])
def test_what_names_no_device_is_told_once_and_with_what_would(name):
    said = f"^training.devices.0 is '{name}': expected default, or platform and index such as cpu:0 or gpu:1$"
    with pytest.raises(ConfigError, match=said):
        validate(TrainingConfig, {"devices": [name]}, "training")


def test_a_device_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ConfigError) as caught:
        find_devices(["default", "tpu:3"])
    assert caught.value.path == "training.devices.1"
    assert "cpu:0" in str(caught.value)
    assert find_device("cpu:0", "") == find_device("default", "")


def test_two_names_of_one_device_are_refused():
    with pytest.raises(ConfigError, match="'cpu:0', which is the same device as 'default'") as caught:
        find_devices(["default", "cpu:0"])
    assert caught.value.path == "training.devices.1"


def test_small_work_is_done_by_the_processor_where_jax_may_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, processor = cast("jax.Device", SimpleNamespace(platform="gpu")), jax.local_devices(backend="cpu")[0]
    assert processor_beside(processor) is processor
    assert processor_beside(accelerator) is processor

    def none(backend: str) -> list[jax.Device]:
        raise RuntimeError(f"no {backend}")

    monkeypatch.setattr(jax, "local_devices", none)
    assert processor_beside(accelerator) is accelerator
