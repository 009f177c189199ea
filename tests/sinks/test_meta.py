"""sinks/meta.py: requests in full, what is refused before it fails a batch, and what each answer means."""

import re
from datetime import date
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from app.events import Json
from app.prepare import NO_NAME
from sinks._base import Accepted, Delivered, Halt, Payload, Rejected, Response, Retry, Skip
from sinks.meta import LDU_STATES, NAMES, Meta, Settings, matchable
from tests import factories
from tests.factories import encode, make_event, sha

SETTINGS: Json = {"sink": "meta", "dataset_id": "1234567890", "access_token": {"env": "META_TOKEN"}}

# Hashes of Meta's own examples and of ada@example.com, 15550100199
MARY = "6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec"
VALERY = "08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c"
US = "79adb2a2fce5c6ba215fe5f27f532d4e7edbac4b6a5e09e1ef3a08084a904621"
BORN = "01acdbf6ec7b4f478a225f1a246e5d6767eeab1a7ffa17f025265b5b94f40f0c"
ADA = "b5fc85e55755f9e0d030a10ab4429b6b2944855f9a0d60077fe832becbc41d72"
PHONE = "90be998a6e4b5bec4f18e14bc56a618ba6dd57100b89276067e3a77ff7140b4a"


def make_sink(**settings: Any) -> Meta:
    return Meta(Settings.model_validate(SETTINGS | settings))


def encoded(event: Any, **settings: Any) -> Json:
    return factories.payload(make_sink(**settings), event).body


def skipped(event: Any, **settings: Any) -> str:
    return factories.skipped(make_sink(**settings), event)


# encode and request


def test_a_purchase_in_full():
    sink = make_sink()
    payload = encode(sink, make_event())
    assert isinstance(payload, Payload)

    request = sink.request([payload], {"access_token": "TOKEN"})

    assert request.method == "POST"
    assert request.url == "https://graph.facebook.com/v26.0/1234567890/events"
    assert request.headers == {"Authorization": "Bearer TOKEN", "Content-Type": "application/json"}
    assert orjson.loads(request.body) == {
        "data": [
            {
                "event_name": "Purchase",
                "event_time": 1795420800,
                "event_id": "order-1001",
                "action_source": "website",
                "event_source_url": "https://shop.example.com/thanks",
                "referrer_url": "https://shop.example.com/checkout",
                "user_data": {
                    "em": [ADA],
                    "ph": [PHONE],
                    "fn": [sha("ada")],
                    "ln": [sha("lovelace")],
                    "db": [BORN],
                    "ge": [sha("f")],
                    "ct": [sha("menlopark")],
                    "st": [sha("ca")],
                    "zp": [sha("94025")],
                    "country": [US],
                    "external_id": [sha("customer-7")],
                    "client_ip_address": "203.0.113.7",
                    "client_user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
                    "fbp": "fb.1.1795420000000.1234567890",
                    "fbc": "fb.1.1795410000000.AbCdEf",
                },
                "custom_data": {
                    "value": 59.98,
                    "currency": "USD",
                    "order_id": "1001",
                    "content_type": "product",
                    "content_ids": ["SKU-1"],
                    "contents": [{"id": "SKU-1", "quantity": 2, "item_price": 29.99}],
                },
            }
        ]
    }


def test_a_page_view_of_a_stranger_in_full():
    event = make_event(event_name="page_view", source="pixel", user=None, commerce=None, ids={"fbc": None})

    assert encoded(event) == {
        "event_name": "PageView",
        "event_time": 1795420800,
        "event_id": "order-1001",
        "action_source": "website",
        "event_source_url": "https://shop.example.com/thanks",
        "referrer_url": "https://shop.example.com/checkout",
        "user_data": {
            "client_ip_address": "203.0.113.7",
            "client_user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
            "fbp": "fb.1.1795420000000.1234567890",
            "fbc": "fb.1.1795420800123.AbCdEf",
        },
    }


