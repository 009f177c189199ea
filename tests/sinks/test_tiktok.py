"""sinks/tiktok.py: requests in full, what is refused before it fails a batch, and what each answer means."""

from typing import Any

import hypothesis
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.events import Json
from app.identity import hashes, redact
from app.sandbox import tiktok as emulator
from app.sandbox._base import Ruling
from sinks._base import Accepted, Delivered, Halt, Outcome, Payload, Rejected, Request, Response, Retry, Skip
from sinks.tiktok import NAMES, RESERVED, Settings, TikTok, matchable
from tests import factories
from tests.factories import encode, events, make_event, sha

SETTINGS: Json = {"sink": "tiktok", "pixel_code": "PIXELCODE", "access_token": {"env": "TIKTOK_TOKEN"}}
SETS = {"offline_event_set_id": "7000000000000000001", "crm_event_set_id": "7000000000000000002"}
SECRETS = {"access_token": "TOKEN"}
NOBODY: Json = {"user": None, "ids": None, "context": {"ip": None}}

# Hashes of ada@example.com and +15550100199
ADA = "b5fc85e55755f9e0d030a10ab4429b6b2944855f9a0d60077fe832becbc41d72"
PHONE = "82fea6c5f54083ef6e2302f364430f7ca4e0daa597c74c81d61db3aa7bef6436"


def make_sink(**settings: Any) -> TikTok:
    return TikTok(Settings.model_validate(SETTINGS | settings))


def payload_of(event: Any, **settings: Any) -> Payload:
    return factories.payload(make_sink(**settings), event)


def encoded(event: Any, **settings: Any) -> Json:
    return payload_of(event, **settings).body


def skipped(event: Any, **settings: Any) -> str:
    return factories.skipped(make_sink(**settings), event)


# encode and request


def test_a_purchase_in_full():
    sink = make_sink()
    payload = encode(sink, make_event())
    assert isinstance(payload, Payload), payload

    request = sink.request([payload], SECRETS)

    assert request.method == "POST"
    assert request.url == "https://business-api.tiktok.com/open_api/v1.3/event/track/"
    assert request.headers == {"Access-Token": "TOKEN", "Content-Type": "application/json"}
    assert orjson.loads(request.body) == {
        "event_source": "web",
        "event_source_id": "PIXELCODE",
        "data": [
            {
                "event": "Purchase",
                "event_time": 1795420800,
                "event_id": "order-1001",
                "user": {
                    "email": ADA,
                    "phone": PHONE,
                    "external_id": sha("customer-7"),
                    "ttclid": "E.C.P.ttclid",
                    "ttp": "2J3K-ttp",
                    "ip": "203.0.113.7",
                    "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
                    "locale": "en-US",
                },
                "page": {
                    "url": "https://shop.example.com/thanks",
                    "referrer": "https://shop.example.com/checkout",
                },
                "properties": {
                    "value": 59.98,
                    "currency": "USD",
                    "order_id": "1001",
                    "contents": [
                        {
                            "content_id": "SKU-1",
                            "content_type": "product",
                            "content_name": "Shirt",
                            "content_category": "Clothing",
                            "brand": "Acme",
                            "quantity": 2,
                            "price": 29.99,
                        }
                    ],
                },
            }
        ],
    }


def test_a_purchase_of_which_little_is_known_in_full():
    event = make_event(
        user={name: None for name in make_event()["user"] if name not in ("email", "phone")},
        ids={"ttclid": "E.C.P.opaque", "ttp": "opaque-ttp"},
        context={"referrer": None, "language": None},
        commerce={"items": [{"item_id": "SKU-1", "quantity": 2, "price": 29.99}]},
    )

    request = make_sink().request([payload_of(event)], SECRETS)

    assert orjson.loads(request.body) == {
        "event_source": "web",
        "event_source_id": "PIXELCODE",
        "data": [
            {
                "event": "Purchase",
                "event_time": 1795420800,
                "event_id": "order-1001",
                "user": {
                    "email": ADA,
                    "phone": PHONE,
                    "ttclid": "E.C.P.opaque",
                    "ttp": "opaque-ttp",
                    "ip": "203.0.113.7",
                    "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
                },
                "page": {"url": "https://shop.example.com/thanks"},
                "properties": {
                    "value": 59.98,
                    "currency": "USD",
                    "order_id": "1001",
                    "contents": [{"content_id": "SKU-1", "content_type": "product", "quantity": 2, "price": 29.99}],
                },
            }
        ],
    }


