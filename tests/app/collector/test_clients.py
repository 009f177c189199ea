"""app/collector/clients.py: what SDKs of other people ask and send."""

import pytest

from app.collector import clients


@pytest.mark.parametrize(
    ("path", "call"),
    [("/v1/track", "track"), ("/v1/t", "track"), ("/v1/b", "batch"), ("/api/s/page", "page"), ("/api/s/s2s/i", "identify")],
)  # fmt: skip
def test_the_call_is_the_end_of_the_path(path, call):
    assert clients.call_of(path) == call


@pytest.mark.parametrize(
    ("header", "named"),
    [("shop:wk_12345678", ("shop", "wk_12345678")), ("wk_12345678", ("", "wk_12345678")), ("a:b:c", ("a", "b:c")), ("", ("", ""))],
)  # fmt: skip
def test_jitsus_key_may_have_a_name_before_it(header, named):
    assert clients.named_key(header) == named


def test_analytics_next_is_told_where_to_send():
    told = clients.analytics_next("wk_12345678", "https://shop.example/capi")

    assert told["integrations"].keys() == {"Segment.io"}  # with one more it would load its older half
    assert told["integrations"]["Segment.io"]["apiKey"] == "wk_12345678"
    assert told["integrations"]["Segment.io"]["apiHost"] == "shop.example/capi/v1"
    assert told["integrations"]["Segment.io"]["protocol"] == "https"


def test_without_an_address_the_page_has_to_say_it():
    assert "apiHost" not in clients.analytics_next("wk_12345678", None)["integrations"]["Segment.io"]


def test_analytics_next_reports_nothing_about_itself_to_segment():
    assert clients.analytics_next("wk_12345678", None)["metrics"] == {"sampleRate": 0}


@pytest.mark.parametrize(
    ("policy", "ip", "left"),
    [
        ("", "203.0.113.7", "203.0.113.7"),
        ("keep", "203.0.113.7", "203.0.113.7"),
        ("stripLastOctet", "203.0.113.7", "203.0.113.0"),
        ("stripLastOctet", "2001:db8::7", ""),
        ("stripLastOctet", "", ""),
        ("remove", "203.0.113.7", ""),
    ],
)
def test_jitsus_policy_for_addresses_is_heeded(policy, ip, left):
    assert clients.at_most(ip, policy) == left