def test_a_batch_is_one_request():
    sink = make_sink(test_event_code="TEST123", endpoint="http://127.0.0.1:9/meta/", api_version="v25.0")
    batch = [Payload("a", {"event_id": "a"}), Payload("b", {"event_id": "b"})]

    request = sink.request(batch, {"access_token": "TOKEN"})

    assert request.url == "http://127.0.0.1:9/meta/v25.0/1234567890/events"
    assert orjson.loads(request.body) == {"data": [{"event_id": "a"}, {"event_id": "b"}]}


def test_an_event_with_the_label_test_carries_the_code_and_shares_no_request_with_others():
    sink = make_sink(test_event_code="TEST123")
    test, sale = (factories.payload(sink, make_event(labels=labels)) for labels in (["vip", "test"], ["vip"]))

    with_code, without = (sink.request([one], {"access_token": "T"}).body for one in (test, sale))

    assert orjson.loads(with_code) == orjson.loads(without) | {"test_event_code": "TEST123"}
    assert "test_event_code" not in orjson.loads(without)
    assert test.group != sale.group


def test_a_test_request_needs_a_test_code():
    batch = [Payload("a", {"event_id": "a"})]
    sink = make_sink(test_event_code="TEST123")

    request = sink.test_request(batch, {"access_token": "T"})

    assert request is not None
    assert orjson.loads(request.body) == {"data": [{"event_id": "a"}], "test_event_code": "TEST123"}
    assert make_sink().test_request(batch, {"access_token": "T"}) is None


@pytest.mark.parametrize(("canonical", "theirs"), NAMES.items())
def test_every_name_of_the_table_is_sent_under_metas_name(canonical, theirs):
    assert encoded(make_event(event_name=canonical))["event_name"] == theirs


@pytest.mark.parametrize(
    ("settings", "name", "sent"),
    [
        ({}, "refund", None),
        ({}, "my_event", None),
        ({"custom_events": True}, "my_event", "my_event"),
        ({"custom_events": True}, "", None),
        ({"events": {"my_event": "Schedule"}}, "my_event", "Schedule"),
        ({"events": {"purchase": False}}, "purchase", None),
    ],
)
def test_events_without_a_name_for_meta_are_skipped(settings, name, sent):
    result = encode(make_sink(**settings), make_event(event_name=name))

    assert result.body["event_name"] == sent if isinstance(result, Payload) else sent is None


def test_a_refund_is_skipped_with_what_to_do_about_it():
    assert skipped(make_event(event_name="refund")) == NO_NAME


@pytest.mark.parametrize("settings", [{"events": {"refund": "Refund"}}, {"custom_events": True}])
def test_a_refund_that_was_given_a_name_is_a_custom_event_of_its_order(settings):
    event = make_event(event_name="refund", event_id="refund-1", commerce={"value": 29.99, "refund_id": "r-1"})

    body = encoded(event, **settings)

    assert body["event_name"] in ("Refund", "refund")
    assert (body["event_id"], body["custom_data"]["order_id"], body["custom_data"]["value"]) == (
        "refund-1",
        "1001",
        29.99,
    )


# user_data


