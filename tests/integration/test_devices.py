"""Several training devices: four virtual ones of a CPU give the parameters that one gives, up to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("devices")]  # one process asks for the report
SCRIPT = Path(__file__).with_name("four_devices.py")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the script printed."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path_factory.mktemp("devices")],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 4
    return found


@pytest.mark.parametrize("agent", ["ppo", "r2d2"])
def test_four_devices_train_as_one_does(report: dict[str, Any], agent: str) -> None:
    figures = report[agent]
    assert figures["moved"] > 0.01
    assert figures["apart"] < 1e-4 * figures["moved"]


@pytest.mark.parametrize("agent", ["ppo", "r2d2"])
def test_each_of_four_holds_a_quarter_of_the_unrolls_and_all_of_the_state(report: dict[str, Any], agent: str) -> None:
    assert report[agent]["share_of_a_piece"] == [4, 1]
    assert report[agent]["homes"] == [[1], [4]]


@pytest.mark.parametrize("agent", ["ppo", "r2d2"])
def test_each_of_four_computes_on_its_quarter_and_not_on_all(report: dict[str, Any], agent: str) -> None:
    assert report[agent]["unrolls_in_a_loss"] == [[4], [1]]


def test_priorities_come_in_the_order_of_the_unrolls(report: dict[str, Any]) -> None:
    one, four = report["r2d2"]["priorities"]
    assert len(one) == 3 * 2 * 8
    np.testing.assert_allclose(four, one, rtol=1e-4)


def test_inference_has_a_device_of_its_own_and_a_run_goes_on_with_other_devices(report: dict[str, Any]) -> None:
    four, one = report["runs"]["four"], report["runs"]["one"]
    assert four["reason"] == one["reason"] == "total_steps"
    assert four["imbalance"] == one["imbalance"] == 0
    assert one["steps"] >= 1200 > four["steps"] >= 600
