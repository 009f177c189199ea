"""What all pages share: who may see one, how an answer looks, and what a browser may do with it.

Each route says who may use it. A page is written for people and for programs: the same values as HTML or as JSON, by `Accept` or by
a path that ends with `.json`.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import jinja2
import orjson
import structlog
from aiohttp import BodyPartReader, web
from aiohttp.typedefs import Handler

from app.errors import CapistreamError, Unavailable
from app.view.access import COOKIE, SESSION, Access, Asked, Denied, Role, Who
from app.view.audit import Audit, Deed
from app.view.words import CLOSED, FILTERS, REMEDIES

log = structlog.get_logger()

FOLDER = Path(__file__).parent
MOST = 64 * 1024  # bytes of a form

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_templates.filters.update(FILTERS)
_templates.globals |= {"closed": CLOSED, "remedies": REMEDIES}

#: Name -> (content, its type). Few and small.
_STATIC = {
    path.name: (path.read_bytes(), {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}[path.suffix])
    for path in (FOLDER / "static").iterdir()
}
#: Name -> its address, which changes with the content: a browser may keep it for good.
_templates.globals["static"] = {
    name: f"/static/{name}?{hashlib.sha256(content).hexdigest()[:8]}" for name, (content, _) in _STATIC.items()
}

#: Nothing of another site is loaded, nothing inline runs, nobody frames a page, and no cache keeps one.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Page:
    """An answer, before it is known who reads it."""

    template: str
    said: Mapping[str, Any]  # what both kinds of readers get
    status: int = 200
    more: Mapping[str, Any] | None = None  # only for the template


#: Name of a field -> its values.
Form = Mapping[str, Sequence[str]]


class Call:
    """A request, of somebody who may make it."""

    def __init__(self, request: web.Request, asked: Asked, who: Who, address: str, form: Form) -> None:
        self.request, self.asked, self.who, self.address, self._form = request, asked, who, address, form

    def field(self, name: str) -> str:
        """Of the form; empty where there is none."""
        return next(iter(self._form.get(name, ())), "")

    def fields(self, name: str) -> list[str]:
        """All that the form has under this name."""
        return list(self._form.get(name, ()))

    @property
    def as_json(self) -> bool:
        return _wants_json(self.request)


Answer = Callable[[Call], Awaitable[Page | web.StreamResponse]]


class Site:
    def __init__(
        self, access: Access, audit: Audit, nav: list[tuple[str, str]], operators_nav: list[tuple[str, str]]
    ) -> None:
        """`nav` are (path, name) of the pages that there are."""
        self.access, self.audit = access, audit
        self.on_logout: list[Callable[[Who], None]] = []
        self._nav, self._operators_nav = nav, operators_nav

    # -- routes

    def route(
        self,
        method: Literal["GET", "POST"],
        path: str,
        needs: Role,
        handler: Callable[[Call], Awaitable[Page | web.StreamResponse]],
        most: int = MOST,
    ) -> web.RouteDef:
        """Of a page that is for logged in people, and for programs with a token. `most` bytes of a form are taken."""

        async def answer(request: web.Request) -> web.StreamResponse:
            asked = asked_of(request)
            who = self.access.who(asked)
            if isinstance(who, Denied):
                return self._denied(request, who)
            if not who.may(needs):
                return self.problem(request, 403, "This is for operators; you are a viewer.", who)
            try:
                form = await self._form(request, most) if method == "POST" else {}
                if method == "POST" and self.access.forged(asked, who, "".join(form.get("form_token", ()))):
                    return self.problem(
                        request, 403, "This form was not sent from one of our pages. Load the page again.", who
                    )
                found = await handler(Call(request, asked, who, self.access.address(asked), form))
            except web.HTTPRequestEntityTooLarge:
                return self.problem(request, 413, "That is too much for a form.", who)
            except Unavailable as exc:
                return self.problem(request, 503, f"{exc}.", who)
            except CapistreamError as exc:
                return self.problem(request, 400, f"{exc}.", who)
            return self.page(request, found, who) if isinstance(found, Page) else found

        return web.RouteDef(method, path, _safely(self, answer), {})

    def peers(self, path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.RouteDef:
        """Of what workers ask each other."""

        async def answer(request: web.Request) -> web.StreamResponse:
            who = self.access.peer(asked_of(request))
            return as_json({"error": who.why}, who.status) if isinstance(who, Denied) else await handler(request)

        return web.get(path, answer)

    def common(self) -> list[web.RouteDef]:
        """Login, logout, what pages look like, and the answer for whatever is none: the last one."""
        return [
            web.get("/login", self._login_page),
            web.post("/login", self._login),
            self.route("POST", "/logout", "viewer", self._logout),
            web.get("/static/{name}", _static),
            web.route("*", "/{path:.*}", self._nothing),
        ]

    async def _form(self, request: web.Request, most: int = MOST) -> Form:
        """Fields of a form, or of a JSON object that stands for one, in which lists have several values."""
        if (request.content_length or 0) > most:
            raise web.HTTPRequestEntityTooLarge(most, request.content_length or 0)
        if most > MOST:
            request = request.clone(client_max_size=most)
        if request.content_type == "application/json":
            try:
                said = orjson.loads(await request.read())
            except orjson.JSONDecodeError:
                raise CapistreamError("the body is no JSON") from None
            given = said.items() if isinstance(said, dict) else ()
            pairs = [(name, one) for name, some in given for one in (some if isinstance(some, list) else [some])]
        elif request.content_type == "multipart/form-data":
            pairs = await _parts(request, most)
        else:
            pairs = list((await request.post()).items())
        form: dict[str, list[str]] = {}
        for name, value in pairs:
            if isinstance(value, str):
                form.setdefault(name, []).append(value)
        return form

    # -- answers

    def page(self, request: web.Request, page: Page, who: Who | None = None) -> web.Response:
        if _wants_json(request):
            return as_json(page.said, page.status)
        path = request.path
        values = {
            "who": who,
            "path": path,
            "twin": None if page.status >= 400 else _twin(request),
            "nav": [*self._nav, *(self._operators_nav if who and who.may("operator") else [])] if who else [],
            "no_login": self.access.open,
            "form_token": who.form_token if who else "",
        }
        text = _templates.get_template(page.template).render(values | dict(page.said) | dict(page.more or {}))
        return web.Response(text=text, status=page.status, content_type="text/html", headers=HEADERS)

    def part(self, template: str, **values: Any) -> str:
        """A piece of a page, for a script to put in."""
        return _templates.get_template(template).render(values)

    def problem(self, request: web.Request, status: int, what: str, who: Who | None = None) -> web.Response:
        return self.page(request, Page("problem.html", {"error": what}, status), who)

    def _denied(self, request: web.Request, denied: Denied) -> web.StreamResponse:
        if denied.login and not _wants_json(request) and request.method == "GET" and denied.status == 401:
            raise web.HTTPSeeOther(f"/login?next={quote(request.path_qs, safe='')}", headers=HEADERS)
        answer = self.problem(request, denied.status, f"{denied.why[0].upper()}{denied.why[1:]}.")
        if denied.wait:
            answer.headers["Retry-After"] = str(denied.wait)
        if denied.status == 401 and denied.login:
            answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    async def _nothing(self, request: web.Request) -> web.StreamResponse:
        who = self.access.who(asked_of(request))
        return self.problem(request, 404, "There is no such page.", None if isinstance(who, Denied) else who)

    # -- login

    async def _login_page(self, request: web.Request) -> web.StreamResponse:
        return self._ask_for_token(request, request.query.get("next", "/"))

    def _ask_for_token(self, request: web.Request, then: str, why: str = "", status: int = 200) -> web.Response:
        more = {"then": then if _is_ours(then) else "/", "has_tokens": bool(self.access.view.tokens)}
        return self.page(request, Page("login.html", {"error": why}, status, more))

    async def _login(self, request: web.Request) -> web.StreamResponse:
        asked = asked_of(request)
        if self.access.forged(asked, None, ""):
            return self.problem(request, 403, "This form was not sent from one of our pages.")
        try:
            form = await self._form(request)
        except (web.HTTPRequestEntityTooLarge, CapistreamError):
            form = {}
        then, given = (next(iter(form.get(name, ())), "") for name in ("next", "token"))
        who, address = self.access.login(given.strip(), asked), self.access.address(asked)
        if isinstance(who, Denied):
            nobody = Who("nobody", "viewer", "session")
            await self.audit.looked(nobody, address, Deed("refused", more={"status": who.status}))
            answer = self._ask_for_token(request, then, f"{who.why[0].upper()}{who.why[1:]}.", who.status)
            if who.wait:
                answer.headers["Retry-After"] = str(who.wait)
            return answer
        await self.audit.looked(who, address, Deed("logged in"))
        done = web.HTTPSeeOther(then if _is_ours(then) else "/", headers=HEADERS)
        done.set_cookie(
            COOKIE,
            self.access.begin(who.name),
            max_age=SESSION,
            httponly=True,
            samesite="Strict",
            secure="https" in (request.scheme, request.headers.get("X-Forwarded-Proto")),
        )
        raise done

    async def _logout(self, call: Call) -> web.StreamResponse:
        await self.audit.looked(call.who, call.address, Deed("logged out"))
        for ended in self.on_logout:
            ended(call.who)
        done = web.HTTPSeeOther("/login", headers=HEADERS)
        done.del_cookie(COOKIE)
        raise done


async def _parts(request: web.Request, most: int) -> list[tuple[str, Any]]:
    """Of a form with a file. aiohttp would write the file to disk, and nothing of a person may be there in clear.

    A file that is not UTF-8 is text with surrogates for its bytes: `file_bytes` gives them back.
    """
    found, size = [], 0
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            raise CapistreamError("a form within a form is none of ours")
        content = bytearray()
        while chunk := await part.read_chunk(64 * 1024):
            size += len(chunk)
            if size > most:
                raise web.HTTPRequestEntityTooLarge(most, size)
            content += chunk
        errors = "replace" if part.filename is None else "surrogateescape"
        found.append((part.name or "", content.decode(errors=errors)))
    return found


def file_bytes(field: str) -> bytes:
    """A file of a form, byte for byte."""
    return field.encode(errors="surrogateescape")


async def _static(request: web.Request) -> web.StreamResponse:
    found = _STATIC.get(request.match_info["name"])
    if found is None:
        return web.Response(status=404, text="there is no such file\n", headers=HEADERS)
    headers = HEADERS | {"Cache-Control": "public, max-age=31536000, immutable"}
    return web.Response(body=found[0], content_type=found[1], charset="utf-8", headers=headers)


def _safely(site: Site, handler: Handler) -> Handler:
    """What nobody expected is told to the log, and not to whoever asked."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except Exception:
            log.exception("view.failed")
            return site.problem(request, 500, "Something went wrong here. The worker's log has more.")

    return answer


def asked_of(request: web.Request) -> Asked:
    names = {name.lower() for name in request.headers}
    headers = {name: request.headers.getall(name) for name in names}
    return Asked(request.path_qs, request.remote or "", headers, request.cookies)


def as_json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        status=status,
        content_type="application/json",
        headers=HEADERS,
    )


def _wants_json(request: web.Request) -> bool:
    return request.path.endswith(".json") or "text/html" not in request.headers.get("Accept", "")


def _twin(request: web.Request) -> str:
    """Where the same is as JSON."""
    path = quote(request.path, safe="/:@") if request.path != "/" else "/index"
    return f"{path}.json" + (f"?{request.query_string}" if request.query_string else "")


def _is_ours(path: str) -> bool:
    """Does it lead to one of our own pages, whatever a browser makes of it?"""
    parts = urlsplit(path)
    return path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.netloc and path.isprintable()
