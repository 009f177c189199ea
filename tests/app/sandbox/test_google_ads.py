"""The emulated Data Manager API and Google Ads API take what Google's reference allows, and refuse each broken rule by its name."""

import base64
import copy
import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import Json
from app.sandbox import _google as google
from app.sandbox.google_ads import ADS, check_conversion
from app.tokens import GoogleTokens

NOW = 1_795_420_900
DAY = 86_400
CUSTOMER = "1234567890"
URL = "/google_ads/v1/events:ingest"
STATUS = "/google_ads/v1/requestStatus:retrieve"
OLDER = f"/google_ads/v26/customers/{CUSTOMER}:uploadClickConversions"
TOKEN = "ya29.a-planted-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
DATA_MANAGER = "https://www.googleapis.com/auth/datamanager"
ADWORDS = "https://www.googleapis.com/auth/adwords"
ABSENT = object()


def sha(text: str) -> Any:
    return hashlib.sha256(text.encode()).hexdigest()


EMAIL_HASH = sha("ada@example.com")


def changed(body: Any, changes: dict[str, Any]) -> Any:
    """By dotted path, written with __; ABSENT takes a field away."""
    body = copy.deepcopy(body)
    for path, value in changes.items():
        target = body
        *parents, last = path.split("__")
        for parent in parents:
            target = target[int(parent) if parent.isdigit() else parent]
        if value is ABSENT:
            del target[last]
        else:
            target[last] = value
    return body


def event(**changes: Any) -> Any:
    body = {
        "transactionId": "o_1001",
        "eventTimestamp": "2026-11-23T08:00:00.123Z",
        "eventSource": "WEB",
        "currency": "EUR",
        "conversionValue": 49.9,
        "adIdentifiers": {"gclid": "Cj0KCQ-gclid"},
        "userData": {
            "userIdentifiers": [
                {"emailAddress": EMAIL_HASH},
                {"phoneNumber": sha("+15550100199")},
                {
                    "address": {
                        "givenName": sha("ada"),
                        "familyName": sha("lovelace"),
                        "regionCode": "GB",
                        "postalCode": "M1 1AE",
                    }
                },
            ]
        },
        "consent": {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_DENIED"},
        "cartData": {
            "merchantId": "5550",
            "couponCodes": ["WELCOME"],
            "items": [{"merchantProductId": "SKU-1", "quantity": 2, "unitPrice": 29.99}],
        },
        "eventDeviceInfo": {"ipAddress": "2001:db8::7", "userAgent": "Mozilla/5.0"},
    }
    return changed(body, changes)


def request(*events: Any, **changes: Any) -> Any:
    body = {
        "destinations": [
            {"operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": CUSTOMER}, "productDestinationId": "111"}
        ],
        "encoding": "HEX",
        "events": list(events or [event()]),
    }
    return changed(body, changes)


async def post(bench: Any, body: Any, url: str = URL, headers: dict[str, str] = BEARER) -> Any:
    async with bench.client.post(url, json=body, headers=headers) as response:
        return response.status, await response.json()


async def get_status(bench: Any, number: str, headers: dict[str, str] = BEARER) -> Any:
    async with bench.client.get(STATUS, params={"requestId": number}, headers=headers) as response:
        return response.status, await response.json()


def violations(answer: Any) -> list[tuple[str, str]]:
    for detail in answer["error"]["details"]:
        if detail["@type"].endswith("BadRequest"):
            return [(one["field"], one["reason"]) for one in detail["fieldViolations"]]
    return []


# --- what is taken ------------------------------------------------------------------------------


async def test_a_valid_request_is_queued_and_listed(bench: Any) -> None:
    status, answer = await post(bench, request(event(), event(transactionId="o_1002")))

    assert (status, answer.keys()) == (200, {"requestId"})
    first, second = await bench.accepted()
    assert first["event"] == event()
    assert first["destination"] == f"google_ads:{CUSTOMER}"
    assert (first["event_name"], first["event_id"], first["warnings"]) == ("111", "o_1001", [])
    assert second["event_id"] == "o_1002"
    assert first["request"]["headers"]["Authorization"] == "***"
    assert first["request"]["envelope"]["encoding"] == "HEX"


