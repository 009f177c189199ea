"""The way to Kafka: every client of ours is made here, by the settings of `[kafka]`.

    bus.of(settings).consumer(...)      the same for producer, admin; they encrypt and log in as the settings say

What a connection is made with is read when it is made: a password, a certificate or a token that was replaced is used for the
next one. A Kafka that does not let us in is asked why (why_not.py): aiokafka says only that it could not bootstrap. And nothing is
created by asking for it.
"""

import asyncio
import contextlib
import logging
import ssl
import time
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.metadata import MetadataRequest
from faust import auth

from app import why_not
from app.bearer import Tokens
from app.errors import CapistreamError, SettingsError, Unavailable
from app.settings import Kafka, Settings, Tls
from app.why_not import NotLetIn

log = structlog.get_logger()

START_MAX = 30.0  # seconds for which a worker that begins waits for a Kafka that is not there
PAUSE = 0.5  # between two tries

GRANT = "`capistream topics acls` prints what grants it"
FORBIDDEN = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)


class Bus:
    """One Kafka, and what it takes to connect to it."""

    def __init__(self, kafka: Kafka, brokers: str) -> None:
        self.brokers = ",".join(broker.strip() for broker in brokers.split(","))
        self.kafka = kafka
        self._tokens = Tokens(kafka.sasl.token) if kafka.sasl and kafka.sasl.token else None
        self._tls: tuple[Any, ssl.SSLContext] | None = None  # (what its files were like, the context)
        self._password = ""  # the last one that could be read

    def consumer(self, *topics: str, **options: Any) -> AIOKafkaConsumer:
        made = AIOKafkaConsumer(*topics, **{**self.options(), **options})
        self.attend(made._client)
        return made

    def producer(self, **options: Any) -> AIOKafkaProducer:
        made = AIOKafkaProducer(**{**self.options(), **options})
        self.attend(made.client)
        return made

    def admin(self, **options: Any) -> AIOKafkaAdminClient:
        made = AIOKafkaAdminClient(**{**self.options(), **options})
        self.attend(made._client)
        return made

    def faust(self) -> dict[str, Any]:
        """For Faust's App. Its clients are made by Faust: `attend` to each."""
        options, credentials = self.options(), None
        tls = options.get("ssl_context")
        if self._tokens:
            credentials = auth.OAuthCredentials(oauth_cb=self._tokens, ssl_context=tls)
        elif self.kafka.sasl:
            credentials = auth.SASLCredentials(
                username=self.kafka.sasl.user,
                password=options["sasl_plain_password"],
                mechanism=self.kafka.sasl.mechanism,
                ssl_context=tls,
            )
        elif tls:
            credentials = auth.SSLCredentials(tls)
        return {"broker": [f"aiokafka://{one}" for one in self.brokers.split(",")], "broker_credentials": credentials}

    def attend(self, client: AIOKafkaClient, patience: float = 0.0) -> None:
        """From now on this client asks us what to make a connection with. Before its start, which waits for a Kafka that is
        not there for so many seconds.
        """
        client.__class__ = _Client
        client.bus, client.patience = self, patience

    # -- what connections are made with

    def options(self) -> dict[str, Any]:
        """Of an aiokafka client. Raises SettingsError for a secret or a file that cannot be read."""
        tls, sasl = self.kafka.tls, self.kafka.sasl
        options: dict[str, Any] = {"bootstrap_servers": self.brokers}
        options["security_protocol"] = ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT")
        if tls:
            options["ssl_context"] = self.tls()
        if sasl:
            options["sasl_mechanism"] = sasl.mechanism
            if self._tokens:
                options["sasl_oauth_token_provider"] = self._tokens
            else:
                options |= {"sasl_plain_username": sasl.user, "sasl_plain_password": self.password()}
        return options

    def tls(self) -> ssl.SSLContext | None:
        """With the certificates as they are now. Raises SettingsError while there is none that could be used."""
        if self.kafka.tls is None:
            return None
        files = self.kafka.tls.ca, self.kafka.tls.certificate, self.kafka.tls.key
        state = [_state(file) for file in files if file]
        if self._tls is None or self._tls[0] != state:
            try:
                self._tls = state, _context(self.kafka.tls)
            except SettingsError as exc:
                if self._tls is None:
                    raise
                log.warning("kafka.files_not_read", error=str(exc))  # half written, perhaps
        return self._tls[1]

    def password(self) -> str:
        """As it is now. Raises SettingsError while there is none that could be used."""
        sasl = self.kafka.sasl
        if sasl is None or sasl.password is None:
            return ""
        try:
            self._password = sasl.password.read()
        except SettingsError as exc:
            if not self._password:
                raise SettingsError([f"kafka.sasl.password: {exc}"]) from None
            log.warning("kafka.password_not_read", error=str(exc))
        return self._password


