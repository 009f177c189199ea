"""Who is it, and what may they do?"""

import pytest

from app import settings
from app.errors import SettingsError
from app.view.access import COOKIE, LEAST, SESSION, TRIES, TRIES_IN, Access, Asked, Denied, Who

NOW = 1_795_420_800.0
ADA, VIC = "a-token-of-ada-000000", "a-token-of-vic-000000"
TOKENS = """
[view.tokens.ada]
role = "operator"
token = { env = "ADA" }
[view.tokens.vic]
token = { env = "VIC" }
"""
PROXY = """
[view]
key = { env = "KEY" }
[view.proxy]
networks = ["10.1.0.0/16"]
viewers = ["shop"]
operators = ["ops", "root"]
"""


@pytest.fixture(autouse=True)
def secrets(monkeypatch):
    for name, value in (("ADA", ADA), ("VIC", VIC), ("KEY", "k" * LEAST)):
        monkeypatch.setenv(name, value)


class Time:
    now = NOW

    def __call__(self):
        return self.now


def access(text=TOKENS, clock=None):
    return Access(settings.parse(text).view, clock or Time())


def asked(remote="10.1.2.3", path="/", cookies=None, **headers):
    named = {name.replace("_", "-").lower(): [value] for name, value in headers.items()}
    return Asked(path, remote, named, cookies or {})


def bearer(token, **more):
    return asked(authorization=f"Bearer {token}", **more)


def session(one, name):
    return asked(cookies={COOKIE: one.begin(name)})


# tokens and sessions


def test_a_token_says_who_it_is_and_with_which_role():
    assert access().who(bearer(ADA)) == Who("ada", "operator", "token")
    assert access().who(bearer(VIC)) == Who("vic", "viewer", "token")
    assert Who("vic", "viewer", "token").may("viewer")
    assert not Who("vic", "viewer", "token").may("operator")


@pytest.mark.parametrize("given", ["", "x", ADA[:-1], ADA + "x", "ada", "ä" * 20])
def test_what_is_no_token_lets_nobody_in(given):
    found = access().who(bearer(given))

    assert isinstance(found, Denied)
    assert found.status == 401


def test_without_a_token_it_says_that_one_is_needed():
    assert access().who(asked()) == Denied(401, "a token is needed", login=True)


def test_any_worker_knows_the_session_that_another_began():
    found = access().who(session(access(), "ada"))

    assert isinstance(found, Who)
    assert (found.name, found.role, found.how) == ("ada", "operator", "session")


def test_a_session_ends_by_itself_and_when_its_token_changes_or_goes(monkeypatch):
    clock = Time()
    one = access(clock=clock)
    cookie = session(one, "ada")
    clock.now = NOW + SESSION - 1
    assert isinstance(one.who(cookie), Who)
    clock.now = NOW + SESSION
    assert isinstance(one.who(cookie), Denied)

    cookie = session(access(), "ada")
    monkeypatch.setenv("ADA", "another-token-of-ada")
    assert isinstance(access().who(cookie), Denied)
    assert isinstance(access(TOKENS.replace("ada", "eve")).who(cookie), Denied)


@pytest.mark.parametrize(
    "change",
    [
        lambda cookie: cookie.replace("vic", "ada"),
        lambda cookie: cookie.replace("179", "279"),
        lambda cookie: cookie[:-1] + ("0" if cookie[-1] != "0" else "1"),
        lambda cookie: cookie.rsplit(".", 1)[0],
        lambda cookie: cookie.rsplit(".", 1)[0] + ".",
        lambda _: "vic..",
        lambda _: "...",
        lambda _: "",
    ],
)
def test_a_cookie_that_somebody_changed_is_no_session(change):
    one = access()

    assert isinstance(one.who(asked(cookies={COOKIE: change(one.begin("vic"))})), Denied)


