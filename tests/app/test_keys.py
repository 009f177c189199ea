"""app/keys.py: which copies are one conversion, and that all clients of Kafka find the same partition for it."""

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app import keys
from tests.factories import make_event

#: app.normalize refuses control characters in ids, orders and names
ID = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
TRICKY = st.text("a:%1325A", min_size=1, max_size=6)


def refund(order, refund_id=None):
    return make_event(event_name="refund", commerce={"transaction_id": order, "refund_id": refund_id})


@pytest.mark.parametrize(
    ("name", "commerce", "expected"),
    [
        ("purchase", {"transaction_id": "1001"}, "1001"),
        ("purchase", {"transaction_id": None}, "ev-1"),
        ("purchase", None, "ev-1"),
        ("purchase", {"transaction_id": "1001", "refund_id": "r1"}, "1001"),
        ("refund", {"transaction_id": "1001"}, "1001"),
        ("refund", {"transaction_id": "1001", "refund_id": "r1"}, "1001:r1"),
        ("refund", {"transaction_id": None, "refund_id": "r1"}, "ev-1"),
        ("add_to_cart", {"transaction_id": "1001"}, "ev-1"),
        ("subscribe", {"transaction_id": "1001", "refund_id": "r1"}, "ev-1"),
        ("Purchase", {"transaction_id": "1001"}, "ev-1"),
    ],
)
def test_orders_are_known_by_their_number_and_all_else_by_the_event_id(name, commerce, expected):
    assert keys.conversion_id(make_event(event_id="ev-1", event_name=name, commerce=commerce)) == expected


def test_a_key_is_id_site_and_name():
    event = make_event(event_id="ev-1", event_name="login", site="shop")

    assert keys.key(event) == b"ev-1\x1fshop\x1flogin"
    assert keys.parts(keys.key(event)) == ("ev-1", "shop", "login")


@given(ID, ID, ID)
def test_the_parts_of_a_key_are_what_it_was_made_of(event_id, site, name):
    assume(name not in ("purchase", "refund"))

    assert keys.parts(keys.key(make_event(event_id=event_id, site=site, event_name=name))) == (event_id, site, name)


@given(st.tuples(ID, ID, ID), st.tuples(ID, ID, ID))
def test_different_ids_sites_or_names_have_different_keys(one, other):
    def key(parts):
        return keys.key(make_event(event_id=parts[0], site=parts[1], event_name=parts[2], commerce=None))

    assert (key(one) == key(other)) == (one == other)


@given(st.tuples(TRICKY, st.none() | TRICKY), st.tuples(TRICKY, st.none() | TRICKY))
def test_different_refunds_have_different_keys(one, other):
    assert (keys.key(refund(*one)) == keys.key(refund(*other))) == (one == other)


def test_a_colon_in_the_order_number_makes_no_refund_another_one():
    assert keys.key(refund("1", "2:3")) != keys.key(refund("1:2", "3"))
    assert keys.key(refund("1:2")) != keys.key(refund("1", "2"))
    assert keys.key(refund("1:")) != keys.key(refund("1%3A"))


@pytest.mark.parametrize(
    ("text", "java"),
    [  # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_the_partition_is_the_one_that_kafkas_java_client_chooses(text, java):
    for partitions in (1, 2, 12, 1000):
        assert keys.partition(text, partitions) == (java & 0x7FFFFFFF) % partitions


@given(ID, st.integers(1, 1000))
def test_a_partition_is_in_range_and_always_the_same(conversion, partitions):
    found = keys.partition(conversion, partitions)

    assert 0 <= found < partitions
    assert keys.partition(conversion, partitions) == found


def test_ids_spread_over_all_partitions():
    found = Counter(keys.partition(f"order-{i}", 12) for i in range(12_000))

    assert set(found) == set(range(12))
    assert min(found.values()) > 800


def test_a_share_has_about_its_part_of_the_conversions_and_a_larger_one_has_those_too():
    ids = [f"order-{n}" for n in range(2000)]
    some, more = ({one for one in ids if keys.chosen(one, share)} for share in (0.1, 0.5))

    assert 150 < len(some) < 250
    assert some < more
    assert all(keys.chosen(one, 1.0) for one in ids)
    assert not any(keys.chosen(one, 0.0) for one in ids)
