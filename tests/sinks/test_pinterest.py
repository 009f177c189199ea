"""sinks/pinterest.py: requests in full, Pinterest's published schema as a witness, and what each answer means."""

from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.events import Json
from app.mapping import mapped
from app.sandbox import pinterest as emulated
from sinks._base import Delivered, Halt, Payload, Rejected, Response, Retry, Skip
from sinks.pinterest import EVENT_NAMES, FIELDS, LONGEST_RECEIPT, NAMES, Pinterest, Settings, decimal_text
from tests import factories
from tests.factories import encode, events, make_event, sha

SETTINGS: Json = {"sink": "pinterest", "ad_account_id": "549755885175", "access_token": {"env": "PINTEREST_TOKEN"}}

ADA = "b5fc85e55755f9e0d030a10ab4429b6b2944855f9a0d60077fe832becbc41d72"
PHONE = "90be998a6e4b5bec4f18e14bc56a618ba6dd57100b89276067e3a77ff7140b4a"


def make_sink(**more: Any) -> Pinterest:
    return Pinterest(Settings.model_validate(SETTINGS | more))


def payload(event: Any, **more: Any) -> Payload:
    return factories.payload(make_sink(**more), event)


def encoded(event: Any, **more: Any) -> Json:
    return payload(event, **more).body


def skipped(event: Any, **more: Any) -> str:
    return factories.skipped(make_sink(**more), event)


# Pinterest's schema of a request, from v5/openapi.yaml of github.com/pinterest/api-description, release 5.23.0, written as
# JSON Schema: the witness that no body has a field, a type or a null that Pinterest refuses. Two things are stricter than
# there: `user_data` has no other fields, and hashes look like hashes. The prose beside it says both.

_TEXT = {"type": "string", "minLength": 1}
_WHOLE = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
_DECIMAL = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
_HASHES = {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}


def _record(properties: Json, *, required: tuple[str, ...] = ()) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _each(names: str, schema: Json) -> Json:
    return dict.fromkeys(names.split(), schema)


_USER_DATA = _record(
    _each("em ph fn ln ge db ct st zp country external_id hashed_maids", _HASHES)
    | _each("client_ip_address client_user_agent click_id partner_id", _TEXT)
) | {
    "anyOf": [
        {"required": ["em"]},
        {"required": ["hashed_maids"]},
        {"required": ["client_ip_address", "client_user_agent"]},
    ]
}
_CONTENT = _record(_each("id item_name item_category item_brand", _TEXT) | {"item_price": _DECIMAL, "quantity": _WHOLE})
_CUSTOM_DATA = _record(
    _each("currency content_name content_category content_brand order_id search_string", _TEXT)
    | _each("opt_out_type np external_measurement_id", _TEXT)
    | _each("value predicted_ltv", _DECIMAL)
    | _each("num_items external_measurement_vendor_id", _WHOLE)
    | {"content_ids": {"type": "array", "items": _TEXT}, "contents": {"type": "array", "items": _CONTENT}}
)
_EVENT = _record(
    _each("event_name event_source_url partner_name app_id app_name app_version", _TEXT)
    | _each("device_brand device_carrier device_model device_type os_version", _TEXT)
    | _each("opt_out wifi", {"type": "boolean"})
    | {
        "action_source": {"enum": ["app_android", "app_ios", "web", "offline"]},
        "event_time": _WHOLE,
        "event_id": {"type": "string"},
        "language": {"type": "string", "pattern": "^[a-z]{2}$"},
        "user_data": _USER_DATA,
        "custom_data": _CUSTOM_DATA,
    },
    required=("event_name", "action_source", "event_time", "user_data", "event_id"),
)
SCHEMA = jsonschema.Draft202012Validator(
    _record({"data": {"type": "array", "minItems": 1, "maxItems": 1000, "items": _EVENT}}, required=("data",))
)

_SETTINGS = st.fixed_dictionaries(
    {"custom_events": st.just(value=True)},
    optional={
        "action_source": st.just({"app": "app_ios", "crm": "web"}),
        "app_id": st.just("429047995"),
        "content_id": st.sampled_from(("item_id", "variant")),
        "external_id": st.sampled_from(("hash", "hash_lower", "omit")),
        "limited_data_processing": st.booleans(),
        "partner_name": st.just("ss-capistream"),
    },
)


