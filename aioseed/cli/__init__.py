"""The command line. `main` and `actor` are thin; the other commands are found by name only when asked for."""

from __future__ import annotations

import time

STARTED_S = time.monotonic()
"""When the command began, in seconds of the monotonic clock; the imports of a learner take a second of their own."""
