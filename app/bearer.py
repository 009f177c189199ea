"""Tokens for Kafka's SASL mechanism OAUTHBEARER: who gives them, and how.

A provider is a class that derives from TokenProvider: its fields are the settings of `[kafka.sasl.token]`, its method gets a token.
Ours are `oauth` (client credentials) and `msk_iam` (AWS). A package adds one with an entry point:

[project.entry-points."capistream.tokens"]
vault = "acme_tokens:Vault"

class Vault(TokenProvider):
    provider: Literal["vault"] = "vault"
    address: str

    async def token(self) -> Token: ...
"""

import asyncio
import base64
import importlib.util
import re
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote_plus

import aiohttp
import orjson
import structlog
from aiokafka import conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError, SaslAuthenticationFailed
from pydantic import AfterValidator, Field

from app.errors import CapistreamError, SettingsError, Unavailable
from app.fields import Part, SecretRef
from app.plugins import Installed, Unfit

log = structlog.get_logger()

TIMEOUT = aiohttp.ClientTimeout(total=8)
MOST_BYTES = 256 * 1024  # of an answer
TOKEN_MAX = 10.0  # seconds that a connection waits for its token
USED_UP = 0.8  # part of a token's life after which the next connection gets a new one
LIFE = 300.0  # seconds that a token is taken to be good for when its endpoint does not say

#: What a token endpoint says (https://www.rfc-editor.org/rfc/rfc6749#section-5.2), and what to look at.
_REFUSALS = {
    "invalid_client": "client_id is unknown, or client_secret is wrong",
    "unauthorized_client": "this client may not use the grant client_credentials",
    "invalid_scope": "scope is unknown, or not for this client",
    "invalid_grant": "the grant client_credentials is refused",
    "unsupported_grant_type": "the endpoint knows no client_credentials: url",
    "invalid_request": "the endpoint misses something: scope, parameters",
}
_SIGNER = "aws_msk_iam_sasl_signer"


def _https(value: str) -> str:
    host = r"https://[^\s/?#@]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?"
    if not re.fullmatch(rf"({host})(/[^\s#]*)?", value):
        raise ValueError("an address that begins with https://: the client's secret goes there")
    return value


@dataclass(frozen=True)
class Token:
    text: str = field(repr=False)
    end: float  # Unix seconds until which it is good


class TokenProvider(Part, ABC):
    """Base of all providers."""

    provider: str
    """Which provider: `oauth`, `msk_iam`, or one of an installed package."""
    extensions: dict[Annotated[str, Field(pattern="^[A-Za-z]+$")], str] = {}
    """SASL extensions to send with the token. Confluent Cloud asks for `logicalCluster` and `identityPoolId`."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # its texts may be in tables, which have no hash of their own

    @abstractmethod
    async def token(self) -> Token:
        """A new token; called from any event loop, for each connection that finds the last one used up.

        Raises SettingsError where somebody must repair something, Unavailable where it may work later. Neither quotes a secret.
        """

    def missing(self) -> str:
        """What has to be installed for it, in words for whoever writes the configuration; empty when all is there."""
        return ""


class OAuth(TokenProvider):
    """A token for a client's own id and secret (https://www.rfc-editor.org/rfc/rfc6749#section-4.4)."""

    provider: Literal["oauth"] = "oauth"
    url: Annotated[str, AfterValidator(_https)]
    """Address of the token endpoint. The client's secret goes there, so it begins with https."""
    client_id: str
    """Who we are to the endpoint."""
    client_secret: SecretRef
    """Sent as the password of basic auth."""
    scope: str = ""
    """What the token is to be good for, in the endpoint's words."""
    parameters: dict[str, str] = {}
    """More fields of the request, where the endpoint asks for them: `audience`."""
    ca: Path | None = None
    """File with the certificates (PEM) of whoever signed the endpoint's own, where the system does not know them."""

    async def token(self) -> Token:
        asked = time.time()
        status, body = await self._ask()
        try:
            said = orjson.loads(body)
        except orjson.JSONDecodeError:
            said = None
        said = said if isinstance(said, dict) else {}
        text, life = said.get("access_token"), said.get("expires_in", LIFE)
        if status in (400, 401, 403):
            # its own words may quote; only a code that RFC 6749 knows is passed on
            code = said.get("error")
            hint = _REFUSALS.get(code) if isinstance(code, str) else None
            raise SettingsError([f"the token endpoint refuses us: {hint or f'HTTP {status}'}"])
        if status != 200 or not isinstance(text, str) or not re.fullmatch(r"[\x21-\x7e]+", text):
            raise Unavailable(f"the token endpoint gives no token: HTTP {status}")
        return Token(text, asked + (float(life) if isinstance(life, int | float) and life > 0 else LIFE))

    async def _ask(self) -> tuple[int, bytes]:
        form = {"grant_type": "client_credentials"} | ({"scope": self.scope} if self.scope else {}) | self.parameters
        # https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1: both are form-encoded before basic auth puts them together
        login = base64.b64encode(
            f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret.read())}".encode()
        ).decode()
        headers = {"Authorization": f"Basic {login}"}
        try:
            tls = ssl.create_default_context(cafile=self.ca) if self.ca else True
        except OSError as exc:  # ssl.SSLError is one
            raise SettingsError([f"ca: {exc.strerror or 'no certificates'}"]) from exc
        try:
            # a session of its own: whoever asks may run in another event loop each time
            async with (
                aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=TIMEOUT) as http,
                http.post(self.url, data=form, headers=headers, ssl=tls, allow_redirects=False) as answer,
            ):
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise Unavailable(f"the token endpoint answers more than {MOST_BYTES} bytes")
                return answer.status, bytes(body)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Unavailable(f"the token endpoint does not answer: {type(exc).__name__}") from None