@pytest.mark.parametrize(
    ("user", "key", "expected"),
    [
        ({"email": {"gmail": sha("x"), "plain": ADA}}, "em", [ADA]),
        ({"email": {"gmail": sha("x"), "plain": None, "strict": None, "given": ADA}}, "em", [ADA]),
        ({"email": {"gmail": sha("x"), "plain": None}}, "em", None),
        ({"phone": {"e164": sha("x"), "digits": PHONE}}, "ph", [PHONE]),
        ({"first_name": {"plain": MARY}}, "fn", [MARY]),
        ({"last_name": {"plain": VALERY}}, "ln", [VALERY]),
        ({"birth_date": {"ymd": BORN}}, "db", [BORN]),
        ({"gender": {"letter": sha("m")}}, "ge", [sha("m")]),
        ({"gender": {"letter": sha("n")}}, "ge", None),
        ({"first_name": {"plain": sha("n")}}, "fn", [sha("n")]),
        ({"city": "Saint-Étienne 2"}, "ct", [sha("saintétienne")]),
        ({"city": "42"}, "ct", None),
        ({"country": "US", "region": "US-CA"}, "st", [sha("ca")]),
        ({"country": "US", "region": "New York"}, "st", [sha("ny")]),
        ({"country": "US", "region": "somewhere"}, "st", None),
        ({"country": "DE", "region": "Nordrhein-Westfalen"}, "st", [sha("nordrheinwestfalen")]),
        ({"country": "US", "postal_code": "94025 1234"}, "zp", [sha("94025")]),
        ({"country": "US", "postal_code": "9402"}, "zp", None),
        ({"country": "GB", "postal_code": "M1 1AE"}, "zp", [sha("m11ae")]),
        ({"country": "PL", "postal_code": "00-950"}, "zp", [sha("00950")]),
        ({"country": None, "postal_code": "10115"}, "zp", [sha("10115")]),
        ({"country": "US"}, "country", [US]),
        ({"country": "USA"}, "country", None),
        ({"city": None, "places": {"city": sha("x")}}, "ct", [sha("x")]),
        ({"region": None, "places": {"region": sha("x")}}, "st", [sha("x")]),
        ({"postal_code": None, "places": {"postal_code": sha("x")}}, "zp", [sha("x")]),
        ({"user_id": " Customer 7 "}, "external_id", [sha("customer7")]),
        ({"user_id": sha("7").upper()}, "external_id", [sha("7")]),
        ({"user_id": " "}, "external_id", None),
    ],
)
def test_each_identifier_is_written_as_meta_hashes_it(user, key, expected):
    assert encoded(make_event(user=user))["user_data"].get(key) == expected


@pytest.mark.parametrize(("form", "expected"), [("hash", [sha("a7")]), ("raw", ["A7"]), ("omit", None)])
def test_external_id_takes_the_form_that_the_pixel_uses(form, expected):
    assert encoded(make_event(user={"user_id": "A7"}), external_id=form)["user_data"].get("external_id") == expected


@pytest.mark.parametrize(
    ("ids", "fbc"),
    [
        ({"fbc": "fb.1.1.XyZ.AQ", "fbclid": "Other"}, "fb.1.1.XyZ.AQ"),
        ({"fbc": None, "fbclid": "IwAR-Case_Kept"}, "fb.1.1795420800123.IwAR-Case_Kept"),
        ({"fbc": None, "fbclid": None}, None),
    ],
)
def test_fbc_is_the_cookie_else_built_from_the_click_id(ids, fbc):
    assert encoded(make_event(ids=ids))["user_data"].get("fbc") == fbc


@pytest.mark.parametrize(
    ("fbc", "expected"),
    [
        ("fb.1.1.Old", "fb.1.1795420800123.New-1"),
        ("fb.1.1.New-1", "fb.1.1.New-1"),
        ("fb.1.1.New-1.AQ", "fb.1.1.New-1.AQ"),
    ],
)
def test_another_click_in_the_pages_address_replaces_the_cookie(fbc, expected):
    event = make_event(
        ids={"fbc": fbc, "fbclid": "New-1"}, context={"url": "https://shop.example.com/?fbclid=New-1&x=1"}
    )

    assert encoded(event)["user_data"]["fbc"] == expected


@pytest.mark.parametrize(("lead_id", "sent"), [("525645896321548", 525645896321548), ("lead-7", None), ("٣٣٣٣٣", None)])
def test_lead_id_is_an_integer_or_nothing(lead_id, sent):
    assert encoded(make_event(ids={"lead_id": lead_id}))["user_data"].get("lead_id") == sent


@pytest.mark.parametrize(
    ("ip", "sent"), [("2001:db8::1", "2001:db8::1"), (" 203.0.113.7 ", "203.0.113.7"), ("x", None)]
)
def test_only_a_valid_address_is_sent(ip, sent):
    assert encoded(make_event(context={"ip": ip}))["user_data"].get("client_ip_address") == sent


