from __future__ import annotations

import pytest

from aioseed.errors import ConfigError
from aioseed.serving.config import ServingConfig
from aioseed.validation import validate


@pytest.mark.parametrize(
    ("largest", "buckets"),
    [(1024, (16, 64, 256, 1024)), (16, (16,)), (3, (3,)), (100, (16, 25, 100)), (17, (16, 17))],
)
def test_buckets_are_powers_of_four_below_the_largest_batch(largest: int, buckets: tuple[int, ...]) -> None:
    assert ServingConfig(max_batch_rows=largest).bucket_sizes() == buckets


def test_buckets_may_be_chosen() -> None:
    assert ServingConfig(max_batch_rows=96, buckets=(7, 96)).bucket_sizes() == (7, 96)


@pytest.mark.parametrize("buckets", [[], [96, 7], [7, 7, 96], [7, 95], [0, 96]])
def test_buckets_that_make_no_sense_are_refused(buckets: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"serving"):
        validate(ServingConfig, {"max_batch_rows": 96, "buckets": buckets}, "serving")


def test_a_device_has_an_index_that_does_not_count_from_the_end() -> None:
    with pytest.raises(ConfigError, match=r"^serving\.device is 'cpu:-1': expected default, or platform and index"):
        validate(ServingConfig, {"device": "cpu:-1"}, "serving")


@pytest.mark.parametrize("key", ["max_environments", "ping_interval_s", "batch_deadline_s", "suspended_s"])
def test_sizes_and_times_are_positive(key: str) -> None:
    with pytest.raises(ConfigError, match=f"serving.{key} is 0"):
        validate(ServingConfig, {key: 0}, "serving")
