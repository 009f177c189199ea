"""sinks/google_ads: requests in full, as Google's own library reads them, and what each answer means, in both interfaces."""

import re
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from google.ads.datamanager_util.format import Encoding, Formatter
from google.ads.datamanager_v1 import IngestEventsRequest
from google.ads.googleads.v26.services.types.conversion_upload_service import UploadClickConversionsRequest
from google.protobuf.json_format import ParseDict  # type: ignore[import-untyped]
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.events import CANONICAL_NAMES, Json
from app.identity import Unusable, hashes
from app.prepare import NO_NAME
from app.sandbox._base import Ruling
from app.sandbox._google import ingest
from app.sandbox.google_ads import ADS
from app.sandbox.server import create_app
from sinks._base import Accepted, Delivered, Followed, Halt, Outcome, Payload, Rejected, Request, Response, Retry, Skip
from sinks.google_ads import GoogleAds, Settings
from tests import factories
from tests.factories import encode, events, make_event, sha

SETTINGS: Json = {
    "sink": "google_ads",
    "customer_id": "123-456-7890",
    "credentials": {"env": "GOOGLE_CREDENTIALS"},
    "events": {"purchase": "111222333", "sign_up": "444"},
}
OLDER: Json = {"api": "upload_clicks", "developer_token": {"env": "GOOGLE_DEVELOPER_TOKEN"}}
SECRETS = {"credentials": "TOKEN", "developer_token": "DEVELOPER"}
DAY = 86_400

# Hashes of what Google's own formatter makes of these
ADDRESSES = [
    (
        " Jane.Doe+Shopping@GoogleMail.com ",
        "338abf9ef1c8793cadc7bcf51ed595338eb727ed9e06ce3d91d566d60b975937",
    ),
    ("Jane.Doe+Shopping@Example.com", "5bc4d748c6c47c76e7ba275506e146afc322ae64c4920c9d241273fdfa731576"),
    ("test@example.com", "973dfe463ec85785f5f95af5ba3906eedb2d931c24e69824a89ea65dba4e813b"),
]
PHONE = "fb4f73a6ec5fdb7077d564cdd22c3554b43ce49168550c3b12c547b78c517b30"


def make_sink(**settings: Any) -> GoogleAds:
    return GoogleAds(Settings.model_validate(SETTINGS | settings))


def encoded(event: Any, **settings: Any) -> Json:
    return factories.payload(make_sink(**settings), event).body


def skipped(event: Any, **settings: Any) -> str:
    return factories.skipped(make_sink(**settings), event)


def nobody(**more: Any) -> Any:
    """An event of somebody without a name."""
    return make_event(user=None, **more)


# encode and request


def test_a_purchase_in_full():
    sink = make_sink()
    payload = encode(sink, make_event())
    assert isinstance(payload, Payload)

    request = sink.request([payload], SECRETS)

    assert payload.group == ("111222333",)
    assert request.method == "POST"
    assert request.url == "https://datamanager.googleapis.com/v1/events:ingest"
    assert request.headers == {"Authorization": "Bearer TOKEN", "Content-Type": "application/json"}
    assert orjson.loads(request.body) == {
        "destinations": [
            {
                "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"},
                "productDestinationId": "111222333",
            }
        ],
        "encoding": "HEX",
        "events": [
            {
                "transactionId": "o_1001",
                "eventTimestamp": "2026-11-23T08:00:00.123Z",
                "eventSource": "WEB",
                "currency": "USD",
                "conversionValue": 59.98,
                "adIdentifiers": {"gclid": "Cj0KCQ-gclid"},
                "userData": {
                    "userIdentifiers": [
                        {"emailAddress": sha("ada@example.com")},
                        {"phoneNumber": sha("+15550100199")},
                        {
                            "address": {
                                "givenName": sha("ada"),
                                "familyName": sha("lovelace"),
                                "regionCode": "US",
                                "postalCode": "94025-1234",
                            }
                        },
                    ]
                },
                "consent": {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"},
                "cartData": {
                    "couponCodes": ["WELCOME"],
                    "items": [{"merchantProductId": "SKU-1", "quantity": 2, "unitPrice": 29.99}],
                },
            }
        ],
    }


def test_everything_that_the_settings_can_add_in_full():
    sink = make_sink(
        endpoint="http://127.0.0.1:9/google_ads/",
        login_customer_id="987-654-3210",
        quota_project="shop-tracking",
        conversions="with_tag",
        device=True,
        item_id="variant",
        merchant_id="5550",
        feed_label="US",
        feed_language="en",
    )
    payload = encode(sink, make_event(commerce={"discount": 3.5}))
    assert isinstance(payload, Payload)

    request = sink.request([payload], SECRETS)

    assert request.url == "http://127.0.0.1:9/google_ads/v1/events:ingest"
    assert request.headers["x-goog-user-project"] == "shop-tracking"
    body = orjson.loads(request.body)
    assert body["destinations"] == [
        {
            "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"},
            "loginAccount": {"accountType": "GOOGLE_ADS", "accountId": "9876543210"},
            "productDestinationId": "111222333",
        }
    ]
    (event,) = body["events"]
    assert event["transactionId"] == "1001"
    assert event["cartData"] == {
        "merchantId": "5550",
        "merchantFeedLabel": "US",
        "merchantFeedLanguageCode": "en",
        "transactionDiscount": 3.5,
        "couponCodes": ["WELCOME"],
        "items": [{"merchantProductId": "red", "quantity": 2, "unitPrice": 29.99}],
    }
    assert event["eventDeviceInfo"] == {"ipAddress": "203.0.113.7", "userAgent": "Mozilla/5.0 (X11; Linux x86_64)"}


def test_a_sign_up_by_click_alone_in_full():
    assert encoded(nobody(event_name="sign_up", commerce=None, consent=None)) == {
        "transactionId": "order-1001",
        "eventTimestamp": "2026-11-23T08:00:00.123Z",
        "eventSource": "WEB",
        "adIdentifiers": {"gclid": "Cj0KCQ-gclid"},
    }


def test_an_event_can_go_to_several_actions_each_in_its_own_request():
    sink = make_sink(events={"purchase": ["111", "222"]})
    names = sink.settings.platform_names(sink.names, "purchase")

    found = [sink.encode(make_event(), name) for name in names]

    assert [payload.group for payload in found if isinstance(payload, Payload)] == [("111",), ("222",)]


