"""Files say nothing of the machine they were written on and leave no work for later."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

# Each pattern holds a character class, so that this file does not find itself.
TRACES = {
    "an absolute path of somebody's machine": re.compile(r"(?<![\w./~-])/(?:wor[k]|roo[t]|User[s]|hom[e]/\w+)/"),
    "a package index or a file host of one": re.compile(r"pypi[.]org/simple|[p]ythonhosted|ind[e]x-url|fin[d]-links"),
    "work left for later": re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X]|HAC[K]|TB[D])\b"),
}
NOT_TEXT = frozenset({".png", ".gif", ".ico", ".npz", ".npy", ".bin", ".safetensors", ".woff2"})
NOT_OURS = frozenset({"LICENSE"})


def files_of_the_project(root: Path) -> list[Path]:
    """Return what git tracks or would track, or every file where the sources came without git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        return [root / name for name in listed.stdout.decode().split("\0") if name]
    built = {"dist", "build", "site", "runs", "__pycache__"}
    return [
        path
        for path in root.rglob("*")
        if path.is_file() and not any(name in built or is_hidden(name) for name in path.relative_to(root).parts[:-1])
    ]


def is_hidden(folder: str) -> bool:
    """Return True for caches, environments and the like: hidden folders that no commit holds."""
    return folder.startswith(".") and folder != ".ci"


@pytest.mark.parametrize("what", TRACES)
def test_no_file_holds(what, root):
    found = [
        f"{path.relative_to(root)}:{number} {line.strip()}"
        for path in files_of_the_project(root)
        if path.is_file() and path.suffix not in NOT_TEXT and path.name not in NOT_OURS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if TRACES[what].search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("an absolute path of somebody's machine", "open('/wor" + "k/main/x')"),
        ("an absolute path of somebody's machine", "see /hom" + "e/ann/aioseed"),
        ("a package index or a file host of one", "pip install --extra-ind" + "ex-url x"),
        ("work left for later", "# TOD" + "O: later"),
    ],
)
def test_a_trace_is_seen(what, text):
    assert TRACES[what].search(text)


def test_constraints_are_names_and_versions_only(root):
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