def test_a_crm_lead_in_full():
    event = make_event(
        event_name="generate_lead",
        source="crm",
        user={"email": None, "phone": None, "user_id": None},
        ids={"ttclid": None, "ttp": None, "lead_id": "7123456789012345678"},
        context=None,
        commerce=None,
    )

    settings = {**SETS, "lead_event_source": "HubSpot"}

    request = make_sink(**settings).request([payload_of(event, **settings)], SECRETS)

    assert orjson.loads(request.body) == {
        "event_source": "crm",
        "event_source_id": "7000000000000000002",
        "data": [
            {
                "event": "Lead",
                "event_time": 1795420800,
                "event_id": "order-1001",
                "user": {},
                "lead": {"lead_id": "7123456789012345678", "lead_event_source": "HubSpot"},
            }
        ],
    }


def test_a_batch_is_one_request():
    sink = make_sink(endpoint="http://127.0.0.1:9/tiktok/")
    batch = [Payload(event_id, {"event_id": event_id}, ("web", "PIXELCODE")) for event_id in "ab"]

    request = sink.request(batch, SECRETS)

    assert request.url == "http://127.0.0.1:9/tiktok/open_api/v1.3/event/track/"
    assert orjson.loads(request.body)["data"] == [{"event_id": "a"}, {"event_id": "b"}]


def test_an_event_with_the_label_test_carries_the_code_and_shares_no_request_with_others():
    sink = make_sink(test_event_code="TEST123")
    test, sale = (factories.payload(sink, make_event(labels=labels)) for labels in (["vip", "test"], ["vip"]))

    with_code, without = (sink.request([one], SECRETS).body for one in (test, sale))

    assert orjson.loads(with_code) == orjson.loads(without) | {"test_event_code": "TEST123"}
    assert "test_event_code" not in orjson.loads(without)
    assert test.group != sale.group


def test_a_trial_carries_the_code_whatever_its_labels():
    sink = make_sink(test_event_code="TEST123")
    batch = [payload_of(make_event())]

    live, test = sink.request(batch, SECRETS), sink.test_request(batch, SECRETS)

    assert isinstance(test, Request)
    assert orjson.loads(test.body) == orjson.loads(live.body) | {"test_event_code": "TEST123"}
    assert (test.url, test.headers) == (live.url, live.headers)
    assert "test_event_code" not in orjson.loads(live.body)


def test_without_a_test_code_there_is_no_test_mode():
    assert make_sink().test_request([payload_of(make_event())], SECRETS) is None


# event


@pytest.mark.parametrize(("canonical", "theirs"), NAMES.items())
def test_every_name_of_the_table_is_sent_under_tiktoks_name(canonical, theirs):
    assert encoded(make_event(event_name=canonical))["event"] == theirs
    assert theirs in emulator.STANDARD_EVENTS


@pytest.mark.parametrize(
    ("settings", "name", "sent"),
    [
        ({}, "page_view", None),
        ({"events": {"page_view": "Pageview"}}, "page_view", "Pageview"),
        ({"events": {"page_view": "PageView"}}, "page_view", "PageView"),
        ({"events": {"purchase": "CompletePayment"}}, "purchase", "CompletePayment"),
        ({"events": {"purchase": False}}, "purchase", None),
        ({}, "refund", None),
        ({}, "my_event", None),
        ({"custom_events": True}, "my_event", "my_event"),
        ({"custom_events": True}, "my-event-2", "my-event-2"),
        ({"custom_events": True}, "x" * 50, "x" * 50),
        ({"custom_events": True}, "x" * 51, None),
        ({"custom_events": True}, "2nd_event", None),
        ({"custom_events": True}, "my event", None),
        ({"custom_events": True}, "événement", None),
    ],
)
def test_events_without_a_name_for_tiktok_are_skipped(settings, name, sent):
    result = encode(make_sink(**settings), make_event(event_name=name))

    assert result.body["event"] == sent if isinstance(result, Payload) else sent is None


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_custom_event_never_becomes_a_standard_one_unasked(name):
    event = make_event(event_name=name)

    assert "standard event" in skipped(event, custom_events=True)
    assert encoded(event, events={name: name})["event"] == name


@pytest.mark.parametrize("event_id", ["", " "])
def test_an_event_that_tiktok_could_not_recognise_again_is_skipped(event_id):
    assert skipped(make_event(event_id=event_id)) == "no event id"