@given(event=events(), chosen=_SETTINGS)
@settings(deadline=None, max_examples=300)
def test_every_body_fits_the_published_schema(event, chosen):
    sink = make_sink(**chosen)
    result = encode(sink, event)

    if isinstance(result, Payload):
        SCHEMA.validate(orjson.loads(sink.request([result], {"access_token": "TOKEN"}).body))


@given(cut=st.data())
@settings(deadline=None, max_examples=200)
def test_every_part_of_a_purchase_fits_the_published_schema_and_the_emulated_platform(cut):
    event: Any = make_event(ids={"epik": "dj0yJnU9"})
    for part in ("user", "context", "ids", "commerce", "consent"):
        keep = cut.draw(st.sets(st.sampled_from(sorted(event[part]))))
        event[part] = {name: value for name, value in event[part].items() if name in keep}
    result = encode(make_sink(), event)

    if isinstance(result, Payload):
        SCHEMA.validate({"data": [result.body]})
        assert list(emulated.EVENT(result.body, "")) == []
        assert list(emulated.check_event(result.body, "", event["time"] / 1000)) == []
    else:
        assert not {"email"} <= event["user"].keys()
        assert not {"ip", "user_agent"} <= event["context"].keys()


@pytest.mark.parametrize(
    "wrong",
    [
        {"time": 1},
        {"user_data": {"em": [ADA], "email": [ADA]}},
        {"user_data": {"em": ADA}},
        {"user_data": {"client_ip_address": "203.0.113.7"}},
        {"custom_data": {"value": 59.98}},
        {"custom_data": {"contents": [{"item_id": "SKU-1"}]}},
        {"opt_out": None},
    ],
)
def test_the_witness_would_notice(wrong):
    with pytest.raises(jsonschema.ValidationError):
        SCHEMA.validate({"data": [encoded(make_event()) | wrong]})


# encode and request


def test_a_purchase_in_full():
    sink = make_sink()
    found = payload(make_event(ids={"epik": "dj0yJnU9b2JD"}))

    request = sink.request([found], {"access_token": "TOKEN"})

    assert request.method == "POST"
    assert request.url == "https://api.pinterest.com/v5/ad_accounts/549755885175/events"
    assert request.headers == {"Authorization": "Bearer TOKEN", "Content-Type": "application/json"}
    assert orjson.loads(request.body) == {
        "data": [
            {
                "event_name": "checkout",
                "action_source": "web",
                "event_time": 1795420800,
                "event_id": "order-1001",
                "event_source_url": "https://shop.example.com/thanks",
                "language": "en",
                "user_data": {
                    "em": [ADA],
                    "ph": [PHONE],
                    "fn": [sha("ada")],
                    "ln": [sha("lovelace")],
                    "ge": [sha("f")],
                    "db": [sha("19970216")],
                    "ct": [sha("menlopark")],
                    "st": [sha("ca")],
                    "zp": [sha("94025")],
                    "country": [sha("us")],
                    "external_id": [sha("customer-7")],
                    "client_ip_address": "203.0.113.7",
                    "client_user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
                    "click_id": "dj0yJnU9b2JD",
                },
                "custom_data": {
                    "value": "59.98",
                    "currency": "USD",
                    "order_id": "1001",
                    "content_ids": ["SKU-1"],
                    "contents": [
                        {
                            "id": "SKU-1",
                            "quantity": 2,
                            "item_price": "29.99",
                            "item_name": "Shirt",
                            "item_category": "Clothing",
                            "item_brand": "Acme",
                        }
                    ],
                    "content_name": "Shirt",
                    "content_category": "Clothing",
                    "content_brand": "Acme",
                    "num_items": 2,
                },
            }
        ]
    }


def test_a_page_view_of_a_stranger_in_full():
    event = make_event(event_name="page_view", source="pixel", user=None, commerce=None, ids=None)

    assert encoded(event) == {
        "event_name": "page_visit",
        "action_source": "web",
        "event_time": 1795420800,
        "event_id": "order-1001",
        "event_source_url": "https://shop.example.com/thanks",
        "language": "en",
        "user_data": {
            "client_ip_address": "203.0.113.7",
            "client_user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
        },
    }


