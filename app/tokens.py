"""Access tokens of Google's OAuth: got with a credential, kept while they are good, one request for all who wait.

A credential is the JSON that Google gives out for a service account (its key, `"type": "service_account"`), or that
`gcloud auth application-default login` and OAuth clients write for a user (`"type": "authorized_user"`, with a refresh token).
The grants are those of https://developers.google.com/identity/protocols/oauth2/service-account#httprest and
https://developers.google.com/identity/protocols/oauth2/web-server#offline; google-auth speaks them.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, NoReturn

import orjson
from google.auth.crypt import RSASigner
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.auth.transport.requests import Request
from google.oauth2 import credentials, service_account

from app.errors import SettingsError, Unavailable

AHEAD = 300.0  # seconds before its end that a token is replaced; of a short-lived one, the second half of its life
TIMEOUT = 5.0  # of a request to the token endpoint: to connect, and again for each part of the answer
LONGEST = 10.0  # seconds that anybody waits for a token: a rebalance waits for no more than 15
TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105  where a credential does not name its own

#: What the token endpoint says (https://www.rfc-editor.org/rfc/rfc6749#section-5.2) and what it means.
_REFUSALS = {
    "invalid_grant": "it is revoked, expired or unknown (a user's lasts 7 days while its OAuth app is in testing)",
    "invalid_client": "its OAuth client is unknown, or the client's secret is wrong",
    "unauthorized_client": "its OAuth client may not do this",
    "deleted_client": "its OAuth client was deleted",
    "invalid_scope": "it may not have the scope that the platform needs",
}
_TROUBLE = (b"server_error", b"temporarily_unavailable", b"internal_failure")
_NO_TOKEN = "Google's token endpoint answers with something else than a token"  # noqa: S105  a text for people

#: What each kind of credential must have.
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "service_account": ("client_email", "private_key"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
}


@dataclass(frozen=True)
class _Token:
    text: str
    replace: float  # Unix seconds from which on a new one is asked for
    end: float


class GoogleTokens:
    """`await tokens.get(credential, scopes)` is an access token that is good for a while yet.

    One object serves all credentials and any number of requests at once: each asks, and at most one of them makes the
    endpoint work. A credential that changed is another credential. An endpoint that fails is asked again at the next `get`.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, _Token] = {}
        self._asking: dict[str, asyncio.Task[_Token]] = {}

    async def get(self, credential: str, scopes: Sequence[str]) -> str:
        """Raise SettingsError where somebody must repair the credential, Unavailable where it may work later.

        Neither quotes anything of the credential.
        """
        key = _key(credential, scopes)
        known = self._tokens.get(key)
        if known and time.time() < known.replace:
            return known.text
        if key not in self._asking:
            task = self._asking[key] = asyncio.create_task(self._ask(key, credential, tuple(scopes)))
            task.add_done_callback(lambda done: self._asked(key, done))
        try:
            # whoever is cancelled leaves, and the others get their token
            async with asyncio.timeout(LONGEST):
                return (await asyncio.shield(self._asking[key])).text
        except (Unavailable, TimeoutError):
            if known and time.time() < known.end:
                return known.text
            raise Unavailable("Google's token endpoint does not answer") from None

    def forget(self, credential: str, scopes: Sequence[str]) -> None:
        """The platform refuses the token although it should be good: the next `get` asks for another one."""
        self._tokens.pop(_key(credential, scopes), None)

    def _asked(self, key: str, task: asyncio.Task[_Token]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # looked at, should all who waited be gone

    async def _ask(self, key: str, credential: str, scopes: tuple[str, ...]) -> _Token:
        token = await asyncio.to_thread(_fetched, credential, scopes)
        now = time.time()
        self._tokens = {other: one for other, one in self._tokens.items() if now < one.end}
        self._tokens[key] = token
        return token


def _key(credential: str, scopes: Sequence[str]) -> str:
    return hashlib.sha256("\n".join((credential, *scopes)).encode()).hexdigest()


def _fetched(credential: str, scopes: tuple[str, ...]) -> _Token:
    """A new token from the endpoint, one try; blocks."""
    found = _credentials(credential, scopes)
    asked = time.time()
    try:
        found.refresh(_Transport())
    except RefreshError as exc:
        _refused(exc)
    except TransportError:
        raise Unavailable("Google's token endpoint does not answer") from None
    except (GoogleAuthError, ValueError, TypeError, AttributeError, OverflowError):
        raise Unavailable(_NO_TOKEN) from None  # JSON of another shape
    if not isinstance(found.token, str) or not found.token.isascii() or not found.token.isprintable():
        raise Unavailable(_NO_TOKEN)
    end = found.expiry.replace(tzinfo=UTC).timestamp() if found.expiry else asked + 3600
    return _Token(found.token, max(end - AHEAD, (asked + end) / 2), end)


class _Transport(Request):
    """One try, within its time, nowhere else: retrying is the caller's, and a secret follows no redirect."""

    def __call__(self, *args: Any, **more: Any) -> Any:
        response = super().__call__(*args, **more | {"timeout": TIMEOUT, "allow_redirects": False})  # type: ignore[no-untyped-call]
        trouble = response.status != 200 and any(code in response.data for code in _TROUBLE)
        if trouble or response.status in (408, 429) or response.status >= 500:
            raise TransportError(f"HTTP {response.status}")  # type: ignore[no-untyped-call]
        return response


def _credentials(credential: str, scopes: tuple[str, ...]) -> Any:
    """Raises SettingsError where the text is no credential that we can use."""
    try:
        info = orjson.loads(credential)
    except orjson.JSONDecodeError:
        raise _wrong("it is not JSON; give the whole content of the file") from None
    kind = str(info.get("type")) if isinstance(info, dict) else ""
    if kind not in _FIELDS:
        raise _wrong(f'its "type" is not {" or ".join(_FIELDS)}')
    for name in _FIELDS[kind]:
        if not isinstance(info.get(name), str) or not info[name]:
            raise _wrong(f'it has no "{name}"')
    token_uri = info.get("token_uri") or TOKEN_URI
    if not isinstance(token_uri, str) or not re.match(r"https?://[^/\s]+", token_uri):
        raise _wrong('its "token_uri" is no address')
    if kind == "authorized_user":
        return credentials.Credentials(  # type: ignore[no-untyped-call]
            None,
            refresh_token=info["refresh_token"],
            token_uri=token_uri,
            client_id=info["client_id"],
            client_secret=info["client_secret"],
            scopes=list(scopes),
        )
    try:
        signer = RSASigner.from_service_account_info(info)  # type: ignore[no-untyped-call]
    except Exception:  # noqa: BLE001  whatever a broken key makes the cryptography raise, perhaps with the key in it
        raise _wrong('its "private_key" cannot be read') from None
    return service_account.Credentials(signer, info["client_email"], token_uri, scopes=list(scopes))  # type: ignore[no-untyped-call]


def _refused(exc: RefreshError) -> NoReturn:
    """The endpoint answered without a token. What it says in its own words may quote, so only its code is passed on."""
    answer = exc.args[1] if len(exc.args) > 1 and isinstance(exc.args[1], dict) else {}
    code = answer.get("error")
    if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,40}", code):
        raise _wrong(f"{_REFUSALS.get(code, 'Google refuses it')} ({code})") from None
    if str(exc).startswith("Reauthentication"):
        raise _wrong("its user has to log in again; a service account does not have to") from None
    raise Unavailable(_NO_TOKEN) from None


def _wrong(what: str) -> SettingsError:
    return SettingsError([f"the Google credential: {what}"])
