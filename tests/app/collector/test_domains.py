"""app/collector/domains.py: which domain a cookie may be for."""

import pytest

from app.collector.domains import host_of, registrable, within


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("www.shop.co.uk", "shop.co.uk"),
        ("SHOP.de.", "shop.de"),
        ("a.b.c.kobe.jp", "b.c.kobe.jp"),
        ("city.kobe.jp", "city.kobe.jp"),
        ("xn--bcher-kva.de", "xn--bcher-kva.de"),
        ("one.github.io", "one.github.io"),
        ("co.uk", ""),
        ("de", ""),
        ("localhost", ""),
        ("192.0.2.1", ""),
        ("2001:db8::1", ""),
        ("www.shop.de; HttpOnly", ""),
        ("a..de", ""),
        (".de", ""),
        ("", ""),
    ],
)
def test_the_registered_domain_of_a_host(host, domain):
    assert registrable(host) == domain


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("https://www.shop.de:8443", "www.shop.de"),
        ("www.shop.de:80", "www.shop.de"),
        ("http://[2001:db8::1]:80", "2001:db8::1"),
        ("null", "null"),
        ("http://[", ""),
        ("", ""),
    ],
)
def test_the_host_of_a_header(header, host):
    assert host_of(header) == host


def test_a_domain_has_its_subdomains_and_no_others():
    assert within("shop.de", "shop.de")
    assert within("www.shop.de", "shop.de")
    assert not within("notshop.de", "shop.de")
