"""app/tokens.py against a token endpoint on loopback: both grants, one request for many, and what failures become."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from app.errors import CapistreamError, SettingsError, Unavailable
from app.events import Json
from app.tokens import GoogleTokens
from tests.factories import served

SCOPES = ("https://www.googleapis.com/auth/datamanager",)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
CLIENT_SECRET = "GOCSPX-planted-secret"
REFRESH_TOKEN = "1//planted-refresh-token"
HTML = "<html>Sorry</html>"


@dataclass(frozen=True)
class Says:
    status: int = 200
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Endpoint:
    """A token endpoint: numbers its tokens, or answers as it is told."""

    address: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    expires_in: Any = 3600
    answer: Says | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def token(self, request: web.Request) -> web.Response:
        self.asked.append({name: str(value) for name, value in (await request.post()).items()})
        self.arrived.set()
        await self.gate.wait()
        if self.answer is not None:
            return web.Response(status=self.answer.status, text=self.answer.text, headers=self.answer.headers)
        body = {"access_token": f"token-{len(self.asked)}", "expires_in": self.expires_in, "token_type": "Bearer"}
        return web.json_response(body)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    one = Endpoint()
    one.gate.set()
    async with served(one.token, "POST", "/token") as address:
        one.address = f"{address}/token"
        yield one


def service_account(token_uri: str, **more: Any) -> str:
    key = {
        "type": "service_account",
        "project_id": "shop",
        "private_key_id": "key-7",
        "private_key": PEM,
        "client_email": "capistream@shop.iam.gserviceaccount.com",
        "token_uri": token_uri,
    }
    return orjson.dumps(key | more).decode()


def authorized_user(token_uri: str, **more: Any) -> str:
    user = {
        "type": "authorized_user",
        "client_id": "123.apps.googleusercontent.com",
        "client_secret": CLIENT_SECRET,
        "refresh_token": REFRESH_TOKEN,
        "token_uri": token_uri,
    }
    return orjson.dumps(user | more).decode()


def part(text: str) -> Any:
    return orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


async def failure(credential: str, *, tokens: GoogleTokens | None = None) -> CapistreamError:
    with pytest.raises(CapistreamError) as caught:
        await (tokens or GoogleTokens()).get(credential, SCOPES)
    return caught.value


# the two grants


async def test_a_service_account_proves_itself_with_a_signed_assertion(endpoint):
    assert await GoogleTokens().get(service_account(endpoint.address), SCOPES) == "token-1"

    (asked,) = endpoint.asked
    assert asked["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    head, claims, signature = asked["assertion"].split(".")
    KEY.public_key().verify(
        base64.urlsafe_b64decode(signature + "=="),
        f"{head}.{claims}".encode(),
        padding.PKCS1v15(),
        hashes.SHA256(),
    )
    assert part(head) == {"typ": "JWT", "alg": "RS256", "kid": "key-7"}
    said = part(claims)
    assert (said["iss"], said["scope"]) == ("capistream@shop.iam.gserviceaccount.com", SCOPES[0])
    assert 0 < said["exp"] - said["iat"] <= 3600


async def test_a_user_comes_with_a_refresh_token(endpoint):
    assert await GoogleTokens().get(authorized_user(endpoint.address), SCOPES) == "token-1"

    assert endpoint.asked == [
        {
            "grant_type": "refresh_token",
            "client_id": "123.apps.googleusercontent.com",
            "client_secret": CLIENT_SECRET,
            "refresh_token": REFRESH_TOKEN,
            "scope": SCOPES[0],
        }
    ]


# how often


async def test_a_token_is_used_while_it_is_good(endpoint):
    tokens, credential = GoogleTokens(), authorized_user(endpoint.address)

    assert [await tokens.get(credential, SCOPES) for _ in range(3)] == ["token-1"] * 3
    assert len(endpoint.asked) == 1


async def test_many_who_wait_cost_one_request(endpoint):
    tokens, credential = GoogleTokens(), authorized_user(endpoint.address)

    assert set(await asyncio.gather(*(tokens.get(credential, SCOPES) for _ in range(100)))) == {"token-1"}
    assert len(endpoint.asked) == 1


async def test_many_who_wait_learn_of_one_failure(endpoint):
    endpoint.answer = Says(400, '{"error": "invalid_grant"}')
    tokens, credential = GoogleTokens(), authorized_user(endpoint.address)

    found = await asyncio.gather(*(tokens.get(credential, SCOPES) for _ in range(10)), return_exceptions=True)

    assert {type(one) for one in found} == {SettingsError}
    assert len(endpoint.asked) == 1


async def test_somebody_who_leaves_takes_the_token_from_nobody(endpoint):
    tokens, credential = GoogleTokens(), authorized_user(endpoint.address)
    endpoint.gate.clear()
    first = asyncio.create_task(tokens.get(credential, SCOPES))
    await endpoint.arrived.wait()
    second = asyncio.create_task(tokens.get(credential, SCOPES))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first

    endpoint.gate.set()

    assert await second == "token-1"
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(("expires_in", "requests"), [(3600, 1), ("3600", 1), (302, 1), (100, 1), (0, 2), (-5, 2)])
async def test_a_token_is_replaced_before_it_ends_and_not_all_the_time(endpoint, expires_in, requests):
    endpoint.expires_in = expires_in
    tokens, credential = GoogleTokens(), authorized_user(endpoint.address)

    for _ in range(2):
        await tokens.get(credential, SCOPES)

    assert len(endpoint.asked) == requests


async def test_a_token_that_ends_soon_is_replaced_and_serves_while_the_endpoint_is_away(endpoint, monkeypatch):
    clock = Moved()
    monkeypatch.setattr("app.tokens.time", clock)
    tokens, credential = GoogleTokens(), authorized_user(endpoint.address)
    await tokens.get(credential, SCOPES)

    clock.ahead = 3600 - 301
    assert await tokens.get(credential, SCOPES) == "token-1"
    clock.ahead = 3600 - 299
    endpoint.answer = Says(503)
    assert await tokens.get(credential, SCOPES) == "token-1"
    endpoint.answer = None
    assert await tokens.get(credential, SCOPES) == "token-3"


async def test_a_token_that_has_ended_serves_nobody(endpoint, monkeypatch):
    clock = Moved()
    monkeypatch.setattr("app.tokens.time", clock)
    tokens, credential = GoogleTokens(), authorized_user(endpoint.address)
    await tokens.get(credential, SCOPES)

    clock.ahead = 3601
    endpoint.answer = Says(503)

    assert isinstance(await failure(credential, tokens=tokens), Unavailable)


class Moved:
    """The module `time`, some seconds ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        import time

        return time.time() + self.ahead