# event_source


@pytest.mark.parametrize(
    ("source", "group"),
    [
        ("pixel", ("web", "PIXELCODE")),
        ("server", ("web", "PIXELCODE")),
        ("offline", ("offline", "7000000000000000001")),
        ("crm", ("crm", "7000000000000000002")),
    ],
)
def test_the_source_says_where_it_happened_and_keeps_requests_apart(source, group):
    payload = payload_of(make_event(source=source), **SETS)

    assert payload.group == group
    body = orjson.loads(make_sink(**SETS).request([payload], SECRETS).body)
    assert (body["event_source"], body["event_source_id"]) == group


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("offline", "offline events need the setting offline_event_set_id"),
        ("crm", "crm events need the setting crm_event_set_id"),
        ("app", "an app event; `event_source` can say what it is"),
    ],
)
def test_what_has_no_place_at_tiktok_is_skipped(source, reason):
    assert skipped(make_event(source=source)) == reason


def test_a_shop_can_say_what_its_sources_are():
    settings = {**SETS, "event_source": {"app": "web", "server": "offline"}}

    assert payload_of(make_event(source="app"), **settings).group[0] == "web"
    assert payload_of(make_event(source="server"), **settings).group[0] == "offline"
    assert payload_of(make_event(source="pixel"), **settings).group[0] == "web"


@pytest.mark.parametrize(("source", "window"), [("server", None), ("offline", 0), ("crm", 0)])
def test_only_a_pixel_is_known_to_recognise_repetitions(source, window):
    assert payload_of(make_event(source=source), **SETS).dedup_window == window


# page


@pytest.mark.parametrize(
    ("context", "page"),
    [
        ({"url": "http://shop.example:8080/?q=1#top", "referrer": None}, {"url": "http://shop.example:8080/?q=1#top"}),
        ({"url": "HTTPS://SHOP.EXAMPLE/ABC", "referrer": "/cart"}, {"url": "HTTPS://SHOP.EXAMPLE/ABC"}),
        ({"url": "https://shop.example", "referrer": "android-app://x"}, {"url": "https://shop.example"}),
        ({"url": "/thanks", "referrer": None}, None),
        ({"url": "https://", "referrer": None}, None),
        ({"url": "https://:80/", "referrer": None}, None),
        ({"url": "https://[shop", "referrer": None}, None),
        ({"url": "https://shop.example/a b", "referrer": None}, None),
        ({"url": None, "referrer": "https://shop.example/"}, None),
    ],
)
def test_a_web_event_needs_a_whole_page_address(context, page):
    result = encode(make_sink(), make_event(context=context))

    if page is None:
        assert result == Skip("a web event without page address")
    else:
        assert isinstance(result, Payload)
        assert result.body["page"] == page


def test_a_page_address_can_stand_in_for_one_that_is_missing():
    settings = {"page_url": "https://shop.example/"}

    assert encoded(make_event(context={"url": None}), **settings)["page"]["url"] == "https://shop.example/"
    assert encoded(make_event(), **settings)["page"]["url"] == "https://shop.example.com/thanks"


@pytest.mark.parametrize("source", ["offline", "crm"])
def test_only_the_web_has_pages(source):
    assert "page" not in encoded(make_event(source=source), **SETS, page_url="https://shop.example/")


def test_a_long_address_and_click_id_stay_whole():
    url, ttclid = "https://shop.example/?x=" + "Y" * 3000, "E.C.P." + "aB-" * 300

    body = encoded(make_event(context={"url": url}, ids={"ttclid": ttclid}))

    assert (body["page"]["url"], body["user"]["ttclid"]) == (url, ttclid)


# user


@pytest.mark.parametrize(
    ("field", "clear", "digest"),
    [
        ("email", " Alice_ABC@Gmail.com ", "848a771458438fc2ec420560d769fb9b9b86851ee338ec56517baabd79d3bb4f"),
        ("phone", "+1 (213) 373-4253", "9f7ec22d72092cd3c0b58726ed9c2d91b92e51a3f29837508fb2948bb22dd2fd"),
    ],
)
def test_email_and_phone_are_hashed_as_in_tiktoks_own_examples(field, clear, digest):
    known: Json = {**make_event()["user"]}
    user = {field: {**dict.fromkeys(known[field]), **hashes(field, clear, None)}}

    assert encoded(make_event(user=user))["user"][field] == digest


