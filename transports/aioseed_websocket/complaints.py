"""What aiohttp would log of a peer that talks no HTTP, a traceback each time, becomes a report that is counted."""

from __future__ import annotations

import logging
from collections.abc import Callable

from aiohttp.http_exceptions import HttpProcessingError


def reporting_logger(report: Callable[[str, str], None]) -> logging.Logger:
    """Return a logger for one server, which tells `report` of requests that cannot be read, and passes on all else."""
    logger = logging.Logger("aioseed_websocket")
    logger.addHandler(_Complaints(report))
    return logger


class _Complaints(logging.Handler):
    def __init__(self, report: Callable[[str, str], None]) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Report a request that cannot be read; what else goes wrong keeps its traceback."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            peer = record.args[0] if isinstance(record.args, tuple) and record.args else ""
            self._report("bad_request", str(peer))
        elif record.levelno > logging.DEBUG:
            logging.getLogger("aiohttp.server").handle(record)
