"""What gRPC would log of metadata that is no text, a traceback for each value, is left out: strangers can send it."""

from __future__ import annotations

import logging

LOGGER = "grpc._cython.cygrpc"
"""Where the Python part of gRPC says what it could not decode."""


def nothing_is_said_of_bytes() -> None:
    """Keep values that are no UTF-8 out of the log. gRPC reads them as Latin-1, and they are judged like any other."""
    logging.getLogger(LOGGER).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError))