def test_after_some_wrong_tokens_an_address_waits_and_others_do_not():
    clock = Time()
    one = access(clock=clock)
    for _ in range(TRIES):
        assert one.who(bearer("wrong", remote="10.9.9.9")).status == 401
        clock.now += 1

    refused = one.who(bearer(ADA, remote="10.9.9.9"))
    assert (refused.status, refused.wait) == (429, TRIES_IN - TRIES)
    assert isinstance(one.who(bearer(ADA, remote="10.9.9.8")), Who)
    clock.now = NOW + TRIES_IN
    assert isinstance(one.who(bearer(ADA, remote="10.9.9.9")), Who)


def test_whoever_has_a_whole_network_of_addresses_waits_with_all_of_them():
    one = access()
    for n in range(TRIES):
        one.who(bearer("wrong", remote=f"2001:db8:1:2::{n}"))

    assert one.who(bearer(ADA, remote="2001:db8:1:2:ffff::1")).status == 429
    assert isinstance(one.who(bearer(ADA, remote="2001:db8:1:3::1")), Who)


# a proxy


@pytest.mark.parametrize(
    ("groups", "role"), [("shop", "viewer"), ("shop, ops", "operator"), ("root", "operator"), ("x,shop", "viewer")]
)
def test_a_proxy_that_is_trusted_says_who_it_is(groups, role):
    found = access(PROXY).who(asked(x_forwarded_user="eve@shop", x_forwarded_groups=groups))

    assert isinstance(found, Who)
    assert (found.name, found.role, found.how) == ("eve@shop", role, "proxy")


def test_nobody_else_says_who_it_is():
    assert access(PROXY).who(asked("10.2.0.1", x_forwarded_user="eve", x_forwarded_groups="root")).status == 401
    assert access(PROXY).who(asked("10.1.0.1")).status == 401
    assert access(PROXY).who(asked("10.1.0.1", x_forwarded_user="eve", x_forwarded_groups="other")).status == 403
    twice = Asked("/", "10.1.0.1", {"x-forwarded-user": ["eve", "root"], "x-forwarded-groups": ["root"]}, {})
    assert access(PROXY).who(twice).status == 401, "the browser sent one, too, and the proxy did not take it out"


def test_where_no_group_is_named_everybody_whom_the_proxy_names_is_a_viewer():
    found = access(PROXY.replace('viewers = ["shop"]', "")).who(asked(x_forwarded_user="eve"))

    assert isinstance(found, Who)
    assert found.role == "viewer"


def test_the_address_is_the_one_behind_the_proxies_that_are_trusted():
    one = access(PROXY)

    assert one.address(asked("10.1.0.1", x_forwarded_for="1.1.1.1, 203.0.113.9, 10.1.0.2")) == "203.0.113.9"
    assert one.address(asked("203.0.113.9", x_forwarded_for="1.1.1.1")) == "203.0.113.9"
    assert one.address(asked("10.1.0.1")) == "10.1.0.1"


# without a login


@pytest.mark.parametrize("host", ["localhost", "localhost:6066", "127.0.0.1:6066", "[::1]:6066", "a.localhost"])
@pytest.mark.parametrize("remote", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.8.8.8"])
def test_without_a_login_whoever_is_on_this_machine_is_an_operator(remote, host):
    found = access("").who(asked(remote, host=host))

    assert isinstance(found, Who)
    assert (found.name, found.role, found.how) == ("local", "operator", "local")


@pytest.mark.parametrize(
    ("remote", "host"),
    [
        ("10.1.2.3", "localhost"),
        ("127.0.0.1", "evil.example"),
        ("127.0.0.1", "127.0.0.1.evil.example"),
        ("127.0.0.1", ""),
        ("", "localhost"),
    ],
)
def test_without_a_login_nobody_else_gets_in_nor_a_site_that_has_its_name_lead_here(remote, host):
    assert access("").who(asked(remote, host=host)).status == 403


def test_with_a_login_this_machine_is_nothing_special():
    assert access().who(asked("127.0.0.1", host="localhost")).status == 401


# forms


def test_a_form_needs_the_token_of_its_session():
    one = access()
    who, other = one.who(session(one, "ada")), one.who(session(one, "vic"))
    assert isinstance(who, Who)
    assert isinstance(other, Who)

    assert not one.forged(asked(), who, who.form_token)
    assert one.forged(asked(), who, "")
    assert one.forged(asked(), who, other.form_token)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"origin": "https://evil.example", "host": "capistream.example"},
        {"origin": "null", "host": "capistream.example"},
    ],
)
def test_a_form_of_another_site_is_refused_whatever_it_has(headers):
    one = access()
    who = one.who(session(one, "ada"))
    assert isinstance(who, Who)

    assert one.forged(asked(**headers), who, who.form_token)
    assert one.forged(asked(**headers), None, "")


