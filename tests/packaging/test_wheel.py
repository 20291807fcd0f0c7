"""The wheel, installed the way an actor's machine installs it: the thin base alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile

import pytest

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("wheel")]  # one process builds and installs it

NOT_IN_THE_BASE = ("jax", "jaxlib", "flax", "optax", "orbax", "safetensors", "tensorboardX", "grpc", "grpcio")

LIST_WHAT_IS_THERE = """
import importlib.metadata, importlib.util, sys
names = sys.argv[1].split(",")
installed = {(distribution.metadata["Name"] or "").lower() for distribution in importlib.metadata.distributions()}
print([name for name in names if importlib.util.find_spec(name) or name.lower() in installed])
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            "numpy==1.26.4",
            marks=pytest.mark.skipif(sys.version_info >= (3, 13), reason="NumPy 1.26 has no wheels for Python 3.13"),
        ),
        "numpy==2.*",
    ],
)
def thin(request, install):
    return install(request.param)


def test_the_wheel_holds_packages_and_presets_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    packages = {name for name in top if not name.endswith(".dist-info")}
    assert packages == {
        "aioseed",
        "aioseed_websocket",
        "aioseed_grpc",
        "aioseed_gymnasium",
        "aioseed_atari",
        "aioseed_football",
        "aioseed_dmlab",
        "aioseed_described",
    }
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert "aioseed_gymnasium/presets/cartpole.yaml" in names
    assert [name for name in names if name.endswith("LICENSE")]


def test_the_thin_base_brings_no_library_of_the_learner(thin):
    there = thin.run("python", "-c", LIST_WHAT_IS_THERE, ",".join(NOT_IN_THE_BASE))
    assert (there.returncode, there.stdout.strip(), there.stderr) == (0, "[]", "")


def test_the_numpy_that_was_asked_for_is_the_one_installed(thin, request):
    version = thin.run("python", "-c", "import numpy; print(numpy.__version__)").stdout
    wanted = request.node.callspec.params["thin"]
    assert (int(version.split(".")[0]) < 2) == (wanted == "numpy==1.26.4")


@pytest.mark.parametrize("arguments", [["--help"], ["actor", "--help"]])
def test_the_command_explains_itself_on_the_thin_base(thin, arguments):
    shown = thin.run("aioseed", *arguments)
    assert shown.returncode == 0, shown.stderr
    assert "aioseed" in shown.stdout
    assert shown.stderr == ""


def test_a_command_that_needs_the_learner_says_what_to_install(thin):
    shown = thin.run("aioseed", "train", "cartpole")
    assert shown.returncode != 0
    assert "aioseed[learner]" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_every_thin_module_imports_on_the_thin_base(thin):
    code = "import aioseed.actor, aioseed.plugins, aioseed.presets, aioseed_websocket, aioseed_gymnasium, "
    code += "aioseed_football, aioseed_football.match, aioseed_dmlab, aioseed_described"
    done = thin.run("python", "-W", "error", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_actor_on_the_thin_base_trains_with_a_learner_elsewhere(thin, tmp_path):
    """The learner runs in this environment, with another NumPy than one of the two actors has."""
    words = ["learner", "cartpole", "--listen", "ws://127.0.0.1:0", "--steps", "20000", "--run-dir", "run", "--json"]
    learner = subprocess.Popen(
        [sys.executable, "-m", "aioseed", *words, "stop.return_mean=null", "telemetry.tensorboard=false"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with learner:
        try:
            assert learner.stderr is not None
            url = next(found[0] for line in learner.stderr if (found := re.search(r"ws://[0-9.:]+", line)))
            actor = thin.run("aioseed", "actor", url, "--preset", "cartpole", "--envs", "64")
            out, err = learner.communicate(timeout=60)
        finally:
            learner.kill()
    assert actor.returncode == 0, actor.stderr
    assert learner.returncode == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["trained_steps"] >= 20000
    assert result["env_steps"] == result["trained_steps"] + sum(result["dropped"].values())
