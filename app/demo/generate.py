"""Makes a traffic file: some hundred visits to a shop, as browsers, back ends and a message bus report them.

    python -m app.demo.generate [--sessions 300] [--seed 7] [--out FILE]

The same arguments make the same bytes; app/demo/sessions.jsonl is what the defaults make. It is the format that
`capistream send FILE` plays, one JSON object a line, ordered by `at`:

    at          seconds after the start of playing. Time is compressed: a visit takes seconds, the file about 30 s
    via         pixel    body is our own JSON (`app.events.Draft`), posted to the collector as a browser does
                segment  body is a track call for a Segment client: type, event, userId, properties, context
                bus      body is our own JSON with `source`, produced to a topic of the shop; a text goes as it is
    lag         seconds by which the event happened before it is sent. Bodies have no time: the sender stamps them
                (now - lag) where the body does not say one itself
    ip, user_agent
                the browser's connection: X-Forwarded-For and User-Agent. Only with pixel; others have it in the body
    body        the event, in the clear
    bad         only where the event must be refused: the reason that `app.normalize` gives

Copies of one conversion share their event id, and their transaction id if it is a purchase. Purchases, leads, sign-ups
and subscriptions are reported by browser and back end; some by one of the two alone, some late, some again by a reload
of the page. Nobody in it exists: addresses are of the ranges and domains reserved for documentation, telephone numbers
of ranges kept for fiction, or not assigned where a country keeps none.
"""

import argparse
import copy
import random
import sys
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote_plus

import orjson

from app.events import Json

SESSIONS, SEED = 300, 7
SHOP = "https://shop.example"
END = 30.0  # seconds: nothing is sent later
LAST_START = 20.0
#: Conversions that browser and back end both report.
PAIRED = ("purchase", "generate_lead", "sign_up", "subscribe")
SIGNALS = ("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization")

Line = Json


@dataclass(frozen=True)
class Country:
    """`#` in a telephone number stands for a digit. Of `written/latin`, the latin name goes into e-mail addresses."""

    code: str
    currency: str
    language: str
    weight: int
    vat: int  # per mille
    phone: str
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    streets: tuple[str, ...]
    places: tuple[tuple[str, str, str], ...]  # city, region, postal code


COUNTRIES = (
    Country(
        *("DE", "EUR", "de-DE", 24, 190, "+49 30 23125###"),
        ("Jürgen", "Käthe", "Anna", "Ömer", "Sören", "Ольга/olga", "Friederike"),
        ("Müßig", "Weiß", "Schäfer", "Yıldız", "von der Höhe", "Соколова/sokolova"),
        ("Große Straße", "Am Mühlenberg", "Königsallee"),
        (("Köln", "NW", "50667"), ("München", "BY", "80331"), ("Görlitz", "SN", "02826")),
    ),
    Country(
        *("US", "USD", "en-US", 20, 83, "+1 (212) 555-01##"),
        ("Grace", "Renée", "Malik", "Siobhán", "José", "Priya", "Nguyễn"),
        ("O'Brien", "Nuñez", "Washington", "Hoàng", "de la Cruz", "Smith-Jones"),
        ("Main Street", "E 14th Street", "Elm Avenue Apt 4"),
        (("New York", "NY", "10003"), ("Cañon City", "CO", "81212"), ("Oakland", "CA", "94607-1234")),
    ),
    Country(
        *("GB", "GBP", "en-GB", 14, 200, "+44 7700 900###"),
        ("Zoë", "Oliver", "Aoife", "Imran", "Chloë"),
        ("Brontë", "Patel", "MacLeod", "Llŷr", "Taylor"),
        ("High Street", "Abbey Road", "Caer Wen"),
        (("London", "ENG", "NW8 9AY"), ("Edinburgh", "SCT", "EH1 1YZ"), ("Cardiff", "WLS", "CF10 1EP")),
    ),
    Country(
        *("FR", "EUR", "fr-FR", 9, 200, "+33 6 39 98 ## ##"),
        ("Élodie", "François", "Maëlle", "Loïc"),
        ("Lefèvre", "Garçon", "D'Aubigné", "Benoît"),
        ("rue de l'Église", "avenue Hébert"),
        (("Orléans", "CVL", "45000"), ("Saint-Étienne", "ARA", "42000")),
    ),
    Country(
        *("ES", "EUR", "es-ES", 7, 210, "+34 100 000 ###"),
        ("José", "Begoña", "Íñigo", "María Ángeles"),
        ("Muñoz", "Ibáñez", "García Lorca"),
        ("Calle del Príncipe", "Plaça Major"),
        (("A Coruña", "GA", "15001"), ("Cádiz", "AN", "11001")),
    ),
    Country(
        *("PL", "PLN", "pl-PL", 9, 230, "+48 100 000 ###"),
        ("Łukasz", "Małgorzata", "Żaneta", "Michał"),
        ("Wójcik", "Źdźbło", "Dąbrowska", "Ślusarz"),
        ("ul. Świętokrzyska", "ul. Długa"),
        (("Łódź", "LD", "90-001"), ("Gdańsk", "PM", "80-831")),
    ),
    Country(
        *("SE", "SEK", "sv-SE", 6, 250, "+46 70 174 06 ##"),
        ("Åsa", "Björn", "Märta"),
        ("Öberg", "Sjöström", "Ångström"),
        ("Drottninggatan", "Södra vägen"),
        (("Malmö", "M", "211 20"), ("Växjö", "G", "352 30")),
    ),
    Country(
        *("CH", "CHF", "de-CH", 5, 81, "+41 10 000 00 ##"),
        ("Noémie", "Ueli", "Andri"),
        ("Zürcher", "Rochat", "Caduff"),
        ("Zähringerstrasse", "Rue du Mont-Blanc"),
        (("Zürich", "ZH", "8001"), ("Genève", "GE", "1201")),
    ),
    Country(
        *("JP", "JPY", "ja-JP", 6, 100, "+81 90-0000-00##"),
        ("花子/hanako", "太郎/taro", "さくら/sakura"),
        ("山田/yamada", "佐藤/sato", "鈴木/suzuki"),
        ("神南", "北山通"),
        (("渋谷区", "13", "150-0041"), ("京都市", "26", "603-8054")),
    ),
)