def test_a_form_of_ours_is_taken_also_where_a_proxy_changes_the_host():
    one = access()
    who = one.who(session(one, "ada"))
    assert isinstance(who, Who)

    own = asked(origin="https://capistream.example", host="10.0.0.7:6066", sec_fetch_site="same-origin")
    assert not one.forged(own, who, who.form_token)
    assert not one.forged(asked(origin="http://here:1", host="here:1"), None, "")


def test_a_program_with_a_token_needs_no_form_token():
    assert not access().forged(bearer(ADA), Who("ada", "operator", "token"), "")


# workers among themselves


@pytest.mark.parametrize("text", [TOKENS, PROXY])
def test_a_worker_with_the_same_secrets_is_answered(text):
    path = "/local.json?id=a%2Fb"

    found = access(text).peer(asked("203.0.113.9", path, **access(text).sign(path)))

    assert isinstance(found, Who)


def test_nobody_else_is_answered_as_a_worker(monkeypatch):
    path, clock = "/local.json?id=1", Time()
    signed = access().sign(path)

    assert isinstance(access().peer(asked(path=path)), Denied)
    assert isinstance(access().peer(bearer(ADA, path=path)), Denied)
    assert isinstance(access().peer(asked(path="/local.json?id=2", **signed)), Denied), "it was asked for another id"
    clock.now = NOW + 3600
    assert isinstance(access(clock=clock).peer(asked(path=path, **signed)), Denied), "it is of an hour ago"
    monkeypatch.setenv("VIC", "another-token-of-vic")
    assert isinstance(access().peer(asked(path=path, **signed)), Denied), "its secrets are others"


def test_without_a_login_only_workers_on_this_machine_are_answered():
    assert access("").sign("/local.json") == {}
    assert isinstance(access("").peer(asked("127.0.0.1", host="127.0.0.1:1")), Who)
    assert isinstance(access("").peer(asked("10.1.2.3", host="127.0.0.1:1")), Denied)


# settings


def test_every_secret_that_is_missing_or_short_is_told_with_its_place(monkeypatch):
    monkeypatch.setenv("ADA", "short")
    monkeypatch.delenv("VIC")

    with pytest.raises(SettingsError) as told:
        access()

    assert told.value.mistakes == [
        "view.tokens.ada.token: 16 characters or more",
        "view.tokens.vic.token: environment variable VIC is not set or empty",
    ]


def test_a_proxy_alone_needs_a_key_that_workers_share():
    with pytest.raises(SettingsError, match=r"view\.key: missing"):
        settings.parse('[view.proxy]\nnetworks = ["10.0.0.0/8"]\n')


def test_nothing_that_is_printed_shows_a_secret():
    one = access()
    who = one.who(session(one, "ada"))

    assert isinstance(who, Who)
    assert who.form_token
    assert who.form_token not in repr(who)


def test_marks_of_equal_values_are_equal_at_every_worker_and_tell_nothing_else():
    assert access().mark("Berlin") == access().mark("Berlin") != access().mark("Bremen")
    assert access("").mark("Berlin") != access("").mark("Berlin"), "there workers share nothing"
