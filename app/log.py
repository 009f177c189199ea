"""Log lines: one event, dotted name plus fields, on stderr; JSON when nobody watches, colours when somebody does.

Without what people's data could hide in: of exceptions, ours and the libraries', the log has type and place and not the text, which
often quotes the value at fault; a person's IP address is cut.
"""

import ipaddress
import logging
import os
import socket
import sys
import threading
import time
import traceback
from functools import lru_cache
from types import TracebackType
from typing import Any, TextIO

import structlog
from aiokafka.errors import KafkaError

from app.errors import CapistreamError
from app.proxies import is_ipv4, of_the_internet

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


class _Discreet(logging.Filter):
    """For what libraries say of exceptions and of who called."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "asyncio":  # below the first line are objects with their exceptions
            record.msg, record.args = record.getMessage().partition("\n")[0], ()
        elif isinstance(record.args, tuple):
            record.args = tuple(map(_discreet, record.args))
            if record.name.startswith("aiohttp"):
                record.args = tuple(cut(one) if isinstance(one, str) else one for one in record.args)
        return True


def _discreet(value: object) -> object:
    return _named(value) if isinstance(value, BaseException) else value


@lru_cache(maxsize=1 << 14)  # one visitor has many events
def cut(address: str) -> str:
    """An IP address without what tells of one person: IPv4 to /24, IPv6 to /48. Any other text as it is."""
    if is_ipv4(address):
        return f"{address.rpartition('.')[0]}.0/24"
    if of_the_internet(address):  # of IPv6; in a tenth of the time that parsing takes
        packed = socket.inet_pton(socket.AF_INET6, address)
        return f"{socket.inet_ntop(socket.AF_INET6, packed[:6] + bytes(10))}/48"
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    found = getattr(found, "ipv4_mapped", None) or found
    if found.version == 4:
        return f"{str(found).rpartition('.')[0]}.0/24"
    return str(ipaddress.ip_network((int(found), 48), strict=False))


def _named(exc: BaseException) -> str:
    """Its type; of an error of the system's what its number means. Ours and Kafka's hold no value of an event: their text helps."""
    name = f"{type(exc).__module__}.{type(exc).__qualname__}".removeprefix("builtins.")
    if isinstance(exc, CapistreamError | KafkaError):
        return f"{name}: {exc}"
    return f"{name}: {os.strerror(exc.errno)}" if isinstance(exc, OSError) and exc.errno else name


def told(exc_info: tuple[type[BaseException], BaseException, TracebackType | None] | Any) -> str:
    """Where an exception was raised and of which type, with those that led to it; the innermost first, as Python does it."""
    exc: BaseException | None = exc_info[1]
    chain: list[str] = []
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        inner = [told((type(one), one, None)) for one in exc.exceptions] if isinstance(exc, BaseExceptionGroup) else []
        chain.append("".join(traceback.format_tb(exc.__traceback__)) + "\n".join([_named(exc), *inner]))
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    return "\n\n".join(reversed(chain))


def _uncaught(kind: type[BaseException], exc: BaseException, at: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, at)
    else:
        logging.getLogger("app").critical("uncaught", exc_info=(kind, exc, at))


def setup(level: str = "INFO", *, json: bool | None = None) -> None:
    """Send our lines and the libraries' to stderr. `json` None: unless stderr is a terminal."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [handler(json=json)]
    root.setLevel(level)
    # Faust's own lines at INFO tell little; its warnings do
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("app.lossless").setLevel(root.level)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)


def for_faust() -> dict[str, Any]:
    """The same for who starts a worker with Faust's own command, which sets up logging anew: as logging.config takes it."""
    seldom = {name: {"level": "WARNING"} for name in ("faust", "mode", "aiokafka")}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"ours": {"()": "app.log.handler"}},
        "root": {"handlers": ["ours"], "level": "INFO"},
        "loggers": seldom | {"app.lossless": {"level": "INFO"}},
    }


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def handler(stream: TextIO | None = None, *, json: bool | None = None) -> logging.Handler:
    """Writes every line, whoever logs it, to stderr or `stream`."""
    stream = stream or sys.stderr
    as_json = not stream.isatty() if json is None else json
    made = logging.StreamHandler(stream)
    made.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.ExceptionRenderer(told),
                structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(),
            ],
        )
    )
    made.addFilter(_Seldom())
    made.addFilter(_Discreet())
    return made