def test_a_batch_is_one_request():
    sink = make_sink(endpoint="http://127.0.0.1:9/pinterest/")
    batch = [Payload("a", {"event_id": "a"}), Payload("b", {"event_id": "b"})]

    request = sink.request(batch, {"access_token": "TOKEN"})

    assert request.url == "http://127.0.0.1:9/pinterest/v5/ad_accounts/549755885175/events"
    assert orjson.loads(request.body) == {"data": [{"event_id": "a"}, {"event_id": "b"}]}


def test_a_test_request_is_the_same_request_and_says_that_it_is_one():
    sink = make_sink()
    batch = [payload(make_event())]
    request, test = sink.request(batch, {"access_token": "T"}), sink.test_request(batch, {"access_token": "T"})

    assert test.url == f"{request.url}?test=true"
    assert (test.method, test.headers, test.body) == (request.method, request.headers, request.body)


# event names


@pytest.mark.parametrize(("canonical", "theirs"), NAMES.items())
def test_every_name_of_the_table_is_sent_under_pinterests_name(canonical, theirs):
    assert encoded(make_event(event_name=canonical))["event_name"] == theirs


@pytest.mark.parametrize(
    ("more", "name", "sent"),
    [
        ({}, "refund", None),
        ({}, "my_event", None),
        ({"custom_events": True}, "my_event", "my_event"),
        ({"custom_events": True}, "", None),
        ({"events": {"my_event": "custom"}}, "my_event", "custom"),
        ({"events": {"trial": "start_trial"}}, "trial", "start_trial"),
        ({"events": {"view_item": "page_visit", "page_view": False}}, "view_item", "page_visit"),
        ({"events": {"my_event": "Club-Member"}, "custom_events": True}, "my_event", "Club-Member"),
        ({"events": {"purchase": False}}, "purchase", None),
    ],
)
def test_events_without_a_name_for_pinterest_are_skipped(more, name, sent):
    result = encode(make_sink(**more), make_event(event_name=name))

    assert result.body["event_name"] == sent if isinstance(result, Payload) else sent is None


@pytest.mark.parametrize("name", ["über", "two words", "x" * 101, "a.b"])
def test_a_name_that_pinterest_cannot_take_is_skipped(name):
    reason = skipped(make_event(event_name=name), custom_events=True)

    assert reason == "the event name is not 1 to 100 letters, digits, _ and -"


# user_data


@pytest.mark.parametrize(
    ("user", "key", "expected"),
    [
        ({"email": {"gmail": sha("x"), "plain": ADA}}, "em", [ADA]),
        ({"email": {"gmail": sha("x"), "plain": None, "strict": None, "given": ADA}}, "em", [ADA]),
        ({"email": {"gmail": sha("x"), "plain": None}}, "em", None),
        ({"phone": {"e164": sha("x"), "digits": PHONE}}, "ph", [PHONE]),
        ({"gender": {"letter": sha("n")}}, "ge", [sha("n")]),
        ({"city": "Saint-Étienne 2"}, "ct", [sha("saintétienne2")]),
        ({"city": "..."}, "ct", None),
        ({"country": "US", "region": "US-CA"}, "st", [sha("ca")]),
        ({"country": "US", "region": "New York"}, "st", [sha("ny")]),
        ({"country": "US", "region": "somewhere"}, "st", None),
        ({"country": "CA", "region": "CA-ON"}, "st", [sha("on")]),
        ({"country": "DE", "region": " by "}, "st", [sha("by")]),
        ({"country": "DE", "region": "Bayern"}, "st", None),
        ({"country": "US", "postal_code": "94025 1234"}, "zp", [sha("94025")]),
        ({"country": "US", "postal_code": "9402"}, "zp", None),
        ({"country": "DE", "postal_code": "D-01067"}, "zp", [sha("01067")]),
        ({"country": "PL", "postal_code": "00-950"}, "zp", [sha("00950")]),
        ({"country": "GB", "postal_code": "M1 1AE"}, "zp", [sha("11")]),
        ({"country": "DE", "postal_code": "keine"}, "zp", None),
        ({"country": "DE"}, "country", [sha("de")]),
        ({"country": "DEU"}, "country", None),
        ({"city": None, "places": {"city": sha("x")}}, "ct", [sha("x")]),
        ({"region": None, "places": {"region": sha("x")}}, "st", [sha("x")]),
        ({"postal_code": None, "places": {"postal_code": sha("x")}}, "zp", [sha("x")]),
        ({"user_id": " Customer 7 "}, "external_id", [sha("Customer 7")]),
        ({"user_id": sha("7").upper()}, "external_id", [sha("7")]),
        ({"user_id": " "}, "external_id", None),
    ],
)
def test_each_identifier_is_written_as_pinterest_hashes_it(user, key, expected):
    assert encoded(make_event(user=user))["user_data"].get(key) == expected


