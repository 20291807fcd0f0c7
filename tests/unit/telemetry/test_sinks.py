from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from aioseed.errors import PluginError, RunDirectoryError
from aioseed.telemetry.sinks import JsonLinesSink, MetricsSink
from aioseed.telemetry.tensorboard import TensorBoardSink

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event


def test_every_write_is_one_json_object_that_is_on_disk_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink: MetricsSink = JsonLinesSink(path, clock=lambda: 1234.56789)
    sink.write(10, {"return_mean": 1.5, "loss": float("nan")})
    assert json.loads(path.read_text()) == {"step": 10, "time": 1234.568, "return_mean": 1.5, "loss": None}
    sink.close()
    sink.close()


def test_a_resumed_run_appends(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2):
        sink = JsonLinesSink(path)
        sink.write(step, {})
        sink.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


@pytest.fixture
def full_disk():
    """Let no file grow beyond so many bytes, as if the disk were full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextlib.contextmanager
    def full(size: int) -> Iterator[None]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return full


@pytest.mark.parametrize("room", [0, 5])
def test_a_line_that_a_full_disk_cuts_short_is_taken_back_and_the_next_is_whole(tmp_path, full_disk, room):
    path = tmp_path / "metrics.jsonl"
    sink = JsonLinesSink(path)
    sink.write(1, {})
    with full_disk(path.stat().st_size + room):
        for _ in range(2):
            with pytest.raises(RunDirectoryError, match="cannot write metrics"):
                sink.write(2, {"run/env_steps": 5.0})
    sink.write(3, {})
    sink.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]


@pytest.mark.skipif(os.name != "posix", reason="Windows moves no open file")
def test_figures_that_are_rotated_away_are_begun_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = JsonLinesSink(path, clock=lambda: 9.0)
    sink.write(1, {})
    path.rename(tmp_path / "metrics.jsonl.1")
    sink.write(2, {})
    sink.close()
    assert path.read_text() == '{"step": 2, "time": 9.0}\n'


def test_a_line_that_a_power_cut_left_in_part_is_ended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"ste')
    sink = JsonLinesSink(path, clock=lambda: 9.0)
    sink.write(2, {})
    sink.close()
    assert path.read_text().splitlines() == ['{"step": 1}', '{"ste', '{"step": 2, "time": 9.0}']


@pytest.mark.parametrize("room", [0, 5])
def test_tensorboard_on_a_full_disk_says_so_and_goes_on_when_there_is_space(tmp_path, full_disk, room):
    pytest.importorskip("tensorboardX")
    sink = TensorBoardSink(tmp_path)
    if room:
        sink.write(1, {"before": 1.0})
    with full_disk(sum(path.stat().st_size for path in tmp_path.iterdir()) + room):
        for _ in range(2):
            with pytest.raises(RunDirectoryError, match="cannot write TensorBoard events"):
                sink.write(2, {"meanwhile": 1.0})
    sink.write(3, {"after": 1.0})
    sink.close()
    (file,) = tmp_path.iterdir()
    assert tags_in(file.read_bytes()) == ([[], [], ["before"], ["after"]] if room else [[], [], ["after"]])


def tags_in(data: bytes) -> list[list[str]]:
    return [[value.tag for value in event.summary.value] for event in events_in(data)]


def events_in(data: bytes) -> list[Event]:
    """Read every record, as TensorBoard does: it stops at the first that is not whole."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    events = []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        record = data[12 : 12 + size]
        assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
        assert struct.unpack("<I", data[12 + size : 16 + size])[0] == masked_crc32c(record)
        events.append(Event.FromString(record))
        data = data[16 + size :]
    return events


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


def test_tensorboard_is_told_where_a_resumed_run_begins_so_that_it_drops_what_was_lost(tmp_path):
    pytest.importorskip("tensorboardX")
    for number, steps in enumerate([(10, 20, 30), (15, 25)]):
        sink = TensorBoardSink(tmp_path / str(number))
        for step in steps:
            sink.write(step, {"loss": 1.0})
        sink.close()
    (events,) = (tmp_path / "1").glob("events.*")
    records = events_in(events.read_bytes())
    assert [(event.step, event.session_log.status) for event in records] == [(0, 0), (16, 1), (15, 0), (25, 0)]


def test_tensorboard_reads_a_resumed_run_last_also_if_the_clock_was_set_back(tmp_path):
    """It reads files in the order of their names, and drops what came before the step where the last one begins."""
    pytest.importorskip("tensorboardX")
    for step, now_s in enumerate((1_700_000_000.7, 1_700_000_000.7, 300.0)):
        sink = TensorBoardSink(tmp_path, lambda now_s=now_s: now_s)
        sink.write(step, {"loss": 1.0})
        sink.close()
    files = sorted(tmp_path.glob("events.*"))
    assert [events_in(path.read_bytes())[-1].step for path in files] == [0, 1, 2]
    assert events_in(files[-1].read_bytes())[-1].wall_time == 300.0


def test_tensorboard_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(PluginError) as caught:
        TensorBoardSink(tmp_path)
    assert caught.value.extra == "learner"
