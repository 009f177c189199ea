"""Who is it, and what may they do? Asked of every request but those of probes and metrics.

    token     of `[view.tokens]`: typed into the login page, where it begins a session, or sent as `Authorization: Bearer`
    session   a cookie that every worker can check, as it is signed with a key made of that token: a token that is taken out of the
              configuration, or changed, ends its sessions. It ends after SESSION, whatever happens
    proxy     whom the proxy of `[view.proxy]` names in its headers, and in which groups
    local     where neither is configured: whoever comes from this very machine, as an operator
    peer      another worker, for what it knows of an id. It signs what it asks

A form is taken only from our own pages: the browser says so, and the form has a token that no other page can know.
"""

import hmac
import ipaddress
import math
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from app import proxies
from app.errors import SettingsError
from app.fields import Secret
from app.settings import View

Role = Literal["viewer", "operator"]

SESSION = 12 * 3600  # seconds
COOKIE = "capistream"
LEAST = 16  # characters of a token
PEER = "Capistream-Worker"  # the scheme in `Authorization` of what workers ask each other
PEER_SKEW = 120  # seconds by which the clocks of two workers may differ
TRIES = 5  # wrong tokens from one address within TRIES_IN, after which it has to wait; tokens are too long to be guessed anyway
TRIES_IN = 60.0  # seconds
TRIES_KEPT = 10_000  # addresses


class Asked(NamedTuple):
    """What of a request tells who sent it."""

    path: str  # with its query, as it was sent
    remote: str  # address of the connection
    headers: Mapping[str, Sequence[str]]  # by names in lower case
    cookies: Mapping[str, str]

    def header(self, name: str) -> str:
        """One that came twice is none: who sends what of it cannot be told."""
        values = self.headers.get(name.lower(), ())
        return values[0].strip() if len(values) == 1 else ""


@dataclass(frozen=True)
class Who:
    name: str
    role: Role
    how: Literal["token", "session", "proxy", "local", "peer"]
    form_token: str = field(default="", repr=False)  # what a form of theirs has to carry

    def may(self, needs: Role) -> bool:
        return needs == "viewer" or self.role == "operator"


@dataclass(frozen=True)
class Denied:
    """`why` is for whoever asked, and names no secret."""

    status: int
    why: str
    login: bool = False  # would logging in help?
    wait: int = 0  # seconds until another try is looked at