def test_the_test_request_is_the_same_and_only_looked_at():
    sink = make_sink()
    payload = encode(sink, make_event())
    assert isinstance(payload, Payload)

    test, live = sink.test_request([payload], SECRETS), sink.request([payload], SECRETS)

    assert orjson.loads(test.body) == orjson.loads(live.body) | {"validateOnly": True}


@pytest.mark.parametrize("name", ["page_view", "my_event", ""])
def test_events_without_a_conversion_action_are_not_sent(name):
    assert skipped(make_event(event_name=name)) == NO_NAME


@pytest.mark.parametrize("name", ["purchase", "AW-1/x", "", "0", "12 3", "١٢"])
def test_a_name_that_is_no_number_is_no_conversion_action(name):
    assert make_sink().encode(make_event(), name) == Skip("the name is not the number of a conversion action")


# transaction ids


@pytest.mark.parametrize(
    ("settings", "event", "expected"),
    [
        ({}, {}, "o_1001"),
        ({"transaction_id_prefix": "shop-"}, {}, "shop-1001"),
        ({"transaction_id_prefix": ""}, {}, "1001"),
        ({}, {"commerce": {"transaction_id": "A-1001"}}, "A-1001"),
        ({}, {"commerce": {"transaction_id": ""}}, "order-1001"),
        ({}, {"commerce": {"transaction_id": " "}}, "order-1001"),
        ({}, {"event_id": "77", "event_name": "sign_up"}, "o_77"),
        ({}, {"apart": "~7", "event_id": "order-1001~7"}, "order-1001~7"),
        ({"conversions": "with_tag"}, {}, "1001"),
        ({"conversions": "with_tag"}, {"commerce": {"transaction_id": " 1001"}}, " 1001"),
        ({"conversions": "with_tag"}, {"event_name": "sign_up"}, "order-1001"),
        ({"conversions": "with_tag"}, {"commerce": {"transaction_id": None}}, "order-1001"),
    ],
)
def test_the_transaction_id_is_the_order_number_or_the_event_id(settings, event, expected):
    assert encoded(make_event(**event), **settings)["transactionId"] == expected


@pytest.mark.parametrize(
    "event",
    [
        {"event_id": "", "commerce": None},
        {"event_id": " ", "commerce": None},
        {"commerce": {"transaction_id": "x" * 513}},
    ],
)
def test_an_event_that_google_could_not_know_again_is_not_sent(event):
    assert skipped(make_event(**event)) == "no transaction id, or one of more than 512 characters"


def test_a_restated_conversion_is_the_same_id_with_another_value():
    first, again = encoded(make_event()), encoded(make_event(revision=1, commerce={"value": 70.0}))

    assert GoogleAds.takes_revisions
    assert again == first | {"conversionValue": 70.0}


# when and where


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1_795_420_800_999, "2026-11-23T08:00:00.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_keep_their_milliseconds(time, expected):
    assert encoded(make_event(time=time))["eventTimestamp"] == expected


@pytest.mark.parametrize("time", [-1, 253_402_300_800_000, 2**53 - 1])
def test_what_is_no_date_is_not_sent(time):
    assert skipped(make_event(time=time)) == "the time is no date"


@pytest.mark.parametrize(
    ("source", "imported", "with_tag"),
    [
        ("pixel", "WEB", "WEB"),
        ("server", "WEB", "WEB"),
        ("app", "APP", None),
        ("offline", "IN_STORE", None),
        ("crm", "OTHER", None),
    ],
)
def test_the_source_says_where_it_happened(source, imported, with_tag):
    result = encode(make_sink(conversions="with_tag"), make_event(source=source))

    assert encoded(make_event(source=source))["eventSource"] == imported
    assert (result.body["eventSource"] if isinstance(result, Payload) else None) == with_tag


def test_a_shop_can_say_where_its_conversions_happen():
    assert encoded(make_event(source="crm"), action_source={"crm": "PHONE"})["eventSource"] == "PHONE"


# who


@pytest.mark.parametrize(
    ("ids", "settings", "expected"),
    [
        ({"gclid": "G", "gbraid": "B", "wbraid": "W"}, {}, {"gclid": "G"}),
        ({"gbraid": "B", "wbraid": "W"}, {}, {"gbraid": "B"}),
        ({"wbraid": "W"}, {}, {"wbraid": "W"}),
        ({"gclid": " ", "wbraid": "W"}, {}, {"wbraid": "W"}),
        ({"gclid": "G\r", "wbraid": "W"}, {}, {"wbraid": "W"}),
        ({"gclid": "CjÜ-_."}, {}, {"gclid": "CjÜ-_."}),
        ({"gclid": "G", "wbraid": "W"}, {"braids": False}, {"gclid": "G"}),
        ({"wbraid": "W"}, {"braids": False}, None),
        ({"fbclid": "F"}, {}, None),
    ],
)
def test_one_click_id_is_sent_as_it_came(ids, settings, expected):
    event: Json = {**make_event(), "ids": ids}

    assert encoded(event, **settings).get("adIdentifiers") == expected


@pytest.mark.parametrize(
    ("user", "kept"),
    [
        ({}, True),
        ({"country": None}, False),
        ({"country": "ZZ"}, False),
        ({"country": "de"}, True),
        ({"postal_code": None}, False),
        ({"postal_code": " "}, False),
        ({"postal_code": "M1 1AE"}, True),
        ({"postal_code": "unknown!"}, False),
        ({"postal_code": "1234567890123"}, False),
        ({"first_name": None}, False),
        ({"last_name": None}, False),
        ({"last_name": {"letters": None, "plain": None, "given": sha("x")}}, True),
    ],
)
def test_an_address_is_complete_or_absent(user, kept):
    identifiers = encoded(make_event(user=user))["userData"]["userIdentifiers"]

    assert any("address" in one for one in identifiers) is kept


@pytest.mark.parametrize(
    ("event", "settings"),
    [
        (nobody(ids=None), {}),
        (nobody(ids={"gclid": None}), {"device": True}),
        (make_event(ids=None), {"user_data": False}),
        (make_event(ids=None, consent={"ad_user_data": "denied"}), {}),
        (make_event(ids=None, user={"email": None, "phone": None}), OLDER),
    ],
)
def test_an_event_of_nobody_is_not_sent(event, settings):
    assert skipped(event, **settings) == "neither a click id nor anything to match a person by"