@pytest.mark.parametrize(
    ("keys", "enough"),
    [
        ((), False),
        (("client_user_agent",), False),
        (("ct", "country", "st", "zp", "ge", "client_user_agent"), False),
        (("db", "client_user_agent"), False),
        (("fn", "ge"), False),
        (("ln", "ge"), False),
        (("fn", "ln"), True),
        (("db", "ct"), True),
        (("client_ip_address", "client_user_agent"), True),
        (("em",), True),
        (("fbp",), True),
    ],
)
def test_the_combinations_that_meta_refuses_are_too_little(keys, enough):
    assert matchable(dict.fromkeys(keys, "x")) is enough


def test_a_person_who_cannot_be_matched_is_skipped():
    event = make_event(user={**dict.fromkeys(make_event()["user"]), "country": "US"}, ids=None, context={"ip": None})

    assert skipped(event) == "too little to match a person by"


# action_source


@pytest.mark.parametrize(
    ("source", "action_source"),
    [
        ("pixel", "website"),
        ("server", "website"),
        ("app", "other"),
        ("offline", "physical_store"),
        ("crm", "system_generated"),
    ],
)
def test_the_source_says_where_it_happened(source, action_source):
    assert encoded(make_event(source=source))["action_source"] == action_source


@pytest.mark.parametrize("context", [{"url": None}, {"url": "/thanks"}, {"user_agent": None}])
@pytest.mark.parametrize("without_page", ["other", "system_generated", "skip"])
def test_a_website_event_without_page_or_user_agent_is_sent_as_configured(context, without_page):
    result = encode(make_sink(without_page=without_page), make_event(context=context))

    if without_page == "skip":
        assert result == Skip("a website event without page address or user agent")
    else:
        assert isinstance(result, Payload)
        assert result.body["action_source"] == without_page


def test_a_shop_without_web_pages_can_say_so():
    sink = make_sink(action_source={"server": "phone_call", "crm": "physical_store"})
    payload = encode(sink, make_event(context={"url": None, "referrer": None}))

    assert isinstance(payload, Payload)
    assert payload.body["action_source"] == "phone_call"
    assert "event_source_url" not in payload.body


def test_what_became_of_a_lead_in_full():
    event = make_event(
        event_name="Sales Opportunity",
        event_id="lead-stage-3",
        source="crm",
        user={name: None for name in make_event()["user"] if name != "email"},
        context=None,
        ids={**dict.fromkeys(make_event()["ids"]), "lead_id": "525645896321548"},
        commerce=None,
    )

    assert encoded(event, custom_events=True, lead_event_source="HubSpot") == {
        "event_name": "Sales Opportunity",
        "event_time": 1795420800,
        "event_id": "lead-stage-3",
        "action_source": "system_generated",
        "user_data": {"em": [ADA], "lead_id": 525645896321548},
        "custom_data": {"event_source": "crm", "lead_event_source": "HubSpot"},
    }


@pytest.mark.parametrize(
    ("event", "more"),
    [
        ({"source": "crm", "ids": {"lead_id": "525645896321548"}}, {}),
        ({"source": "server", "ids": {"lead_id": "525645896321548"}}, {"lead_event_source": "HubSpot"}),
        ({"source": "crm", "ids": {"lead_id": "lead-7"}}, {"lead_event_source": "HubSpot"}),
        ({"source": "crm"}, {"lead_event_source": "HubSpot"}),
    ],
)
def test_only_a_crms_events_of_a_known_lead_are_those_of_conversion_leads(event, more):
    assert not {"event_source", "lead_event_source"} & encoded(make_event(**event), **more)["custom_data"].keys()


# custom_data


@pytest.mark.parametrize(
    ("commerce", "reason"),
    [
        ({"value": None}, "a purchase without a value and its currency"),
        ({"currency": None}, "a purchase without a value and its currency"),
        ({"currency": "Euro"}, "a purchase without a value and its currency"),
    ],
)
def test_a_purchase_needs_value_and_currency(commerce, reason):
    assert skipped(make_event(commerce=commerce)) == reason
    assert skipped(make_event(event_name="order", commerce=commerce), events={"order": "Purchase"}) == reason