_WINDOWS, _MAC = "Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7"
_WEBKIT, _BLINK = "AppleWebKit/605.1.15 (KHTML, like Gecko)", "AppleWebKit/537.36 (KHTML, like Gecko)"
USER_AGENTS = (
    f"Mozilla/5.0 ({_WINDOWS}) {_BLINK} Chrome/138.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (Linux; Android 10; K) {_BLINK} Chrome/138.0.0.0 Mobile Safari/537.36",
    f"Mozilla/5.0 ({_MAC}) {_WEBKIT} Version/18.5 Safari/605.1.15",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {_WEBKIT} Version/18.5 Mobile/15E148 Safari/604.1",
    f"Mozilla/5.0 ({_WINDOWS}; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
)


@dataclass(frozen=True)
class Product:
    item_id: str
    name: str
    brand: str
    category: str
    variants: tuple[str, ...]
    cents: int  # of a euro


PRODUCTS = (
    Product("SKU-1001", "Linen shirt", "Nordhem", "Clothing", ("white", "sky", "sand"), 4990),
    Product("SKU-1002", "Wool sweater", "Nordhem", "Clothing", ("navy", "moss"), 8990),
    Product("SKU-1003", "Rain jacket", "Küstenwind", "Clothing", ("yellow", "black"), 12990),
    Product("SKU-1004", "Canvas sneaker", "Pašo", "Shoes", ("38", "41", "44"), 6990),
    Product("SKU-1005", "Hiking boot", "Pašo", "Shoes", ("39", "42"), 15990),
    Product("SKU-2001", "Enamel mug", "Hütte & Heim", "Kitchen", ("red", "white"), 1290),
    Product("SKU-2002", "Chef's knife 20 cm", "刃物屋", "Kitchen", ("oak", "walnut"), 7490),
    Product("SKU-2003", "Café press", "Hütte & Heim", "Kitchen", ("0.5 l", "1 l"), 3490),
    Product("SKU-3001", "Reading lamp", "Lumière", "Home", ("brass", "black"), 5990),
    Product("SKU-3002", "Wool blanket", "Nordhem", "Home", ("grey", "ochre"), 9990),
    Product("SKU-4001", "Notebook A5", "Papír", "Stationery", ("dotted", "ruled"), 990),
    Product("SKU-4002", "Fountain pen", "Papír", "Stationery", ("fine", "medium"), 2890),
)
CATEGORIES = tuple(dict.fromkeys(product.category for product in PRODUCTS))
#: What a euro is worth, in major units, and the step that prices are rounded to, in minor units.
CURRENCIES = {
    "EUR": (1.0, 100),
    "USD": (1.12, 100),
    "GBP": (0.86, 100),
    "CHF": (0.96, 100),
    "PLN": (4.3, 1000),
    "SEK": (11.2, 1000),
    "JPY": (165.0, 10),
}

