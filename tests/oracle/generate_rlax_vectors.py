"""Write what rlax answers for V-trace into vectors/rlax_vtrace.json; by hand, once: rlax is no dependency of the tests.

New environment: ``pip install jax``; ``pip install --no-deps rlax chex dm-env absl-py toolz typing_extensions``, then
run this file. distrax, which brings nightly packages and which V-trace does not use, is replaced by a stand-in.

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
        **{name: [float(f"{x:.9g}") for x in array] for name, array in (given | answers).items()},
    }


def main() -> None:
    settings = list(product(LENGTHS, LAMBDAS, (*CLIPS, (NO_CLIP, NO_CLIP))))
    cases = [case(seed, length, lambda_, *clips) for seed, (length, lambda_, clips) in enumerate(settings)]
    path = Path(__file__).parent / "vectors" / "rlax_vtrace.json"
    lines = ",\n".join(json.dumps(entry) for entry in cases)
    path.write_text(f'{{"rlax": "{version("rlax")}", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
