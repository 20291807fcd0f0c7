"""Seeds of environments: a function of the run's seed, the slot and the epoch, the same on every machine."""

from __future__ import annotations

import numpy as np

_WORD = 2**32 - 1


def environment_seed(run_seed: int, slot: int, epoch: int) -> int:
    """Return the seed in [0, 2^31) with which an environment is reset when `slot` begins `epoch`.

    31 bits, since that is what the simulators behind some environments take.
    """
    # Words of fixed width: SeedSequence would cut a number into as many words as it needs, and then
    # (seed, slot) = (2**32, 0) and (0, 1) could meet.
    words = [run_seed & _WORD, run_seed >> 32, slot & _WORD, epoch & _WORD, epoch >> 32]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0] >> 1)
