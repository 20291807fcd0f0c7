"""Write what rlax answers into vectors/rlax_*.json; by hand, once: rlax is no dependency of the tests.

New environment: ``pip install jax``; ``pip install --no-deps rlax chex dm-env absl-py toolz typing_extensions``, then
run this file. distrax, which brings nightly packages and which is not needed here, is replaced by a stand-in.

rlax's advantages differ from the paper's where lambda is not 1 (its Q-estimates bootstrap from a lambda mixture of
target and value, where section 4.2 has the target), so only its errors are kept there.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from itertools import product
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

sys.modules["distrax"] = MagicMock()

import rlax  # noqa: E402

LENGTHS = (1, 2, 7, 20)
LAMBDAS = (0.0, 0.9, 1.0)
CLIPS = ((1.0, 1.0), (3.7, 2.2))
NO_CLIP = 1e30
STEPS = (1, 3, 5)


def case(seed: int, length: int, lambda_: float, clip_rho: float, clip_pg_rho: float) -> dict[str, object]:
    generator = np.random.default_rng(seed)
    log_rhos = generator.normal(0, 1, length).astype(np.float32)
    rewards = generator.normal(0, 2, length).astype(np.float32)
    discounts = (0.97 * (generator.random(length) > 0.2)).astype(np.float32)
    values = generator.normal(0, 3, length + 1).astype(np.float32)
    found = rlax.vtrace_td_error_and_advantage(
        values[:-1], values[1:], rewards, discounts, np.exp(log_rhos), np.float32(lambda_), clip_rho, clip_pg_rho
    )
    given = {"log_rhos": log_rhos, "rewards": rewards, "discounts": discounts, "values": values}
    answers = {"errors": found.errors, **({"advantages": found.pg_advantage} if lambda_ == 1 else {})}
    return {
        "lambda": lambda_,
        "clip_rho": None if clip_rho == NO_CLIP else clip_rho,
        "clip_pg_rho": None if clip_pg_rho == NO_CLIP else clip_pg_rho,
        **{name: written(array) for name, array in (given | answers).items()},
    }


def q_case(seed: int, length: int, steps: int) -> dict[str, object]:
    """R2D2's errors: double Q, n-step targets, h and its inverse; action values as the network gives them."""
    generator = np.random.default_rng(seed)
    rewards = generator.normal(0, 5, length).astype(np.float32)
    discounts = (0.97 * (generator.random(length) > 0.2)).astype(np.float32)
    online, target = generator.normal(0, 3, (2, length + 1, 3)).astype(np.float32)
    actions = generator.integers(0, 3, length)
    errors = rlax.transformed_n_step_q_learning(
        online[:-1], actions, target[1:], online[1:].argmax(-1), rewards, discounts, steps,
        tx_pair=rlax.SIGNED_HYPERBOLIC_PAIR,
    )  # fmt: skip
    values = rlax.signed_parabolic(target, 1e-3)
    given = {"rewards": rewards, "discounts": discounts, "online": online, "target": target, "actions": actions}
    answers = {"errors": errors, "unrescaled": values, "rescaled": rlax.signed_hyperbolic(values, 1e-3)}
    return {"steps": steps, **{name: written(array) for name, array in (given | answers).items()}}


def written(array: np.ndarray) -> list[float]:
    return [float(f"{x:.9g}") for x in np.asarray(array).reshape(-1)]


def write(name: str, cases: list[dict[str, object]]) -> None:
    lines = ",\n".join(json.dumps(entry) for entry in cases)
    path = Path(__file__).parent / "vectors" / f"rlax_{name}.json"
    path.write_text(f'{{"rlax": "{version("rlax")}", "cases": [\n{lines}\n]}}\n')


def main() -> None:
    settings = list(product(LENGTHS, LAMBDAS, (*CLIPS, (NO_CLIP, NO_CLIP))))
    cases = [case(seed, length, lambda_, *clips) for seed, (length, lambda_, clips) in enumerate(settings)]
    write("vtrace", cases)
    write("q_learning", [q_case(seed, *setting) for seed, setting in enumerate(product(LENGTHS, STEPS))])


if __name__ == "__main__":
    main()
