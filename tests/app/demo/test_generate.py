"""The bundled traffic file: what the demo promises of it."""

import ipaddress
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import orjson
import phonenumbers
import pytest

from app import keys
from app.demo import generate
from app.errors import BadEvent
from app.events import CANONICAL_NAMES, Event, Json
from app.normalize import Inlet, Normalized, Refused, Result, normalize, parse

BUNDLED = Path(generate.__file__).parent / "sessions.jsonl"
NOW = 1_795_420_800_000
INLETS = {
    "pixel": Inlet("pixel", "capistream", "shop", "pixel", frozenset({"pixel"})),
    "segment": Inlet("segment", "segment", "shop", "server"),
    "bus": Inlet("bus", "capistream", "shop", "server"),
}
DOCUMENTATION = [
    ipaddress.ip_network(n) for n in ("203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24", "2001:db8::/32")
]


def received(line: Json) -> int:
    return NOW + int(line["at"] * 1000)


def happened(line: Json) -> int:
    return received(line) - int(line["lag"] * 1000)


def stamped(line: Json) -> bytes:
    """The bytes that a sender makes of a line's body."""
    body = line["body"]
    if isinstance(body, str):
        return body.encode()
    if line["via"] == "segment":
        return orjson.dumps({**body, "timestamp": happened(line), "sentAt": received(line)})
    return orjson.dumps({"time": happened(line), "sent_at": received(line), **body})


def result_of(line: Json) -> Result:
    connection: Json = {name: line[name] for name in ("ip", "user_agent") if name in line}
    try:
        body = parse(stamped(line))
    except BadEvent as exc:
        return Refused(exc.reason, exc.field, exc.detail)
    (result,) = normalize(body, INLETS[line["via"]], received(line), {"topic": "orders"}, connection)
    return result