def test_a_value_of_zero_is_kept():
    assert encoded(make_event(commerce={"value": 0}))["custom_data"]["value"] == 0


def test_a_value_without_currency_is_not_sent():
    custom_data = encoded(make_event(event_name="add_to_cart", commerce={"currency": None}))["custom_data"]

    assert "value" not in custom_data


@pytest.mark.parametrize(
    ("items", "content_id", "expected"),
    [
        ([{"item_name": "no id"}], "item_id", None),
        ([{"item_id": ""}], "item_id", None),
        ([{"item_id": "A"}], "item_id", [{"id": "A", "quantity": 1}]),
        ([{"item_id": "A", "quantity": 0}], "item_id", None),
        (
            [{"item_id": "A", "variant": "A-red", "price": 0}],
            "variant",
            [{"id": "A-red", "quantity": 1, "item_price": 0}],
        ),
        ([{"item_id": "A"}], "variant", None),
    ],
)
def test_only_items_with_their_catalogue_id_are_sent(items, content_id, expected):
    custom_data = encoded(make_event(commerce={"items": items}), content_id=content_id)["custom_data"]

    assert custom_data.get("contents") == expected
    assert ("content_ids" in custom_data) == ("content_type" in custom_data) == (expected is not None)


def test_content_ids_name_each_product_once():
    items = [{"item_id": "A"}, {"item_id": "B"}, {"item_id": "A"}]
    custom_data = encoded(make_event(commerce={"items": items}), content_type="product_group")["custom_data"]

    assert custom_data["content_ids"] == ["A", "B"]
    assert custom_data["content_type"] == "product_group"


def test_a_checkout_tells_the_number_of_pieces_and_a_search_its_words():
    items = [{"item_id": "A", "quantity": 2}, {"item_id": "B"}]

    checkout = encoded(make_event(event_name="begin_checkout", commerce={"items": items}))
    search = encoded(make_event(event_name="search", commerce={"search_term": "shirts"}))

    assert checkout["custom_data"]["num_items"] == 3
    assert search["custom_data"]["search_string"] == "shirts"


def test_custom_fields_are_sent_by_name_only():
    event = make_event(custom={"plan": "gold", "note": "private"})

    custom_data = encoded(event, custom_data=["plan", "absent"])["custom_data"]

    assert custom_data["plan"] == "gold"
    assert not {"note", "absent"} & custom_data.keys()


@pytest.mark.parametrize(
    "name", ["value", "currency", "contents", "content_ids", "content_type", "order_id", "search_string"]
)
def test_a_custom_field_does_not_stand_in_for_ours(name):
    with pytest.raises(ValidationError, match="`map` can fill it otherwise"):
        make_sink(custom_data=["plan", name])


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("num_items", 3, True),
        ("num_items", "3", False),
        ("predicted_ltv", 7.5, True),
        ("predicted_ltv", "7.5", False),
        ("content_name", "Shirt", True),
        ("content_name", 7, False),
        ("plan", 7, True),
        ("plan", True, True),
    ],
)
def test_a_custom_field_of_another_type_than_metas_is_left_out(name, value, sent):
    custom_data = encoded(make_event(custom={name: value}), custom_data=[name])["custom_data"]

    assert custom_data.get(name) == (value if sent else None)


# privacy


def test_without_ad_personalization_an_event_serves_attribution_only():
    assert encoded(make_event(consent={"ad_personalization": "denied"}))["opt_out"] is True
    assert "opt_out" not in encoded(make_event(consent={"ad_personalization": None}))


def test_who_opted_out_is_marked_without_the_setting():
    assert encoded(make_event(consent={"limited": True}))["data_processing_options"] == ["LDU"]


def test_limited_data_use_is_off_by_default():
    assert "data_processing_options" not in encoded(make_event())