@pytest.mark.parametrize(
    ("user", "key", "expected"),
    [
        ({"email": {"plain": ADA, "gmail": sha("x"), "strict": sha("y")}}, "email", ADA),
        ({"email": {"plain": None, "gmail": sha("x"), "strict": None, "given": ADA}}, "email", ADA),
        ({"email": {"plain": None, "gmail": sha("x")}}, "email", None),
        ({"email": {"plain": None, "given": sha("")}}, "email", None),
        ({"phone": {"e164": PHONE, "digits": sha("x")}}, "phone", PHONE),
        ({"phone": {"e164": None, "digits": sha("x")}}, "phone", None),
        ({"user_id": "user_123"}, "external_id", "80fba0ae1c48e3978e43e4efc365e14e12ea0c830ba8ba5b9a2dafc7e3f2ab8b"),
        ({"user_id": " User 123 "}, "external_id", sha("User 123")),
        ({"user_id": sha("7").upper()}, "external_id", sha("7")),
        ({"user_id": sha("7") + ".AQ"}, "external_id", sha("7")),
        ({"user_id": sha("")}, "external_id", None),
        ({"user_id": " "}, "external_id", None),
    ],
)
def test_each_identifier_is_written_as_tiktok_hashes_it(user, key, expected):
    assert encoded(make_event(user=user))["user"].get(key) == expected


@pytest.mark.parametrize(
    ("form", "expected"), [("hash", sha("Customer A7")), ("hash_lower", sha("customer a7")), ("omit", None)]
)
def test_external_id_takes_the_form_that_the_pixel_uses(form, expected):
    event = make_event(user={"user_id": " Customer A7 "})

    assert encoded(event, external_id=form)["user"].get("external_id") == expected


@pytest.mark.parametrize(
    ("ttclid", "sent"),
    [
        ("E.C.P.AbC-_123", "E.C.P.AbC-_123"),
        ("E.C.P.AbC%3D%2B", "E.C.P.AbC=+"),
        ("E.C.P.AbC%253D", "E.C.P.AbC%3D"),
        (" ", None),
    ],
)
def test_a_click_id_is_decoded_once_and_otherwise_as_it_came(ttclid, sent):
    assert encoded(make_event(ids={"ttclid": ttclid}))["user"].get("ttclid") == sent


@pytest.mark.parametrize(
    ("context", "key", "sent"),
    [
        ({"ip": " 203.0.113.7 "}, "ip", "203.0.113.7"),
        ({"ip": "2001:db8::1"}, "ip", "2001:db8::1"),
        ({"ip": "x"}, "ip", None),
        ({"language": "de"}, "locale", "de"),
        ({"language": "zh-Hant-TW"}, "locale", "zh-Hant-TW"),
        ({"language": "en-US,en;q=0.9"}, "locale", None),
        ({"user_agent": ""}, "user_agent", None),
    ],
)
def test_what_goes_in_clear_is_well_formed_or_left_out(context, key, sent):
    assert encoded(make_event(context=context))["user"].get(key) == sent


ALL_FIELDS = ["first_name", "last_name", "zip_code", "city", "state", "country"]


def test_fields_that_the_reference_does_not_list_are_off_by_default():
    assert not set(ALL_FIELDS) & set(encoded(make_event())["user"])


def test_each_of_these_fields_can_be_turned_on():
    user = encoded(make_event(), user_fields=ALL_FIELDS)["user"]

    assert {name: user[name] for name in ALL_FIELDS} == {
        "first_name": sha("ada"),
        "last_name": sha("lovelace"),
        "zip_code": sha("940251234"),
        "city": "menlopark",
        "state": "ca",
        "country": "us",
    }
    assert set(ALL_FIELDS) & set(encoded(make_event(), user_fields=["city"])["user"]) == {"city"}


def test_names_are_hashed_without_white_space():
    user = {"first_name": {"plain": sha("mary jane"), "letters": sha("mary jane"), "joined": sha("maryjane")}}

    assert encoded(make_event(user=user), user_fields=ALL_FIELDS)["user"]["first_name"] == sha("maryjane")