TAKEN: dict[str, dict[str, Any]] = {
    "a click alone": {"userData": ABSENT},
    "a person alone": {"adIdentifiers": ABSENT},
    "a hash in upper case": {"userData__userIdentifiers__0__emailAddress": EMAIL_HASH.upper()},
    "another zone": {"eventTimestamp": "2026-11-23T09:00:00+01:00"},
    "nanoseconds": {"eventTimestamp": "2026-11-23T08:00:00.123456789Z"},
    "a clock a minute ahead": {"eventTimestamp": "2026-11-23T08:02:30Z"},
    "an int64 as a string": {"cartData__items__0__quantity": "2"},
    "no value": {"conversionValue": ABSENT, "currency": ABSENT},
    "a value of zero": {"conversionValue": 0},
    "a restated conversion": {"lastUpdatedTimestamp": "2026-11-23T08:01:00Z"},
    "a custom variable": {"customVariables": [{"variable": "plan", "value": "gold"}]},
    "a new customer": {"userProperties": {"customerType": "NEW"}},
    "no references": {"destinationReferences": []},
}


@pytest.mark.parametrize("changes", TAKEN.values(), ids=TAKEN.keys())
async def test_what_the_reference_allows_is_taken(bench: Any, changes: dict[str, Any]) -> None:
    status, answer = await post(bench, request(event(**changes)))

    assert (status, await bench.refused()) == (200, []), answer


async def test_hashes_may_be_in_base64(bench: Any) -> None:
    digest = base64.b64encode(hashlib.sha256(b"ada@example.com").digest()).decode()
    body = request(event(userData={"userIdentifiers": [{"emailAddress": digest}]}), encoding="BASE64")

    assert (await post(bench, body))[0] == 200


async def test_a_manager_and_references_are_taken(bench: Any) -> None:
    manager = {"accountType": "GOOGLE_ADS", "accountId": "9876543210"}
    body = request(
        event(destinationReferences=["a"]), destinations__0__loginAccount=manager, destinations__0__reference="a"
    )

    assert (await post(bench, body))[0] == 200


async def test_two_thousand_events_fit_in_one_request(bench: Any) -> None:
    events = [event(transactionId=f"o_{number}") for number in range(2000)]

    assert (await post(bench, request(*events)))[0] == 200


async def test_a_request_that_is_only_to_be_looked_at_is_not_kept(bench: Any) -> None:
    assert await post(bench, request(validateOnly=True)) == (200, {})
    assert (await post(bench, request(event(eventSource=ABSENT), validateOnly=True)))[0] == 400

    balance = await bench.balance(f"google_ads:{CUSTOMER}")
    assert (balance["accepted"], balance["dry_runs"]) == (0, 1)


# --- what is refused ----------------------------------------------------------------------------

BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "no id": ({"transactionId": ABSENT}, "transactionId", "REQUIRED_FIELD_MISSING"),
    "an empty id": ({"transactionId": " "}, "transactionId", "INVALID_ARGUMENT"),
    "an id that is a number": ({"transactionId": 1001}, "transactionId", "INVALID_ARGUMENT"),
    "a long id": ({"transactionId": "x" * 513}, "transactionId", "FIELD_VALUE_TOO_LONG"),
    "an e-mail as id": ({"transactionId": "ada@example.com"}, "transactionId", "INVALID_ARGUMENT"),
    "no time": ({"eventTimestamp": ABSENT}, "eventTimestamp", "REQUIRED_FIELD_MISSING"),
    "a time without zone": ({"eventTimestamp": "2026-11-23T08:00:00"}, "eventTimestamp", "INVALID_FORMAT"),
    "a time with a space": ({"eventTimestamp": "2026-11-23 08:00:00Z"}, "eventTimestamp", "INVALID_FORMAT"),
    "Unix time": ({"eventTimestamp": NOW}, "eventTimestamp", "INVALID_FORMAT"),
    "no such day": ({"eventTimestamp": "2026-02-30T08:00:00Z"}, "eventTimestamp", "INVALID_FORMAT"),
    "the future": ({"eventTimestamp": "2026-11-23T09:00:00Z"}, "eventTimestamp", "EVENT_TIME_INVALID"),
    "no source": ({"eventSource": ABSENT}, "eventSource", "REQUIRED_FIELD_MISSING"),
    "an unknown source": ({"eventSource": "web"}, "eventSource", "INVALID_ENUM_VALUE"),
    "value as a string": ({"conversionValue": "49.9"}, "conversionValue", "INVALID_ARGUMENT"),
    "a value without currency": ({"currency": ABSENT}, "currency", "REQUIRED_FIELD_MISSING"),
    "currency in lower case": ({"currency": "eur"}, "currency", "INVALID_CURRENCY_CODE"),
    "no such currency": ({"currency": "EUX"}, "currency", "INVALID_CURRENCY_CODE"),
    "nobody": ({"adIdentifiers": ABSENT, "userData": ABSENT}, "", "NO_IDENTIFIERS_PROVIDED"),
    "a device alone": ({"adIdentifiers": {}, "userData": ABSENT}, "", "NO_IDENTIFIERS_PROVIDED"),
    "both braids": ({"adIdentifiers": {"gbraid": "B", "wbraid": "W"}}, "adIdentifiers", "INVALID_ARGUMENT"),
    "an empty click id": ({"adIdentifiers__gclid": ""}, "adIdentifiers.gclid", "INVALID_ARGUMENT"),
    "a foreign click id": ({"adIdentifiers__fbclid": "x"}, "adIdentifiers.fbclid", "INVALID_ARGUMENT"),
    "a clear e-mail": (
        {"userData__userIdentifiers__0__emailAddress": "ada@example.com"},
        "userData.userIdentifiers[0].emailAddress",
        "INVALID_HEX_ENCODING",
    ),
    "the hash of nothing": (
        {"userData__userIdentifiers__0__emailAddress": sha("")},
        "userData.userIdentifiers[0].emailAddress",
        "INVALID_SHA256_FORMAT",
    ),
    "a clear name": (
        {"userData__userIdentifiers__2__address__givenName": "Ada"},
        "userData.userIdentifiers[2].address.givenName",
        "INVALID_HEX_ENCODING",
    ),
    "half an address": (
        {"userData__userIdentifiers__2__address__postalCode": ABSENT},
        "userData.userIdentifiers[2].address.postalCode",
        "REQUIRED_FIELD_MISSING",
    ),
    "a hashed postal code": (
        {"userData__userIdentifiers__2__address__postalCode": sha("M1 1AE")},
        "userData.userIdentifiers[2].address.postalCode",
        "INVALID_ARGUMENT",
    ),
    "a country in words": (
        {"userData__userIdentifiers__2__address__regionCode": "Germany"},
        "userData.userIdentifiers[2].address.regionCode",
        "INVALID_REGION_CODE",
    ),
    "two identifiers in one": (
        {"userData__userIdentifiers__0__phoneNumber": EMAIL_HASH},
        "userData.userIdentifiers[0]",
        "INVALID_ARGUMENT",
    ),
    "no identifiers": (
        {"userData__userIdentifiers": []},
        "userData.userIdentifiers",
        "INVALID_ARGUMENT",
    ),
    "eleven identifiers": (
        {"userData__userIdentifiers": [{"emailAddress": EMAIL_HASH}] * 11},
        "userData.userIdentifiers",
        "TOO_MANY_USER_IDENTIFIERS",
    ),
    "another kind of consent": ({"consent__adUserData": "GRANTED"}, "consent.adUserData", "INVALID_ENUM_VALUE"),
    "an unknown consent": ({"consent__adStorage": "CONSENT_GRANTED"}, "consent.adStorage", "INVALID_ARGUMENT"),
    "half a piece": ({"cartData__items__0__quantity": 0.5}, "cartData.items[0].quantity", "INVALID_NUMBER_FORMAT"),
    "a price as a string": ({"cartData__items__0__unitPrice": "9"}, "cartData.items[0].unitPrice", "INVALID_ARGUMENT"),
    "no items": ({"cartData__items": []}, "cartData.items", "INVALID_ARGUMENT"),
    "a shop's name": ({"cartData__merchantId": "shop"}, "cartData.merchantId", "INVALID_MERCHANT_ID"),
    "no address": ({"eventDeviceInfo__ipAddress": "203.0.113"}, "eventDeviceInfo.ipAddress", "INVALID_ARGUMENT"),
    "a GA4 event": ({"eventName": "purchase"}, "eventName", "INVALID_ARGUMENT"),
    "snake case": ({"event_source": "WEB"}, "event_source", "INVALID_ARGUMENT"),
    "null": ({"conversionCount": None}, "conversionCount", "INVALID_ARGUMENT"),
    "an unknown reference": ({"destinationReferences": ["b"]}, "destinationReferences[0]", "INVALID_DESTINATION"),
    "an e-mail in a variable": (
        {"customVariables": [{"variable": "note", "value": "ada@example.com"}]},
        "customVariables[0].value",
        "INVALID_ARGUMENT",
    ),
}