@pytest.mark.parametrize(
    ("settings", "event", "expected"),
    [
        ({}, {}, (0, 0)),
        ({"limited_data_use_state": "TX"}, {}, (1, 1005)),
        ({"limited_data_use_state": "TX"}, {"context": {"ip": None}}, (1, 1005)),
        ({}, {"context": {"ip": None}}, (1, 1000)),
        ({}, {"context": {"ip": None}, "user": {"region": "New Jersey"}}, (1, 1010)),
        ({}, {"context": {"ip": None}, "user": {"region": "NY"}}, None),
        ({}, {"context": {"ip": None}, "user": {"country": "MX"}}, None),
    ],
)
def test_limited_data_use_is_located_by_setting_then_address_then_region(settings, event, expected):
    result = encode(make_sink(limited_data_use=True, **settings), make_event(**event))

    if expected is None:
        assert result == Skip("limited data use needs an IP address or a state")
    else:
        assert isinstance(result, Payload)
        assert result.body["data_processing_options"] == ["LDU"]
        country, state = expected
        assert result.body["data_processing_options_country"] == country
        assert result.body["data_processing_options_state"] == state


def test_every_state_of_the_setting_has_its_number():
    for state in LDU_STATES:
        assert make_sink(limited_data_use_state=state).settings.limited_data_use_state == state


# settings and limits


@pytest.mark.parametrize(
    "wrong",
    [
        {"dataset_id": "abc"},
        {"api_version": "26"},
        {"access_token": "EAAB-clear-text"},
        {"action_source": {"app": "app"}},
        {"action_source": {"web": "website"}},
        {"limited_data_use_state": "NY"},
        {"external_id": "md5"},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        make_sink(**wrong)


def test_limits_are_metas():
    limits = make_sink().limits

    assert (limits.events, limits.bytes, limits.dedup_window) == (1000, 1_000_000, 48 * 3600)
    assert limits.age_limit("server") == 7 * 86400
    assert limits.age_limit("offline") == 62 * 86400
    assert make_sink(action_source={"crm": "physical_store"}).limits.age_limit("crm") == 62 * 86400
    assert make_sink(action_source={"offline": "other"}).limits.age_limit("offline") == 7 * 86400


def test_the_end_of_an_api_version_is_known_where_it_is():
    assert make_sink(api_version="v24.0").limits.sunset == date(2026, 10, 6)
    assert make_sink().limits.sunset is None


# verdict

BATCH = [Payload("a", {}), Payload("b", {})]


def answer(status: int, body: Any, **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def error(code: Any, subcode: Any = None, **more: Any) -> Json:
    inner = {"message": "ada@example.com", "type": "OAuthException", "code": code, "fbtrace_id": "AbC-1", **more}
    return {"error": inner | ({"error_subcode": subcode} if subcode is not None else {})}


def test_a_receipt_is_delivery_with_its_trace():
    response = answer(200, {"events_received": 2, "messages": [], "fbtrace_id": "AbC-1"})

    assert make_sink().verdict(BATCH, response) == [Delivered("fbtrace_id AbC-1")] * 2


def test_warnings_are_counted_and_never_quoted():
    response = answer(
        200,
        {"events_received": 2, "messages": ["about ada@example.com"], "fbtrace_id": "ada@example.com"},
        X_Ad_Api_Version_Warning="v26.0 ends",
    )

    assert (
        make_sink().verdict(BATCH, response)
        == [Delivered("warnings: 1, see Events Manager; this API version ends soon")] * 2
    )


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"events_received": 1}, Rejected("Meta counted fewer events", whole=True, detail="1 of 2")),
        ({"events_received": 0}, Rejected("Meta counted fewer events", whole=True, detail="0 of 2")),
        ({"events_received": True}, Retry("HTTP 200 without a receipt", unclear=True)),
        ({"events_received": "2"}, Retry("HTTP 200 without a receipt", unclear=True)),
        ({}, Retry("HTTP 200 without a receipt", unclear=True)),
        ([], Retry("HTTP 200 without a receipt", unclear=True)),
        (b"", Retry("HTTP 200 without a receipt", unclear=True)),
        (b"<html>Sorry, something went wrong</html>", Retry("HTTP 200 without a receipt", unclear=True)),
        (b'{"events_received": 2', Retry("HTTP 200 without a receipt", unclear=True)),
        (
            error(100, 2804050),
            Rejected("too little to match a person by", whole=True, detail="Meta error 100/2804050, fbtrace_id AbC-1"),
        ),
    ],
)
def test_a_200_is_read_before_it_is_believed(body, outcome):
    assert make_sink().verdict(BATCH, answer(200, body)) == [outcome] * 2