# --- money ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InCart:
    """Some pieces of a product; amounts of one piece, in minor units."""

    product: Product
    variant: str
    quantity: int
    price: int
    discount: int = 0


def priced(cents: int, currency: str) -> int:
    """Convert a price in euro cents: to minor units, ending as shops like it."""
    rate, step = CURRENCIES[currency]
    if currency == "JPY":
        return max(step, round(cents * rate / 100 / step) * step)
    return max(step, round(cents * rate / step) * step) - step // 10


def major(minor: int, currency: str) -> int | float:
    return minor if currency == "JPY" else minor / 100


def total(cart: Iterable[InCart]) -> int:
    return sum(one.price * one.quantity for one in cart)


def money(cart: Sequence[InCart], currency: str) -> Json:
    """Sum up a cart: value, currency and items."""
    return {"value": major(total(cart), currency), "currency": currency, "items": [item(one, currency) for one in cart]}


def item(one: InCart, currency: str) -> Json:
    result: Json = {
        "item_id": one.product.item_id,
        "item_name": one.product.name,
        "brand": one.product.brand,
        "category": one.product.category,
        "variant": one.variant,
        "price": major(one.price, currency),
        "quantity": one.quantity,
    }
    if one.discount:
        result["discount"] = major(one.discount, currency)
    return result


def cheaper(cart: Iterable[InCart], percent: int) -> list[InCart]:
    """Apply a coupon to a cart."""
    off = ((one, one.price * percent // 100) for one in cart)
    return [replace(one, price=one.price - discount, discount=discount) for one, discount in off]


def tax(value: int, country: Country) -> int:
    """Compute the tax: on top of prices in the United States, contained in them elsewhere."""
    return round(value * country.vat / (1000 if country.code == "US" else 1000 + country.vat))


# --- people and their visits ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Person:
    country: Country
    user_id: str
    email: str
    phone: str
    first_name: str
    last_name: str
    street: str
    city: str
    region: str
    postal_code: str


@dataclass(frozen=True)
class Visit:
    """What stays the same from the first page to the last."""

    person: Person
    start: float
    lag: float  # of the browser
    ip: str
    user_agent: str
    ids: Json
    landing: str  # query of the first page
    referrer: str
    consent: Json  # empty: not told
    server_consent: Json
    blocked: bool  # an ad blocker keeps the pixel away
    tags: Json
    known: bool  # the pixel is told the e-mail address of a buyer
    order: str  # number of the order, should there be one


@dataclass(frozen=True)
class Step:
    """One event of a visit, whoever will report it."""

    name: str
    path: str
    title: str
    commerce: Json = field(default_factory=dict)
    custom: Json = field(default_factory=dict)
    pause: float = 0.0  # seconds before it, besides the usual


_SPELLED = {"ß": "ss", "ł": "l", "ı": "i", "ü": "ue", "ö": "oe", "ä": "ae"}


def latin(text: str) -> str:
    """Spell a name for an e-mail address."""
    spelled = "".join(_SPELLED.get(c, c) for c in text.lower())
    return "".join(c for c in unicodedata.normalize("NFKD", spelled) if c.isascii() and c.isalpha())


def make_person(rng: random.Random, number: int) -> Person:
    country = rng.choices(COUNTRIES, [one.weight for one in COUNTRIES])[0]
    first, _, first_latin = rng.choice(country.first_names).partition("/")
    last, _, last_latin = rng.choice(country.last_names).partition("/")
    local = latin(first_latin or first) + rng.choice((".", "_", "")) + latin(last_latin or last)
    plus = rng.choices(("", "+shop"), (9, 1))[0]
    city, region, postal_code = rng.choice(country.places)
    return Person(
        country=country,
        user_id=f"c-{10_000 + number}",
        email=f"{local}{number}{plus}@example.{rng.choice(('com', 'org', 'net'))}",
        phone="".join(str(rng.randrange(10)) if c == "#" else c for c in country.phone),
        first_name=first,
        last_name=last,
        street=f"{rng.choice(country.streets)} {rng.randrange(1, 120)}",
        city=city,
        region=region,
        postal_code=postal_code,
    )


def make_visit(rng: random.Random, person: Person, number: int, *, converts: bool) -> Visit:
    blocked = converts and rng.random() < 0.08
    consent = rng.choices((_signals("granted"), _signals("denied"), {}), (70, 15, 15))[0]
    changed_mind = consent == _signals("granted") and converts and rng.random() < 0.04
    click, referrer = _arrival(rng)
    return Visit(
        person=person,
        start=rng.uniform(0, LAST_START),
        lag=rng.choices((0.0, round(rng.uniform(0, 3), 3), round(rng.uniform(5, 40), 3)), (70, 28, 2))[0],
        ip=_address(rng),
        user_agent=rng.choice(USER_AGENTS),
        ids=_cookies(rng, click, denied="denied" in consent.values()),
        landing="?" + "&".join(f"{k}={v}" for k, v in click.items()) if click else "",
        referrer=referrer,
        consent=consent,
        server_consent=_signals("denied") if changed_mind else consent,
        blocked=blocked,
        tags=_tags(rng, denied="denied" in consent.values()),
        known=rng.random() < 0.25,
        order=f"SO-{200_000 + 7 * number}",
    )


def _signals(said: str) -> Json:
    return dict.fromkeys(SIGNALS, said)


def _arrival(rng: random.Random) -> tuple[Json, str]:
    """Tell where somebody comes from: (parameters of the first URL, referrer)."""
    kind = rng.choices(("direct", "google", "gclid", "fbclid", "newsletter"), (35, 25, 18, 14, 8))[0]
    if kind == "gclid":
        return {"utm_source": "google", "gclid": "Cj0KCQjw" + _token(rng, 24)}, "https://www.google.com/"
    if kind == "fbclid":
        return {"utm_source": "facebook", "fbclid": "IwY2xjaw" + _token(rng, 24)}, "https://l.facebook.com/"
    if kind == "newsletter":
        return {"utm_source": "newsletter", "utm_campaign": "spring"}, ""
    return {}, "https://www.google.com/" if kind == "google" else ""


def _token(rng: random.Random, length: int) -> str:
    return "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", k=length))


