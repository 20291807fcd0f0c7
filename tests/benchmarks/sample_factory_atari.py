"""Start Sample Factory's Atari program with the games of a current ale-py, which brings the ROMs along."""

from __future__ import annotations

import sys

import ale_py  # type: ignore[import-not-found,unused-ignore]
from sf_examples.atari.train_atari import main  # type: ignore[import-not-found,unused-ignore]

if __name__ == "__main__":
    sys.stderr.write(f"ale-py {ale_py.__version__}\n")  # importing it has registered the games
    sys.exit(main())