@pytest.mark.parametrize(
    ("consent", "told", "person"),
    [
        (None, None, True),
        ({"analytics_storage": "granted"}, None, True),
        ({"ad_user_data": "granted"}, {"adUserData": "CONSENT_GRANTED"}, True),
        ({"ad_user_data": "denied"}, {"adUserData": "CONSENT_DENIED"}, False),
        ({"ad_personalization": "denied"}, {"adPersonalization": "CONSENT_DENIED"}, True),
    ],
)
def test_consent_is_told_and_a_denial_leaves_the_click_alone(consent, told, person):
    event: Any = {**make_event(consent=None), **({"consent": consent} if consent else {})}

    body = encoded(event, device=True)

    assert body.get("consent") == told
    assert ("userData" in body, "eventDeviceInfo" in body) == (person, person)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({"ip": "2001:DB8::7"}, {"ipAddress": "2001:db8::7", "userAgent": "Mozilla/5.0 (X11; Linux x86_64)"}),
        ({"ip": "somewhere"}, {"userAgent": "Mozilla/5.0 (X11; Linux x86_64)"}),
        ({"user_agent": " "}, {"ipAddress": "203.0.113.7"}),
        ({"ip": None, "user_agent": None}, None),
    ],
)
def test_a_device_is_sent_as_far_as_it_is_known(context, expected):
    assert encoded(make_event(context=context), device=True).get("eventDeviceInfo") == expected


# what


@pytest.mark.parametrize(
    ("commerce", "expected"),
    [
        ({}, (59.98, "USD")),
        ({"value": 0}, (0, "USD")),
        ({"currency": "eur"}, (59.98, "EUR")),
        ({"currency": None}, (None, None)),
        ({"currency": "Euro"}, (None, None)),
        ({"value": None}, (None, None)),
    ],
)
def test_a_value_comes_with_its_currency_or_not_at_all(commerce, expected):
    body = encoded(make_event(commerce=commerce))

    assert (body.get("conversionValue"), body.get("currency")) == expected


@pytest.mark.parametrize(
    ("items", "settings", "expected"),
    [
        ([{"item_id": "A"}], {}, [{"merchantProductId": "A", "quantity": 1}]),
        ([{"item_id": "A", "price": 0}], {}, [{"merchantProductId": "A", "quantity": 1, "unitPrice": 0}]),
        ([{"item_id": "A", "quantity": 0}, {"item_name": "B"}, {"item_id": ""}], {}, None),
        ([{"item_id": "A"}], {"item_id": "variant"}, None),
        ([{"item_id": "A"}], {"cart": False}, None),
    ],
)
def test_only_items_with_their_id_are_sent(items, settings, expected):
    cart = encoded(make_event(commerce={"items": items}), **settings).get("cartData", {})

    assert cart.get("items") == expected


def test_at_most_200_items_are_sent():
    items = [{"item_id": str(number)} for number in range(201)]

    assert len(encoded(make_event(commerce={"items": items}))["cartData"]["items"]) == 200


# witnesses: Google's own libraries


def any_settings() -> st.SearchStrategy[Json]:
    actions = dict.fromkeys(CANONICAL_NAMES, "111")
    told = st.fixed_dictionaries(
        {},
        optional={
            "login_customer_id": st.just("9876543210"),
            "conversions": st.sampled_from(("import", "with_tag")),
            "device": st.booleans(),
            "braids": st.booleans(),
            "user_data": st.booleans(),
            "item_id": st.sampled_from(("item_id", "variant")),
            "merchant_id": st.just("5550"),
            "feed_label": st.sampled_from(("DE", "DE-MAIN")),
            "feed_language": st.just("de"),
        },
    )
    return told.map(lambda one: {**one, "events": actions})


def likely_events() -> st.SearchStrategy[Any]:
    """Any, of which most have somebody to match."""
    parts = st.sets(st.sampled_from(("user", "ids", "commerce", "consent", "context")), min_size=2)
    named = st.sampled_from(CANONICAL_NAMES)
    complete: Any = make_event()
    return st.builds(
        lambda event, name, whole: {**event, "event_name": name, **{part: complete[part] for part in whole}},
        events(),
        named,
        parts,
    )


@given(event=likely_events(), settings=any_settings())
def test_googles_library_reads_what_is_sent(event, settings):
    sink = make_sink(**settings)
    payload = encode(sink, event)
    if isinstance(payload, Skip):
        return

    parsed = ParseDict(orjson.loads(sink.test_request([payload], SECRETS).body), IngestEventsRequest.pb()())

    (read,) = parsed.events
    assert read.transaction_id
    assert read.HasField("ad_identifiers") or read.user_data.user_identifiers
    assert len([name for name in ("gclid", "gbraid", "wbraid") if getattr(read.ad_identifiers, name)]) <= 1
    for one in read.user_data.user_identifiers:
        digests = [one.email_address, one.phone_number, one.address.given_name, one.address.family_name]
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests if digest)
    assert bool(read.currency) == read.HasField("conversion_value")


@given(event=likely_events(), settings=any_settings())
def test_googles_older_library_reads_what_is_sent(event, settings):
    sink = make_sink(**settings | OLDER | {"conversions": "import"})
    payload = encode(sink, event)
    if isinstance(payload, Skip):
        return

    parsed = ParseDict(orjson.loads(sink.test_request([payload], SECRETS).body), UploadClickConversionsRequest.pb()())

    (read,) = parsed.conversions
    assert parsed.partial_failure
    assert read.order_id
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00", read.conversion_date_time)
    assert all(one.hashed_email or one.hashed_phone_number for one in read.user_identifiers)


@given(event=likely_events(), settings=any_settings())
def test_the_emulated_platform_takes_what_is_sent(event, settings):
    sink = make_sink(**settings)
    payload = encode(sink, event)
    if isinstance(payload, Skip):
        return

    ruling = emulated(sink.request([payload], SECRETS), now=event["time"] / 1000 + 1)

    # what only whoever sent the event can be blamed for
    allowed = ("clear personal data", "must be an ISO 4217 code", "is the hash of an empty string")
    problems = [problem for one in ruling.events for problem in one.problems]
    assert not ruling.problems
    assert [problem for problem in problems if not problem.reason.startswith(allowed)] == []


def emulated(request: Request, now: float) -> Ruling:
    return ingest(factories.call(request, now), ADS)


@given(email=st.one_of(st.emails(), st.emails(domains=st.sampled_from(("gmail.com", "GoogleMail.com", "x.gmail.com")))))
def test_e_mail_addresses_are_hashed_as_googles_formatter_does(email):
    try:
        ours = hashes("email", email, None)["gmail"]
    except (Unusable, KeyError):
        assume(False)

    assert ours == Formatter().process_email_address(email, Encoding.HEX)


@pytest.mark.parametrize(("email", "digest"), ADDRESSES)
def test_the_e_mail_addresses_of_the_table(email, digest):
    assert hashes("email", email, None)["gmail"] == digest == Formatter().process_email_address(email, Encoding.HEX)


