"""Nothing that arrives from outside is ever turned into code: the means to do so are not in the source at all."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

CODE_CARRIERS = frozenset({"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"})
SAFE_LOADERS = frozenset({"SafeLoader", "CSafeLoader", "BaseLoader"})


def offences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and reason for everything that could make code of bytes."""
    safe_loaders = SAFE_LOADERS | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and {last_name(base) for base in node.bases} & SAFE_LOADERS
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from ((node.lineno, f"imports {name}") for name in names if name.split(".")[0] in CODE_CARRIERS)
        if isinstance(node, ast.Call):
            yield from call_offences(node, safe_loaders)


def last_name(node: ast.expr) -> str:
    """Return ``c`` of ``a.b.c``."""
    return ast.unparse(node).split(".")[-1]


def call_offences(call: ast.Call, safe_loaders: frozenset[str]) -> Iterator[tuple[int, str]]:
    name = ast.unparse(call.func)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in {"eval", "exec", "compile", "builtins.eval", "builtins.exec"}:
        yield call.lineno, f"calls {name}"
    if name.startswith("yaml.") and name.split(".")[-1] in {
        "unsafe_load",
        "full_load",
        "unsafe_load_all",
        "full_load_all",
    }:
        yield call.lineno, f"calls {name}"
    if name in {"yaml.load", "yaml.load_all"}:
        loader = keywords.get("Loader") or (call.args[1] if len(call.args) > 1 else None)
        if loader is None or last_name(loader) not in safe_loaders:
            yield call.lineno, "loads YAML without a safe loader"
    allow_pickle = keywords.get("allow_pickle")
    if allow_pickle is not None and not (isinstance(allow_pickle, ast.Constant) and allow_pickle.value is False):
        yield call.lineno, "allows pickles in NumPy files"


def test_the_source_cannot_turn_bytes_into_code(sources):
    assert [f"{source.name}:{line} {reason}" for source in sources for line, reason in offences(source.tree)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from cloudpickle import loads",
        "import os, marshal",
        "def f():\n    import dill",
        "eval(text)",
        "exec(text)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
        "yaml.unsafe_load(text)",
        "class Loose(yaml.Loader):\n    pass\n\nyaml.load(text, Loose)",
        "np.load(file, allow_pickle=True)",
        "np.load(file, allow_pickle=flag)",
    ],
)
def test_an_offence_is_seen(text):
    assert list(offences(ast.parse(text)))


@pytest.mark.parametrize(
    "text",
    [
        "import json",
        "jax.eval_shape(f, x)",
        "compiled = jax.jit(f).lower(x).compile()",
        "re.compile('x')",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.CSafeLoader)",
        "class Strict(yaml.SafeLoader):\n    pass\n\nyaml.load(text, Strict)",
        "np.load(file, allow_pickle=False)",
    ],
)
def test_what_is_harmless_passes(text):
    assert list(offences(ast.parse(text))) == []