@lru_cache(maxsize=16)
def _bus(kafka: Kafka, brokers: str) -> Bus:
    return Bus(kafka, brokers)


def of(settings: Settings) -> Bus:
    """The same for the same settings: its clients share tokens and certificates."""
    return _bus(settings.kafka, settings.brokers)


def unreadable(settings: Settings) -> list[str]:
    """What is wrong with the files of `[kafka.tls]`."""
    try:
        of(settings).tls()
    except SettingsError as exc:
        return exc.mistakes
    return []


def problem(exc: KafkaError, doing: str) -> CapistreamError:
    """What a command says when Kafka refuses; `doing` is what it did not get, as a sentence's begin."""
    if isinstance(exc, NotLetIn):
        return exc
    if isinstance(exc, FORBIDDEN):
        what = f": {exc.args[0]}" if exc.args else ""
        return SettingsError([f"{doing}: it does not allow us to ({type(exc).__name__}{what}). {GRANT}"])
    # why_not.py puts it in words; of all others the name tells more than the text
    said = exc.args[0] if type(exc) is KafkaConnectionError and exc.args else repr(exc)
    return Unavailable(f"{doing}: {said}")


#: Set while a client looks for its first broker. What aiokafka logs of each that does not talk to us, NotLetIn says better.
_asking: ContextVar[bool] = ContextVar("asking", default=False)
logging.getLogger("aiokafka").addFilter(lambda _: not _asking.get())


class _Client(AIOKafkaClient):
    """aiokafka keeps what a client was made with; this one asks, whenever it makes a connection."""

    bus: Bus
    patience: float

    @property
    def _ssl_context(self) -> ssl.SSLContext | None:
        return self.bus.tls()

    @property
    def _sasl_plain_password(self) -> str:
        return self.bus.password()

    async def bootstrap(self) -> None:
        until = time.monotonic() + self.patience
        while (why := await self._try()) is not None:
            if isinstance(why, NotLetIn) or time.monotonic() > until:
                raise why
            log.warning("kafka.awaited", why=str(why))
            await asyncio.sleep(PAUSE)

    async def _try(self) -> KafkaError | None:
        """Why there is no connection, if there is none."""
        asking = _asking.set(True)
        try:
            await super().bootstrap()
        except KafkaConnectionError:
            return await why_not.ask(self.bus.brokers, self.bus.kafka, self.bus.options())
        finally:
            _asking.reset(asking)
        return None

    async def _get_conn(self, *args: Any, **kwargs: Any) -> Any:
        found = await super()._get_conn(*args, **kwargs)
        if found is not None:
            found.__class__ = _Connection
        return found


class _Connection(AIOKafkaConnection):
    def send(self, request: Any, expect_response: bool = True) -> Any:
        # aiokafka asks for topics in a way that makes those that are none, where the brokers are set so: with any number of
        # partitions, for any time
        if isinstance(request, MetadataRequest):
            request._allow_auto_topic_creation = False
        return super().send(request, expect_response)


def _state(file: Path) -> Any:
    with contextlib.suppress(OSError):
        found = file.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino
    return None


def _context(tls: Tls) -> ssl.SSLContext:
    """Raises SettingsError with the field."""
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as exc:  # ssl.SSLError is one
        raise SettingsError([f"kafka.tls.ca: {tls.ca}: {_of_file(exc)}"]) from None
    context.check_hostname = tls.check_hostname
    if tls.certificate is None:
        return context
    for name, file in (("certificate", tls.certificate), ("key", tls.key)):
        if file is not None:
            _readable(f"kafka.tls.{name}", file)

    locked = False

    def password() -> str:
        """Asked for when the key is encrypted; without it OpenSSL would ask the terminal."""
        nonlocal locked
        locked = True
        if tls.key_password is None:
            raise SettingsError(["kafka.tls.key_password: missing: the private key is encrypted"])
        try:
            return tls.key_password.read()
        except SettingsError as exc:
            raise SettingsError([f"kafka.tls.key_password: {exc}"]) from None

    try:
        context.load_cert_chain(tls.certificate, tls.key, password)
    except ssl.SSLError as exc:
        wrong = f"kafka.tls.certificate, kafka.tls.key: {_of_file(exc)}"
        if exc.reason == "KEY_VALUES_MISMATCH":
            wrong = "kafka.tls.key: does not belong to kafka.tls.certificate"
        elif locked:
            wrong = "kafka.tls.key_password: does not open the private key"
        raise SettingsError([wrong]) from None
    return context


def _readable(place: str, file: Path) -> None:
    try:
        file.read_bytes()
    except OSError as exc:
        raise SettingsError([f"{place}: {file}: {exc.strerror}"]) from None


def _of_file(exc: OSError) -> str:
    return "no PEM in it that could be used" if isinstance(exc, ssl.SSLError) else str(exc.strerror)