def _address(rng: random.Random) -> str:
    if rng.random() < 0.25:
        return f"2001:db8:{rng.randrange(1, 65536):x}::{rng.randrange(1, 65536):x}"
    return f"{rng.choice(('203.0.113', '198.51.100', '192.0.2'))}.{rng.randrange(1, 255)}"


def _cookies(rng: random.Random, click: Json, *, denied: bool) -> Json:
    """Set cookies, but not for somebody who said no."""
    if denied:
        return {}
    seconds = 1_760_000_000 + rng.randrange(5_000_000)
    ids = {
        "ga_client_id": f"{rng.randrange(10**8, 2**31)}.{seconds - rng.randrange(20_000_000)}",
        "ga_session_id": str(seconds),
        "fbp": f"fb.1.{seconds}{rng.randrange(1000):03}.{rng.randrange(10**9, 10**10)}",
    }
    if "fbclid" in click:
        ids["fbc"] = f"fb.1.{seconds}{rng.randrange(1000):03}.{click['fbclid']}"
    if "gclid" in click and rng.random() < 0.5:  # the others leave it in the URL
        ids["gclid"] = click["gclid"]
    return ids


def _tags(rng: random.Random, *, denied: bool) -> Json:
    """Tell which platform tags ran in the browser; most shops do not."""
    if rng.random() < 0.7:
        return {}
    return {"meta": {"ran": not denied}, "ga4": {"ran": not denied and rng.random() < 0.5}}


# --- journeys: what happens in a visit --------------------------------------------------------------------------------


def browsing(rng: random.Random, visit: Visit) -> Iterator[Step]:
    yield from _arriving(rng)
    yield from _looking(rng, visit, fill_cart(rng, visit.person.country.currency))


def abandoning(rng: random.Random, visit: Visit) -> Iterator[Step]:
    """Put things into the cart and leave at some point of the checkout."""
    cart = fill_cart(rng, visit.person.country.currency)
    yield from _arriving(rng)
    yield from _looking(rng, visit, cart)
    yield from _filling(rng, visit, cart)
    yield from list(_checkout(rng, visit, cart, ""))[: rng.randrange(4)]