@pytest.fixture(scope="module")
def lines():
    return [orjson.loads(line) for line in BUNDLED.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def good(lines):
    return [line for line in lines if "bad" not in line]


@pytest.fixture(scope="module")
def normalized(good):
    """(line, what normalize found in it)."""
    return [(line, result_of(line)) for line in good]


@pytest.fixture(scope="module")
def conversions(normalized):
    """Of the names that two sides report: key -> its copies in the order they are sent."""
    found = defaultdict(list)
    for line, result in normalized:
        if result.event["event_name"] in generate.PAIRED:
            found[keys.key(result.event)].append((line["at"], result.event))
    return found


def sides(copies: list[tuple[float, Event]]) -> set[str]:
    return {event["source"] for _, event in copies}


def first_at(copies: list[tuple[float, Event]], source: str) -> float:
    return min(at for at, event in copies if event["source"] == source)


def test_the_bundled_file_is_what_the_script_makes():
    assert BUNDLED.read_bytes() == generate.encode(generate.generate())


def test_the_command_writes_the_same_to_a_file_and_to_the_standard_output(tmp_path, capfdbinary):
    generate.main(["--sessions", "4", "--seed", "3", "--out", str(tmp_path / "few.jsonl")])
    generate.main(["--sessions", "4", "--seed", "3"])
    assert (tmp_path / "few.jsonl").read_bytes() == capfdbinary.readouterr().out


def test_another_seed_makes_other_visits():
    assert generate.generate(3, seed=1) != generate.generate(3, seed=2)


def test_lines_are_ordered_and_play_in_half_a_minute(lines):
    moments = [line["at"] for line in lines]
    assert moments == sorted(moments)
    assert moments[0] >= 0
    assert 20 < moments[-1] <= generate.END + 1
    assert BUNDLED.stat().st_size < 3_000_000


def test_every_way_carries_its_share(good):
    ways = Counter((line["via"], line["body"].get("source")) for line in good)
    browser = ways["bus", "pixel"] / (ways["bus", "pixel"] + ways["pixel", None])
    server = ways["bus", "server"] / (ways["bus", "server"] + ways["segment", None])
    assert 0.15 < browser < 0.2
    assert 0.13 < server < 0.2


def test_no_body_says_a_time_and_only_the_pixel_has_a_connection(good):
    for line in good:
        assert not {"time", "sent_at", "timestamp", "sentAt"} & line["body"].keys()
        assert ("ip" in line, "user_agent" in line) == (line["via"] == "pixel",) * 2


def test_every_good_line_is_accepted_whole(normalized):
    for line, result in normalized:
        assert isinstance(result, Normalized), (line, result)
        assert not result.drops, line


def test_times_are_those_of_the_sender(normalized):
    for line, result in normalized:
        assert result.event["time"] == happened(line)


def test_every_known_name_occurs_and_one_of_the_shops_own(normalized):
    names = {result.event["event_name"] for _, result in normalized}
    assert names == {*CANONICAL_NAMES, "size_guide_opened"}


def test_bad_lines_are_refused_for_the_reason_they_name(lines):
    bad = [line for line in lines if "bad" in line]
    reasons = {line["bad"] for line in bad}
    assert reasons == {"missing", "no_currency", "not_json", "time_in_future", "unknown_field", "personal_id"}
    for line in bad:
        result = result_of(line)
        assert isinstance(result, Refused), line
        assert result.reason == line["bad"]


def test_values_are_the_sum_of_their_items(normalized):
    currencies: Counter[Any] = Counter()
    for line, result in normalized:
        commerce = result.event.get("commerce", {})
        currencies[commerce.get("currency")] += 1
        if "value" in commerce and "items" in commerce:
            total = sum(item["price"] * item["quantity"] for item in commerce["items"])
            assert math.isclose(commerce["value"], total, abs_tol=1e-6), line
        if commerce.get("currency") == "JPY":
            amounts = [commerce.get(name, 0) for name in ("value", "tax", "shipping", "discount")]
            amounts += [item["price"] for item in commerce.get("items", [])]
            assert all(amount == int(amount) for amount in amounts), line
    assert currencies.keys() == {*generate.CURRENCIES, None}


def test_consent_is_granted_denied_or_not_told_in_the_shares_of_a_real_shop(normalized):
    said = Counter(result.event.get("consent", {}).get("ad_user_data") for _, result in normalized)
    assert 0.6 < said["granted"] / said.total() < 0.8
    assert 0.1 < said["denied"] / said.total() < 0.2
    assert 0.1 < said[None] / said.total() < 0.2


def test_copies_contradict_each_other_in_consent_only_by_a_denial_of_the_server(conversions):
    contradictory = 0
    for copies in conversions.values():
        said = {event["source"]: event.get("consent", {}).get("ad_storage") for _, event in copies}
        if len(set(said.values())) > 1:
            assert said == {"pixel": "granted", "server": "denied"}
            contradictory += 1
    assert 0 < contradictory < 10


def test_both_copies_of_a_conversion_share_its_ids(conversions):
    pairs = [copies for copies in conversions.values() if sides(copies) == {"pixel", "server"}]
    assert len(pairs) > 0.8 * len(conversions)
    for copies in pairs:
        ids = {side: {event["event_id"] for _, event in copies if event["source"] == side} for side in sides(copies)}
        assert len(ids["server"]) == 1
        assert ids["server"] <= ids["pixel"]
        assert len({event.get("commerce", {}).get("transaction_id") for _, event in copies}) == 1
        assert len({event["commerce"].get("value") for _, event in copies if "commerce" in event}) <= 1


def test_copies_meet_within_the_window_but_for_a_few(conversions):
    gaps = [
        first_at(copies, "server") - first_at(copies, "pixel")
        for copies in conversions.values()
        if len(sides(copies)) == 2
    ]
    late = [gap for gap in gaps if abs(gap) > 6]
    assert 3 <= len(late) < 0.1 * len(gaps)
    assert all(abs(gap) <= 2.501 for gap in gaps if gap not in late)
    assert 0.3 < sum(gap > 0 for gap in gaps) / len(gaps) < 0.7


def test_some_conversions_are_told_by_one_side_only_and_some_again(conversions):
    alone = Counter("".join(sides(copies)) for copies in conversions.values() if len(sides(copies)) == 1)
    assert 0.04 < alone["server"] / len(conversions) < 0.12
    assert 0.01 < alone["pixel"] / len(conversions) < 0.08
    repeats: Counter[str] = Counter()
    for copies in conversions.values():
        ids = [event["event_id"] for _, event in copies if event["source"] == "pixel"]
        if len(ids) > 1:
            repeats["identical" if len(set(ids)) == 1 else "under a new id"] += 1
    assert repeats["identical"] >= 5
    assert repeats["under a new id"] >= 2


def test_refunds_are_the_servers_and_follow_their_purchase(normalized):
    purchased: dict[str, tuple[float, float]] = {}
    refunds = []
    for line, result in normalized:
        event = result.event
        if event["event_name"] == "purchase":
            order = purchased.setdefault(event["commerce"]["transaction_id"], (line["at"], event["commerce"]["value"]))
            assert order[1] == event["commerce"]["value"]
        elif event["event_name"] == "refund":
            refunds.append((line["at"], event))
    partial = 0
    for at, event in refunds:
        assert event["source"] == "server"
        begun, value = purchased[event["commerce"]["transaction_id"]]
        assert begun < at
        assert (event["commerce"]["value"] < value) == ("refund_id" in event["commerce"])
        partial += "refund_id" in event["commerce"]
    assert 0 < partial < len(refunds)


def test_event_ids_are_unique_but_for_copies(normalized):
    owners = defaultdict(set)
    for _, result in normalized:
        owners[result.event["event_id"]].add(keys.key(result.event))
    assert all(len(conversions) == 1 for conversions in owners.values())


def test_nobody_in_it_can_be_reached(good):
    for line in good:
        body, context = line["body"], line["body"]["context"]
        person = context.get("traits") or body.get("user") or {}
        if "email" in person:
            assert person["email"].lower().rpartition("@")[2] in ("example.com", "example.org", "example.net")
        if "phone" in person:
            assert phonenumbers.is_possible_number(phonenumbers.parse(person["phone"]))
        address = ipaddress.ip_address(line.get("ip") or context["ip"])
        assert any(address in network for network in DOCUMENTATION)
        assert context.get("url", generate.SHOP + "/").startswith(generate.SHOP + "/")


def test_names_are_written_in_the_letters_of_their_country(good):
    names = {
        part
        for line in good
        if line["via"] == "segment"
        for part in (line["body"]["context"]["traits"]["firstName"], line["body"]["context"]["traits"]["lastName"])
    }
    assert {"Jürgen", "Müßig", "Zoë", "Łukasz", "José", "山田", "Ольга"} <= names
