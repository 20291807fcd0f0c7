"""What a figure was measured on."""

from __future__ import annotations

from aioseed.bench.machine import machine, versions


def test_the_machine_is_named_with_its_cores() -> None:
    described = machine()
    assert described["cpu"]
    assert int(str(described["cores"])) >= 1


def test_versions_name_python_and_what_is_installed() -> None:
    assert {"python", "aioseed", "numpy"} <= set(versions())