@pytest.mark.parametrize("phone", ["1 (800) 555-0100", "+1 800 555 0100", "+18005550100"])
def test_phone_numbers_are_hashed_as_googles_formatter_does(phone):
    assert hashes("phone", phone, "US")["e164"] == PHONE == Formatter().process_phone_number(phone, Encoding.HEX)


@pytest.mark.parametrize(
    ("name", "without_punctuation"),
    [
        ("Ada", "ada"),
        (" Søren ", "søren"),
        ("O'Brien", "obrien"),
        ("Anna-Lena", "annalena"),
        ("María José", "maría josé"),
    ],
)
def test_names_are_hashed_as_googles_formatter_does_but_without_punctuation(name, without_punctuation):
    formatter = Formatter()

    assert hashes("first_name", name, None)["letters"] == formatter.hash_string(without_punctuation).hex()
    assert formatter.format_given_name(without_punctuation) == without_punctuation


# the whole way, to the emulated platform and back


@pytest.fixture
async def platform():
    """Send a request, get the response: as the engine does it."""
    clock = make_event()["time"] / 1000 + 60
    client = TestClient(TestServer(create_app(now=lambda: clock)))
    await client.start_server()

    async def send(request: Request, **faults: Any) -> Response:
        await client.post("/faults", json={"destination": "google_ads", **faults})
        path = request.url.removeprefix("http://platform")
        async with client.request(request.method, path, headers=request.headers, data=request.body) as answer:
            return Response(answer.status, answer.headers, await answer.read())

    yield send
    await client.close()


def three(sink: GoogleAds) -> list[Payload]:
    found = [encode(sink, make_event(commerce={"transaction_id": f"A{number}"})) for number in range(3)]
    return [payload for payload in found if isinstance(payload, Payload)]


async def test_what_is_accepted_can_be_followed(platform):
    sink = make_sink(endpoint="http://platform/google_ads")
    batch = three(sink)

    outcomes = sink.verdict(batch, await platform(sink.request(batch, SECRETS), partial=1))

    (reference,) = {one.reference for one in outcomes if isinstance(one, Accepted)}
    question = sink.follow_up(reference, SECRETS)
    assert sink.followed(await platform(question, queue_s=60)) is None
    assert sink.followed(await platform(question)) == Followed("failed", 3, {"INVALID_EVENT": 3})


async def test_a_bad_event_is_found_among_good_ones(platform):
    sink = make_sink(endpoint="http://platform/google_ads")
    batch = three(sink)
    batch[1] = Payload("bad", batch[1].body | {"currency": "XXX"}, batch[1].group)

    outcomes = sink.verdict(batch, await platform(sink.request(batch, SECRETS)))

    bad = Rejected("the currency is none that Google knows", detail="INVALID_CURRENCY_CODE at currency")
    assert outcomes == [AGAIN, bad, AGAIN]


async def test_a_test_request_leaves_nothing_behind(platform):
    sink = make_sink(endpoint="http://platform/google_ads")
    batch = three(sink)

    outcomes = sink.verdict(batch, await platform(sink.test_request(batch, SECRETS)))

    assert outcomes == [Delivered("valid; Google kept no record of the request")] * 3


async def test_a_bad_conversion_is_found_among_good_ones_by_the_older_interface(platform):
    sink = make_sink(endpoint="http://platform/google_ads", **OLDER)
    batch = three(sink)
    batch[1] = Payload("bad", batch[1].body | {"gclid": "white space"}, batch[1].group)

    outcomes = sink.verdict(batch, await platform(sink.request(batch, SECRETS)))

    bad = Rejected("the click id is none", detail="Google Ads error UNPARSEABLE_GCLID")
    assert outcomes == [Delivered(), bad, Delivered()]


@pytest.mark.parametrize("more", [{}, OLDER])
@pytest.mark.parametrize(
    ("faults", "kind"),
    [
        ({"status_429": 1}, Retry),
        ({"status_500": 1}, Retry),
        ({"html_error": 1}, Retry),
        ({"expired_token": True}, Halt),
    ],
)
async def test_faults_of_the_platform_cost_no_event(platform, more, faults, kind):
    sink = make_sink(endpoint="http://platform/google_ads", **more)
    batch = three(sink)

    outcomes = sink.verdict(batch, await platform(sink.request(batch, SECRETS), **faults))

    assert [type(one) for one in outcomes] == [kind] * 3


# settings and limits


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"customer_id": "123"}, "customer_id"),
        ({"customer_id": "1-2345678-90"}, "customer_id"),
        ({"login_customer_id": "manager"}, "login_customer_id"),
        ({"credentials": "clear text"}, "credentials"),
        ({"developer_token": "clear text"}, "developer_token"),
        ({"events": {"purchase": "AW-123/AbC"}}, "events"),
        ({"events": {"purchase": ["1", "purchase"]}}, "events"),
        ({"events": {"purchase": "0"}}, "events"),
        ({"events": {}}, "events"),
        ({"events": {"purchase": False}}, "events"),
        ({"custom_events": True}, "custom_events"),
        ({"conversions": "both"}, "conversions"),
        ({"transaction_id_prefix": "ada@"}, "transaction_id_prefix"),
        ({"quota_project": "x\r\ny"}, "quota_project"),
        ({"merchant_id": "shop"}, "merchant_id"),
        ({"feed_language": "german"}, "feed_language"),
        ({"max_age": "400d"}, "max_age"),
        ({"api": "older"}, "api"),
        ({"api": "upload_clicks", "conversions": "with_tag"}, "conversions"),
        ({"api_version": "v26.0"}, "api_version"),
    ],
)
def test_wrong_settings_are_refused(wrong, place):
    with pytest.raises(ValidationError, match=place):
        make_sink(**wrong)


@pytest.mark.parametrize("written", ["1234567890", "123-456-7890", "123456-7890"])
def test_an_account_is_written_as_google_shows_it_or_without_dashes(written):
    assert make_sink(customer_id=written).settings.customer_id == "1234567890"


def test_without_any_conversion_action_there_is_no_destination():
    with pytest.raises(ValidationError, match="name a conversion action"):
        Settings.model_validate({name: value for name, value in SETTINGS.items() if name != "events"})


