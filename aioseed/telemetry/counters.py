"""Counters and gauges of one run, in an object that the host makes and hands to the rooms; nothing here is global."""

from __future__ import annotations

import threading

from aioseed.telemetry.quantiles import Quantiles


class Counter:
    """Count events; the value never falls. Thread: one writer, any reader."""

    __slots__ = ("_value", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._value = 0

    def add(self, count: int = 1) -> None:
        """Add `count` events.

        Raises:
            ValueError: `count` is negative.
        """
        if count < 0:
            raise ValueError(f"counter {self.name} cannot fall by {-count}")
        self._value += count

    @property
    def value(self) -> int:
        """Return the number of events so far."""
        return self._value


class Gauge:
    """Hold the newest value of a quantity. Thread: one writer, any reader."""

    __slots__ = ("name", "value")

    def __init__(self, name: str) -> None:
        self.name = name
        self.value = 0.0

    def set(self, value: float) -> None:
        """Replace the value."""
        self.value = value


class Metrics:
    """Keep the counters, gauges and quantiles of one run by name.

    Names are paths with the unit last: ``serving/batches``, ``serving/action_latency_ms``. Asking for a name again
    returns the same object, so that a room may ask where it counts.

    Thread: any.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._quantiles: dict[str, Quantiles] = {}

    def counter(self, name: str) -> Counter:
        """Return the counter called `name`."""
        with self._lock:
            return self._counters.setdefault(name, Counter(name))

    def gauge(self, name: str) -> Gauge:
        """Return the gauge called `name`."""
        with self._lock:
            return self._gauges.setdefault(name, Gauge(name))

    def quantiles(self, name: str, *, low: float = 1e-3, high: float = 1e6) -> Quantiles:
        """Return the quantiles called `name`; `low` and `high` bound what they resolve and hold from the first call."""
        with self._lock:
            if name not in self._quantiles:
                self._quantiles[name] = Quantiles(low=low, high=high)
            return self._quantiles[name]

    def snapshot(self) -> dict[str, float]:
        """Return every value by name; quantiles that saw something add ``/p50``, ``/p99`` and ``/count``."""
        with self._lock:
            values: dict[str, float] = {name: counter.value for name, counter in self._counters.items()}
            values.update((name, gauge.value) for name, gauge in self._gauges.items())
            quantiles = list(self._quantiles.items())
        for name, histogram in quantiles:
            if histogram.count:
                values[f"{name}/p50"] = histogram.p50
                values[f"{name}/p99"] = histogram.p99
                values[f"{name}/count"] = histogram.count
        return values
