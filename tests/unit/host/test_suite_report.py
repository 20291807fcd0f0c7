"""Scores come out of the runs' metrics; normalised, capped and summed up as the literature does."""

from __future__ import annotations

import json
import sys
import textwrap

import pytest

from aioseed.errors import PluginError, RunDirectoryError, UsageError
from aioseed.host.curves import draw_curves
from aioseed.host.suite import FINISHED, PLAN
from aioseed.host.suite_report import METRICS, as_json, as_markdown, read_report

SUITE = """
    from aioseed.suites import Suite, SuiteTask

    tasks = tuple(SuiteTask(name, (), 2.0, 12.0) for name in ("weak", "strong", "begun", "never"))
    capped = Suite("capped", tasks, "environment/score", capped=True)
    free = capped._replace(name="free", capped=False)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with two finished tasks (0.25 and 2.25 of human), one without an episode, one never begun."""
    (tmp_path / "report_suite.py").write_text(textwrap.dedent(SUITE))
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "weak", [(100, None), (200, 1.0), (300, 4.5)], finished=True)
    write(tmp_path / "strong", [(500, 24.5)], finished=True)
    write(tmp_path / "begun", [(10, None)])
    (tmp_path / PLAN).write_text(json.dumps({"suite": "report_suite:capped", "preset": "mine", "overrides": []}))
    return tmp_path


def write(run_dir, rows, finished=False):
    run_dir.mkdir()
    lines = [json.dumps({"step": step, "run/env_steps": step, "environment/score": score}) for step, score in rows]
    (run_dir / METRICS).write_text("\n".join([*lines, '{"step": 9, "environ']))
    if finished:
        (run_dir / FINISHED).write_text("{}")


def test_normalised_capped_and_summed_up(folder):
    report = read_report(folder)
    assert [result.score for result in report.results] == [4.5, 24.5, None, None]
    assert [result.normalised for result in report.results] == [0.25, 2.25, None, None]
    assert (report.mean, report.median, report.capped_mean) == (1.25, 1.25, 0.625)
    assert report.results[0].curve == ((200, 300), (1.0, 4.5))


def test_the_median_and_the_means_are_told_apart(folder):
    write(folder / "never", [(10, 2.5)])
    report = read_report(folder)
    assert [result.normalised for result in report.results] == [0.25, 2.25, None, 0.05]
    assert "capped mean 43.3 %, mean 85.0 %, median 25.0 %" in as_markdown(report)
    numbers = as_json(report)
    found = [numbers[name] for name in ("capped_mean", "mean", "median")]
    assert found == pytest.approx([1.3 / 3, 0.85, 0.25])


def test_the_table_and_the_numbers_say_the_same(folder):
    report = read_report(folder)
    table = as_markdown(report)
    assert "2 of 4 tasks have a score; 2 are finished." in table
    assert "capped mean 62.5 %, mean 125.0 %, median 125.0 %" in table
    assert "| weak | 4.50 | 25.0 % | 2 | 12 | 300 |  |" in table
    assert "| begun |  |  | 2 | 12 | 10 | unfinished |" in table
    assert "| never |  |  | 2 | 12 | 0 | not begun |" in table
    numbers = as_json(report)
    assert (numbers["mean"], numbers["capped_mean"], numbers["tasks_scored"]) == (1.25, 0.625, 2)
    assert json.loads(json.dumps(numbers)) == numbers


def test_what_a_killed_run_had_reached_beyond_its_checkpoint_is_no_part_of_the_curve(folder):
    rows = [(100, 1.0), (200, 2.0), (300, 9.0), (400, 9.0), (200, None), (250, 3.0), (350, 3.5), (350, 4.0)]
    write(folder / "never", rows)
    result = read_report(folder).results[3]
    assert result.curve == ((100, 200, 250, 350), (1.0, 2.0, 3.0, 4.0))
    assert (result.score, result.steps) == (4.0, 350)


def test_a_suite_that_is_not_capped_says_nothing_of_caps(folder):
    (folder / PLAN).write_text(json.dumps({"suite": "report_suite:free", "preset": "mine", "overrides": []}))
    report = read_report(folder)
    assert "capped" not in as_markdown(report)
    assert as_json(report)["capped_mean"] is None


def test_nothing_yet_is_no_error(folder):
    for name in ("weak", "strong"):
        (folder / name / METRICS).unlink()
    report = read_report(folder)
    assert report.mean is None
    assert "0 of 4 tasks have a score" in as_markdown(report)


@pytest.mark.parametrize("torn", [b'{"step": 250, "environ', b"\0" * 40, b"{}\xff", b"7"])
def test_a_line_that_a_power_cut_tore_is_passed_over(folder, torn):
    path = folder / "weak" / METRICS
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, torn + b"\n", *rest]))
    assert read_report(folder).results[0].curve == ((200, 300), (1.0, 4.5))


def test_what_cannot_be_read_is_one_sentence(folder, tmp_path):
    with pytest.raises(UsageError, match="holds no suite"):
        read_report(tmp_path / "weak")
    (folder / "weak" / METRICS).unlink()
    (folder / "weak" / METRICS).mkdir()
    with pytest.raises(RunDirectoryError, match=r"metrics\.jsonl cannot be read"):
        read_report(folder)


def test_the_curves_are_a_picture(folder):
    pytest.importorskip("matplotlib")
    draw_curves(read_report(folder), folder / "curves.png")
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PluginError, match=r'pip install "aioseed\[plots\]"'):
        draw_curves(read_report(folder), folder / "curves.png")