@pytest.mark.parametrize(
    ("given_", "endpoint", "browser_tag"),
    [
        ({}, "https://datamanager.googleapis.com", "none"),
        ({"conversions": "with_tag"}, "https://datamanager.googleapis.com", "same_id"),
        ({"browser_tag": "same_id"}, "https://datamanager.googleapis.com", "same_id"),
        ({"api": "upload_clicks"}, "https://googleads.googleapis.com", "none"),
        ({"api": "upload_clicks", "endpoint": "http://127.0.0.1:8"}, "http://127.0.0.1:8", "none"),
    ],
)
def test_what_follows_from_a_setting_need_not_be_told(given_, endpoint, browser_tag):
    settings = make_sink(**given_).settings

    assert (settings.endpoint, settings.browser_tag) == (endpoint, browser_tag)


def test_limits_are_googles():
    limits, older = make_sink().limits, make_sink(max_age="30d", **OLDER).limits

    assert (limits.events, limits.rate, limits.api_version) == (2000, 5.0, "v1")
    assert (limits.age_limit("crm"), limits.dedup_window) == (90 * DAY, 90 * DAY)
    assert (older.events, older.rate, older.api_version) == (50, None, "v26")
    assert (older.age_limit("crm"), older.dedup_window) == (30 * DAY, 30 * DAY)


def test_each_interface_has_its_scope():
    assert make_sink().scopes == ("https://www.googleapis.com/auth/datamanager",)
    assert make_sink(**OLDER).scopes == ("https://www.googleapis.com/auth/adwords",)


# verdict of the Data Manager API

BATCH = [Payload("a", {}), Payload("b", {}), Payload("c", {})]
AGAIN = Retry("another event failed the request", after=0.0)


def answer(status: int, body: Any, **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def refused(*violations: Mapping[str, Any], reason: str = "INVALID_ARGUMENT", status: str = "INVALID_ARGUMENT") -> Json:
    return {
        "error": {
            "code": 400,
            "message": "about ada@example.com",
            "status": status,
            "details": [
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"},
                {"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": "req-1"},
                {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": list(violations)},
            ],
        }
    }


def violation(field: str, reason: str) -> Json:
    return {"field": field, "description": "ada@example.com", "reason": reason}


def verdict(response: Response, **settings: Any) -> list[Outcome]:
    return make_sink(**settings).verdict(BATCH, response)


def test_a_200_is_queued_under_the_id_of_its_request():
    assert verdict(answer(200, {"requestId": "abc-123"})) == [Accepted("abc-123")] * 3


def test_warnings_are_counted_where_they_belong_and_never_quoted():
    warnings = [
        violation("events[1].cart_data.items[0]", "WARNING_REASON_INVALID_MERCHANT_ID"),
        violation("events[1].currency", "WARNING_REASON_OTHER"),
        violation("destinations[0]", "WARNING_REASON_OTHER"),
        violation("events[2].user_data", "ada@example.com"),
    ]

    assert verdict(answer(200, {"requestId": "abc", "fieldWarnings": warnings})) == [
        Accepted("abc", "warnings: 1 (OTHER)"),
        Accepted("abc", "warnings: 3 (INVALID_MERCHANT_ID, OTHER)"),
        Accepted("abc", "warnings: 2 (OTHER, UNKNOWN)"),
    ]


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"{}", Delivered("valid; Google kept no record of the request")),
        (b'{\n  "requestId": "abc",\n  "fieldWarnings": [{"reas', Accepted("abc")),
        (b'{"requestId": "ada@example.com"}', Retry("HTTP 200 without a receipt", unclear=True)),
        (b'{"requestId": ""}', Retry("HTTP 200 without a receipt", unclear=True)),
        (b'{"requestId": 7}', Retry("HTTP 200 without a receipt", unclear=True)),
        (b'{"events_received": 3}', Retry("HTTP 200 without a receipt", unclear=True)),
        (b"", Retry("HTTP 200 without a receipt", unclear=True)),
        (b"<html>", Retry("HTTP 200 without a receipt", unclear=True)),
        (b"[]", Retry("HTTP 200 without a receipt", unclear=True)),
    ],
)
def test_a_200_is_read_before_it_is_believed(body, outcome):
    assert verdict(answer(200, body)) == [outcome] * 3


def test_the_events_that_google_names_are_given_up_and_the_others_sent_again():
    response = answer(
        400, refused(violation("events[1].user_data.user_identifiers[0].email_address", "INVALID_HEX_ENCODING"))
    )

    assert verdict(response) == [
        AGAIN,
        Rejected(
            "a personal field is not hashed",
            detail="INVALID_HEX_ENCODING at user_data.user_identifiers[0].email_address",
        ),
        AGAIN,
    ]


@pytest.mark.parametrize(
    ("field", "reason", "outcome"),
    [
        ("events[2]", "NO_IDENTIFIERS_PROVIDED", Rejected("nothing to match a person by", detail="NO_IDENTIFIERS_PROVIDED")),
        ("events[2].currency", "INVALID_CURRENCY_CODE", Rejected(
            "the currency is none that Google knows", detail="INVALID_CURRENCY_CODE at currency")),
        ("events.events[2].event_timestamp", "EVENT_TIME_INVALID", Rejected(
            "the time is not acceptable: too old, or in the future", detail="EVENT_TIME_INVALID at event_timestamp")),
        ("events[2].x", "SOME_NEW_REASON", Rejected("a field is invalid", detail="SOME_NEW_REASON at x")),
        ("events[2].ada@example.com", "ada", Rejected("a field is invalid", detail="UNKNOWN")),
    ],
)  # fmt: skip
def test_reasons_are_words_of_ours_and_details_codes(field, reason, outcome):
    assert verdict(answer(400, refused(violation(field, reason)))) == [AGAIN, AGAIN, outcome]


@pytest.mark.parametrize(
    "violations",
    [
        (),
        (violation("", "INVALID_EVENT"),),
        (violation("events", "TOO_MANY_EVENTS"),),
        (violation("encoding", "REQUIRED_FIELD_MISSING"),),
        (violation("events[3].currency", "INVALID_CURRENCY_CODE"),),
        (violation("events[99999999].currency", "INVALID_CURRENCY_CODE"),),
    ],
)
def test_a_request_that_fails_for_nobody_in_particular_is_split(violations):
    assert [type(one) for one in verdict(answer(400, refused(*violations)))] == [Rejected] * 3
    assert all(isinstance(one, Rejected) and one.whole for one in verdict(answer(400, refused(*violations))))