@pytest.mark.parametrize(("form", "expected"), [("hash", [sha("A7")]), ("hash_lower", [sha("a7")]), ("omit", None)])
def test_external_id_takes_the_form_that_the_tag_uses(form, expected):
    assert encoded(make_event(user={"user_id": "A7"}), external_id=form)["user_data"].get("external_id") == expected


@pytest.mark.parametrize("epik", ["dj0y-Case_Kept", " with blanks "])
def test_the_click_id_is_passed_on_byte_for_byte(epik):
    assert encoded(make_event(ids={"epik": epik}))["user_data"]["click_id"] == epik


@pytest.mark.parametrize(
    ("ip", "sent"), [("2001:db8::1", "2001:db8::1"), (" 203.0.113.7 ", "203.0.113.7"), ("x", None)]
)
def test_only_a_valid_address_is_sent(ip, sent):
    assert encoded(make_event(context={"ip": ip}))["user_data"].get("client_ip_address") == sent


@pytest.mark.parametrize(
    ("user", "context", "enough"),
    [
        ({"email": {"plain": ADA}}, {"ip": None, "user_agent": None}, True),
        ({"email": None}, {}, True),
        ({"email": None}, {"ip": None}, False),
        ({"email": None}, {"ip": "not an address"}, False),
        ({"email": None}, {"user_agent": None}, False),
        ({"email": None}, {"user_agent": " "}, False),
    ],
)
def test_a_person_is_known_by_e_mail_or_by_address_and_user_agent(user, context, enough):
    result = encode(make_sink(), make_event(user=user, context=context))

    assert isinstance(result, Payload) is enough
    if isinstance(result, Skip):
        assert result.reason == "neither an e-mail address nor IP address and user agent together"


def test_pinterests_own_crawler_buys_nothing():
    event = make_event(context={"user_agent": "Mozilla/5.0 (compatible; Pinterestbot/1.0)"})

    assert skipped(event) == "a visit of Pinterest's own crawler"


# action_source


@pytest.mark.parametrize(
    ("source", "action_source"), [("pixel", "web"), ("server", "web"), ("offline", "offline"), ("crm", "offline")]
)
def test_the_source_says_where_it_happened(source, action_source):
    assert encoded(make_event(source=source))["action_source"] == action_source


def test_an_apps_event_is_sent_only_when_the_settings_say_which_system():
    event = make_event(source="app")

    assert skipped(event) == "an app's event, and the setting action_source does not say app_ios or app_android"
    body = encoded(event, action_source={"app": "app_android"}, app_id="com.example.shop")
    assert (body["action_source"], body["app_id"]) == ("app_android", "com.example.shop")


def test_only_events_of_the_web_have_a_page():
    assert "event_source_url" in encoded(make_event())
    assert "event_source_url" not in encoded(make_event(source="offline"))
    assert "event_source_url" not in encoded(make_event(context={"url": "/thanks"}))
    assert "app_id" not in encoded(make_event(), app_id="429047995")


def test_offline_events_cannot_be_recognised_again():
    assert payload(make_event()).dedup_window is None
    assert payload(make_event(source="offline")).dedup_window == 0