@pytest.mark.parametrize(("changes", "field", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_each_broken_rule_is_refused_by_its_name(
    bench: Any, changes: dict[str, Any], field: str, code: str
) -> None:
    status, answer = await post(bench, request(event(**changes)))

    assert status == 400
    assert (answer["error"]["status"], await bench.accepted()) == ("INVALID_ARGUMENT", [])
    (refused,) = await bench.refused()
    place = f"events[0].{field}" if field else "events[0]"
    assert {reason["field"]: reason["code"] for reason in refused["reasons"]}.get(place) == code, refused["reasons"]
    assert code in dict(violations(answer)).values()
    assert "ada@example.com" not in orjson.dumps(answer).decode()


async def test_one_bad_event_fails_the_request_and_the_answer_names_it(bench: Any) -> None:
    events = [event(transactionId=f"o_{number}") for number in range(10)]
    del events[6]["userData"]["userIdentifiers"][2]["address"]["givenName"]

    status, answer = await post(bench, request(*events))

    assert status == 400
    assert violations(answer) == [
        ("events[6].user_data.user_identifiers[2].address.given_name", "REQUIRED_FIELD_MISSING")
    ]
    assert [one["event_id"] for one in await bench.refused()] == ["o_6"]
    balance = await bench.balance(f"google_ads:{CUSTOMER}")
    assert (balance["accepted"], balance["refused"], balance["collateral"]) == (0, 1, 9)


AROUND: dict[str, tuple[Any, str, str]] = {
    "no destination": (request(destinations=[]), "destinations", "INVALID_ARGUMENT"),
    "eleven destinations": (
        request(destinations=request()["destinations"] * 11),
        "destinations",
        "TOO_MANY_DESTINATIONS",
    ),
    "another product": (
        request(destinations__0__operatingAccount__accountType="GOOGLE_ANALYTICS_PROPERTY"),
        "destinations[0].operating_account.account_type",
        "DESTINATION_ACCOUNT_TYPE_MISMATCH",
    ),
    "dashes": (
        request(destinations__0__operatingAccount__accountId="123-456-7890"),
        "destinations[0].operating_account.account_id",
        "INVALID_NUMBER_FORMAT",
    ),
    "a label of the tag": (
        request(destinations__0__productDestinationId="AW-123/AbC"),
        "destinations[0].product_destination_id",
        "INVALID_NUMBER_FORMAT",
    ),
    "no action": (
        request(destinations__0__productDestinationId=ABSENT),
        "destinations[0].product_destination_id",
        "REQUIRED_FIELD_MISSING",
    ),
    "no events": (request(events=[]), "events", "REQUIRED_FIELD_MISSING"),
    "too many events": (request(events=[event()] * 2001), "events", "TOO_MANY_EVENTS"),
    "no encoding": (request(encoding=ABSENT), "encoding", "REQUIRED_FIELD_MISSING"),
    "an unknown encoding": (request(encoding="hex"), "encoding", "INVALID_ENUM_VALUE"),
    "the older interface's switch": (request(partialFailure=True), "partial_failure", "INVALID_ARGUMENT"),
    "no object": ([], "body", "INVALID_ARGUMENT"),
}


@pytest.mark.parametrize(("body", "field", "code"), AROUND.values(), ids=AROUND.keys())
async def test_each_bad_request_is_refused_by_its_name(bench: Any, body: Any, field: str, code: str) -> None:
    status, answer = await post(bench, body)

    assert status == 400
    assert (field, code) in violations(answer)
    assert await bench.accepted() == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff"])
async def test_what_is_no_json_is_refused(bench: Any, body: bytes) -> None:
    headers = {**BEARER, "Content-Type": "application/json"}
    async with bench.client.post(URL, data=body, headers=headers) as response:
        assert response.status == 400


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {TOKEN}"}])
@pytest.mark.parametrize("url", [URL, OLDER])
async def test_without_token_the_answer_is_401(bench: Any, url: str, headers: dict[str, str]) -> None:
    status, answer = await post(bench, request(), url, headers)

    assert (status, answer["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert await bench.accepted() == []


async def test_a_token_that_is_not_the_accounts_is_refused(start_bench: Any) -> None:
    bench = await start_bench(tokens={f"google_ads:{CUSTOMER}": ["another"]})

    assert (await post(bench, request()))[0] == 401


# --- what is known again ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "around", "duplicate"),
    [
        ({}, {}, True),
        ({"conversionValue": 70}, {}, True),
        ({"transactionId": "o_1002"}, {}, False),
        ({}, {"destinations__0__productDestinationId": "222"}, False),
    ],
)
async def test_an_id_is_known_again_by_its_action(bench: Any, other: Any, around: Any, duplicate: bool) -> None:
    await post(bench, request())
    bench.clock.now += 80 * DAY
    await post(bench, request(event(**other), **around))

    assert (await bench.accepted())[1]["duplicate"] is duplicate


# --- what becomes of it -------------------------------------------------------------------------


async def test_a_status_is_known_at_once_unless_told_otherwise(bench: Any) -> None:
    _, answer = await post(bench, request(event(), event(transactionId="o_2")))

    status, told = await get_status(bench, answer["requestId"])

    assert status == 200
    assert told["requestStatusPerDestination"] == [
        {
            "destination": {"productDestinationId": "111"},
            "requestStatus": "SUCCESS",
            "eventsIngestionStatus": {"recordCount": "2"},
        }
    ]


async def test_a_queue_takes_its_time(bench: Any) -> None:
    await bench.faults(destination="google_ads", queue_s=60)
    _, answer = await post(bench, request())

    states = []
    for _ in range(2):
        _, told = await get_status(bench, answer["requestId"])
        states.append(told["requestStatusPerDestination"][0]["requestStatus"])
        bench.clock.now += 60

    assert states == ["PROCESSING", "SUCCESS"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"eventTimestamp": "2026-08-01T08:00:00Z"}, "PROCESSING_ERROR_REASON_EVENT_TOO_OLD"),
        ({"consent__adUserData": "CONSENT_DENIED"}, "PROCESSING_ERROR_REASON_DENIED_CONSENT"),
    ],
)
async def test_some_events_fail_after_they_were_taken(bench: Any, changes: dict[str, Any], reason: str) -> None:
    status, answer = await post(bench, request(event(), event(transactionId="o_2", **changes)))
    _, told = await get_status(bench, answer["requestId"])

    assert status == 200
    (one,) = told["requestStatusPerDestination"]
    assert one["requestStatus"] == "PARTIAL_SUCCESS"
    assert one["errorInfo"] == {"errorCounts": [{"recordCount": "1", "reason": reason}]}
    assert [one["event_id"] for one in await bench.refused()] == ["o_2"]