def buying(rng: random.Random, visit: Visit) -> Iterator[Step]:
    cart = fill_cart(rng, visit.person.country.currency)
    yield from _arriving(rng)
    yield from _looking(rng, visit, cart)
    yield from _filling(rng, visit, cart)
    known = rng.random()
    if known < 0.35:
        yield Step("login", "/login", "Log in", {"method": rng.choice(("email", "google"))})
    elif known < 0.5:
        yield Step("sign_up", "/account/new", "Your account", {"method": "checkout"})
    coupon = "WELCOME10" if rng.random() < 0.2 else ""
    if coupon:
        cart = cheaper(cart, 10)
    yield from _checkout(rng, visit, cart, coupon)
    yield _purchase(visit, cart, coupon)
    if rng.random() < 0.14:
        yield from _refunds(rng, visit, cart)


def asking(rng: random.Random, visit: Visit) -> Iterator[Step]:
    currency = visit.person.country.currency
    yield from _arriving(rng)
    yield Step("page_view", "/corporate-gifts", "Corporate gifts")
    value = major(priced(rng.choice((2500, 5000, 10_000)), currency), currency)
    commerce, topic = {"value": value, "currency": currency}, rng.choice(("gifts", "wholesale", "fitting-out"))
    yield Step("generate_lead", "/corporate-gifts/thanks", "We call back", commerce, {"topic": topic})


def joining(rng: random.Random, visit: Visit) -> Iterator[Step]:
    yield from _arriving(rng)
    yield Step("sign_up", "/account/new", "Your account", {"method": rng.choice(("email", "google", "apple"))})
    yield from _looking(rng, visit, fill_cart(rng, visit.person.country.currency)[:1])


def subscribing(rng: random.Random, visit: Visit) -> Iterator[Step]:
    currency = visit.person.country.currency
    yield from _arriving(rng)
    yield Step("page_view", "/club", "The coffee club")
    plan, cents = rng.choice((("monthly", 1490), ("yearly", 14_900)))
    commerce = {"value": major(priced(cents, currency), currency), "currency": currency}
    yield Step("subscribe", "/club/welcome", "Welcome to the club", commerce, {"plan": plan})


JOURNEYS = (browsing, abandoning, buying, asking, joining, subscribing)
SHARES = (22, 18, 42, 7, 6, 5)


def fill_cart(rng: random.Random, currency: str) -> list[InCart]:
    products = rng.sample(PRODUCTS, rng.choices((1, 2, 3), (55, 30, 15))[0])
    return [
        InCart(one, rng.choice(one.variants), rng.choices((1, 2, 3), (75, 18, 7))[0], priced(one.cents, currency))
        for one in products
    ]


def _arriving(rng: random.Random) -> Iterator[Step]:
    pages = ("/", "shop.example"), ("/sale", "Sale"), ("/magazine/slow-mornings", "Slow mornings – Magazine")
    yield Step("page_view", *rng.choice(pages))


def _looking(rng: random.Random, visit: Visit, cart: Sequence[InCart]) -> Iterator[Step]:
    """Open a list or a search, then the pages of these products."""
    currency = visit.person.country.currency
    category = cart[0].product.category
    if rng.random() < 0.3:
        term = cart[0].product.name.lower()
        yield Step("search", f"/search?q={quote_plus(term)}", "Search", {"search_term": term})
    else:
        listed = (one for one in PRODUCTS if one.category == category)
        shown = [item(InCart(one, one.variants[0], 1, priced(one.cents, currency)), currency) for one in listed]
        commerce = {"currency": currency, "list_id": category.lower(), "list_name": category, "items": shown}
        yield Step("view_item_list", f"/c/{category.lower()}", category, commerce)
    for one in cart:
        single = money([replace(one, quantity=1)], currency)
        page = _product_page(one)
        yield Step("view_item", *page, single)
        if one.product.category in ("Clothing", "Shoes") and rng.random() < 0.12:
            guide = {"guide": one.product.category.lower(), "unit": rng.choice(("eu", "us"))}
            yield Step("size_guide_opened", *page, custom=guide)
        if rng.random() < 0.1:
            yield Step("add_to_wishlist", *page, single)


def _product_page(one: InCart) -> tuple[str, str]:
    return f"/p/{one.product.item_id.lower()}", one.product.name