@pytest.mark.parametrize(
    ("user", "key", "expected"),
    [
        ({"city": "Saint-Étienne 2"}, "city", "saintétienne2"),
        ({"region": "US-CA"}, "state", "ca"),
        ({"region": "New York"}, "state", "newyork"),
        ({"postal_code": "M1 1AE"}, "zip_code", sha("m11ae")),
        ({"city": "?", "postal_code": None}, "city", None),
        ({"city": None, "postal_code": "-"}, "zip_code", None),
        ({"postal_code": None, "places": {"postal_code": sha("x")}}, "zip_code", sha("x")),
        ({"city": None, "places": {"city": sha("x")}}, "city", None),
    ],
)
def test_places_are_letters_and_digits_in_lower_case(user, key, expected):
    assert encoded(make_event(user=user), user_fields=ALL_FIELDS)["user"].get(key) == expected


@pytest.mark.parametrize(
    ("keys", "enough"),
    [
        ((), False),
        (("ip",), False),
        (("user_agent", "locale"), False),
        (("first_name", "last_name", "city"), False),
        (("ip", "user_agent"), True),
        (("email",), True),
        (("phone",), True),
        (("external_id",), True),
        (("ttclid",), True),
        (("ttp",), True),
    ],
)
def test_a_person_is_found_by_an_id_or_by_browser_and_address(keys, enough):
    assert matchable(dict.fromkeys(keys, "x")) is enough


def test_a_person_who_cannot_be_matched_is_skipped():
    assert skipped(make_event(**NOBODY)) == "too little to match a person by"


# lead


@pytest.mark.parametrize(
    ("source", "settings", "lead"),
    [
        ("crm", {}, {"lead_id": "7123"}),
        ("crm", {"lead_event_source": "HubSpot"}, {"lead_id": "7123", "lead_event_source": "HubSpot"}),
        ("server", {"lead_event_source": "HubSpot"}, None),
        ("offline", {}, None),
    ],
)
def test_a_lead_id_is_for_crm_events(source, settings, lead):
    body = encoded(make_event(source=source, ids={"lead_id": "7123"}), **SETS, **settings)

    assert body.get("lead") == lead


def test_a_crm_event_needs_no_more_than_its_lead_id():
    settings = {**SETS, "lead_event_source": "HubSpot"}

    assert encoded(make_event(source="crm", **NOBODY | {"ids": {"lead_id": "7"}}), **settings)["user"]["user_agent"]
    assert skipped(make_event(source="crm", **NOBODY), **settings) == "too little to match a person by"


# properties


@pytest.mark.parametrize("commerce", [{"value": None}, {"currency": None}, {"currency": "Euro"}])
def test_value_and_currency_go_together_or_not_at_all(commerce):
    properties = encoded(make_event(commerce=commerce))["properties"]

    assert "value" not in properties
    assert "currency" not in properties


def test_a_value_of_zero_is_kept_and_a_currency_is_upper_case():
    properties = encoded(make_event(commerce={"value": 0, "currency": "eur"}))["properties"]

    assert (properties["value"], properties["currency"]) == (0, "EUR")


@pytest.mark.parametrize(
    ("items", "content_id", "expected"),
    [
        ([{"item_name": "no id"}], "item_id", None),
        ([{"item_id": ""}], "item_id", None),
        ([{"item_id": "A"}], "item_id", [{"content_id": "A", "content_type": "product", "quantity": 1}]),
        ([{"item_id": "A", "quantity": 0}], "item_id", None),
        (
            [{"item_id": "7", "variant": "7-red", "price": 0}],
            "variant",
            [{"content_id": "7-red", "content_type": "product", "quantity": 1, "price": 0}],
        ),
        ([{"item_id": "A"}], "variant", None),
    ],
)
def test_only_items_with_their_catalogue_id_are_sent(items, content_id, expected):
    properties = encoded(make_event(commerce={"items": items}), content_id=content_id)["properties"]

    assert properties.get("contents") == expected


def test_a_catalogue_of_groups_is_told():
    (content,) = encoded(make_event(), content_type="product_group")["properties"]["contents"]

    assert content["content_type"] == "product_group"


def test_a_search_tells_its_words():
    event = make_event(event_name="search", commerce={"search_term": "shirts"})

    assert encoded(event)["properties"]["search_string"] == "shirts"


def test_an_event_about_nothing_has_no_properties():
    assert "properties" not in encoded(make_event(event_name="sign_up", commerce=None))


def test_custom_fields_are_sent_by_name_only():
    event = make_event(custom={"plan": "gold", "note": "private"})

    properties = encoded(event, properties=["plan", "absent"])["properties"]

    assert properties["plan"] == "gold"
    assert {"note", "absent"}.isdisjoint(properties)


