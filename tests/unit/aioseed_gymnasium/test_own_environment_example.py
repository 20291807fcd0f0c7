"""The own environment of the documentation works as the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
from aioseed_gymnasium import plugin

from aioseed import presets
from aioseed.plugins import environment_plugin
from aioseed.testing.environment_kit import check_env

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture
def section(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "examples")
    return presets.read(str(DOCS / "examples" / "own_environment.yaml"))["environment"]


def test_the_check_finds_nothing_wrong(section):
    findings = plugin.check(section["name"], section["options"])
    assert {finding.level for finding in findings} == {"note"}


def test_it_keeps_the_rules_of_the_kit(section):
    check_env(lambda count: plugin.make(section["name"], section["options"], count), steps=150)


def test_the_own_plugin_keeps_the_rules_of_the_kit(section):
    own = environment_plugin("own_plugin:plugin")
    check_env(lambda count: own.make("corridor", {}, count), steps=150)


def test_the_page_shows_the_own_plugin_that_is_tested():
    page = (DOCS / "howto" / "own-environment.md").read_text()
    code = (DOCS / "examples" / "own_plugin.py").read_text()
    assert code[code.index("SPEC = ") :] in page


def test_the_page_shows_the_files_that_are_tested():
    page = (DOCS / "howto" / "own-environment.md").read_text()
    module, config = ((DOCS / "examples" / f"own_environment.{end}").read_text() for end in ("py", "yaml"))
    assert module.split('"""\n\n', 1)[1] in page
    assert config in page


def test_the_page_shows_what_the_check_says(section):
    page = (DOCS / "howto" / "own-environment.md").read_text()
    shown = [f"note: {finding.text}" for finding in plugin.check(section["name"], section["options"])]
    assert "\n".join(shown[:2]) in page
    assert shown[2].split(" of about ")[0] in page