def _filling(rng: random.Random, visit: Visit, cart: Sequence[InCart]) -> Iterator[Step]:
    currency = visit.person.country.currency
    for one in cart:
        yield Step("add_to_cart", *_product_page(one), money([one], currency))
    if rng.random() < 0.15:
        other = rng.choice([one for one in PRODUCTS if one not in [had.product for had in cart]])
        regretted = InCart(other, rng.choice(other.variants), 1, priced(other.cents, currency))
        yield Step("add_to_cart", *_product_page(regretted), money([regretted], currency))
        yield Step("remove_from_cart", "/cart", "Your cart", money([regretted], currency))
    if rng.random() < 0.6:
        yield Step("view_cart", "/cart", "Your cart", money(cart, currency))


def _checkout(rng: random.Random, visit: Visit, cart: Sequence[InCart], coupon: str) -> Iterator[Step]:
    commerce = money(cart, visit.person.country.currency) | ({"coupon": coupon} if coupon else {})
    tier = rng.choices(("standard", "express", "pick-up point"), (7, 2, 1))[0]
    payment = rng.choice(("card", "paypal", "invoice", "apple_pay"))
    yield Step("begin_checkout", "/checkout", "Checkout", commerce)
    yield Step("add_shipping_info", "/checkout/shipping", "Checkout", {**commerce, "shipping_tier": tier})
    yield Step("add_payment_info", "/checkout/payment", "Checkout", {**commerce, "payment_type": payment})


def _purchase(visit: Visit, cart: Sequence[InCart], coupon: str) -> Step:
    country = visit.person.country
    commerce = money(cart, country.currency)
    shipping = 0 if total(cart) > priced(8000, country.currency) else priced(500, country.currency)
    commerce["tax"] = major(tax(total(cart), country), country.currency)
    commerce["shipping"] = major(shipping, country.currency)
    commerce["transaction_id"] = visit.order
    if coupon:
        commerce["coupon"] = coupon
        commerce["discount"] = major(sum(one.discount * one.quantity for one in cart), country.currency)
    return Step("purchase", "/checkout/thanks", "Thank you", commerce)


def _refunds(rng: random.Random, visit: Visit, cart: Sequence[InCart]) -> Iterator[Step]:
    """Refund the whole order, or some of its pieces, each with a refund id of its own."""
    currency = visit.person.country.currency
    pieces = [replace(one, quantity=1) for one in cart for _ in range(one.quantity)]
    if len(pieces) == 1 or rng.random() < 0.4:
        yield Step("refund", "", "", {**money(cart, currency), "transaction_id": visit.order}, pause=2.5)
        return
    for number, one in enumerate(rng.sample(pieces, rng.randrange(1, len(pieces))), start=1):
        ids = {"transaction_id": visit.order, "refund_id": f"{visit.order}-R{number}"}
        yield Step("refund", "", "", money([one], currency) | ids, pause=2.5 if number == 1 else 0)


# --- copies: who reports it, when and how -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Happened:
    """One event of a visit, before anybody reports it."""

    step: Step
    event_id: str
    at: float
    url: str
    referrer: str
    logged_in: bool


def play(rng: random.Random, visit: Visit, steps: Iterable[Step]) -> Iterator[Line]:
    """Report a visit: its lines, not yet in order."""
    for it in happen(rng, visit, steps):
        if it.step.name == "refund":
            yield server_line(rng, visit, it, it.at)
        elif it.step.name in PAIRED:
            yield from conversion(rng, visit, it)
        elif not visit.blocked:
            yield pixel_line(rng, visit, it, it.at)
            if it.step.name == "begin_checkout" and rng.random() < 0.08:  # a back end that tells more than it needs to
                yield server_line(rng, visit, it, it.at + rng.uniform(0, 1))


def happen(rng: random.Random, visit: Visit, steps: Iterable[Step]) -> Iterator[Happened]:
    at, url, referrer, logged_in = visit.start, "", visit.referrer, False
    for number, step in enumerate(steps):
        at += rng.uniform(0.2, 0.7) + step.pause if number else 0
        page = SHOP + step.path + (visit.landing if number == 0 else "")
        if url and page != url:
            referrer = url
        url = page
        logged_in = logged_in or step.name in ("login", "sign_up")
        yield Happened(step, _event_id(rng), at, url, referrer, logged_in)