@pytest.mark.parametrize(
    ("language", "sent"),
    [("de", "de"), ("EN-us", "en"), ("pt_BR", "pt"), ("fil", None), ("*", None), ("", None), ("e", None)],
)
def test_the_language_is_two_letters_or_nothing(language, sent):
    assert encoded(make_event(context={"language": language})).get("language") == sent


# custom_data


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (59.98, "59.98"),
        (60.0, "60"),
        (60, "60"),
        (0, "0"),
        (-0.0, "0"),
        (-5.5, "-5.5"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e15, "1000000000000000"),
        (1e-7, "0.0000001"),
    ],
)
def test_amounts_are_texts_without_an_exponent(number, text):
    assert decimal_text(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_an_amount_as_text_is_the_same_number(number):
    assert float(decimal_text(number)) == number


@pytest.mark.parametrize("commerce", [{"currency": None}, {"currency": "Euro"}, {"value": None}])
def test_a_value_and_its_currency_are_sent_together_or_not_at_all(commerce):
    custom_data = encoded(make_event(commerce=commerce))["custom_data"]

    assert not {"value", "currency"} & custom_data.keys()
    assert custom_data["order_id"] == "1001"


@pytest.mark.parametrize(
    ("items", "content_id", "expected"),
    [
        ([{"item_name": "no id"}], "item_id", None),
        ([{"item_id": " "}], "item_id", None),
        ([{"item_id": "A"}], "item_id", [{"id": "A", "quantity": 1}]),
        ([{"item_id": "A", "quantity": 0}], "item_id", None),
        (
            [{"item_id": "A", "variant": "A-red", "price": 0}],
            "variant",
            [{"id": "A-red", "quantity": 1, "item_price": "0"}],
        ),
        ([{"item_id": "A"}], "variant", None),
        ([{"item_id": "A", "brand": "", "category": " "}], "item_id", [{"id": "A", "quantity": 1}]),
    ],
)
def test_only_items_with_their_catalogue_id_are_sent(items, content_id, expected):
    custom_data = encoded(make_event(commerce={"items": items}), content_id=content_id)["custom_data"]

    assert custom_data.get("contents") == expected
    assert ("content_ids" in custom_data) == ("num_items" in custom_data) == (expected is not None)


def test_ids_name_each_product_once_and_the_number_counts_pieces():
    items = [{"item_id": "A", "quantity": 2}, {"item_id": "B"}, {"item_id": "A"}]
    custom_data = encoded(make_event(commerce={"items": items}))["custom_data"]

    assert custom_data["content_ids"] == ["A", "B"]
    assert custom_data["num_items"] == 4


@pytest.mark.parametrize(
    ("items", "brand", "category"),
    [
        ([{"brand": "Acme", "category": "Hats"}, {"brand": "Acme", "category": "Hats"}], "Acme", "Hats"),
        ([{"brand": "Acme", "category": "Hats"}, {"brand": "Emca", "category": "Hats"}], None, "Hats"),
        ([{"brand": "Acme"}, {"category": "Hats"}], None, None),
    ],
)
def test_brand_and_category_are_those_that_all_items_share(items, brand, category):
    items = [{"item_id": "A"} | item for item in items]
    custom_data = encoded(make_event(commerce={"items": items}))["custom_data"]

    assert (custom_data.get("content_brand"), custom_data.get("content_category")) == (brand, category)


def test_a_list_of_items_names_its_category():
    event = make_event(event_name="view_item_list", commerce={"list_name": "Summer", "items": None})

    assert encoded(event)["custom_data"]["content_category"] == "Summer"
    assert "content_category" not in encoded(make_event(commerce={"list_name": "Summer", "items": None}))["custom_data"]


def test_a_search_tells_its_words():
    event = make_event(event_name="search", commerce={"search_term": "shirts"})

    assert encoded(event)["custom_data"]["search_string"] == "shirts"


# privacy


def test_without_ad_personalization_a_person_has_opted_out():
    assert encoded(make_event(consent={"ad_personalization": "denied"}))["opt_out"] is True
    assert "opt_out" not in encoded(make_event())
    assert "opt_out" not in encoded(make_event(consent={"ad_personalization": None}))


def test_limited_data_processing_is_said_in_custom_data_also_when_nothing_else_is_there():
    event = make_event(event_name="page_view", commerce=None)

    assert "custom_data" not in encoded(event)
    assert encoded(event, limited_data_processing=True)["custom_data"] == {"opt_out_type": "LDP"}


def test_who_opted_out_is_marked_without_the_setting():
    assert encoded(make_event(consent={"limited": True}))["custom_data"]["opt_out_type"] == "LDP"


def test_a_partner_names_itself():
    assert encoded(make_event(), partner_name="ss-capistream")["partner_name"] == "ss-capistream"
    assert "partner_name" not in encoded(make_event())


# settings and limits


@pytest.mark.parametrize(
    "wrong",
    [
        {"ad_account_id": "abc"},
        {"ad_account_id": "1" * 19},
        {"access_token": "pina_clear-text"},
        {"action_source": {"app": "app"}},
        {"action_source": {"web": "web"}},
        {"external_id": "raw"},
        {"partner_name": "capistream"},
        {"max_age_days": 0},
        {"events": {"purchase": "purchase"}},
        {"events": {"purchase": ["checkout", "Checkout"]}},
        {"map": {"custom_data.colour": "custom.colour"}},
        {"map": {"user_data.email": "custom.x"}},
        {"map": {"custom_data.contents[].title": "commerce.items[].item_name"}},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        make_sink(**wrong)


@pytest.mark.parametrize("name", sorted(EVENT_NAMES))
def test_every_documented_event_can_be_named(name):
    assert encoded(make_event(), events={"purchase": name})["event_name"] == name


def test_own_names_must_still_be_names():
    with pytest.raises(ValidationError, match="events"):
        make_sink(events={"x": "two words"}, custom_events=True)


def test_a_mapped_field_lands_where_the_schema_has_it():
    fields = {
        "custom_data.predicted_ltv": "custom.ltv",
        "custom_data.contents[].id": "commerce.items[].variant",
        "user_data.hashed_maids[]": "custom.maid",
    }
    event = make_event(custom={"ltv": "2794.82", "maid": sha("maid")})
    sink = make_sink(map=fields)

    body = mapped(encoded(event), event, sink.settings.map)

    SCHEMA.validate({"data": [body]})
    assert body["custom_data"]["predicted_ltv"] == "2794.82"
    assert body["custom_data"]["contents"][0]["id"] == "red"
    assert body["user_data"]["hashed_maids"] == [sha("maid")]


def test_the_fields_for_map_are_those_of_the_schema():
    def paths(schema: Any, prefix: str = "") -> set[str]:
        found = set()
        for name, inner in schema["properties"].items():
            if inner.get("type") == "object":
                found |= paths(inner, f"{prefix}{name}.")
            else:
                found.add(f"{prefix}{name}")
                if inner.get("items", {}).get("type") == "object":
                    found |= paths(inner["items"], f"{prefix}{name}[].")
        return found

    assert {path for path in FIELDS if not path.startswith(("app_info", "device_info"))} == paths(_EVENT)


def test_limits_are_pinterests():
    limits = make_sink().limits

    assert (limits.events, limits.bytes, limits.dedup_window) == (1000, 1_000_000, 3600)
    assert limits.rate == pytest.approx(83.3, abs=0.1)
    assert limits.age_limit("server") == limits.age_limit("offline") == 7 * 86400
    assert make_sink(max_age_days=28).limits.max_age == 28 * 86400


def test_a_receipt_with_three_hundred_letters_for_each_event_is_read_whole():
    events = [{"status": "failed", "error_message": "x" * 260}] * make_sink().limits.events

    assert len(orjson.dumps(receipt(*events))) < LONGEST_RECEIPT


# verdict

BATCH = [Payload("a", {}), Payload("b", {})]
DONE = {"status": "processed", "error_message": "", "warning_message": ""}


def answer(status: int, body: Any, **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def receipt(*results: Any, **more: Any) -> Json:
    processed = sum(isinstance(one, dict) and one.get("status") == "processed" for one in results)
    return {"num_events_received": len(results), "num_events_processed": processed, "events": list(results)} | more


def partial(*results: Any) -> Json:
    return {"code": 953, "message": "Not all events were processed", "details": receipt(*results)}


def failed(message: Any = "about ada@example.com") -> Json:
    return {"status": "failed", "error_message": message, "warning_message": None}


def error(code: Any) -> Json:
    return {"code": code, "message": "ada@example.com"}


def test_a_receipt_is_delivery_of_each_event():
    outcomes = make_sink().verdict(BATCH, answer(200, receipt(DONE, DONE), X_Pinterest_Rid="6085273577216466"))

    assert outcomes == [Delivered("request 6085273577216466")] * 2


def test_a_warning_is_noted_and_never_quoted():
    warned = DONE | {"warning_message": "about ada@example.com"}

    outcomes = make_sink().verdict(BATCH, answer(200, receipt(warned, DONE), X_Pinterest_Rid="ada@example.com"))

    assert outcomes == [Delivered("with a warning, see the conversions in Ads Manager"), Delivered()]


@pytest.mark.parametrize(("status", "body"), [(200, receipt(DONE, failed())), (422, partial(DONE, failed()))])
def test_some_events_fail_and_the_others_are_done(status, body):
    assert make_sink().verdict(BATCH, answer(status, body)) == [
        Delivered(),
        Rejected("Pinterest could not process it"),
    ]


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        ("The timestamp 1700000000 lies in the past", Rejected("the event's time is not taken")),
        ("event_time is too old", Rejected("the event's time is not taken")),
        ("Event time is in the future", Rejected("the event's time is not taken")),
        ("Invalid event_name: 'ada@example.com'", Rejected("the event name is not taken")),
        ("'website' is not a valid action_source", Rejected("the action source is not taken")),
        ("em is not hashed", Rejected("a personal field is not hashed")),
        ("hashed_maids or em is required", Rejected("user_data is not taken")),
        ("user_data must have em", Rejected("user_data is not taken")),
        ("'abc' is not a value for currency", Rejected("custom_data is not taken")),
        ("Something about ada@example.com", Rejected("Pinterest could not process it")),
        ("", Rejected("Pinterest could not process it")),
        (None, Rejected("Pinterest could not process it")),
        (["a list"], Rejected("Pinterest could not process it")),
        ("Internal server error, event_time", Retry("temporary trouble")),
        ("Please TRY AGAIN", Retry("temporary trouble")),
        ("The service is temporarily unavailable", Retry("temporary trouble")),
        ("Request timed out", Retry("temporary trouble")),
    ],
)
def test_why_an_event_failed_is_told_in_words_of_ours(message, outcome):
    assert make_sink().verdict(BATCH, answer(422, partial(failed(message), DONE))) == [outcome, Delivered()]


@pytest.mark.parametrize("result", [{}, {"status": "queued"}, {"status": None}, None, "processed", 7])
def test_a_result_that_is_neither_is_asked_for_again(result):
    outcomes = make_sink().verdict(BATCH, answer(200, receipt(result, DONE)))

    assert outcomes == [Retry("neither processed nor failed", unclear=True), Delivered()]


@pytest.mark.parametrize(
    "body",
    [
        receipt(DONE),
        receipt(DONE, DONE, DONE),
        receipt(),
        receipt(DONE, DONE, num_events_received=1),
        receipt(DONE, DONE, num_events_processed=1),
        receipt(DONE, DONE, num_events_processed="2"),
        receipt(DONE, DONE, events={}),
        {"num_events_received": 2, "num_events_processed": 2},
        {},
        [],
        b"",
        b"<html>Sorry</html>",
        b'{"num_events_received": 2',
        {"code": 953, "message": "", "details": None},
        {"code": 953, "message": "", "details": [DONE, DONE]},
        {"code": 953, "message": "", "details": receipt(DONE)},
    ],
)
@pytest.mark.parametrize("status", [200, 422])
def test_a_receipt_that_does_not_fit_says_nothing_of_any_event(status, body):
    code = found_code(status, body)
    unclear = status == 200 or bool(code)  # 953: some were processed
    expected = Retry(f"HTTP {status} without a receipt that fits", detail=code, unclear=unclear)

    assert make_sink().verdict(BATCH, answer(status, body)) == [expected] * 2


def found_code(status: int, body: Any) -> str:
    return "Pinterest error 953" if status == 422 and isinstance(body, dict) and body.get("code") else ""


@pytest.mark.parametrize("status", [200, 422])
def test_a_receipt_that_was_cut_off_is_got_for_fewer_events(status):
    cut = orjson.dumps(partial(*[failed("x" * 6000)] * 100))[:LONGEST_RECEIPT]

    outcomes = make_sink().verdict(BATCH, answer(status, cut))

    assert outcomes == [Rejected("the receipt is too long to be read", whole=True)] * 2


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (
            400,
            error(4196),
            Rejected("the request is malformed, or has an unknown field", whole=True, detail="Pinterest error 4196"),
        ),
        (400, error(1), Rejected("the request is not valid", whole=True, detail="Pinterest error 1")),
        (422, error(1), Rejected("the request is not valid", whole=True, detail="Pinterest error 1")),
        (413, b"", Rejected("HTTP 413: the request is too large", whole=True)),
        (401, error(2), Halt("the token is invalid or has expired", "Pinterest error 2")),
        (401, error(3), Halt("the token lacks the scope ads:write", "Pinterest error 3")),
        (403, error(29), Halt("the token may not use this ad account", "Pinterest error 29")),
        (400, error(29), Halt("the token may not use this ad account", "Pinterest error 29")),
        (401, b"", Halt("HTTP 401")),
        (403, error(9999), Halt("HTTP 403", "Pinterest error 9999")),
        (404, error(50), Halt("HTTP 404: are the endpoint and the ad account right?", "Pinterest error 50")),
        (405, b"", Halt("HTTP 405: are the endpoint and the ad account right?")),
        (429, error(8), Retry("throttled", detail="Pinterest error 8", throttled=True)),
        (400, error(8), Retry("throttled", detail="Pinterest error 8", throttled=True)),
        (429, b"<html>", Retry("throttled", throttled=True)),
        (503, error(4197), Retry("the endpoint takes no traffic", 60.0, "Pinterest error 4197")),
        (503, b"", Retry("HTTP 503")),
        (500, error(29), Retry("HTTP 500", detail="Pinterest error 29")),
        (500, error(12), Retry("HTTP 500", detail="Pinterest error 12", unclear=True)),
        (502, b"<html>", Retry("HTTP 502", unclear=True)),
        (504, b"", Retry("HTTP 504", unclear=True)),
        (400, b"<html>", Retry("HTTP 400 without a receipt that fits")),
        (400, error("4196"), Retry("HTTP 400 without a receipt that fits")),
        (408, b"", Retry("HTTP 408 without a receipt that fits")),
        (302, b"", Retry("HTTP 302 without a receipt that fits")),
        (204, receipt(DONE, DONE), Retry("HTTP 204 without a receipt that fits", unclear=True)),
        (200, error(29), Retry("HTTP 200 without a receipt that fits", unclear=True)),
        (500, receipt(DONE, DONE), Retry("HTTP 500", unclear=True)),
    ],
)
def test_status_and_code_decide_where_no_event_has_a_result(status, body, outcome):
    assert make_sink().verdict(BATCH, answer(status, body)) == [outcome] * 2


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"X_Ratelimit_Reset": "30"}, 30.0),
        ({"Retry_After": "7", "X_Ratelimit_Reset": "30"}, 7.0),
        ({"X_Ratelimit_Reset": "1795420800"}, None),
        ({"X_Ratelimit_Reset": "soon"}, None),
        ({}, None),
    ],
)
def test_a_throttled_caller_waits_as_long_as_it_is_told(headers, after):
    (outcome, _) = make_sink().verdict(BATCH, answer(429, error(8), **headers))

    assert outcome == Retry("throttled", after, "Pinterest error 8", throttled=True)


_KEYS = st.sampled_from(
    ("code", "details", "events", "status", "error_message", "num_events_received", "num_events_processed")
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(status=st.sampled_from((200, 400, 422)), body=_JSON)
def test_an_answer_of_any_shape_has_an_outcome_for_each_event(status, body):
    assert len(make_sink().verdict(BATCH, answer(status, orjson.dumps(body)))) == 2
