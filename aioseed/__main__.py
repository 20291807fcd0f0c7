"""``python -m aioseed``: the command, where the folder of installed programs is on no path."""

from __future__ import annotations

import sys

from aioseed.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