@pytest.mark.parametrize(
    ("status", "body", "headers", "after"),
    [
        (500, b"", {}, None),
        (503, b"<html>", {"Retry_After": "30"}, 30.0),
        (500, error(100, 2804050), {}, None),
        (502, b'{"err', {"Retry_After": "soon"}, None),
        (429, error(4), {"Retry_After": "7"}, 7.0),
        (404, b"<html>", {}, None),
        (302, b"", {}, None),
        (400, {"error": "text"}, {}, None),
    ],
)
def test_trouble_on_the_way_is_tried_again(status, body, headers, after):
    outcomes = make_sink().verdict(BATCH, answer(status, body, **headers))

    assert [type(outcome) for outcome in outcomes] == [Retry, Retry]
    assert [outcome.after for outcome in outcomes if isinstance(outcome, Retry)] == [after, after]


THROTTLED = [4, 17, 32, 341, 368, 613, 80000, 80003, 80004, 80014]


@pytest.mark.parametrize(
    ("status", "code", "subcode", "more", "expected"),
    [
        *((400, code, None, {}, Retry) for code in (1, 2, 5000, 21009, -3, 99999, None, "100", *THROTTLED)),
        (400, 4, 1504022, {}, Retry),
        (400, 17, 2446079, {}, Retry),
        (400, 613, 5044001, {}, Retry),
        (400, 100, 2804003, {"is_transient": True}, Retry),
        (400, 190, 463, {}, Halt),
        *((400, code, None, {}, Halt) for code in (3, 10, 102, 104, 190, 200, 250, 299, 803, 2635)),
        (401, 190, 460, {}, Halt),
        (401, 99999, None, {}, Halt),
        (403, 99999, None, {}, Halt),
        (400, 100, 33, {}, Halt),
        *(
            (400, 100, subcode, {}, Rejected)
            for subcode in (2804003, 2804004, 2804008, 2804009, 2804016, 2804023, 2804043, 2804050)
        ),
        *((400, 100, subcode, {}, Rejected) for subcode in (2804001, 2804007, 2804017, 2804019, 2804048, 1, None)),
    ],
)
def test_the_code_decides(status, code, subcode, more, expected):
    outcomes = make_sink().verdict(BATCH, answer(status, error(code, subcode, **more)))

    assert [type(outcome) for outcome in outcomes] == [expected, expected]
    assert all(not isinstance(outcome, Rejected) or outcome.whole for outcome in outcomes)


@pytest.mark.parametrize(
    ("status", "body", "unclear"),
    [
        (500, b"", True),
        (502, b"<html>", True),
        (504, {}, True),
        (520, b"<html>", True),
        (503, b"<html>", False),
        (503, error(2), False),
        (500, error(1), True),
        (500, error(2), True),
        (500, error("2"), True),
        (500, error(99999), True),
        (500, error(4), False),
        (500, error(100, 2804003), False),
        (500, error(190), False),
        (200, error(2), True),
        (400, error(2), False),
        (400, error(99999), False),
        (404, b"<html>", False),
        (302, b"", False),
        (429, b"", False),
    ],
)
def test_whether_meta_took_the_events_is_left_open_only_where_nothing_says_it(status, body, unclear):
    for outcome in make_sink().verdict(BATCH, answer(status, body)):
        assert isinstance(outcome, Retry)
        assert outcome.unclear is unclear


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        (error(190, 463), "the token is invalid or has expired", "Meta error 190/463, fbtrace_id AbC-1"),
        (error(100, 2804003), "the event is too old", "Meta error 100/2804003, fbtrace_id AbC-1"),
        (error(100), "a parameter is invalid", "Meta error 100, fbtrace_id AbC-1"),
        (error(80004, fbtrace_id="<b>"), "throttled", "Meta error 80004"),
    ],
)
def test_reasons_are_words_of_ours_and_details_codes(body, reason, detail):
    (outcome, _) = make_sink().verdict(BATCH, answer(400, body))

    assert not isinstance(outcome, Delivered | Accepted)
    assert (outcome.reason, outcome.detail) == (reason, detail)