@pytest.mark.parametrize(
    ("name", "given", "sent"),
    [
        ("shop_id", 7, "7"),
        ("shop_id", True, None),
        ("description", "Sale", "Sale"),
        ("description", " ", None),
        ("delivery_category", "in_store", "in_store"),
        ("customer_type", "new", "new"),
        ("customer_type", "gold", None),
        ("predicted_ltv", 99.5, 99.5),
        ("predicted_ltv", "99.5", None),
        ("num_items", 3, 3),
        ("num_items", 1.5, None),
        ("num_items", True, None),
        ("anything", True, True),
        ("anything", 1.5, 1.5),
    ],
)
def test_a_custom_field_has_the_type_that_tiktok_wants_of_it(name, given, sent):
    assert encoded(make_event(custom={name: given}), properties=[name])["properties"].get(name) == sent


# privacy


def test_limited_data_use_is_off_by_default():
    assert "limited_data_use" not in encoded(make_event())


def test_who_opted_out_is_marked_without_the_setting():
    told = {"limited": True}

    assert encoded(make_event(consent=told))["limited_data_use"] is True
    assert skipped(make_event(source="offline", consent=told), **SETS) == "limited data use is not for offline events"


def test_limited_data_use_marks_web_events_and_stops_those_that_cannot_be_marked():
    settings = {**SETS, "limited_data_use": True}

    assert encoded(make_event(), **settings)["limited_data_use"] is True
    assert skipped(make_event(source="offline"), **settings) == "limited data use is not for offline events"
    assert skipped(make_event(source="crm"), **settings) == "limited data use is not for crm events"


# settings and limits