async def test_another_credential_or_scope_is_another_token(endpoint):
    tokens = GoogleTokens()

    await tokens.get(authorized_user(endpoint.address), SCOPES)
    await tokens.get(authorized_user(endpoint.address, refresh_token="another"), SCOPES)
    await tokens.get(authorized_user(endpoint.address), ("https://www.googleapis.com/auth/adwords",))

    assert len(endpoint.asked) == 3
    assert endpoint.asked[1]["refresh_token"] == "another"
    assert endpoint.asked[2]["scope"].endswith("adwords")


async def test_a_failure_is_forgotten(endpoint):
    tokens, credential = GoogleTokens(), authorized_user(endpoint.address)
    endpoint.answer = Says(400, '{"error": "invalid_grant"}')
    await failure(credential, tokens=tokens)

    endpoint.answer = None

    assert await tokens.get(credential, SCOPES) == "token-2"


# failures

REFUSED: list[tuple[int, Json, str]] = [
    (400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}, "(invalid_grant)"),
    (401, {"error": "invalid_client", "error_description": CLIENT_SECRET}, "(invalid_client)"),
    (401, {"error": "deleted_client"}, "(deleted_client)"),
    (401, {"error": "unauthorized_client"}, "(unauthorized_client)"),
    (400, {"error": "invalid_scope"}, "(invalid_scope)"),
    (400, {"error": "some_new_code"}, "Google refuses it (some_new_code)"),
    (400, {"error": "invalid_grant", "error_subtype": "invalid_rapt"}, "log in again"),
]