def conversion(rng: random.Random, visit: Visit, it: Happened) -> Iterator[Line]:
    """Report a conversion: mostly by two copies, in any order."""
    first, second = it.at, it.at + _gap(rng, it.at)
    if visit.blocked:
        yield server_line(rng, visit, it, first)
        return
    if rng.random() < 0.5:
        pixel_at, server_at = first, second
    else:
        pixel_at, server_at = second, first
    pixel = pixel_line(rng, visit, it, pixel_at)
    yield pixel
    if rng.random() >= 0.05:
        yield server_line(rng, visit, it, server_at)
    if rng.random() < 0.1:
        yield _reloaded(rng, pixel, fresh_id=it.step.name == "purchase" and rng.random() < 0.4)


def _gap(rng: random.Random, at: float) -> float:
    """Choose the seconds between two copies."""
    kind = rng.random()
    if kind < 0.05 and at + 8 < END:
        return rng.uniform(6.2, 8)
    return rng.uniform(2, 2.5) if kind < 0.1 else 2 * rng.random() ** 2


def _reloaded(rng: random.Random, pixel: Line, *, fresh_id: bool) -> Line:
    """Open the page after the conversion again: it reports the same, in some shops under a new id."""
    again = copy.deepcopy(pixel)
    again["at"] = round(min(pixel["at"] + rng.uniform(0.5, 6), END), 3)
    if fresh_id:
        body = again["body"]
        body["event_id"] = _event_id(rng)
        if "tags" in body:
            body["tags"] = _with_id(body["tags"], body["event_id"])
    return again


def _event_id(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))
    return f"ev-{rng.getrandbits(64):016x}"


def _with_id(tags: Json, event_id: str) -> Json:
    return {**tags, "meta": {"ran": True, "event_id": event_id}} if tags["meta"]["ran"] else tags


def pixel_line(rng: random.Random, visit: Visit, it: Happened, at: float) -> Line:
    """Report as the browser does: it knows pages and cookies, and the person at best after a login."""
    context = {"url": it.url, "title": it.step.title, "language": visit.person.country.language}
    if it.referrer:
        context["referrer"] = it.referrer
    user = {"user_id": visit.person.user_id} if it.logged_in else {}
    if visit.known and it.step.name == "purchase":
        user["email"] = visit.person.email
    tags = _with_id(visit.tags, it.event_id) if visit.tags and it.step.name in PAIRED else {}
    parts = {"ids": visit.ids, "commerce": it.step.commerce, "consent": visit.consent, "user": user, "tags": tags}
    body: Json = {"event_name": it.step.name, "event_id": it.event_id, "context": context}
    body |= {name: part for name, part in {**parts, "custom": it.step.custom}.items() if part}
    connection = {"ip": visit.ip, "user_agent": visit.user_agent}
    if _by_bus(rng):
        context |= connection
        return {"at": round(at, 3), "via": "bus", "lag": visit.lag, "body": {"source": "pixel", **body}}
    return {"at": round(at, 3), "via": "pixel", "lag": visit.lag, **connection, "body": body}


def server_line(rng: random.Random, visit: Visit, it: Happened, at: float) -> Line:
    """Report as the back end does: it knows the order and the person."""
    user = _user(rng, visit.person, address=it.step.name in ("purchase", "refund"))
    ids = {"ga_client_id": visit.ids["ga_client_id"]} if visit.ids and not visit.blocked and rng.random() < 0.3 else {}
    lag = rng.choices((0.0, round(rng.uniform(0, 3), 3)), (6, 4))[0]
    if _by_bus(rng):
        return {"at": round(at, 3), "via": "bus", "lag": lag, "body": _own(visit, it, user, ids)}
    return {"at": round(at, 3), "via": "segment", "lag": lag, "body": _track(visit, it, user, ids)}


def _by_bus(rng: random.Random) -> bool:
    """Choose the way: part of the shop writes to its own Kafka already."""
    return rng.random() < 0.18


def _user(rng: random.Random, person: Person, *, address: bool) -> Json:
    """Take a person from the shop's database: the e-mail address as they typed it, the telephone of most."""
    user = {
        "user_id": person.user_id,
        "email": person.email.title() if rng.random() < 0.15 else person.email,
        "first_name": person.first_name,
        "last_name": person.last_name,
        "country": person.country.code,
    }
    if rng.random() < 0.8:
        user["phone"] = person.phone
    if address:
        user |= {name: getattr(person, name) for name in ("street", "city", "region", "postal_code")}
    return user


