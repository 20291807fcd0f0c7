"""Clean environments with the wheel in them, made once a session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"


class Environment(NamedTuple):
    """A virtual environment that holds the wheel, the thin base and nothing else."""

    folder: Path

    @property
    def scripts(self) -> Path:
        """Return the folder of the interpreter and the commands."""
        return self.folder / ("Scripts" if sys.platform == "win32" else "bin")

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment outside the checkout, so that only what is installed is found."""
        return subprocess.run(
            [str(self.scripts / command), *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--quiet", "--disable-pip-version-check", *arguments], check=True
    )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    pip("wheel", "--no-deps", "--build-constraint", str(CONSTRAINTS), "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("aioseed-*.whl")
    return wheel


@pytest.fixture(scope="session")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """Return a function that installs the wheel and one NumPy into a new environment."""
    pins = tmp_path_factory.mktemp("pins") / "constraints.txt"
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines(keepends=True)
    pins.write_text("".join(line for line in lines if not line.startswith("numpy==")), encoding="utf-8")

    def make(numpy: str) -> Environment:
        environment = Environment(tmp_path_factory.mktemp("environment"))
        # The pip of this interpreter serves the new environment: half of the time would go into a pip of its own.
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment.folder)], check=True)
        interpreter = str(environment.scripts / "python")
        pip("--python", interpreter, "install", "--no-compile", "-c", str(pins), str(wheel), numpy)
        return environment

    return make
