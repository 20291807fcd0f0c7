from __future__ import annotations

import json
import sys

import pytest

from aioseed.errors import PluginError, RunDirectoryError
from aioseed.telemetry.sinks import JsonLinesSink, MetricsSink
from aioseed.telemetry.tensorboard import TensorBoardSink


def test_every_write_is_one_json_object_that_is_on_disk_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink: MetricsSink = JsonLinesSink(path)
    sink.write(10, {"return_mean": 1.5, "loss": float("nan")})
    assert json.loads(path.read_text()) == {"step": 10, "return_mean": 1.5, "loss": None}
    sink.close()
    sink.close()


def test_a_resumed_run_appends(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2):
        sink = JsonLinesSink(path)
        sink.write(step, {})
        sink.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_directory_that_is_not_there_is_one_sentence(tmp_path):
    path = tmp_path / "gone" / "metrics.jsonl"
    with pytest.raises(RunDirectoryError) as caught:
        JsonLinesSink(path)
    assert caught.value.path == str(path)
    assert isinstance(caught.value.__cause__, OSError)


def test_tensorboard_events_are_written(tmp_path):
    pytest.importorskip("tensorboardX")
    sink: MetricsSink = TensorBoardSink(tmp_path)
    sink.write(3, {"training/loss": 0.25})
    sink.close()
    sink.close()
    (events,) = tmp_path.glob("events.*")
    assert b"training/loss" in events.read_bytes()


def test_tensorboard_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(PluginError) as caught:
        TensorBoardSink(tmp_path)
    assert caught.value.extra == "learner"
