"""Presets, files and overrides are read strictly; what is wrong is told with file and line."""

from __future__ import annotations

import logging

import pytest

from aioseed import plugins, presets
from aioseed.errors import ConfigError, PluginError


class Plugin:
    def __init__(self, preset_package: str) -> None:
        self.preset_package = preset_package


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Two environment plugins whose packages ship presets, and one that does not load."""
    shipped = {"envs_a": {"cartpole": "# Solve it.\na: 1\n", "pong": "b: 2\n"}, "envs_b": {"pong": "b: 3\n"}}
    for package, files in shipped.items():
        folder = tmp_path / package / "presets"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").write_text("")
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text)
        (folder / "notes.txt").write_text("no preset")

    def environment_plugin(name: str) -> Plugin:
        if name == "broken":
            raise PluginError("the environment plugin needs a module")
        return Plugin(f"envs_{name}")

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "names", lambda group: ["a", "b", "broken"])
    monkeypatch.setattr(plugins, "environment_plugin", environment_plugin)
    return tmp_path


def test_presets_are_listed_with_their_first_comment(shipped, caplog):
    found = presets.list_presets()
    assert [(preset.name, preset.plugin, preset.summary) for preset in found] == [
        ("cartpole", "a", "Solve it."),
        ("pong", "a", ""),
        ("pong", "b", ""),
    ]
    assert found[0].path == shipped / "envs_a" / "presets" / "cartpole.yaml"


def test_a_plugin_that_does_not_load_is_logged_and_hides_no_other(shipped, caplog):
    with caplog.at_level(logging.WARNING):
        assert presets.read("cartpole") == {"a": 1}
    assert "no presets of broken: the environment plugin needs a module" in caplog.text


def test_an_unknown_preset_is_told_with_the_nearest(shipped):
    with pytest.raises(
        ConfigError, match=r'^there is no preset "carpole" \(did you mean "cartpole"\?\): presets are cart'
    ):
        presets.read("carpole")


def test_a_preset_of_two_plugins_must_be_given_as_a_path(shipped):
    with pytest.raises(ConfigError, match=r'^a and b both have a preset "pong": give the path of its file$'):
        presets.read("pong")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "training:\n  learning_rate: 1e-3\n  decay: [1, x]\n"),
        ("c.yml", "training: {learning_rate: 0.001, decay: [1, 'x']}\n"),
        ("c.toml", "[training]\nlearning_rate = 1e-3\ndecay = [1, 'x']\n"),
        ("c.json", '{"training": {"learning_rate": 1e-3, "decay": [1, "x"]}}'),
    ],
)
def test_yaml_toml_and_json_say_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert presets.read(str(tmp_path / name)) == {"training": {"learning_rate": 0.001, "decay": [1, "x"]}}


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("c.yaml", "a: 1\nb: [1\nc: 2\n", ":3: "),
        ("c.yaml", "a: 1\nb:\n  c: 1\n  c: 2\n", ':4: the key "c" is there twice'),
        ("c.yaml", "a: 1\n2: b\n", ":2: the key 2 is not a text"),
        ("c.yaml", "a: !!python/object/apply:os.getcwd []\n", ":1: could not determine a constructor"),
        ("c.yaml", "- a\n- b\n", ":1: the file holds a list where keys and values are expected"),
        ("c.toml", "a = 1\nb = = 2\n", ":2: Invalid value"),
        ("c.json", '{"a": 1,\n "b": }', ":2: Expecting value"),
        ("c.json", '{"a": 1, "a": 2}', ':1: the key "a" is there twice'),
    ],
)
def test_a_malformed_file_is_told_with_its_line(tmp_path, name, text, place):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        presets.read(str(path))
    assert str(caught.value).startswith(f"{path}{place}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_of_bytes_are_told(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read: No such file"):
        presets.read(str(tmp_path / "nowhere.yaml"))
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read: it is not UTF-8"):
        presets.read(str(tmp_path / "c.yaml"))


def test_an_empty_file_says_nothing(tmp_path):
    (tmp_path / "c.yaml").write_text("# only a comment\n")
    assert presets.read(str(tmp_path / "c.yaml")) == {}


def test_yaml_may_merge_and_then_override(tmp_path):
    (tmp_path / "c.yaml").write_text("base: &base {a: 1, b: 2}\nmore:\n  <<: *base\n  b: 3\n")
    assert presets.read(str(tmp_path / "c.yaml"))["more"] == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("-1E5", -1e5), ("+2.5e3", 2500.0), (".5e-2", 0.005), ("1.e2", 100.0), ("1.5", 1.5), ("3", 3),
        ("true", True), ("null", None), ("", None), ("[1, 2e1]", [1, 20.0]), ("{a: 1}", {"a": 1}),
        ("1e3x", "1e3x"), ("e5", "e5"), ("2024-01-01", "2024-01-01"), ("ws://127.0.0.1:8700", "ws://127.0.0.1:8700"),
        ("'1e-3'", "1e-3"),
    ],
)  # fmt: skip
def test_a_value_of_an_override_is_yaml_in_which_1e_3_is_a_number(text, value):
    result = presets.apply_overrides({}, [f"a.b={text}"])
    assert result == {"a": {"b": value}}
    assert type(result["a"]["b"]) is type(value)


def test_overrides_reach_into_sections_and_lists_and_leave_the_original_alone():
    data = {"a": {"b": 1, "c": [{"d": 1}, {"d": 2}]}, "e": None}
    result = presets.apply_overrides(data, ["a.b=2", "a.c.1.d=3", "e.f=4", "a.b=5"])
    assert result == {"a": {"b": 5, "c": [{"d": 1}, {"d": 3}]}, "e": {"f": 4}}
    assert data == {"a": {"b": 1, "c": [{"d": 1}, {"d": 2}]}, "e": None}


def test_an_override_changes_the_section_that_it_names_and_none_that_shares_an_anchor_with_it(tmp_path):
    (tmp_path / "c.yaml").write_text("a: &a {b: 1, c: [{d: 1}]}\nsame: *a\nmerged: {<<: *a}\n")
    result = presets.apply_overrides(presets.read(str(tmp_path / "c.yaml")), ["same.b=2", "merged.c.0.d=3"])
    assert result == {
        "a": {"b": 1, "c": [{"d": 1}]},
        "same": {"b": 2, "c": [{"d": 1}]},
        "merged": {"b": 1, "c": [{"d": 3}]},
    }


@pytest.mark.parametrize("text", ["a: &a {b: [*a]}\n", "a: &a [*a]\n", "&top\na: {b: *top}\n"])
def test_a_section_that_holds_itself_is_refused(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match="a section of the configuration holds itself"):
        presets.apply_overrides(presets.read(str(tmp_path / "c.yaml")), [])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.learning_rate", '"training.learning_rate" is not of the form dotted.path=value'),
        ("=3", '"=3" is not of the form dotted.path=value'),
        ("a..b=3", '"a..b=3" is not of the form'),
        ("a.b.c=3", 'a.b.c cannot be set: a.b is 1 and has no "c"'),
        ("l.7=3", 'l.7 cannot be set: l is a list of 2 and has no "7"'),
        ("l.²=3", 'l.² cannot be set: l is a list of 2 and has no "²"'),
        ("a=[1", "a is '[1': expected a value in YAML"),
        ("a={b: 1, b: 2}", "a is '{b: 1, b: 2}': expected a value in YAML"),
    ],
)
def test_an_override_that_cannot_be_set_is_told(override, sentence):
    with pytest.raises(ConfigError) as caught:
        presets.apply_overrides({"a": {"b": 1}, "l": [1, 2]}, [override])
    assert str(caught.value).startswith(sentence)