async def test_good_events_fail_in_processing_on_request(bench: Any) -> None:
    await bench.faults(destination="google_ads", partial=1)
    _, answer = await post(bench, request(event(), event(transactionId="o_2")))
    _, told = await get_status(bench, answer["requestId"])

    (one,) = told["requestStatusPerDestination"]
    assert (one["requestStatus"], one["errorInfo"]["errorCounts"][0]["recordCount"]) == ("FAILED", "2")


@pytest.mark.parametrize("number", ["", "abc", "abc-0123456789ab"])
async def test_a_request_that_was_never_taken_has_no_status(bench: Any, number: str) -> None:
    status, answer = await get_status(bench, number)

    assert (status, violations(answer)) == (400, [("request_id", "INVALID_REQUEST_ID")])


async def test_a_status_needs_a_token(bench: Any) -> None:
    _, answer = await post(bench, request())

    assert (await get_status(bench, answer["requestId"], headers={}))[0] == 401


async def test_questions_are_no_deliveries(bench: Any) -> None:
    _, answer = await post(bench, request())
    before = await bench.balance(f"google_ads:{CUSTOMER}")
    await get_status(bench, answer["requestId"])
    await get_status(bench, "abc")
    await bench.client.post("/google_ads/token", data={})

    balance = await bench.balance(f"google_ads:{CUSTOMER}")
    assert balance == before | {"requests": before["requests"] + 1}
    assert await bench.refused() == []


