"""Run CartPole or Pong with aioseed and with Sample Factory in turns, and print both rates and their ratio as JSON.

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import venv
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

REQUIREMENTS = (
    "sample-factory==2.1.1",
    "setuptools<81",  # it imports pkg_resources
    "ale-py==0.10.2",  # the last one that takes the Gymnasium that it wants
)
INSTALL_TIMEOUT_S = 3600.0
WARM_UP_REPORTS = 2
"""Reports of Sample Factory, once it steps, the last of which the measurement begins with."""
REPORT_EVERY_S = 5.0
REPORT = re.compile(r"\[(?P<at>[\d-]+ [\d:,]+)\].* Total num frames: (?P<frames>\d+)")
UNROLL_STEPS = 32


class Size(NamedTuple):
    """Say how many environments step, and how they are spread."""

    processes: int
    groups: int
    envs_per_group: int


class Task(NamedTuple):
    """Say what both train: the same environments, network, unrolls and batches, every step trained once."""

    preset: str
    overrides: tuple[str, ...]  # of aioseed's configuration
    program: tuple[str, ...]  # of Sample Factory, as words behind its Python
    words: dict[str, object]  # its options
    batch_unrolls: int
    updates_at_once: bool  # whether all that a group fills at once is one call
    usual: Size


TASKS = {
    "cartpole": Task(
        "cartpole",
        (),
        ("-m", "sf_examples.train_gym_env"),
        {"env": "CartPole-v1", "encoder_mlp_layers": [64, 64], "nonlinearity": "tanh", "reward_scale": 0.1},
        32,
        True,
        Size(2, 2, 128),
    ),
    # DQN's network on four frames of 84x84; both play with ale-py, one game after another.
    "pong": Task(
        "pong-vtrace",
        (
            "environment.options={engine: ale}", "network={name: dqn}", "transforms=[{name: frame_stack, n: 4}]",
            "experience.queue_batches=9", "training.micro_unrolls=1",
        ),
        (str(Path(__file__).with_name("sample_factory_atari.py")),),
        {
            "env": "atari_pong", "summaries_use_frameskip": False, "nonlinearity": "relu", "async_rl": True,
            "encoder_conv_architecture": "convnet_atari", "encoder_conv_mlp_layers": [512],
        },
        8,
        False,
        Size(2, 2, 16),
    ),
}  # fmt: skip


def make_venv(folder: Path) -> Path:
    """Return the Python of a virtual environment with Sample Factory, made unless it is there."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        venv.create(folder, with_pip=True, clear=folder.exists())
        subprocess.run([python, "-m", "pip", "install", *REQUIREMENTS], check=True, timeout=INSTALL_TIMEOUT_S,
                       stdout=sys.stderr)  # fmt: skip
        (folder / ".installed").touch()
    return python


def aioseed_rate(task: Task, size: Size, seconds: float) -> float:
    """Return trained steps a second."""
    rows = size.envs_per_group
    settings = {
        **{f"actor.{name}": value for name, value in size._asdict().items()},
        "serving.max_environments": 2 * size.processes * size.groups * rows,
        "serving.max_batch_rows": rows,
        "serving.buckets": [rows],
        "training.batch_unrolls": task.batch_unrolls,
        "training.updates_per_call": max(1, rows // task.batch_unrolls) if task.updates_at_once else 1,
    }
    overrides = [f"{name}={value}" for name, value in settings.items()]
    words = [sys.executable, "-m", "aioseed", "bench", "train", task.preset, "--json", *task.overrides]
    words += [f"--seconds={seconds}", f"experience.unroll_steps={UNROLL_STEPS}", *overrides]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["trained_steps_per_s"])


def sample_factory_rate(python: Path, task: Task, size: Size, seconds: float) -> float:
    """Return collected steps a second, from its own reports."""
    with tempfile.TemporaryDirectory(prefix="aioseed-bench-") as folder:
        words = {
            "algo": "APPO", "device": "cpu", "train_dir": folder, "experiment": "beside",
            "num_workers": size.processes, "num_envs_per_worker": size.groups * size.envs_per_group,
            "worker_num_splits": size.groups, "rollout": UNROLL_STEPS, "recurrence": 1, "use_rnn": False,
            "batch_size": task.batch_unrolls * UNROLL_STEPS, "num_batches_per_epoch": 1, "num_epochs": 1,
            "with_vtrace": False, "normalize_input": False, "normalize_returns": False,
            "decorrelate_experience_max_seconds": 0, "decorrelate_envs_on_one_worker": False, **task.words,
        }  # fmt: skip
        told = [word for name, value in words.items() for word in (f"--{name}", *_words(value))]
        with subprocess.Popen(
            [python, *task.program, *told], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        ) as running:  # fmt: skip
            try:
                assert running.stdout is not None
                return reported_rate(running.stdout, round(seconds / REPORT_EVERY_S))
            finally:
                # Its own end (--train_for_seconds) never comes in 2.1.1.
                os.killpg(running.pid, signal.SIGKILL)


def reported_rate(log: Iterable[str], reports: int) -> float:
    """Return the frames between the last warm-up report of Sample Factory and so many later, a second.

    Its own rates are over ten seconds: with thousands of environments that is a handful of unrolls, and they jump.

    Raises:
        SystemExit: It ended before, or its learner did, which it only says in its log.
    """
    seen: list[tuple[datetime, int]] = []
    said: deque[str] = deque(maxlen=30)
    for line in log:
        said.append(line)
        if "unhandled exception" in line:
            break
        found = REPORT.search(line)
        if found and (seen or int(found["frames"])):  # it makes its environments, then it steps
            seen.append((datetime.fromisoformat(found["at"].replace(",", ".")), int(found["frames"])))
        if len(seen) >= WARM_UP_REPORTS + reports:
            (began, before), (ended, after) = seen[WARM_UP_REPORTS - 1], seen[-1]
            return (after - before) / (ended - began).total_seconds()
    raise SystemExit(f"Sample Factory ended too early:\n{''.join(said)}")


def _words(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def main() -> int:
    """Measure, print and return the exit code."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--task", choices=list(TASKS), default="cartpole")
    words.add_argument("--seconds", type=float, default=30.0, help="of a turn (default: 30)")
    words.add_argument("--turns", type=int, default=5, help="of each (default: 5)")
    words.add_argument("--processes", type=int)
    words.add_argument("--groups", type=int)
    words.add_argument("--envs-per-group", type=int)
    words.add_argument("--venv", type=Path, default=Path("build/sample-factory"), help="its virtual environment")
    told = words.parse_args()
    task = TASKS[told.task]
    given = (told.processes, told.groups, told.envs_per_group)
    size = Size(*(usual if value is None else value for value, usual in zip(given, task.usual, strict=True)))
    python = make_venv(told.venv.resolve())
    ours, theirs = [], []
    for _ in range(told.turns):
        theirs.append(sample_factory_rate(python, task, size, told.seconds))
        ours.append(aioseed_rate(task, size, told.seconds))
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    figures = {"task": told.task, **size._asdict(), "seconds": told.seconds, "aioseed_steps_per_s": ours,
               "sample_factory_steps_per_s": theirs, "ratios": ratios, "ratio": statistics.median(ratios)}  # fmt: skip
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