@pytest.mark.parametrize(
    "reason",
    [
        "TERMS_AND_CONDITIONS_NOT_SIGNED",
        "DESTINATION_ACCOUNT_ENHANCED_CONVERSIONS_TERMS_NOT_SIGNED",
        "DESTINATION_ACCOUNT_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS",
        "DESTINATION_ACCOUNT_DATA_POLICY_PROHIBITS_ENHANCED_CONVERSIONS",
        "NOT_ALLOWLISTED",
        "INVALID_DESTINATION",
        "INVALID_CONVERSION_ACTION_ID",
        "INVALID_CONVERSION_ACTION_TYPE",
        "EVENT_SOURCE_AND_DESTINATION_MISMATCH",
        "OPERATING_ACCOUNT_LOGIN_ACCOUNT_MISMATCH",
    ],
)
@pytest.mark.parametrize("field", ["destinations[0]", "destinations[0].login_account", "events", ""])
def test_what_somebody_has_to_repair_in_the_account_costs_no_event(reason, field):
    for response in (answer(400, refused(violation(field, reason))), answer(400, refused(reason=reason))):
        outcomes = verdict(response)
        assert [type(one) for one in outcomes] == [Halt] * 3
        assert isinstance(outcomes[0], Halt)
        assert reason in outcomes[0].detail
        assert outcomes[0].detail.endswith("request req-1")


@pytest.mark.parametrize("reason", ["INVALID_ARGUMENT", "EVENT_SOURCE_AND_DESTINATION_MISMATCH"])
def test_what_is_wrong_between_one_event_and_the_account_is_that_events_fault(reason):
    mismatch = violation("events[1].event_source", "EVENT_SOURCE_AND_DESTINATION_MISMATCH")

    assert verdict(answer(400, refused(mismatch, reason=reason))) == [
        AGAIN,
        Rejected(
            "the conversion action takes conversions of another source",
            detail="EVENT_SOURCE_AND_DESTINATION_MISMATCH at event_source",
        ),
        AGAIN,
    ]


@pytest.mark.parametrize(
    "more",
    [
        violation("destinations[0]", "EVENT_SOURCE_AND_DESTINATION_MISMATCH"),
        violation("destinations[0].login_account", "OPERATING_ACCOUNT_LOGIN_ACCOUNT_MISMATCH"),
    ],
)
def test_what_is_wrong_with_the_destination_halts_it_whatever_is_wrong_with_an_event(more):
    of_event = violation("events[1].event_source", "EVENT_SOURCE_AND_DESTINATION_MISMATCH")

    assert [type(one) for one in verdict(answer(400, refused(of_event, more)))] == [Halt] * 3


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (
            400,
            refused(violation("destinations[0].product_destination_id", "INVALID_NUMBER_FORMAT")),
            Halt(
                "the id of the account or the conversion action is no number",
                "HTTP 400, INVALID_ARGUMENT, INVALID_NUMBER_FORMAT, request req-1",
            ),
        ),
        (
            400,
            refused(violation("events[0]", "CONVERSION_ACTION_TOO_RECENTLY_CREATED")),
            Retry(
                "the conversion action is too new",
                21600.0,
                "HTTP 400, CONVERSION_ACTION_TOO_RECENTLY_CREATED, INVALID_ARGUMENT, request req-1",
            ),
        ),
        (400, refused(reason="INTERNAL_ERROR"), Retry("trouble at Google", None, "HTTP 400, INTERNAL_ERROR, request req-1")),
        (401, {}, Halt("Google does not take the access token", "HTTP 401")),
        (403, b"<html>", Halt("the identity may not do this", "HTTP 403")),
        (
            403,
            refused(reason="SERVICE_DISABLED"),
            Halt(
                "the Data Manager API is not switched on in the Cloud project", "HTTP 403, SERVICE_DISABLED, request req-1"
            ),
        ),
        (
            403,
            refused(reason="RATE_LIMIT_EXCEEDED"),
            Retry("throttled", None, "HTTP 403, RATE_LIMIT_EXCEEDED, request req-1", throttled=True),
        ),
        (404, b"", Halt("there is no such account or destination, or the endpoint is wrong", "HTTP 404")),
        (408, b"", Retry("HTTP 408")),
        (409, {}, Retry("HTTP 409")),
        (413, b"", Rejected("HTTP 413: the request is too large", whole=True)),
        (429, b"", Retry("throttled", None, "HTTP 429", throttled=True)),
        (500, b"<html>", Retry("HTTP 500", unclear=True)),
        (500, refused(reason="INTERNAL_ERROR"), Retry("HTTP 500", unclear=True)),
        (502, b"<html>", Retry("HTTP 502", unclear=True)),
        (504, b"", Retry("HTTP 504", unclear=True)),
        (204, b"", Retry("HTTP 204", unclear=True)),
        (503, refused(reason="INVALID_DESTINATION"), Retry("HTTP 503")),
        (302, b"", Retry("HTTP 302")),
        (400, b"<html>", Retry("HTTP 400 without a word of Google's")),
        (400, b"", Retry("HTTP 400 without a word of Google's")),
        (
            400,
            b'{"error": {"code": 400, "details": [{"fieldViol',
            Rejected("the answer cannot be read to its end", whole=True, detail="HTTP 400"),
        ),
    ],
)  # fmt: skip
def test_answers_and_what_they_mean(status, body, outcome):
    assert verdict(answer(status, body)) == [outcome] * 3


@pytest.mark.parametrize("status", [429, 503, 409, 302])
def test_a_wait_that_google_asks_for_is_kept(status):
    for outcome in verdict(answer(status, b"", Retry_After="30")):
        assert isinstance(outcome, Retry)
        assert outcome.after == 30.0


# what became of it


def test_the_follow_up_asks_with_the_id_of_the_request():
    request = make_sink(endpoint="http://127.0.0.1:9", quota_project="shop").follow_up("a/b+c", SECRETS)

    assert (request.method, request.body) == ("GET", b"")
    assert request.url == "http://127.0.0.1:9/v1/requestStatus:retrieve?requestId=a%2Fb%2Bc"
    assert request.headers["Authorization"] == "Bearer TOKEN"
    assert request.headers["x-goog-user-project"] == "shop"