# --- warnings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"transactionId": "1001"}, "transactionId", None),
        ({"adIdentifiers__wbraid": "W", "cartData": ABSENT}, "adIdentifiers", None),
        ({"consent": ABSENT}, "consent", None),
        (
            {"adIdentifiers": {"wbraid": "W"}},
            "cartData",
            ("events[0].cart_data", "WARNING_REASON_CART_DATA_NOT_SUPPORTED_WITH_GBRAID_OR_WBRAID"),
        ),
        (
            {"cartData__items__0__unitPrice": ABSENT},
            "cartData.items[0].unitPrice",
            ("events[0].cart_data.items[0].unit_price", "WARNING_REASON_CART_DATA_ITEM_UNIT_PRICE_MISSING"),
        ),
    ],
)
async def test_what_is_taken_and_could_be_better_is_warned_of(
    bench: Any, changes: dict[str, Any], field: str, told: tuple[str, str] | None
) -> None:
    status, answer = await post(bench, request(event(**changes)))

    assert status == 200
    assert [(one["field"], one["reason"]) for one in answer.get("fieldWarnings", ())] == ([told] if told else [])
    (taken,) = await bench.accepted()
    assert [warning["field"] for warning in taken["warnings"]] == [f"events[0].{field}"]


# --- tokens -------------------------------------------------------------------------------------


def assertion(**changes: Any) -> str:
    claims = {
        "iss": "x@shop.iam.gserviceaccount.com",
        "scope": DATA_MANAGER,
        "aud": "https://oauth2.googleapis.com/token",
        "iat": NOW,
        "exp": NOW + 3600,
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, changed(claims, changes))
    return ".".join([*(base64.urlsafe_b64encode(orjson.dumps(one)).decode().rstrip("=") for one in parts), "c2ln"])


def refresh(**changes: Any) -> Any:
    return changed(
        {"grant_type": "refresh_token", "client_id": "c", "client_secret": "s", "refresh_token": "1//planted"}, changes
    )


def jwt(**changes: Any) -> Json:
    return {"grant_type": google.JWT_BEARER, "assertion": assertion(**changes)}


async def ask_token(bench: Any, form: Any) -> Any:
    async with bench.client.post("/google_ads/token", data=form) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("form", [refresh(), refresh(scope=DATA_MANAGER), jwt()])
async def test_both_grants_give_a_token_that_works_for_an_hour(bench: Any, form: Any) -> None:
    status, answer = await ask_token(bench, form)
    bearer = {"Authorization": f"Bearer {answer['access_token']}"}

    assert (status, answer["expires_in"], answer["token_type"]) == (200, 3599, "Bearer")
    assert (await post(bench, request(), headers=bearer))[0] == 200
    bench.clock.now += 3599
    assert (await post(bench, request(), headers=bearer))[0] == 401