class MskIam(TokenProvider):
    """Amazon MSK with IAM: a request signed with the credentials that the AWS SDK finds. Needs the extra `msk`."""

    provider: Literal["msk_iam"] = "msk_iam"
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    """The cluster's AWS region."""
    profile: str | None = None
    """Profile of the AWS configuration files. Default: where the SDK looks by itself (environment, web identity, container,
    instance)."""
    role: Annotated[str, Field(pattern="^arn:")] | None = None
    """ARN of a role to assume for it."""

    async def token(self) -> Token:
        if missing := self.missing():
            raise SettingsError([missing])
        return await asyncio.to_thread(self._signed)

    def _signed(self) -> Token:
        """Blocks: the SDK may ask AWS for credentials."""
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider as Signer
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if self.role:
                text, end = Signer.generate_auth_token_from_role_arn(self.region, self.role, "capistream")
            elif self.profile:
                text, end = Signer.generate_auth_token_from_profile(self.region, self.profile)
            else:
                text, end = Signer.generate_auth_token(self.region)
        except (BotoCoreError, ClientError) as exc:
            raise Unavailable(f"AWS gives no credentials: {type(exc).__name__}") from None
        except (AttributeError, ValueError):  # the signer does not look whether it found any
            raise SettingsError(["the AWS SDK finds no credentials: profile, role, or its environment"]) from None
        return Token(text, end / 1000)

    def missing(self) -> str:
        found = importlib.util.find_spec(_SIGNER)
        return (
            ""
            if found
            else "msk_iam needs `pip install 'capistream[msk]'`: aws-msk-iam-sasl-signer-python is not there"
        )


def _checked(name: str, provider: Any) -> type[TokenProvider]:
    if not (isinstance(provider, type) and issubclass(provider, TokenProvider)):
        raise Unfit("not a class that derives from app.bearer.TokenProvider")
    if missing := sorted(provider.__abstractmethods__):
        raise Unfit(f"{provider.__name__} does not say how to {', '.join(missing)}")
    if provider.model_fields["provider"].default != name:
        raise Unfit(f"{provider.__name__}.provider is another word")
    return provider


BUILT_IN: Mapping[str, type[TokenProvider]] = {"oauth": OAuth, "msk_iam": MskIam}

#: These and those of installed packages.
PROVIDERS: Mapping[str, type[TokenProvider]] = Installed(BUILT_IN, "capistream.tokens", "token provider", _checked)


# As aiokafka asks for them


class NoToken(KafkaConnectionError):
    """As aiokafka understands it: this connection failed, another may not. `__cause__` says what somebody may have to repair."""


class Tokens(AbstractTokenProvider):
    """A provider's tokens, for as long as they are good. Asked from the event loops of several threads."""

    def __init__(self, provider: TokenProvider) -> None:
        self._provider = provider
        # the last one, and from which Unix second on there has to be another
        self._known: tuple[Token, float] | None = None

    async def token(self) -> str:
        now, known = time.time(), self._known
        if known and now < known[1]:
            return known[0].text
        try:
            async with asyncio.timeout(TOKEN_MAX):
                token = await self._provider.token()
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            if known and now < known[0].end:
                return known[0].text
            if not isinstance(exc, CapistreamError | TimeoutError):  # a stranger's provider
                log.exception("kafka.no_token")
            raise NoToken(f"no token: {exc if isinstance(exc, CapistreamError) else type(exc).__name__}") from exc
        self._known = token, now + (token.end - now) * USED_UP
        return token.text

    def forget(self) -> None:
        """The broker does not take it: the next connection gets another one."""
        self._known = None

    def extensions(self) -> dict[str, str]:
        return self._provider.extensions


class _Authenticator(conn.OAuthAuthenticator):
    """aiokafka's takes whatever the broker answers for a yes; a no it notices only as answers that make no sense."""

    async def step(self, payload: bytes | None) -> Any:
        if self._token_sent and b'"status"' in (payload or b""):  # https://www.rfc-editor.org/rfc/rfc7628#section-3.2.2
            tokens = self._sasl_oauth_token_provider
            if isinstance(tokens, Tokens):
                tokens.forget()
            raise SaslAuthenticationFailed("the broker does not take the token")
        return await super().step(payload)


conn.OAuthAuthenticator = _Authenticator  # connections make theirs by this name