def status(state: str, count: Any = "3", **failed: Any) -> Json:
    counts = [
        {"reason": f"PROCESSING_ERROR_REASON_{reason}", "recordCount": number} for reason, number in failed.items()
    ]
    return {
        "requestStatus": state,
        "eventsIngestionStatus": {"recordCount": count},
        **({"errorInfo": {"errorCounts": counts}} if counts else {}),
    }


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([status("SUCCESS")], Followed("success", 3)),
        ([status("SUCCESS", 7)], Followed("success", 7)),
        ([status("SUCCESS", X="1")], Followed("partial", 3, {"X": 1})),
        ([status("PARTIAL_SUCCESS", EVENT_TOO_OLD="1")], Followed("partial", 3, {"EVENT_TOO_OLD": 1})),
        ([status("PARTIAL_SUCCESS", None, X="1")], Followed("partial", 0, {"X": 1})),
        ([status("PARTIAL_SUCCESS")], Followed("partial", 3)),
        (
            [status("FAILED", NO_CONSENT="1", INVALID_GCLID=2)],
            Followed("failed", 3, {"NO_CONSENT": 1, "INVALID_GCLID": 2}),
        ),
        ([status("SUCCESS"), status("FAILED", "2", X="2")], Followed("partial", 5, {"X": 2})),
        ([status("FAILED"), status("FAILED", "2", X="2")], Followed("failed", 5, {"X": 2})),
        ([status("FAILED")], Followed("failed", 3)),
        ([status("SUCCESS"), status("PROCESSING")], None),
        ([status("REQUEST_STATUS_UNKNOWN")], None),
        ([], None),
        (
            [{"requestStatus": "FAILED", "errorInfo": {"errorCounts": [{"reason": "ada@x"}]}}],
            Followed("failed", 0, {"UNKNOWN": 0}),
        ),
        ([{"requestStatus": "FAILED", "errorInfo": []}], Followed("failed", 0)),
        ([status("SUCCESS", "many")], Followed("success", 0)),
    ],
)
def test_the_status_comes_with_counts_by_reason_once_it_is_known(statuses, expected):
    assert make_sink().followed(answer(200, {"requestStatusPerDestination": statuses})) == expected


@pytest.mark.parametrize(
    "response",
    [answer(404, {}), answer(400, refused(reason="INVALID_REQUEST_ID")), answer(500, b""), answer(200, b"<html>")],
)
def test_no_status_is_no_status_yet(response):
    assert make_sink().followed(response) is None


@given(st.binary(max_size=200))
def test_reading_a_status_never_raises(body):
    make_sink().followed(Response(200, {}, body))


# the older interface


def test_the_older_interface_in_full():
    sink = make_sink(login_customer_id="9876543210", merchant_id="5550", feed_label="US", feed_language="en", **OLDER)
    payload = encode(sink, make_event(commerce={"discount": 3.5}))
    assert isinstance(payload, Payload)

    request = sink.request([payload], SECRETS)

    assert payload.group == ()
    assert request.method == "POST"
    assert request.url == "https://googleads.googleapis.com/v26/customers/1234567890:uploadClickConversions"
    assert request.headers == {
        "Authorization": "Bearer TOKEN",
        "Content-Type": "application/json",
        "developer-token": "DEVELOPER",
        "login-customer-id": "9876543210",
    }
    assert orjson.loads(request.body) == {
        "partialFailure": True,
        "conversions": [
            {
                "conversionAction": "customers/1234567890/conversionActions/111222333",
                "conversionDateTime": "2026-11-23 08:00:00+00:00",
                "orderId": "o_1001",
                "conversionValue": 59.98,
                "currencyCode": "USD",
                "gclid": "Cj0KCQ-gclid",
                "userIdentifiers": [
                    {"hashedEmail": sha("ada@example.com")},
                    {"hashedPhoneNumber": sha("+15550100199")},
                ],
                "consent": {"adUserData": "GRANTED"},
                "cartData": {
                    "merchantId": "5550",
                    "feedCountryCode": "US",
                    "feedLanguageCode": "en",
                    "localTransactionCost": 3.5,
                    "items": [{"productId": "SKU-1", "quantity": 2, "unitPrice": 29.99}],
                },
            }
        ],
    }


def test_the_older_interface_needs_no_developer_token_and_no_manager():
    sink = make_sink(api="upload_clicks", quota_project="shop", api_version="v25")
    payload = encode(sink, nobody(commerce=None, consent=None))
    assert isinstance(payload, Payload)

    request = sink.request([payload], {"credentials": "TOKEN"})

    assert request.url.endswith("/v25/customers/1234567890:uploadClickConversions")
    assert request.headers.keys() == {"Authorization", "Content-Type", "x-goog-user-project"}
    assert payload.body == {
        "conversionAction": "customers/1234567890/conversionActions/111222333",
        "conversionDateTime": "2026-11-23 08:00:00+00:00",
        "orderId": "order-1001",
        "gclid": "Cj0KCQ-gclid",
    }


def test_the_older_interface_cannot_restate():
    assert skipped(make_event(revision=1), **OLDER) == "this API cannot restate a conversion"


def failure(*errors: Json) -> Json:
    return {
        "code": 3,
        "message": "about ada@example.com",
        "details": [
            {"@type": "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure", "errors": list(errors)}
        ],
    }


def error(code: str, index: Any = None, kind: str = "conversionUploadError") -> Json:
    elements: list[Json] = [{"fieldName": "operations"}]
    if index is not None:
        elements = [{"fieldName": "conversions", "index": index}, {"fieldName": "gclid"}]
    return {"errorCode": {kind: code}, "message": "ada@example.com", "location": {"fieldPathElements": elements}}


def partial(*errors: Json) -> Response:
    return answer(200, {"partialFailureError": failure(*errors), "results": [{}, {}, {}]})


def test_a_200_with_a_result_for_each_is_delivery():
    assert verdict(answer(200, {"results": [{"gclid": "x"}] * 3}), **OLDER) == [Delivered()] * 3


def test_a_200_can_refuse_some():
    response = partial(error("UNPARSEABLE_GCLID", 1), error("TOO_RECENT_EVENT", "2"))

    assert verdict(response, **OLDER) == [
        Delivered(),
        Rejected("the click id is none", detail="Google Ads error UNPARSEABLE_GCLID"),
        Retry("the click or the conversion action is too new", 21600.0, "Google Ads error TOO_RECENT_EVENT"),
    ]


