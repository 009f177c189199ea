"""app/log.py: what a line has, and what none has, whoever logs it."""

import asyncio
import io
import ipaddress
import json
import logging
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st
from mode.utils.logging import setup_logging

from app import log
from app.errors import BadEvent, SettingsError

PLANTED = "ada.planted@example.com"


def lines(name: str, *args: Any, exc: BaseException | None = None, message: str = "%s", json: bool = True) -> str:
    """What is written when a logger of this name says this."""
    stream = io.StringIO()
    handler = log.handler(stream, json=json)
    info = (type(exc), exc, exc.__traceback__) if exc else None
    handler.handle(logging.LogRecord(name, logging.ERROR, __file__, 1, message, args, info))
    return stream.getvalue()


def raised(make: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise make from cause
    except Exception as exc:  # noqa: BLE001 (which it is, is what a test is about)
        return exc


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    "exc",
    [
        ValueError(PLANTED),
        KeyError(PLANTED),
        UnicodeEncodeError("ascii", PLANTED, 0, 1, PLANTED),
        raised(RuntimeError("x"), raised(ValueError(PLANTED))),
        ExceptionGroup(PLANTED, [ValueError(PLANTED), KeyError("x", PLANTED)]),
        OSError(5, PLANTED),
    ],
)
def test_the_text_of_an_exception_is_in_no_line(exc, as_json):
    said = lines("app", "sink.failed", exc=raised(exc), json=as_json)

    assert PLANTED not in said
    assert type(exc).__name__ in said
    assert "test_log.py" in said, "where it was raised"


def test_those_that_led_to_it_are_told_with_their_type_and_place():
    said = json.loads(lines("app", "x", exc=raised(RuntimeError("x"), raised(ValueError(PLANTED)))))["exception"]

    assert said.index("ValueError") < said.index("RuntimeError")
    assert said.count("test_log.py") == 2


def test_a_ring_of_causes_ends():
    one, other = raised(ValueError("x")), raised(KeyError("x"))
    one.__cause__, other.__cause__ = other, one

    assert "ValueError" in lines("app", "x", exc=one)


@pytest.mark.parametrize(
    "exc", [SettingsError(["file /a: No such file"]), BadEvent("missing", "event_id", "is missing"), KafkaConnectionError("b:9092")]
)  # fmt: skip
def test_errors_of_ours_and_kafkas_keep_their_text(exc):
    assert str(exc) in lines("app", "x", exc=raised(exc))


def test_of_an_error_of_the_system_it_is_told_which():
    said = lines("app", "x", exc=raised(OSError(28, PLANTED)))

    assert "OSError: No space left on device" in said
    assert PLANTED not in said


def test_an_exception_among_what_a_library_says_is_its_type():
    said = lines("mode.worker", ValueError(PLANTED), KeyError(PLANTED), message="Crashed reason=%r by %s")

    assert PLANTED not in said
    assert "Crashed reason='ValueError' by KeyError" in said


async def test_a_task_whose_exception_nobody_asked_for_tells_no_text():
    loop = asyncio.get_running_loop()
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    async def fails() -> None:
        raise ValueError(PLANTED)

    task = loop.create_task(fails())
    await asyncio.wait([task])
    keep, asyncio_logger = Keep(), logging.getLogger("asyncio")
    asyncio_logger.addHandler(keep)
    try:
        loop.default_exception_handler(
            {"message": "Task exception was never retrieved", "exception": task.exception(), "future": task}
        )
    finally:
        asyncio_logger.removeHandler(keep)
    stream = io.StringIO()
    log.handler(stream, json=True).handle(records[0])

    assert "Task exception was never retrieved" in stream.getvalue()
    assert PLANTED not in stream.getvalue()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("kafka-1", "kafka-1"),
        ("", ""),
    ],
)
def test_an_address_is_cut_to_its_network(address, expected):
    assert log.cut(address) == expected


@given(st.ip_addresses(v=6))
def test_an_address_of_the_internet_is_cut_as_parsing_cuts_it(address):
    if address.ipv4_mapped is None:
        expected = str(ipaddress.ip_network((int(address), 48), strict=False))
        assert log.cut(str(address)) == log.cut(address.exploded) == expected


def test_who_sent_a_request_that_failed_is_told_by_its_network():
    said = lines(
        "aiohttp.server", "203.0.113.77", message="Error handling request from %s", exc=raised(ValueError(PLANTED))
    )

    assert "203.0.113.77" not in said
    assert "203.0.113.0/24" in said


def test_an_exception_that_nobody_caught_is_a_line_like_any_other(capfd):
    stream = io.StringIO()
    handler = log.handler(stream, json=True)
    logging.getLogger().addHandler(handler)
    try:
        exc = raised(ValueError(PLANTED))
        log._uncaught(type(exc), exc, exc.__traceback__)
    finally:
        logging.getLogger().removeHandler(handler)

    assert "ValueError" in json.loads(stream.getvalue())["exception"]
    assert PLANTED not in stream.getvalue()


def test_a_worker_started_by_fausts_own_command_logs_the_same_way(capsys):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        setup_logging(loglevel="info", logging_config=log.for_faust())
        root.error("crashed: %r", ValueError(PLANTED))
    finally:
        root.handlers[:] = before
        root.setLevel(level)

    said = capsys.readouterr().err
    assert "crashed: 'ValueError'" in said
    assert PLANTED not in said
