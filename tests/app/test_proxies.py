"""app/proxies.py: who is behind the proxies that we trust."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import proxies

TRUSTED = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("remote", "forwarded", "expected"),
    [
        ("203.0.113.9", ["1.1.1.1"], "203.0.113.9"),  # anybody can write a header
        ("10.1.0.1", [], "10.1.0.1"),
        ("10.1.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.0.1", ["1.1.1.1, 203.0.113.9, 10.1.0.2"], "203.0.113.9"),
        ("10.1.0.1", ["1.1.1.1", "203.0.113.9,10.1.0.2"], "203.0.113.9"),
        ("10.1.0.1", ["10.2.2.2, 10.1.0.2"], "10.2.2.2"),  # all of them are ours: the farthest
        ("::ffff:10.1.0.1", ["203.0.113.9"], "203.0.113.9"),  # of a socket for both families
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("10.1.0.1", ["203.0.113.9:51234"], "203.0.113.9"),
        ("10.1.0.1", ["[2001:db8::7]:443"], "2001:db8::7"),
        ("10.1.0.1", ["203.0.113.9, unknown"], ""),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_the_client_is_the_first_that_is_no_proxy_of_ours(remote, forwarded, expected):
    assert proxies.client(remote, forwarded, TRUSTED) == expected


@given(st.lists(st.text()), st.ip_addresses(v=4, network="203.0.113.0/24").map(str))
def test_nobody_can_claim_to_be_somebody_else(claimed, own):
    assert proxies.client(own, claimed, TRUSTED) == own
    assert proxies.client("10.1.0.1", [*claimed, own], TRUSTED) == own


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("who?", "who?"),
    ],
)
def test_whoever_has_an_ipv6_address_has_a_whole_network(address, expected):
    assert proxies.neighbourhood(address) == expected