@pytest.mark.parametrize(
    ("code", "kind", "expected"),
    [
        *((code, "conversionUploadError", Delivered) for code in (
            "CLICK_CONVERSION_ALREADY_EXISTS", "DUPLICATE_CLICK_CONVERSION_IN_REQUEST", "ORDER_ID_ALREADY_IN_USE",
            "DUPLICATE_ORDER_ID")),
        *((code, "conversionUploadError", Retry) for code in (
            "TOO_RECENT_EVENT", "TOO_RECENT_CONVERSION_ACTION", "TOO_RECENT_CALL")),
        *((code, "quotaError", Retry) for code in ("RESOURCE_EXHAUSTED", "RESOURCE_TEMPORARILY_EXHAUSTED")),
        *((code, "internalError", Retry) for code in ("INTERNAL_ERROR", "TRANSIENT_ERROR")),
        *((code, "conversionUploadError", Rejected) for code in (
            "CLICK_NOT_FOUND", "EXPIRED_EVENT", "EVENT_NOT_FOUND", "UNPARSEABLE_GBRAID", "CONVERSION_PRECEDES_EVENT",
            "INVALID_CUSTOMER_FOR_CLICK", "UNAUTHORIZED_CUSTOMER", "UNSUPPORTED_USER_IDENTIFIER", "ORDER_ID_CONTAINS_PII",
            "SOME_NEW_CODE", "ada@example.com")),
        *((code, "conversionUploadError", Halt) for code in (
            "NO_CONVERSION_ACTION_FOUND", "INVALID_CONVERSION_ACTION_TYPE", "CUSTOMER_NOT_ACCEPTED_CUSTOMER_DATA_TERMS",
            "CUSTOMER_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS", "CUSTOMER_DATA_POLICY_PROHIBITS_ENHANCED_CONVERSIONS")),
        ("CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE", "notAllowlistedError", Halt),
        ("USER_PERMISSION_DENIED", "authorizationError", Halt),
        ("OAUTH_TOKEN_EXPIRED", "authenticationError", Halt),
    ],
)  # fmt: skip
def test_the_code_decides(code, kind, expected):
    outcomes = verdict(partial(error(code, 0, kind)), **OLDER)

    assert isinstance(outcomes[0], expected)
    assert "ada" not in repr(outcomes)
    assert outcomes[1:] == [Delivered()] * 2


KNOWN_ALREADY = (
    "CLICK_CONVERSION_ALREADY_EXISTS",
    "DUPLICATE_CLICK_CONVERSION_IN_REQUEST",
    "ORDER_ID_ALREADY_IN_USE",
    "DUPLICATE_ORDER_ID",
)


@pytest.mark.parametrize("code", KNOWN_ALREADY)
@pytest.mark.parametrize("status_", [200, 400])
def test_of_several_conversions_nobody_knows_which_one_google_has_already(code, status_):
    response = partial(error(code)) if status_ == 200 else answer(400, {"error": failure(error(code))})

    outcomes = verdict(response, **OLDER)

    reason = "Google has one of them already, and does not say which"
    assert outcomes == [Rejected(reason, True, f"Google has it already: {code}")] * 3


@pytest.mark.parametrize("code", KNOWN_ALREADY)
def test_a_conversion_alone_that_google_has_already_is_delivered(code):
    outcomes = make_sink(**OLDER).verdict(BATCH[:1], partial(error(code)))

    assert outcomes == [Delivered(f"Google has it already: {code}")]


@pytest.mark.parametrize(("status_", "unclear"), [(200, True), (400, False)])
def test_trouble_with_some_of_a_request_leaves_open_which_were_taken(status_, unclear):
    trouble = error("TRANSIENT_ERROR", None, "internalError")
    response = partial(trouble) if status_ == 200 else answer(400, {"error": failure(trouble)})

    expected = Retry("trouble at Google", detail="Google Ads error TRANSIENT_ERROR", unclear=unclear)
    assert verdict(response, **OLDER) == [expected] * 3


def test_an_account_that_refuses_one_conversion_before_any_was_taken_halts_all():
    refused_one = {"error": failure(error("NO_CONVERSION_ACTION_FOUND", 1))}

    assert [type(one) for one in verdict(answer(400, refused_one), **OLDER)] == [Halt] * 3


@pytest.mark.parametrize("index", [None, 3, "x", -1])
def test_a_partial_failure_of_nobody_in_particular_is_split(index):
    for outcome in verdict(partial(error("UNPARSEABLE_GCLID", index)), **OLDER):
        assert isinstance(outcome, Rejected)
        assert outcome.whole


def test_an_index_that_is_left_out_is_the_first():
    left_out = error("UNPARSEABLE_GCLID", 0)
    del left_out["location"]["fieldPathElements"][0]["index"]

    assert [type(one) for one in verdict(partial(left_out), **OLDER)] == [Rejected, Delivered, Delivered]


@pytest.mark.parametrize(
    ("status_", "body", "outcome"),
    [
        (200, b"{}", Delivered("valid; Google kept nothing")),
        (200, {"results": [{}]}, Retry("HTTP 200 without a receipt", unclear=True)),
        (200, b"<html>", Retry("HTTP 200 without a receipt", unclear=True)),
        (
            200,
            {"partialFailureError": {"code": 3}},
            Rejected("Google refuses some conversions without saying which", whole=True),
        ),
        (
            400,
            {"error": failure(error("INVALID_ARGUMENT", None, "requestError"))},
            Rejected("a field is invalid", whole=True, detail="Google Ads error INVALID_ARGUMENT"),
        ),
        (400, {"error": {"code": 400}}, Rejected("Google refuses the request", whole=True, detail="HTTP 400")),
        (400, b"<html>", Retry("HTTP 400 without a word of Google's")),
        (302, b"", Retry("HTTP 302 without a word of Google's")),
        (401, b"", Halt("Google does not take the access token")),
        (403, b"<html>", Halt("HTTP 403: the account or endpoint is wrong")),
        (404, b"<html>", Halt("HTTP 404: the account or endpoint is wrong")),
        (
            403,
            {"error": failure(error("CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE", None, "notAllowlistedError"))},
            Halt(
                'Google lets this account no longer use the older API: api = "data_manager"',
                "Google Ads error CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE",
            ),
        ),
        (413, b"", Rejected("HTTP 413: the request is too large", whole=True)),
        (429, b"", Retry("HTTP 429", throttled=True)),
        (409, b"", Retry("HTTP 409")),
        (503, {"error": failure(error("NO_CONVERSION_ACTION_FOUND"))}, Retry("HTTP 503")),
        *((status, b"", Retry(f"HTTP {status}", unclear=True)) for status in (500, 502, 504)),
        (204, b"", Retry("HTTP 204 without a word of Google's", unclear=True)),
    ],
)
def test_answers_of_the_older_interface_and_what_they_mean(status_, body, outcome):
    assert verdict(answer(status_, body), **OLDER) == [outcome] * 3


def test_one_bad_conversion_in_a_refused_request_leaves_the_others():
    outcomes = verdict(answer(400, {"error": failure(error("UNPARSEABLE_GCLID", 2))}), **OLDER)

    assert outcomes == [AGAIN, AGAIN, Rejected("the click id is none", detail="Google Ads error UNPARSEABLE_GCLID")]