async def test_a_token_works_for_its_scope_only(bench: Any) -> None:
    _, answer = await ask_token(bench, refresh(scope=ADWORDS))
    bearer = {"Authorization": f"Bearer {answer['access_token']}"}

    status, refused = await post(bench, request(), headers=bearer)

    assert (status, refused["error"]["details"][0]["reason"]) == (403, "ACCESS_TOKEN_SCOPE_INSUFFICIENT")
    assert (await post(bench, older(), OLDER, bearer))[0] == 200


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        (refresh(client_secret=ABSENT), "invalid_client"),
        (refresh(refresh_token=""), "invalid_grant"),
        ({"grant_type": google.JWT_BEARER}, "invalid_grant"),
        ({"grant_type": google.JWT_BEARER, "assertion": "a.b"}, "invalid_grant"),
        ({"grant_type": google.JWT_BEARER, "assertion": "e30.e30.x"}, "invalid_grant"),
        (jwt(exp=NOW - 1), "invalid_grant"),
        (jwt(exp=NOW + 7200), "invalid_grant"),
        (jwt(iat="soon"), "invalid_grant"),
        (jwt(scope=""), "invalid_grant"),
        (jwt(iss=ABSENT), "invalid_grant"),
    ],
)
async def test_a_bad_grant_gets_no_token(bench: Any, form: Any, code: str) -> None:
    assert (await ask_token(bench, form))[1] == {"error": code}


async def test_a_credential_can_be_revoked(bench: Any) -> None:
    await bench.faults(destination="google_ads:oauth", expired_token=True)

    assert await ask_token(bench, refresh()) == (400, {"error": "invalid_grant"})
    assert await ask_token(bench, jwt()) == (400, {"error": "invalid_grant"})


async def test_googles_own_client_gets_its_token_here(bench: Any) -> None:
    credential = {
        "type": "authorized_user",
        "client_id": "c",
        "client_secret": "s",
        "refresh_token": "1//planted",
        "token_uri": str(bench.client.make_url("/google_ads/token")),
    }

    token = await GoogleTokens().get(orjson.dumps(credential).decode(), (DATA_MANAGER,))

    assert (await post(bench, request(), headers={"Authorization": f"Bearer {token}"}))[0] == 200


# --- the older interface ------------------------------------------------------------------------


def conversion(**changes: Any) -> Any:
    body = {
        "conversionAction": f"customers/{CUSTOMER}/conversionActions/111",
        "conversionDateTime": "2026-11-23 08:00:00+00:00",
        "orderId": "1001",
        "conversionValue": 49.9,
        "currencyCode": "EUR",
        "gclid": "Cj0KCQ-gclid",
        "userIdentifiers": [{"hashedEmail": EMAIL_HASH}, {"hashedPhoneNumber": sha("+15550100199")}],
        "consent": {"adUserData": "GRANTED"},
        "cartData": {"merchantId": "5550", "items": [{"productId": "SKU-1", "quantity": 2, "unitPrice": 29.99}]},
    }
    return changed(body, changes)


def older(*conversions: Any, **changes: Any) -> Any:
    return changed({"conversions": list(conversions or [conversion()]), "partialFailure": True}, changes)


def failures(answer: Any) -> list[tuple[int, str]]:
    (detail,) = answer["partialFailureError"]["details"]
    return [
        (one["location"]["fieldPathElements"][0]["index"], next(iter(one["errorCode"].values())))
        for one in detail["errors"]
    ]


async def test_the_older_interface_repeats_what_it_took(bench: Any) -> None:
    status, answer = await post(bench, older(), OLDER)

    assert (status, "partialFailureError" in answer) == (200, False)
    assert [one["gclid"] for one in answer["results"]] == ["Cj0KCQ-gclid"]
    (taken,) = await bench.accepted()
    assert (taken["destination"], taken["event_name"], taken["event_id"]) == (f"google_ads:{CUSTOMER}", "111", "1001")