@pytest.mark.parametrize(
    "wrong",
    [
        {"pixel_code": "pixel code"},
        {"access_token": "clear-text"},
        {"offline_event_set_id": ""},
        {"event_source": {"app": "app"}},
        {"event_source": {"web": "web"}},
        {"page_url": "shop.example"},
        {"external_id": "raw"},
        {"user_fields": ["gender"]},
        {"properties": ["plan", "value"]},
        {"content_type": "products"},
        {"events": {"page_view": "page view"}},
        {"events": {"purchase": ["Purchase", "2nd"]}},
        {"max_age": "29d"},
        {"max_age": "1min"},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        make_sink(**wrong)


def test_limits_are_tiktoks_and_those_that_others_keep_to():
    limits = make_sink().limits

    assert (limits.events, limits.bytes, limits.dedup_window) == (1000, 1_000_000, 48 * 3600)
    assert limits.age_limit("server") == 7 * 86400
    assert limits.api_version == "v1.3"
    assert make_sink(max_age="28d").limits.age_limit("offline") == 28 * 86400


# the emulator as witness


def settled(value: Any) -> Any:
    """As app/normalize.py leaves texts: without e-mail addresses and phone numbers."""
    if isinstance(value, dict):
        return {name: settled(one) for name, one in value.items()}
    if isinstance(value, list):
        return [settled(one) for one in value]
    return redact(value) if isinstance(value, str) else value


NOW = 1_795_420_900


def ruled(sink: TikTok, *batch: Payload, good_token: bool = True) -> Ruling:
    return emulator.track(factories.call(sink.request(batch, SECRETS), NOW, good_token=good_token))


CUSTOM = ["a", "b_1", "shop_id", "description", "customer_type", "predicted_ltv", "num_items"]


@given(
    event=events(),
    likely=st.fixed_dictionaries({"event_name": st.sampled_from(sorted(NAMES)), "event_id": st.just("order-1001")}),
    custom=st.dictionaries(st.sampled_from(CUSTOM), st.one_of(st.text(), st.integers(-9, 9), st.booleans())),
    generous=st.booleans(),
    odd=st.booleans(),
)
@hypothesis.settings(max_examples=400)
def test_the_emulator_takes_whatever_is_encoded(event, likely, custom, generous, odd):
    more = {"page_url": "https://shop.example/", "user_fields": ALL_FIELDS, "properties": CUSTOM, **SETS}
    sink = make_sink(custom_events=True, **(more if generous else {}))
    if not odd:  # most odd events are skipped for their name, their id or their person
        event = {**event, **likely, "ids": {"ttp": "2J3K-ttp", **event.get("ids", {})}}
    event = settled({**event, "time": 1_795_420_800_123, "custom": custom})

    payload = encode(sink, event)

    if isinstance(payload, Payload):
        ruling = ruled(sink, payload)
        assert [*ruling.problems, *ruling.events[0].problems] == []
        assert orjson.loads(ruling.answer.body)["code"] == 0


@given(cut=st.data())
def test_the_emulator_takes_any_part_of_a_complete_event_without_a_warning(cut):
    event: Any = make_event()
    for part in ("user", "context", "ids", "commerce"):
        keep = cut.draw(st.sets(st.sampled_from(sorted(event[part]))))
        event[part] = {name: value for name, value in event[part].items() if name in keep}
    sink = make_sink(page_url="https://shop.example/", user_fields=ALL_FIELDS)

    payload = encode(sink, event)

    if isinstance(payload, Payload):
        (checked,) = ruled(sink, payload).events
        assert (checked.problems, checked.warnings) == ((), ())
    else:
        assert payload == Skip("too little to match a person by")


def test_the_emulators_answers_are_understood():
    sink = make_sink()
    good, bad = payload_of(make_event()), payload_of(make_event(time=(NOW - 8 * 86400) * 1000))

    def outcomes(*batch: Payload, **more: Any) -> list[Outcome]:
        answer = ruled(sink, *batch, **more).answer
        return sink.verdict(batch, Response(answer.status, {}, answer.body))

    assert [type(outcome) for outcome in outcomes(good, good)] == [Delivered, Delivered]
    assert [type(outcome) for outcome in outcomes(good, bad, good)] == [Retry, Rejected, Retry]
    assert [type(outcome) for outcome in outcomes(good, good_token=False)] == [Halt]


# verdict

BATCH = [Payload("a", {}), Payload("b", {}), Payload("c", {})]
REQUEST_ID = "202611230000001F2E3D4C5B6A79880011"


def answer(status: int, body: Any, **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def said(code: Any, message: Any = "about ada@example.com", **more: Any) -> Json:
    return {"code": code, "message": message, "request_id": REQUEST_ID, "data": {}, **more}


def verdict(response: Response, size: int = 3) -> list[Outcome]:
    return make_sink().verdict(BATCH[:size], response)


def test_code_zero_is_delivery_with_the_id_of_the_request():
    assert verdict(answer(200, said(0, "OK"))) == [Delivered(f"request_id {REQUEST_ID}")] * 3


def test_a_partial_success_is_told():
    expected = Delivered(f"only a part was taken (20001); request_id {REQUEST_ID}")

    assert verdict(answer(200, said(20001))) == [expected] * 3


@pytest.mark.parametrize("request_id", [None, 7, "ada@example.com", sha("ada@example.com"), ""])
def test_what_is_no_request_id_is_not_passed_on(request_id):
    assert verdict(answer(200, said(0, request_id=request_id))) == [Delivered()] * 3


HTML = b"<html><body>502 Bad Gateway</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, b"", Retry("HTTP 200 without a code", unclear=True)),
        (200, HTML, Retry("HTTP 200 without a code", unclear=True)),
        (200, b'{"code": 0', Retry("HTTP 200 without a code", unclear=True)),
        (200, [], Retry("HTTP 200 without a code", unclear=True)),
        (200, {"message": "OK"}, Retry("HTTP 200 without a code", unclear=True)),
        (200, {"code": "0"}, Retry("HTTP 200 without a code", unclear=True)),
        (200, {"code": False}, Retry("HTTP 200 without a code", unclear=True)),
        (401, HTML, Retry("HTTP 401 without a code")),
        (404, HTML, Retry("HTTP 404 without a code")),
        (302, b"", Retry("HTTP 302 without a code")),
        (429, b"", Retry("HTTP 429", throttled=True)),
        (500, b"", Retry("HTTP 500", unclear=True)),
        (502, HTML, Retry("HTTP 502", unclear=True)),
        (504, b"", Retry("HTTP 504", unclear=True)),
        (503, {"code": 0}, Retry("HTTP 503", detail="TikTok code 0")),
        (400, {"code": 0}, Retry("not known to us", detail="TikTok code 0")),
        (413, b"", Rejected("HTTP 413: the request is too large", whole=True)),
    ],
)
def test_without_a_code_the_status_decides_and_nothing_is_believed(status, body, outcome):
    assert verdict(answer(status, body)) == [outcome] * 3


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (40001, Halt("the token may not use this pixel or event set")),
        (40002, Rejected("a parameter is invalid", whole=True)),
        (40100, Retry("throttled", throttled=True)),
        (40101, Halt("the token or the account is refused")),
        (40104, Halt("the token is missing")),
        (40105, Halt("the token is invalid, expired or revoked")),
        (40110, Halt("the token or the account is refused")),
        (40199, Halt("the token or the account is refused")),
        (40000, Rejected("TikTok refuses the event", whole=True)),
        (40007, Rejected("TikTok refuses the event", whole=True)),
        (40900, Rejected("TikTok refuses the event", whole=True)),
    ],
)
def test_the_code_decides_whatever_the_status(status, code, expected):
    outcomes = verdict(answer(status, said(code)))

    detail = f"TikTok code {code}, request_id {REQUEST_ID}"
    assert outcomes == [type(expected)(**{**vars(expected), "detail": detail})] * 3


