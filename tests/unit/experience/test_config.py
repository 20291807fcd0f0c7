from __future__ import annotations

import pytest
from pydantic import ValidationError

from aioseed.experience.config import ExperienceConfig


def test_defaults_are_on_policy():
    assert ExperienceConfig().model_dump() == {
        "unroll_steps": 20, "queue_batches": 2, "page_locked": True, "copy_threads": None
    }  # fmt: skip


@pytest.mark.parametrize("wrong", [{"unroll_steps": 0}, {"queue_batches": 0}, {"unroll_length": 5}])
def test_wrong_keys_and_values_are_refused(wrong):
    with pytest.raises(ValidationError):
        ExperienceConfig(**wrong)
