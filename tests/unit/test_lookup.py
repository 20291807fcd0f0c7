"""Names that a user wrote become objects, or a sentence with the right name."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import tomllib
from pathlib import Path

import pytest

from aioseed.errors import PluginError
from aioseed.lookup import (
    LEARNER_PACKAGES,
    did_you_mean,
    import_attribute,
    is_reference,
    near_names,
    sentence_of,
    signature_of,
    without_learner,
)


@pytest.mark.parametrize(
    ("name", "nearest"), [("carpole", "cartpole"), ("CARTPOLE", "cartpole"), ("cartpole-vec", "cartpole-vector")]
)
def test_the_nearest_name_comes_first_whatever_its_case(name, nearest):
    assert near_names(name, ["cartpole", "cartpole-vector", "pong"])[0] == nearest


def test_no_hint_when_nothing_is_near():
    assert did_you_mean("zebra", ["cartpole", "pong"]) == ""
    assert did_you_mean("pang", ["cartpole", "pong"]) == ' (did you mean "pong"?)'


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("module:name", True),
        ("package.module:Class.method", True),
        ("CartPole-v1", False),
        ("ale_py:ALE/Pong-v5", False),
        ("module:", False),
        (":name", False),
        ("a..b:c", False),
    ],
)
def test_a_reference_is_a_module_and_an_attribute(name, expected):
    assert is_reference(name) is expected


def test_an_attribute_is_reached_through_dots():
    assert import_attribute("collections:OrderedDict.fromkeys") is not None


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("no_such_module:make", 'there is no module "no_such_module" in the current directory or among'),
        ("json.no_such_part:make", 'there is no module "json.no_such_part"'),
        ("json:lods", 'the module "json" has no "lods" (did you mean "loads"'),
        ("json", '"json" is not of the form package.module:attribute'),
    ],
)
def test_a_wrong_reference_is_told_in_one_sentence(reference, sentence):
    with pytest.raises(PluginError) as caught:
        import_attribute(reference, group="aioseed.envs")
    assert str(caught.value).startswith(sentence)
    assert (caught.value.group, caught.value.name) == ("aioseed.envs", reference)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import module_that_nobody_has", 'needs the module "module_that_nobody_has", which is not installed'),
        ("raise RuntimeError('boom\\nand more')", "could not be imported: RuntimeError: boom"),
        ("def f(:", "could not be imported: SyntaxError: invalid syntax"),
    ],
)
def test_a_local_file_that_does_not_import_is_told_with_its_own_error(tmp_path, monkeypatch, source, sentence):
    (tmp_path / "broken_local_file.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError) as caught:
        import_attribute("broken_local_file:make")
    assert str(caught.value).startswith('the module "broken_local_file" ')
    assert sentence in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_foreign_error_becomes_one_line():
    assert sentence_of(ValueError("first\nsecond")) == "ValueError: first"
    assert sentence_of(KeyError()) == "KeyError"
    assert len(sentence_of(ValueError("x" * 1000))) == 300


def test_an_error_that_says_nothing_is_told_by_its_place():
    try:
        raise AssertionError
    except AssertionError as error:
        line = inspect.currentframe().f_lineno - 2
        assert sentence_of(error) == f"AssertionError in line {line} of {__file__}"


def told_of(body, monkeypatch, folder) -> str:
    """Return what is said of an import of optax where it has this body."""
    (folder / "optax.py").write_text(body)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "optax", raising=False)
    with pytest.raises(Exception) as caught:
        importlib.import_module("optax")
    return without_learner(caught.value)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            "raise RuntimeError('jaxlib is too old\\nupdate it')",
            "optax does not load (RuntimeError: jaxlib is too old)",
        ),
        ("raise ImportError('undefined symbol: x')", "optax does not load (ImportError: undefined symbol: x)"),
        ("from json import nothing", "optax does not load (ImportError: cannot import name 'nothing' from 'json'"),
        ("import json.nothing", "optax does not load (ModuleNotFoundError: No module named 'json.nothing'"),
    ],
)
def test_a_package_that_is_there_and_does_not_load_is_to_be_installed_anew(body, sentence, monkeypatch, tmp_path):
    told = told_of(body, monkeypatch, tmp_path)
    assert told.startswith(f"this needs a learner's packages, and {sentence}")
    assert told.endswith('pip install --force-reinstall "aioseed[learner]"')


def test_an_error_of_somebody_elses_is_no_matter_of_a_learners_packages():
    with pytest.raises(ValueError, match="no") as caught:
        raise ValueError("no")
    assert without_learner(caught.value) == ""


def test_every_package_that_the_learners_extra_brings_is_known_as_one():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    brought = {re.split(r"[\[>=<]", line)[0] for line in project["optional-dependencies"]["learner"]} - {"aioseed"}
    assert brought | {"jaxlib"} == LEARNER_PACKAGES


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations were evaluated where they stand")
def test_a_signature_is_there_whatever_its_annotations_name():
    scope: dict[str, object] = {}
    source = "def make(specs: Missing, *, width: int = 3) -> Missing: ..."
    exec(compile(source, "own.py", "exec", dont_inherit=True), scope)  # without this file's future import
    found = signature_of(scope["make"])
    assert list(found.parameters) == ["specs", "width"]
    assert found.return_annotation.__forward_arg__ == "Missing"