BROKEN_OLDER: dict[str, tuple[dict[str, Any], str]] = {
    "a tag's label": ({"conversionAction": "AW-1/x"}, "NO_CONVERSION_ACTION_FOUND"),
    "RFC 3339": ({"conversionDateTime": "2026-11-23T08:00:00Z"}, "INVALID_ARGUMENT"),
    "no zone": ({"conversionDateTime": "2026-11-23 08:00:00"}, "INVALID_ARGUMENT"),
    "the future": ({"conversionDateTime": "2026-11-23 09:00:00+00:00"}, "FUTURE_CONVERSION_DATE_TIME"),
    "months ago": ({"conversionDateTime": "2026-08-01 08:00:00+00:00"}, "EXPIRED_EVENT"),
    "both braids": ({"gclid": ABSENT, "gbraid": "B", "wbraid": "W"}, "GBRAID_WBRAID_BOTH_SET"),
    "an empty click id": ({"gclid": ""}, "UNPARSEABLE_GCLID"),
    "nobody": ({"gclid": ABSENT, "userIdentifiers": ABSENT}, "UNPARSEABLE_GCLID"),
    "a clear e-mail": ({"userIdentifiers": [{"hashedEmail": "ada@example.com"}]}, "INVALID_USER_IDENTIFIER"),
    "an address": ({"userIdentifiers": [{"addressInfo": {}}]}, "UNSUPPORTED_USER_IDENTIFIER"),
    "a value without currency": ({"currencyCode": ABSENT}, "REQUIRED_FIELD_MISSING"),
    "no such currency": ({"currencyCode": "EUX"}, "INVALID_CURRENCY_CODE"),
    "the newer consent": ({"consent__adUserData": "CONSENT_GRANTED"}, "INVALID_ARGUMENT"),
    "the newer name of a field": ({"transactionId": "1001"}, "INVALID_ARGUMENT"),
    "a cart without merchant": ({"cartData__merchantId": ABSENT}, "INVALID_ARGUMENT"),
}


@pytest.mark.parametrize(("changes", "code"), BROKEN_OLDER.values(), ids=BROKEN_OLDER.keys())
async def test_the_older_interface_refuses_one_and_takes_the_others(
    bench: Any, changes: dict[str, Any], code: str
) -> None:
    status, answer = await post(bench, older(conversion(orderId="1"), conversion(orderId="2", **changes)), OLDER)

    assert status == 200
    assert (1, code) in failures(answer)
    assert answer["results"][1] == {}
    assert [one["event_id"] for one in await bench.accepted()] == ["1"]
    assert [one["event_id"] for one in await bench.refused()] == ["2"]
    assert "ada@example.com" not in orjson.dumps(answer).decode()


@pytest.mark.parametrize(
    ("body", "url"),
    [
        (older(partialFailure=False), OLDER),
        (older(partialFailure=ABSENT), OLDER),
        (older(conversions=[]), OLDER),
        ([], OLDER),
        (older(), OLDER.replace("v26", "v22")),
        (older(), OLDER.replace("v26", "v27")),
        (older(), OLDER.replace(CUSTOMER, "123-456-7890")),
    ],
)
async def test_the_older_interface_refuses_a_bad_request(bench: Any, body: Any, url: str) -> None:
    status, answer = await post(bench, body, url)

    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert await bench.accepted() == []


async def test_a_conversion_twice_in_a_request_is_taken_once(bench: Any) -> None:
    _, answer = await post(bench, older(conversion(), conversion()), OLDER)

    assert failures(answer) == [(1, "DUPLICATE_CLICK_CONVERSION_IN_REQUEST")]


async def test_the_older_interface_fails_good_ones_on_request(bench: Any) -> None:
    await bench.faults(destination="google_ads", partial=1)

    _, answer = await post(bench, older(), OLDER)

    assert failures(answer) == [(0, "UNPARSEABLE_GCLID")]


async def test_the_older_interface_can_only_look(bench: Any) -> None:
    assert await post(bench, older(validateOnly=True), OLDER) == (200, {})
    assert await bench.accepted() == []


# --- nothing breaks it --------------------------------------------------------------------------

_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)),
    max_leaves=6,
)


@given(st.sampled_from(sorted(event())), _JSON)
def test_no_value_of_any_field_breaks_the_checks(field: str, value: Any) -> None:
    body = event(**{field: value})
    around = google._Around(ADS, NOW, "HEX", frozenset(), "111")

    for problem in google._checked(body, "events[0]", around).problems:
        assert problem.reason
    list(ADS.later(body, "events[0]", NOW))


@given(st.sampled_from(sorted(conversion())), _JSON)
def test_no_value_of_any_older_field_breaks_the_checks(field: str, value: Any) -> None:
    for problem in check_conversion(conversion(**{field: value}), "conversions[0]", NOW):
        assert problem.reason
