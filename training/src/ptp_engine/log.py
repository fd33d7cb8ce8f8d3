"""Logs in the format of the server's other processes: one JSON object per line on standard output."""

import json
import logging
import os
import sys
import traceback

LEVELS = {"trace": 5, "debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50, "silent": 60}
"""Values of PTP_LOG_LEVEL."""
NAMES = {logging.WARNING: "warn", logging.CRITICAL: "fatal"}
OWN = set(logging.makeLogRecord({}).__dict__) | {"message", "taskName"}
"""Attributes of a record that are not the caller's fields."""

log = logging.getLogger("ptp_engine")


class Lines(logging.Formatter):
    """Formats a record and the fields in its `extra` as one line of JSON."""

    def __init__(self, service: str):
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        level = NAMES.get(record.levelno, record.levelname.lower())
        line = {"level": level, "time": int(record.created * 1000), "service": self.service, "msg": record.getMessage()}
        line |= {name: value for name, value in record.__dict__.items() if name not in OWN}
        if record.exc_info:
            kind, error, _ = record.exc_info
            stack = "".join(traceback.format_exception(error)).rstrip()
            line["err"] = {"type": kind.__name__, "message": str(error), "stack": stack}
        return json.dumps(line, default=str, separators=(",", ":"))


def start_logging(service: str) -> None:
    """Sends all records, including those of libraries, to standard output.

    service: name of this process, for example `target`.
    """
    level = os.environ.get("PTP_LOG_LEVEL") or "info"
    if level not in LEVELS:
        raise SystemExit(f"PTP_LOG_LEVEL must be one of {', '.join(LEVELS)}, got {level}")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Lines(service))
    logging.basicConfig(level=max(LEVELS[level], logging.WARNING), handlers=[handler], force=True)
    log.setLevel(LEVELS[level])
