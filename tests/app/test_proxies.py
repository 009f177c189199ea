"""app/proxies.py: who is behind the proxies that we trust."""

import ipaddress

import pytest
from hypothesis import example, given
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


ADDRESSES = (
    st.ip_addresses().map(str)
    | st.ip_addresses(v=6).map(lambda found: found.exploded)
    | st.from_regex(r"[23][0-9a-f]{3}(:0|:[0-9a-f]{1,4}){7}|[0-9.]{7,15}|[0-9a-fA-F:.]{2,30}", fullmatch=True)
)


@given(ADDRESSES)
@example("2001:DB8::1")
@example("2001:0:0:1:0:0:0:1")
@example("2001:db8:0:1:1:1:1:1")
@example("172.32.0.1")
@example("01.2.3.4")
@example("::ffff:203.0.113.7")
def test_an_address_that_needs_no_parsing_is_what_parsing_makes_of_it(text):
    if found := proxies.of_the_internet(text):
        parsed = ipaddress.ip_address(text)
        assert (found, True) == (str(parsed), proxies.is_of_a_person(parsed))


@pytest.mark.parametrize("text", ["203.0.113.7", "2001:db8::1", "2a00:1450:4001:82a::200e"])
def test_most_addresses_need_no_parsing(text):
    assert proxies.of_the_internet(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "10.0.0.1",
        "192.168.0.1",
        "203.0.113.7:80",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:203.0.113.7",
        "\0",
    ],
)
def test_others_do(text):
    assert proxies.of_the_internet(text) == ""