@pytest.mark.parametrize("code", THROTTLED)
def test_throttling_is_told_from_trouble(code):
    (outcome, _) = make_sink().verdict(BATCH, answer(400, error(code)))

    assert outcome == Retry("throttled", detail=f"Meta error {code}, fbtrace_id AbC-1", throttled=True)


@pytest.mark.parametrize(
    ("usage", "after"),
    [
        ('{"1": [{"call_count": 100, "estimated_time_to_regain_access": 3}]}', 180.0),
        ('{"1": [{"estimated_time_to_regain_access": 1}], "2": [{"estimated_time_to_regain_access": 5}]}', 300.0),
        ('{"1": [{"estimated_time_to_regain_access": 0}]}', None),
        ('{"1": [7], "2": {}, "3": [{"estimated_time_to_regain_access": "soon"}]}', None),
        ("[]", None),
        ("not json", None),
    ],
)
def test_a_throttled_caller_waits_as_long_as_the_usage_header_says(usage, after):
    response = answer(400, error(80004), X_Business_Use_Case_Usage=usage)

    expected = Retry("throttled", after, "Meta error 80004, fbtrace_id AbC-1", throttled=True)
    assert make_sink().verdict(BATCH, response)[0] == expected


@pytest.mark.parametrize(
    ("headers", "used"),
    [
        ({}, 0.0),
        ({"X_App_Usage": '{"call_count": 28, "total_time": 31, "total_cputime": 25}'}, 0.31),
        (
            {"X_Business_Use_Case_Usage": '{"1": [{"type": "ads_management", "call_count": 95, "total_time": 20}]}'},
            0.95,
        ),
        (
            {"X_Business_Use_Case_Usage": '{"1": [{"call_count": 5}, {"total_cputime": 7}], "2": [{"total_time": 9}]}'},
            0.09,
        ),
        ({"X_App_Usage": '{"call_count": 50}', "X_Business_Use_Case_Usage": '{"1": [{"call_count": 60.5}]}'}, 0.605),
        ({"X_App_Usage": '{"call_count": 250}'}, 1.0),
        ({"X_Ad_Account_Usage": '{"acc_id_util_pct": 9.67}'}, 0.0967),
        ({"X_App_Usage": '{"call_count": -1, "total_time": true, "total_cputime": "80"}'}, 0.0),
        ({"X_App_Usage": "[80]", "X_Business_Use_Case_Usage": '{"1": [80], "2": {"call_count": 80}}'}, 0.0),
        ({"X_App_Usage": "not json"}, 0.0),
        ({"X_Business_Use_Case_Usage": '{"1": [{"estimated_time_to_regain_access": 90}]}'}, 0.0),
    ],
)
def test_usage_is_the_highest_percentage_of_the_headers(headers, used):
    assert make_sink().usage(answer(200, {}, **headers)) == pytest.approx(used)


def test_a_request_that_is_too_large_is_split():
    assert (
        make_sink().verdict(BATCH, answer(413, b"")) == [Rejected("HTTP 413: the request is too large", whole=True)] * 2
    )


def test_the_docstring_names_the_version_that_is_the_default():
    import sinks.meta

    assert re.findall(r"v\d+\.\d+", sinks.meta.__doc__ or "") == [make_sink().settings.api_version]