@pytest.mark.parametrize(("status", "unclear"), [(200, True), (500, True), (502, True), (400, False), (503, False)])
@pytest.mark.parametrize("code", [50000, 50002, 51010, 59999])
def test_of_trouble_at_tiktok_nobody_knows_how_far_the_events_came(code, status, unclear):
    detail = f"TikTok code {code}, request_id {REQUEST_ID}"

    assert verdict(answer(status, said(code))) == [Retry("trouble at TikTok", detail=detail, unclear=unclear)] * 3


@pytest.mark.parametrize("code", [1, 20002, 41000, 60000, 10**15])
def test_a_code_that_nobody_told_us_of_loses_nothing(code):
    for outcome in verdict(answer(200, said(code))):
        assert outcome == Retry("not known to us", detail=f"TikTok code {code}, request_id {REQUEST_ID}", unclear=True)


@pytest.mark.parametrize("body", [said(40100), said(50000), HTML])
def test_retry_after_is_honoured_with_and_without_a_code(body):
    for outcome in verdict(answer(500, body, Retry_After="7")):
        assert isinstance(outcome, Retry)
        assert outcome.after == 7.0


GOOD = Retry("another event failed the request", 0.0, f"TikTok code 40002, request_id {REQUEST_ID}")
BAD = Rejected("a parameter is invalid", detail=f"TikTok code 40002, request_id {REQUEST_ID}")


@pytest.mark.parametrize(
    ("message", "bad"),
    [
        ("Batch.0.properties.contents.0.content_id: Not a valid string", {0}),
        ("data.1.user.email: invalid", {1}),
        ("data[2].event_time: is too old", {2}),
        ("Invalid parameters: data.0.event: required, data.2.event: required", {0, 2}),
        ("data.0: bad, data.1: bad, data.2: bad", {0, 1, 2}),
    ],
)
def test_events_that_the_message_names_are_rejected_and_the_others_sent_again_at_once(message, bad):
    outcomes = verdict(answer(200, said(40002, message)))

    assert outcomes == [BAD if index in bad else GOOD for index in range(3)]


@pytest.mark.parametrize(
    "message",
    [
        "Invalid value for event_id: not a valid string",
        "data: must not be empty",
        "data.3.event: required",
        "data.1.event: required, data.9.event: required",
        "metadata.1.x: bad",
        "event.data.1: bad",
        "data.user.email: bad",
        "",
        None,
        ["data.1"],
    ],
)
def test_a_message_that_names_no_event_of_the_batch_has_it_split(message):
    for outcome in verdict(answer(200, said(40002, message))):
        assert isinstance(outcome, Rejected)
        assert outcome.whole


def test_an_event_cannot_get_others_rejected_by_the_message_that_quotes_it():
    batch = [*BATCH, Payload("d", {"properties": {"description": "see data[0]"}})]

    outcomes = make_sink().verdict(batch, answer(200, said(40002, "data.3: see data[0]")))

    assert all(isinstance(outcome, Rejected) and outcome.whole for outcome in outcomes)


def test_places_are_read_from_messages_about_parameters_only():
    assert all(isinstance(outcome, Halt) for outcome in verdict(answer(200, said(40001, "data.1: no permission"))))


def test_a_message_is_never_quoted():
    for code in (0, 20001, 40001, 40002, 40100, 50000, 7):
        (outcome,) = verdict(answer(200, said(code, "data.0.user.email: ada@example.com", data={"x": "ada@"})), 1)

        assert not isinstance(outcome, Accepted)
        assert "ada@" not in repr(outcome)
