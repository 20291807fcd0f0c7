from __future__ import annotations

import builtins
import json
import subprocess
import sys

import pytest
import yaml

import aioseed
from aioseed import __version__
from aioseed.cli.main import main
from aioseed.errors import PluginError


def test_help_lists_every_command(capsys):
    for words in ([], ["--help"], ["help"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        for command in ("train", "learner", "actor", "evaluate", "presets", "config", "env-spec", "check-env", "bench"):
            assert f"\n  {command} " in out


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"aioseed {__version__}\n"


def test_the_package_run_as_a_module_is_the_command():
    ended = subprocess.run([sys.executable, "-m", "aioseed", "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout == f"aioseed {__version__}\n"


def test_an_unknown_command_is_said_so(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == 'aioseed: there is no command "trian" (did you mean "train"?)\n'


@pytest.fixture
def missing(monkeypatch):
    """Return a function that makes a package one that is not installed."""
    genuine = builtins.__import__

    def missing(package):
        def without(name, *rest, **more):
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
            return genuine(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", without)
        for module in ("aioseed.cli.train", "aioseed.cli.view", "aioseed.host.policy"):
            monkeypatch.delitem(sys.modules, module, raising=False)

    return missing


def test_a_learner_command_without_its_packages_says_what_to_install(capsys, missing):
    missing("rich")
    assert main(["train", "cartpole"]) == 2
    said = capsys.readouterr().err
    assert said == 'aioseed train: this needs a learner\'s packages (rich is missing): pip install "aioseed[learner]"\n'


def test_a_learner_command_whose_packages_do_not_load_says_so_in_a_sentence(capsys, monkeypatch, tmp_path):
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise RuntimeError('no such machine')")
    monkeypatch.syspath_prepend(tmp_path)
    ours = ("aioseed.cli.train", "aioseed.cli.view")
    for module in [name for name in sys.modules if name.partition(".")[0] == "rich" or name in ours]:
        monkeypatch.delitem(sys.modules, module)
    assert main(["train", "cartpole"]) == 2
    assert capsys.readouterr().err == (
        "aioseed train: this needs a learner's packages, and rich does not load (RuntimeError: no such machine): "
        'pip install --force-reinstall "aioseed[learner]"\n'
    )


def test_a_certificate_cannot_be_made_without_its_package(capsys, missing, tmp_path):
    missing("cryptography")
    words = ["--listen", "wss://127.0.0.1:0", "--tls", "self-signed", "--run-dir", str(tmp_path / "run")]
    assert main(["learner", "cartpole", *words]) == 2
    assert 'cryptography is missing): pip install "aioseed[learner]"' in capsys.readouterr().err


def test_a_public_name_without_its_packages_says_what_to_install(missing):
    missing("jax")
    with pytest.raises(PluginError) as caught:
        getattr(aioseed, "load_policy")  # noqa: B009 - reading it is what is tried
    said = 'aioseed.load_policy: this needs a learner\'s packages (jax is missing): pip install "aioseed[learner]"'
    assert (str(caught.value), caught.value.extra) == (said, "learner")


def test_another_module_that_is_missing_is_no_matter_of_a_learners_packages(missing):
    missing("numpy")
    with pytest.raises(ModuleNotFoundError, match="numpy"):
        getattr(aioseed, "load_policy")  # noqa: B009 - as above


def test_presets_are_listed_with_a_summary(capsys):
    assert main(["presets"]) == 0
    assert any(line.startswith("cartpole ") and "V-trace" in line for line in capsys.readouterr().out.splitlines())


def test_config_show_prints_what_a_run_would_use(capsys):
    assert main(["config", "show", "cartpole", "seed=7"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["seed"] == 7 and shown["environment"]["name"] == "CartPole-v1"


def test_config_show_checks_plugins_and_shows_their_defaults(capsys):
    assert main(["config", "show", "cartpole"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["agent"]["lambda_"] == 1.0
    assert main(["config", "show", "cartpole", "agent.discont=0.5"]) == 2
    said = capsys.readouterr()
    assert said.err == 'aioseed config: agent.discont is not a known key (did you mean "discount"?)\n' and not said.out


def test_config_show_says_what_cannot_be_checked_here(capsys):
    assert main(["config", "show", "cartpole", "network={name: 'not_here:net', width: 3}"]) == 0
    said = capsys.readouterr()
    assert yaml.safe_load(said.out)["network"] == {"name": "not_here:net", "width": 3}
    assert said.err.startswith('aioseed config: not checked, and shown without defaults: there is no module "not_here"')


def test_config_schema_is_a_json_schema(capsys):
    assert main(["config", "schema"]) == 0
    assert "environment" in json.loads(capsys.readouterr().out)["properties"]


def test_env_spec_describes_an_environment_by_name_or_preset(capsys):
    assert main(["env-spec", "--env", "CartPole-v1"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["observation"] == {"dtype": "float32", "shape": [4]} and plain["action"]["sizes"] == [2]
    assert main(["env-spec", "--preset", "cartpole", "environment.options.max_episode_steps=9"]) == 0
    assert json.loads(capsys.readouterr().out)["task"]["max_episode_steps"] == 9


def test_check_env_says_what_it_found_and_fails_on_an_error(capsys):
    assert main(["check-env", "CartPole-v1"]) == 0
    assert "note: the action is discrete with 2 choices" in capsys.readouterr().out
    assert main(["check-env", "CartPol-v1", "--json"]) == 1
    finding = json.loads(capsys.readouterr().out)
    assert finding["level"] == "error" and "did you mean" in finding["text"]
    assert main(["check-env", "--preset", "cartpole", "environment.options.max_episode_steps=9"]) == 0


@pytest.mark.parametrize("words", [["check-env"], ["check-env", "CartPole-v1", "--preset", "cartpole"], ["env-spec"]])
def test_one_environment_is_named(capsys, words):
    assert main(words) == 2
    assert "name one environment, or a --preset that has one" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["env-spec --env CartPole-v1", "check-env CartPole-v1", "presets", "--help"])
def test_thin_commands_import_nothing_of_a_learner(command):
    heavy = "{'jax', 'flax', 'optax', 'safetensors', 'grpc', 'rich'}"
    code = (
        f"import sys; from aioseed.cli.main import main; main(sys.argv[1:]); print(sorted({heavy} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