@pytest.mark.parametrize(("status", "body", "words"), REFUSED)
@pytest.mark.parametrize("kind", [service_account, authorized_user])
async def test_a_refused_credential_is_a_mistake_of_the_settings(endpoint, kind, status, body, words):
    endpoint.answer = Says(status, orjson.dumps(body).decode())

    found = await failure(kind(endpoint.address))

    assert isinstance(found, SettingsError)
    if kind is authorized_user or "subtype" not in repr(body):
        assert words in str(found)
    assert_quotes_nothing(found)


@pytest.mark.parametrize(
    "answer",
    [
        Says(500),
        Says(502, HTML),
        Says(503, "{}"),
        Says(429, '{"error": "rate_limit_exceeded"}'),
        Says(408),
        Says(400, HTML),
        Says(404, HTML),
        Says(302, headers={"Location": "https://elsewhere.example/"}),
        Says(400, "null"),
        Says(400, "[]"),
        Says(400, '{"error": {"code": 400}}'),
        Says(400, f'{{"error": "{CLIENT_SECRET}"}}'),
        Says(400, '{"error": "temporarily_unavailable"}'),
        Says(200, HTML),
        Says(200, "{}"),
        Says(200, "[]"),
        Says(200, "7"),
        Says(200, '{"access_token": null}'),
        Says(200, '{"access_token": 7}'),
        Says(200, '{"access_token": "two\\r\\nlines"}'),
        Says(200, '{"access_token": "x", "expires_in": "soon"}'),
        Says(200, '{"access_token": "x", "expires_in": []}'),
        Says(200, '{"access_token": "x", "expires_in": 1e300}'),
    ],
    ids=lambda answer: f"{answer.status} {answer.text[:30]}",
)
@pytest.mark.parametrize("kind", [service_account, authorized_user])
async def test_an_endpoint_in_trouble_is_nobodys_mistake(endpoint, kind, answer):
    endpoint.answer = answer

    found = await failure(kind(endpoint.address))

    assert isinstance(found, Unavailable)
    assert len(endpoint.asked) == 1
    assert_quotes_nothing(found)


@pytest.mark.parametrize("kind", [service_account, authorized_user])
async def test_an_endpoint_that_is_away_is_nobodys_mistake(unused_tcp_port, kind):
    found = await failure(kind(f"http://127.0.0.1:{unused_tcp_port}/token"))

    assert isinstance(found, Unavailable)
    assert_quotes_nothing(found)


async def test_an_endpoint_that_hangs_is_away(endpoint, monkeypatch):
    monkeypatch.setattr("app.tokens.TIMEOUT", 0.05)
    endpoint.gate.clear()

    found = await failure(authorized_user(endpoint.address))

    endpoint.gate.set()
    assert isinstance(found, Unavailable)


@pytest.mark.parametrize(
    ("credential", "words"),
    [
        ("", "not JSON"),
        ("ya29.an-access-token", "not JSON"),
        ("7", '"type" is not'),
        ("[]", '"type" is not'),
        ("{}", '"type" is not'),
        ('{"type": ["service_account"]}', '"type" is not'),
        ('{"type": "external_account"}', '"type" is not service_account or authorized_user'),
        ('{"installed": {"client_id": "x"}}', '"type" is not'),
        (service_account("https://x.example/", private_key=""), 'no "private_key"'),
        (service_account("https://x.example/", client_email=None), 'no "client_email"'),
        (service_account("https://x.example/", private_key="planted"), '"private_key" cannot be read'),
        (service_account("https://x.example/", private_key=PEM[:-90]), '"private_key" cannot be read'),
        (service_account("file:///etc/passwd"), '"token_uri" is no address'),
        (authorized_user("https://x.example/", refresh_token=None), 'no "refresh_token"'),
        (authorized_user("https://x.example/", client_secret=7), 'no "client_secret"'),
        (authorized_user("https://x.example/", client_id=""), 'no "client_id"'),
    ],
)
async def test_what_is_no_credential_is_named_and_not_quoted(credential, words):
    found = await failure(credential)

    assert isinstance(found, SettingsError)
    assert words in str(found)
    assert_quotes_nothing(found)


def assert_quotes_nothing(error: BaseException) -> None:
    """Nor may what is chained to it, which a log would print."""
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    for secret in (CLIENT_SECRET, REFRESH_TOKEN, "PRIVATE KEY", PEM[100:140], "planted", "Sorry", "passwd"):
        assert secret not in str(error)
