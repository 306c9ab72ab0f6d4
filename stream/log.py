"""Logs: events with fields, one line each, on standard error.

`configure` is called once by a process; anything else only writes `log = structlog.get_logger()`
and `log.info("gap", bed=bed, n_samples=n)`. `mark_ready` tells the supervisor that a role can be used.
"""

import logging
import os
import sys
from pathlib import Path
from typing import IO, Any

import structlog

READY_FILE = "WARDBEAT_READY"  # set by the supervisor: the file that a role touches once it is ready
LOG_FORM = "WARDBEAT_LOG"  # `json` for one JSON object a line, else key=value


def configure(role: str, level: str = "info", stream: IO[str] | None = None) -> None:
    """Set structlog up for this process; every event carries `role`.

    `level`: debug, info, warning or error. `stream`: where lines go, by default standard error.
    Raises ValueError for another level."""
    threshold = logging.getLevelNamesMapping().get(level.upper())
    if threshold is None:
        raise ValueError(f"log level {level!r}: not known; give debug, info, warning or error")
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if os.environ.get(LOG_FORM) == "json":
        processors.append(structlog.processors.JSONRenderer())
    else:
        processors.append(
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "role", "event"], bool_as_flag=False)
        )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(role=role)


def mark_ready(role: str, **fields: object) -> None:
    """Say that this role can be used now: an event `ready`, and the file that its supervisor waits for."""
    structlog.get_logger().info("ready", role=role, pid=os.getpid(), **fields)
    path = os.environ.get(READY_FILE)
    if path:
        Path(path).touch()
