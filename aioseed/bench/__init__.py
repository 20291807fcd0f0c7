"""Measure aioseed on the machine at hand; every figure is a ratio to something measured in the same run."""
