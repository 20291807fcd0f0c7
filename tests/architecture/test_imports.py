"""Who may import whom: the contracts of pyproject.toml, and the rules that import-linter has no words for."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

LEARNER_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax", "safetensors")
BASE = ("machine", "errors", "lookup", "validation", "specs", "types", "telemetry")
THIN_ROOMS = (*BASE, "wire", "transport", "plugins", "presets", "actor")
THIN_COMMANDS = tuple(f"aioseed.cli{name}" for name in ("", ".main", ".actor", ".presets", ".env_spec"))

# Imports module after module in one fresh interpreter, so that the first one that brings a banned library is named.
PROBE = """
import importlib, sys
banned, modules = sys.argv[1].split(","), sys.argv[2].split(",")
for module in modules:
    importlib.import_module(module)
    loaded = [name for name in banned if name in sys.modules]
    if loaded:
        sys.exit(f"importing {module} loads {', '.join(loaded)}")
"""


def import_in_a_fresh_interpreter(modules: list[str], banned: tuple[str, ...]) -> str:
    """Return an empty string, or which of `modules` loads one of `banned` or fails."""
    command = [sys.executable, "-c", PROBE, ",".join(banned), ",".join(modules)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stderr.strip()


def imported_names(tree: ast.AST) -> set[str]:
    """Return the dotted names that a module imports anywhere, absolute imports only."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def in_package(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def test_the_contracts_of_pyproject_hold(root):
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_thin_rooms_load_neither_the_learners_libraries_nor_grpc(sources):
    thin = [
        source.module
        for source in sources
        if source.module == "aioseed"
        or in_package(source.module, *(f"aioseed.{room}" for room in THIN_ROOMS))
        or source.module in THIN_COMMANDS
    ]
    assert import_in_a_fresh_interpreter(thin, (*LEARNER_LIBRARIES, "grpc")) == ""


# EnvPool itself loads JAX where that is installed, and does without where it is not.
LOADS_JAX_IF_THERE = {"aioseed_atari.pool"}


def test_plugins_load_no_library_of_the_learner(sources):
    faces = [
        source.module
        for source in sources
        if not in_package(source.module, "aioseed")
        and "learner" not in source.module.split(".")[1:]
        and source.module not in LOADS_JAX_IF_THERE
    ]
    without_grpc = [module for module in faces if not in_package(module, "aioseed_grpc")]
    with_grpc = [module for module in faces if in_package(module, "aioseed_grpc")]
    assert import_in_a_fresh_interpreter(without_grpc, (*LEARNER_LIBRARIES, "grpc")) == ""
    assert import_in_a_fresh_interpreter(with_grpc, LEARNER_LIBRARIES) == ""


OF_THE_LEARNER = ("aioseed.testing.agent_kit", "aioseed.testing.network_kit", "aioseed.testing.tracer")


def test_the_kits_for_transports_and_environments_load_no_library_of_the_learner(sources):
    kits = [
        source.module
        for source in sources
        if in_package(source.module, "aioseed.testing") and source.module not in OF_THE_LEARNER
    ]
    assert import_in_a_fresh_interpreter(kits, (*LEARNER_LIBRARIES, "grpc")) == ""


def test_a_banned_library_is_named_with_the_module_that_loads_it():
    assert import_in_a_fresh_interpreter(["json", "decimal"], ("numbers",)) == "importing decimal loads numbers"


def test_only_plugins_py_loads_entry_points(sources):
    users = {source.module for source in sources if "importlib.metadata.entry_points" in imported_names(source.tree)}
    users |= {source.module for source in sources if "metadata.entry_points" in source.text}
    assert users <= {"aioseed.plugins"}


def test_only_learner_py_of_an_environment_plugin_imports_the_learner_tower(sources):
    environments = [source for source in sources if "envs" in source.path.parts]
    tower = ("aioseed.ops", "aioseed.nets", "aioseed.agents", *LEARNER_LIBRARIES)
    offenders = {
        source.module: sorted(name for name in imported_names(source.tree) if in_package(name, *tower))
        for source in environments
        if source.module.split(".")[1:2] != ["learner"]
    }
    assert {module: names for module, names in offenders.items() if names} == {}


def test_only_learner_py_knows_learner_py(sources):
    learners = [
        source.module for source in sources if source.module.split(".")[-1] == "learner" and "envs" in source.path.parts
    ]
    offenders = [
        source.module
        for source in sources
        if source.module not in learners and any(in_package(name, *learners) for name in imported_names(source.tree))
    ]
    assert offenders == []


def test_thin_commands_name_the_others_without_importing_them(sources):
    banned = (
        "aioseed.host",
        "aioseed.bench",
        "aioseed.chaos",
        "aioseed.serving",
        "aioseed.training",
        "aioseed.experience",
    )
    offenders = {
        source.module: sorted(name for name in imported_names(source.tree) if in_package(name, *banned))
        for source in sources
        if source.module in THIN_COMMANDS
    }
    assert {module: names for module, names in offenders.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("import a.b", "a.b"),
        ("from a import b", "a.b"),
        ("def f():\n    from a.b import c", "a.b.c"),
    ],
)
def test_an_import_is_seen_wherever_it_stands(text, name):
    assert name in imported_names(ast.parse(text))
