"""Pages, orders, and the collector under /m.

What a shop of yours needs of this: the pixel's script in the page's head, a path that leads to the collector, and an event id
that the back end gives to both copies of an order.
"""

import asyncio
import secrets
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import jinja2
import orjson
import structlog
from aiohttp import web

from app.collector.pixel import Script
from app.demo.generate import CATEGORIES, PRODUCTS, Product
from app.errors import CapistreamError
from app.events import Json

log = structlog.get_logger()

_FOLDER = Path(__file__).parent
_templates = jinja2.Environment(loader=jinja2.FileSystemLoader(_FOLDER / "pages"), autoescape=True)
_BY_ID = {product.item_id.lower(): product for product in PRODUCTS}
_FREE_SHIPPING, _SHIPPING = 8000, 500  # cents
#: Who comes from this machine comes from here: an address for documentation (RFC 5737), as loopback is nobody's.
VISITOR = "203.0.113.77"
#: As strict as it gets: no inline script or style, nothing from elsewhere.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Cache-Control": "no-store",
}
#: Of a request, what belongs to its own connection.
_OF_A_HOP = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "x-forwarded-for"})


class Shop:
    def __init__(self, collector: str, view: str, write_key: str, secret_key: str) -> None:
        self._collector, self._view, self._write_key = collector, view, write_key
        self._orders: dict[str, Json] = {}
        self._sdk = _segment(secret_key, collector)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self.products)
        app.router.add_get("/c/{category}", self.products)
        app.router.add_get("/p/{id}", self.product)
        for name in ("cart", "checkout"):
            app.router.add_get(f"/{name}", self.page)
        app.router.add_get("/thanks/{number}", self.thanks)
        app.router.add_post("/api/orders", self.order)
        app.router.add_route("*", "/m/{rest:.+}", self.collect)
        app.router.add_static("/static", _FOLDER / "static")
        app.cleanup_ctx.append(self._clients)
        return app

    async def _clients(self, _app: web.Application) -> Any:
        # it passes on what it gets: compressed stays compressed, and cookies are the browser's
        self._http = aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())
        yield
        await self._http.close()
        await asyncio.to_thread(self._sdk.shutdown)  # sends what it still has

    # -- pages

    async def products(self, request: web.Request) -> web.Response:
        wanted = request.match_info.get("category", "")
        if wanted and wanted not in map(str.lower, CATEGORIES):
            raise web.HTTPNotFound(text="no such category\n")
        return self._page("products.html", products=[_shown(one) for one in PRODUCTS], wanted=wanted)

    async def product(self, request: web.Request) -> web.Response:
        product = _BY_ID.get(request.match_info["id"])
        if product is None:
            raise web.HTTPNotFound(text="no such product\n")
        return self._page("product.html", product=_shown(product))

    async def page(self, request: web.Request) -> web.Response:
        return self._page(f"{request.path.strip('/')}.html")

    async def thanks(self, request: web.Request) -> web.Response:
        order = self._orders.get(request.match_info["number"])
        if order is None:
            raise web.HTTPNotFound(text="no such order\n")
        return self._page("thanks.html", order=order)

    def _page(self, name: str, **values: Any) -> web.Response:
        text = _templates.get_template(name).render(
            pixel=Script("capi.js"),
            write_key=self._write_key,
            view=self._view,
            categories=CATEGORIES,
            shipping=_SHIPPING // 100,
            free_shipping=_FREE_SHIPPING // 100,
            **values,
        )
        return web.Response(text=text, content_type="text/html", headers=_HEADERS)

    # -- an order

    async def order(self, request: web.Request) -> web.Response:
        """Takes {"cart": {item id: quantity}, "person": {...}, "consent": {...}}; answers with the order's number."""
        try:
            asked = orjson.loads(await request.read())
            order = _order(asked["cart"], dict(asked["person"]), dict(asked["consent"]))
        except (orjson.JSONDecodeError, LookupError, TypeError, ValueError) as exc:
            return web.json_response({"error": f"not an order: {type(exc).__name__}"}, status=400)
        self._orders[order["number"]] = order
        self._tell(order, request)
        return web.json_response({"number": order["number"]})

    def _tell(self, order: Json, request: web.Request) -> None:
        """The server's copy, by Segment's own SDK: the same event id and order number as the pixel's, and the person."""
        person, commerce = order["person"], order["commerce"]
        address = {
            "city": person.get("city"),
            "postalCode": person.get("postal_code"),
            "country": person.get("country"),
        }
        self._sdk.track(
            user_id=order["customer"],
            event="Order Completed",
            properties={
                "event_id": order["event_id"],
                "order_id": order["number"],
                "revenue": commerce["value"],
                "currency": commerce["currency"],
                "shipping": commerce["shipping"],
                "products": [
                    {
                        "product_id": one["item_id"],
                        "name": one["item_name"],
                        "price": one["price"],
                        "quantity": one["quantity"],
                    }
                    for one in commerce["items"]
                ],
            },
            context={
                "ip": _visitor(request),
                "userAgent": request.headers.get("User-Agent", ""),
                "traits": {
                    "email": person.get("email"),
                    "phone": person.get("phone"),
                    "firstName": person.get("first_name"),
                    "lastName": person.get("last_name"),
                    "address": {name: value for name, value in address.items() if value},
                },
                "consent": order["consent"],
            },
        )

    # -- the collector, under our own origin

    async def collect(self, request: web.Request) -> web.StreamResponse:
        """What nginx and Caddy do in earnest."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_A_HOP}
        headers["X-Forwarded-For"] = _visitor(request)
        try:
            async with self._http.request(
                request.method,
                f"{self._collector}/v1/{request.match_info['rest']}",
                data=await request.read(),
                headers=headers,
            ) as answer:
                response = web.Response(status=answer.status, body=await answer.read())
                for name in (
                    "Content-Type",
                    "Content-Encoding",
                    "Cache-Control",
                    "ETag",
                    "Vary",
                    "Retry-After",
                    "Set-Cookie",
                ):
                    response.headers.popall(name, None)
                    response.headers.extend((name, value) for value in answer.headers.getall(name, []))
                return response
        except (aiohttp.ClientError, TimeoutError):
            return web.Response(status=502, text="the collector does not answer\n")


def _visitor(request: web.Request) -> str:
    remote = request.remote or ""
    return VISITOR if remote in ("127.0.0.1", "::1") else remote


def _shown(product: Product) -> Json:
    return {
        "item_id": product.item_id,
        "item_name": product.name,
        "brand": product.brand,
        "category": product.category,
        "variants": product.variants,
        "price": product.cents / 100,
    }


def _order(cart: Json, person: Json, consent: Json) -> Json:
    """Prices are ours, not the browser's. Raises LookupError, TypeError or ValueError."""
    pieces = [(_BY_ID[item_id.lower()], int(quantity)) for item_id, quantity in cart.items()]
    if not pieces or any(not 0 < quantity < 100 for _, quantity in pieces):
        raise ValueError("no pieces")
    items = [{**_shown(product), "quantity": quantity} for product, quantity in pieces]
    total = sum(product.cents * quantity for product, quantity in pieces)
    shipping = 0 if total >= _FREE_SHIPPING else _SHIPPING
    return {
        "number": f"SH-{secrets.token_hex(4).upper()}",
        "event_id": str(uuid.uuid4()),
        "customer": f"customer-{secrets.token_hex(4)}",
        "person": {str(name): str(value)[:200] for name, value in person.items()},
        "consent": {str(name): str(value)[:20] for name, value in consent.items()},
        "commerce": {
            "currency": "EUR",
            "value": (total + shipping) / 100,
            "shipping": shipping / 100,
            "items": [{name: value for name, value in one.items() if name != "variants"} for one in items],
        },
    }


def _segment(secret_key: str, collector: str) -> Any:
    try:
        from segment.analytics.client import Client
    except ImportError:
        raise CapistreamError("segment-analytics-python is not installed: pip install 'capistream[demo]'") from None
    return Client(
        secret_key,
        host=collector,
        gzip=True,
        max_retries=100,
        timeout=15,
        on_error=lambda error, _batch: log.warning("shop.not_told", error=type(error).__name__),
    )


async def serve(shop: Shop, port: int) -> None:
    """Until cancelled."""
    runner = web.AppRunner(shop.application(), access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        log.info("shop.started", address=f"http://127.0.0.1:{port}")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
