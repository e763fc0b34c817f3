"""The log of the service: lines of JSON for machines, plain lines for people."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

FORMATS = ("text", "json")
_EXTRA = ("judgement", "label", "method", "path", "status", "client", "took_ms")


class JsonFormatter(logging.Formatter):
    """Formats each entry as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {n: getattr(record, n) for n in _EXTRA if getattr(record, n, None) is not None}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def set_up_logs(kind: str | None, *, verbose: bool) -> None:
    """Sends the log to standard error.

    Args:
        kind: "text" or "json"; by default text on a terminal and JSON elsewhere.
        verbose: Whether every request is logged.
    """
    handler = logging.StreamHandler()
    kind = kind or ("text" if sys.stderr.isatty() else "json")
    if kind == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("dfd-edge: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if verbose else logging.WARNING)
