"""app/collector/limits.py: how many events one address may send."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.collector.limits import Buckets

CLIENT, OTHER = "203.0.113.7", "203.0.113.8"


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def buckets(rate: float = 10, burst: int = 20, most: int = 1000) -> tuple[Buckets, Time]:
    time = Time()
    return Buckets(rate, burst, time, most), time


def test_a_burst_is_free_and_then_comes_the_rate():
    one, time = buckets()
    one.charge(CLIENT, 19)
    assert one.wait(CLIENT) == 0
    one.charge(CLIENT, 1)

    assert one.wait(CLIENT) == 1
    assert one.wait(OTHER) == 0
    time.now = 0.1
    assert one.wait(CLIENT) == 0


def test_a_large_batch_is_taken_and_paid_for_afterwards():
    one, time = buckets()
    one.charge(CLIENT, 5000)

    assert one.wait(CLIENT) == 3  # 20 of debt and one to send, at 10 a second
    time.now = 2.1
    assert one.wait(CLIENT) == 0


# pauses in eighths of a second, so that nothing is rounded
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 40)), max_size=50))
@example([(1, 0), (42, 0), (50, 18)])  # 93 events in 2.25 s: of the debt of 23 after the second, 3 were let off
def test_nobody_sends_more_than_burst_and_rate_allow(tries):
    one, time = buckets(rate=10, burst=20)
    paid = 0
    for events, pause in tries:
        time.now += pause / 8
        if one.wait(CLIENT) == 0:
            one.charge(CLIENT, events)
            paid += min(events, 1 + 20)  # a batch is taken whole, for the last token and a debt of one burst at most

    assert paid <= 20 + 10 * time.now + 20


@pytest.mark.parametrize("address", ["", "127.0.0.1", "10.1.2.3", "192.168.1.1", "fd00::1", "::1", "unknown"])
def test_what_is_nobodys_address_on_the_internet_is_not_limited(address):
    one, _ = buckets()
    one.charge(address, 1000)

    assert one.wait(address) == 0


def test_an_ipv6_network_is_one_client():
    one, _ = buckets()
    one.charge("2001:db8:1:2::1", 1000)

    assert one.wait("2001:db8:1:2:ffff::9") > 0
    assert one.wait("2001:db8:1:3::1") == 0


def test_without_a_rate_there_is_no_limit():
    one, _ = buckets(rate=0)
    one.charge(CLIENT, 10**6)

    assert one.wait(CLIENT) == 0


def test_it_remembers_so_many_addresses_and_no_more():
    one, _ = buckets(most=100)
    for n in range(1000):
        one.charge(f"198.51.{100 + n // 250}.{n % 250}", 1000)

    assert len(one._known) == 100
    assert one.wait("198.51.103.249") > 0
