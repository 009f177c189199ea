"""Log lines: one event, dotted name plus fields, on stderr; JSON when nobody watches, colours when somebody does."""

import logging
import sys
import time
from typing import Any

import structlog

#: Faust and aiokafka log what is normal for them as warnings; during an outage one logger wrote 1,300 lines a second.
_AT_MOST_EVERY = 10.0  # seconds, for the same message of a library


class _Seldom(logging.Filter):
    """Lets the same message of a library's logger through once in a while."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or not record.name.startswith(("aiokafka", "kafka")):
            return True
        name, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._last.get(name, -_AT_MOST_EVERY) < _AT_MOST_EVERY:
            return False
        self._last[name] = now
        return True


def setup(level: str = "INFO", *, json: bool | None = None) -> None:
    """Send our lines and the libraries' to stderr. `json` None: unless stderr is a terminal."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    handler.addFilter(_Seldom())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Faust's own lines at INFO tell little; its warnings do
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("app.lossless").setLevel(root.level)