def _own(visit: Visit, it: Happened, user: Json, ids: Json) -> Json:
    """Write a server's copy as our own JSON."""
    context = {"ip": visit.ip, "user_agent": visit.user_agent, "language": visit.person.country.language}
    body: Json = {"source": "server", "event_name": it.step.name, "event_id": it.event_id}
    parts = {"ids": ids, "commerce": it.step.commerce, "consent": visit.server_consent, "custom": it.step.custom}
    return body | {"user": user, "context": context} | {name: part for name, part in parts.items() if part}


#: Our names in the Segment spec.
TRACK_NAMES = {
    "begin_checkout": "Checkout Started",
    "purchase": "Order Completed",
    "refund": "Order Refunded",
    "generate_lead": "Lead Generated",
    "sign_up": "Signed Up",
    "subscribe": "Subscription Started",
}
_PROPERTIES = {"transaction_id": "order_id", "items": "products"}
_PRODUCT = {"item_id": "product_id", "item_name": "name"}
_TRAITS = {"first_name": "firstName", "last_name": "lastName"}
_ADDRESS = {"street": "street", "city": "city", "region": "state", "postal_code": "postalCode", "country": "country"}


def _track(visit: Visit, it: Happened, user: Json, ids: Json) -> Json:
    """Write a server's copy as a Segment call."""
    names = _PROPERTIES | ({"value": "revenue"} if "transaction_id" in it.step.commerce else {})
    properties = {"event_id": it.event_id, **_renamed(it.step.commerce, names), **it.step.custom}
    if "products" in properties:
        properties["products"] = [_renamed(one, _PRODUCT) for one in properties["products"]]
    traits = _renamed({k: v for k, v in user.items() if k not in _ADDRESS and k != "user_id"}, _TRAITS)
    traits["address"] = {theirs: user[ours] for ours, theirs in _ADDRESS.items() if ours in user}
    context: Json = {
        "ip": visit.ip,
        "userAgent": visit.user_agent,
        "locale": visit.person.country.language,
        "traits": traits,
    }
    context |= {name: part for name, part in (("consent", visit.server_consent), ("ids", ids)) if part}
    return {
        "type": "track",
        "event": TRACK_NAMES[it.step.name],
        "userId": user["user_id"],
        "properties": properties,
        "context": context,
    }


def _renamed(part: Json, names: dict[str, str]) -> Json:
    return {names.get(name, name): value for name, value in part.items()}


def bad_lines(rng: random.Random) -> Iterator[Line]:
    """Make one of each mistake that a real bus holds, with the reason it is refused for."""
    cart = money(fill_cart(rng, "EUR"), "EUR")
    good: Json = {"source": "server", "event_name": "add_to_cart", "event_id": "ev-bad-1", "commerce": cart}
    without_id = {name: value for name, value in good.items() if name != "event_id"}
    without_currency = {name: value for name, value in cart.items() if name != "currency"}
    for reason, body in (
        ("missing", without_id),
        ("no_currency", {**good, "event_id": "ev-bad-2", "commerce": without_currency}),
        ("not_json", "not json at all"),
        ("time_in_future", {**good, "event_id": "ev-bad-3", "time": "9999-12-31T23:59:59Z"}),
        ("unknown_field", {**good, "event_id": "ev-bad-4", "order_total": cart["value"]}),
        ("personal_id", {**good, "event_id": "anna.weiss@example.com"}),
    ):
        yield {"at": round(rng.uniform(2, 25), 3), "via": "bus", "lag": 0.0, "body": body, "bad": reason}


# --- the file ---------------------------------------------------------------------------------------------------------


def generate(sessions: int = SESSIONS, seed: int = SEED) -> list[Line]:
    rng = random.Random(seed)
    people = [make_person(rng, number) for number in range(max(1, sessions * 4 // 5))]  # some come twice
    lines: list[Line] = []
    for number in range(sessions):
        journey = rng.choices(JOURNEYS, SHARES)[0]
        visit = make_visit(rng, rng.choice(people), number, converts=journey not in (browsing, abandoning))
        lines += play(rng, visit, journey(rng, visit))
    lines += bad_lines(rng)
    return sorted(lines, key=lambda line: line["at"])


def encode(lines: Iterable[Line]) -> bytes:
    return b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m app.demo.generate", description="Makes a traffic file for the demo."
    )
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="visits to make (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="another number, other visits (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="file to write instead of the standard output")
    options = parser.parse_args(args)
    content = encode(generate(options.sessions, options.seed))
    if options.out:
        options.out.write_bytes(content)
    else:
        sys.stdout.buffer.write(content)


if __name__ == "__main__":
    main()
