"""Schemas by their numbers, from a registry with Confluent's interface (Confluent, Apicurio, Karapace, Redpanda).

https://docs.confluent.io/platform/current/schema-registry/develop/api.html

A number means the same schema for ever, so each is fetched once. A registry that is away, or refuses us, is no fault of the
records: it raises Unavailable, and whoever asked waits. Only its own word that it has no such schema makes a record a dead
letter.
"""

import asyncio
import base64
import math
import ssl
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from app import schemas, settings
from app.errors import SettingsError, Unavailable
from app.events import Json
from app.schemas import BadSchema, Decoder, Registered, Schemas, Undecodable

TIMEOUT = aiohttp.ClientTimeout(total=10)
MOST_BYTES = 8 << 20  # of an answer
MOST_IMPORTS = 200  # files that one schema needs
UNKNOWN_FOR = 60.0  # seconds until a number by which nothing can be decoded is asked for again
ACCEPT = "application/vnd.schemaregistry.v1+json, application/json"
_NO_SCHEMA = 40403  # the registry's own code; a 404 without it comes from something else, for example a wrong path
_NO_SUBJECT, _NO_VERSION = 40401, 40402
_HINTS = {401: ": registry.user, registry.password", 403: ": registry.user, registry.password", 404: ": registry.url"}


class _Unknown(Exception):
    """The registry says that there is no such thing."""


class Registry:
    """Asks one registry. `hesitate`: pauses, in seconds, before its word that there is no such schema is believed: a record may
    overtake its schema on the way to the registry's replica.
    """

    def __init__(
        self, where: settings.Registry, http: aiohttp.ClientSession, hesitate: Collection[float] = (0.2, 0.5, 1.0)
    ) -> None:
        self._where, self._http, self._hesitate = where, http, hesitate
        self._url = where.url.rstrip("/")
        self.clock: Callable[[], float] = time.monotonic
        self._known: dict[
            int, tuple[Decoder | Undecodable, float]
        ] = {}  # (what we know, monotonic time until which it holds)
        self._under_way: dict[int, asyncio.Task[Decoder | Undecodable]] = {}
        self._tls: ssl.SSLContext | None = None

    async def schemas(self, numbers: Collection[int]) -> Schemas:
        """What decodes the values of each of these numbers, or why nothing does. Raises Unavailable."""
        return dict(zip(numbers, await asyncio.gather(*map(self._schema, numbers)), strict=True))

    async def _schema(self, number: int) -> Decoder | Undecodable:
        known, until = self._known.get(number, (None, 0.0))
        if known is not None and self.clock() < until:
            return known
        if number not in self._under_way:  # one question for all who ask
            self._under_way[number] = asyncio.create_task(self._fetch(number))
            self._under_way[number].add_done_callback(lambda task: self._done(number, task))
        return await asyncio.shield(self._under_way[number])

    def _done(self, number: int, task: asyncio.Task[Any]) -> None:
        del self._under_way[number]
        if not task.cancelled():
            task.exception()  # everybody who asked may have left

    async def _fetch(self, number: int) -> Decoder | Undecodable:
        found: Decoder | Undecodable
        try:
            found = schemas.decoder(await self._registered(number))
        except _Unknown:
            found = Undecodable("unknown_schema", f"the registry has no schema {number}")
        except BadSchema as exc:
            found = Undecodable("bad_schema", f"schema {number} {exc}")
        except OSError as exc:
            raise Unavailable(f"no room for the compiler's files of schema {number}: {exc.strerror}") from exc
        until = self.clock() + UNKNOWN_FOR if isinstance(found, Undecodable) else math.inf
        self._known[number] = found, until
        return found

    async def _registered(self, number: int) -> Registered:
        for pause in (*self._hesitate, None):
            try:
                answer = await self._get(f"/schemas/ids/{number}", (_NO_SCHEMA,))
            except _Unknown:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                break
        imports: dict[str, str] = {}
        await self._collect(answer, imports, set())
        return Registered(answer.get("schemaType") or "AVRO", answer["schema"], imports)

    async def _collect(self, answer: Json, imports: dict[str, str], asked: set[str]) -> None:
        """What a schema refers to: each after what it refers to itself. Raises BadSchema for one that is gone."""
        for one in answer.get("references") or ():
            try:
                name, subject, version = str(one["name"]), quote(str(one["subject"]), safe=""), int(one["version"])
            except (KeyError, TypeError, ValueError):
                raise Unavailable("the registry answers something else than a schema") from None
            if name in asked:
                continue
            asked.add(name)
            if len(asked) > MOST_IMPORTS:
                raise BadSchema("imports too many others")
            try:
                found = await self._get(
                    f"/subjects/{subject}/versions/{version}", (_NO_SUBJECT, _NO_VERSION, _NO_SCHEMA)
                )
            except _Unknown:
                raise BadSchema("imports a schema that the registry has not") from None
            await self._collect(found, imports, asked)
            imports[name] = found["schema"]

    async def _get(self, path: str, unknown: Collection[int]) -> Json:
        """Raises _Unknown when the registry answers one of those codes, and Unavailable for everything but a schema."""
        status, body = await self._ask(path)
        said: Json = _json(body)
        if status == 404 and said.get("error_code") in unknown:
            raise _Unknown
        _must_be_taken(status)
        if not isinstance(said.get("schema"), str):
            raise Unavailable("the schema registry answers something else than a schema: registry.url")
        return said

    async def reach(self) -> None:
        """Ask for what each registry knows, the kinds of schemas. Raises Unavailable unless it answers us as a registry does."""
        status, body = await self._ask("/schemas/types")
        _must_be_taken(status)
        try:
            kinds = orjson.loads(body)
        except orjson.JSONDecodeError:
            kinds = None
        if not isinstance(kinds, list):
            raise Unavailable("the schema registry answers something else than a list of kinds: registry.url")

    async def _ask(self, path: str) -> tuple[int, bytes]:
        """(status, body). Raises Unavailable where nothing answers."""
        try:
            async with self._http.get(
                self._url + path,
                ssl=self._context(),
                headers={"Accept": ACCEPT, **self._auth()},
                timeout=TIMEOUT,
                allow_redirects=False,
            ) as answer:
                return answer.status, await _body(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Unavailable(f"the schema registry does not answer: {type(exc).__name__}") from exc

    def _auth(self) -> Mapping[str, str]:
        if self._where.user is None:
            return {}
        try:
            password = self._where.password.read() if self._where.password else ""
        except SettingsError as exc:
            raise Unavailable(f"registry.password: {exc}") from exc
        return {"Authorization": f"Basic {base64.b64encode(f'{self._where.user}:{password}'.encode()).decode()}"}

    def _context(self) -> ssl.SSLContext | bool:
        if self._where.ca is None:
            return True
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context(cafile=self._where.ca)
            except OSError as exc:  # ssl.SSLError is one
                raise Unavailable(f"registry.ca: {exc.strerror or exc.reason}") from exc  # type: ignore[attr-defined]
        return self._tls


def _must_be_taken(status: int) -> None:
    if status != 200:
        raise Unavailable(f"the schema registry answers {status}{_HINTS.get(status, '')}")


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Unavailable(f"the schema registry answers more than {MOST_BYTES} bytes")
    return bytes(body)


def _json(body: bytes) -> Any:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}  # an answer that says nothing


@asynccontextmanager
async def connected(config: settings.Settings) -> AsyncIterator[Registry | None]:
    """The registry of the configuration, for a command; None when it names none."""
    if config.registry is None:
        yield None
        return
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Registry(config.registry, http)