class Access:
    def __init__(self, view: View, clock: Callable[[], float] = time.time) -> None:
        """Reads the secrets. Raises SettingsError, with every mistake."""
        self.view, self._clock = view, clock
        mistakes: list[str] = []
        self._tokens = {
            name: _secret(f"view.tokens.{name}.token", one.token, mistakes) for name, one in view.tokens.items()
        }
        given = _secret("view.key", view.key, mistakes) if view.key else b""
        if mistakes:
            raise SettingsError(mistakes)
        #: What all workers share; empty where there is no login, and so nothing to share.
        self._key = given or b"\n".join(sorted(self._tokens.values()))
        self._proxies = [ipaddress.ip_network(one) for one in view.proxy.networks] if view.proxy else []
        self._own = secrets.token_bytes(32)  # for forms where there is no login
        self._tries = Tries(clock)

    @property
    def open(self) -> bool:
        """Is there no login?"""
        return not (self.view.tokens or self.view.proxy)

    # -- who is it?

    def who(self, asked: Asked) -> Who | Denied:
        scheme, _, given = asked.header("Authorization").partition(" ")
        if scheme.lower() == "bearer" and self.view.tokens:
            return self.login(given.strip(), asked, how="token")
        if found := self._session(asked.cookies.get(COOKIE, "")) or self._by_proxy(asked):
            return found
        if self.open:
            return self._local(asked)
        if self.view.tokens:
            return Denied(401, "a token is needed", login=True)
        return Denied(401, "the proxy did not say who you are")

    def login(self, given: str, asked: Asked, *, how: Literal["token", "session"] = "session") -> Who | Denied:
        """Whose token this is. Wrong ones are counted by the address that they come from."""
        address = self.address(asked)
        if wait := self._tries.wait(address):
            return Denied(429, "too many wrong tokens from this address", login=True, wait=wait)
        found = None
        for (
            name,
            token,
        ) in self._tokens.items():  # all of them, in constant time each: the time must not tell which was close
            if hmac.compare_digest(token, given.encode()):
                found = name
        if found is None:
            self._tries.failed(address)
            return Denied(401, "this is no token of the configuration", login=True)
        return Who(found, self.view.tokens[found].role, how)

    def begin(self, name: str) -> str:
        """The cookie of a new session."""
        said = f"{name}.{int(self._clock()) + SESSION}"
        return f"{said}.{self._sign(self._tokens[name], 'session', said)}"

    def _session(self, cookie: str) -> Who | None:
        said, _, signature = cookie.rpartition(".")
        name, _, end = said.partition(".")
        token = self._tokens.get(name)
        if token is None or not hmac.compare_digest(self._sign(token, "session", said), signature):
            return None
        if not (end.isascii() and end.isdigit() and int(end) > self._clock()):
            return None
        return Who(name, self.view.tokens[name].role, "session", self._sign(token, "form", said))

    def _by_proxy(self, asked: Asked) -> Who | Denied | None:
        proxy = self.view.proxy
        if proxy is None or not proxies.within(asked.remote, self._proxies) or not (name := asked.header(proxy.user)):
            return None
        groups = {one.strip() for one in asked.header(proxy.groups).split(",")}
        if groups.isdisjoint(proxy.operators) and proxy.viewers and groups.isdisjoint(proxy.viewers):
            return Denied(403, "you are in none of the groups of view.proxy")
        role: Role = "viewer" if groups.isdisjoint(proxy.operators) else "operator"
        return Who(name[:100], role, "proxy", self._sign(self._key, "form", name))

    def _local(self, asked: Asked) -> Who | Denied:
        if not is_loopback(asked.remote):
            return Denied(
                403,
                "no login is configured, so these pages are for this machine only: set [view.tokens] or [view.proxy], or come "
                "through a tunnel",
            )
        if not _names_loopback(asked.header("Host")):  # a page of another site may have made its name lead here
            return Denied(403, "no login is configured, so these pages are only at localhost")
        return Who("local", "operator", "local", self._sign(self._own, "form", "local"))

    # -- is it from one of our own pages?

    def forged(self, asked: Asked, who: Who | None, form_token: str) -> bool:
        """Could another site have made the browser send this? `who` is None where nobody is logged in yet."""
        if who is not None and who.how == "token":
            return False  # no browser sends that by itself
        fetched, origin = asked.header("Sec-Fetch-Site"), asked.header("Origin")
        if fetched and fetched != "same-origin":
            return True
        if not fetched and origin and urlsplit(origin).netloc != asked.header("Host"):
            return True
        return who is not None and not hmac.compare_digest(who.form_token.encode(), form_token.encode())

    # -- workers among themselves

    def sign(self, path: str) -> dict[str, str]:
        """Headers for a GET of this path, with its query, from another worker."""
        if not self._key:
            return {}
        now = str(int(self._clock()))
        return {"Authorization": f"{PEER} {now}.{self._sign(self._key, 'peer', f'{now} {path}')}"}

    def peer(self, asked: Asked) -> Who | Denied:
        if not self._key:
            return self._local(asked)
        scheme, _, given = asked.header("Authorization").partition(" ")
        at, _, signature = given.partition(".")
        wanted = self._sign(self._key, "peer", f"{at} {asked.path}")
        if scheme != PEER or not hmac.compare_digest(wanted, signature) or not (at.isascii() and at.isdigit()):
            return Denied(401, "only workers with the same secrets ask here")
        if abs(int(at) - self._clock()) > PEER_SKEW:
            return Denied(401, "the clocks of these two workers differ")
        return Who("worker", "viewer", "peer")

    def mark(self, value: str) -> str:
        """Tells whether two values are the same, and nothing else about them; where there is a login, the same at every worker."""
        return self._sign(self._key or self._own, "mark", value)[:6]

    # -- where from

    def address(self, asked: Asked) -> str:
        """Of whoever is behind the proxies that we trust."""
        return proxies.client(asked.remote, asked.headers.get("x-forwarded-for", ()), self._proxies)

    @staticmethod
    def _sign(key: bytes, use: str, said: str) -> str:
        own = hmac.digest(key, f"capistream view {use}".encode(), "sha256")
        return hmac.digest(own, said.encode(), "sha256").hex()


class Tries:
    """Wrong tokens, by address."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, address: str) -> int:
        """Seconds until a token from there is looked at again."""
        failed = self._failed.get(proxies.neighbourhood(address), ())
        recent = [at for at in failed if at > self._clock() - TRIES_IN]
        return math.ceil(recent[0] + TRIES_IN - self._clock()) if len(recent) >= TRIES else 0

    def failed(self, address: str) -> None:
        name = proxies.neighbourhood(address)
        self._failed.setdefault(name, deque(maxlen=TRIES)).append(self._clock())
        self._failed.move_to_end(name)
        if len(self._failed) > TRIES_KEPT:
            self._failed.popitem(last=False)


def _secret(place: str, secret: Secret, mistakes: list[str]) -> bytes:
    try:
        value = secret.read()
    except SettingsError as exc:
        mistakes += [f"{place}: {one}" for one in exc.mistakes]
        return b""
    if len(value) < LEAST:
        mistakes.append(f"{place}: {LEAST} characters or more")
    return value.encode()


def is_loopback(address: str) -> bool:
    found = proxies.address(address)
    return found is not None and found.is_loopback


def _names_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)
