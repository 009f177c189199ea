"""app/doctor/configuration.py: the file, its secrets, and what it seldom means."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.doctor import configuration
from app.doctor.configuration import SecretSeen
from app.doctor.place import Place
from tests.app.doctor.facts import TOML, only, settings, states
from tests.secured import Authority

NOW = datetime(2026, 11, 23, tzinfo=UTC)
GOOD = "a1b2c3d4e5f6a7b8c9d0"


def meaning(more="", **changed):
    return configuration.judge_meaning(settings(more, **changed), NOW)


def test_a_file_that_loads_is_told_with_what_it_has(tmp_path):
    path = tmp_path / "capistream.toml"
    path.write_text(TOML)

    loaded, found = configuration.load(path)

    assert loaded is not None
    assert states(found) == []
    assert "1 sites, 1 sources, 1 destinations" in found[0].detail


def test_every_mistake_of_a_file_is_a_problem_of_its_own(tmp_path):
    path = tmp_path / "capistream.toml"
    path.write_text(TOML.replace("partitions = 4", "partitions = 0").replace('site = "shop"', 'site = "Shop!"'))

    loaded, found = configuration.load(path)

    assert loaded is None
    assert [one.state for one in found] == ["problem", "problem"]
    assert "kafka.partitions" in found[0].detail


def test_a_file_that_is_not_there_is_a_problem(tmp_path):
    _, found = configuration.load(tmp_path / "none.toml")

    assert "No such file" in only(found).detail


def test_a_file_that_anybody_may_change_is_a_warning(tmp_path):
    path = tmp_path / "capistream.toml"
    path.write_text(TOML)
    path.chmod(0o646)

    assert only(configuration.load(path)[1]).state == "warning"


def test_a_broker_of_the_environment_is_told(tmp_path, monkeypatch):
    path = tmp_path / "capistream.toml"
    path.write_text(TOML)
    monkeypatch.setenv("CAPISTREAM_BROKER", "elsewhere:9092")

    assert "elsewhere:9092" in configuration.load(path)[1][-1].detail


# Secrets


def judged(*seen, short_key="", contained=False):
    return list(configuration.judge_secrets(seen, short_key=short_key, contained=contained))


async def test_secrets_are_read_and_never_told(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("s3cret in-two words")
    (tmp_path / "token").chmod(0o644)
    for name in ("SHOP_SECRET", "PRIVACY_KEY", "CHAT"):
        monkeypatch.setenv(name, f"s3cret-{GOOD}")
    loaded = settings(access_token=f'{{ file = "{tmp_path}/token" }}')

    found = await configuration.check_secrets(Place(loaded, NOW.timestamp()))

    assert "s3cret" not in str(found)
    assert {one.what for one in found if one.state == "warning"} == {"destinations.ads.access_token"}
    assert any("blank" in one.detail for one in found)


def test_secrets_that_are_there_are_counted():
    (found,) = judged(SecretSeen("a", "", GOOD), SecretSeen("b", "", GOOD))

    assert (found.state, found.detail) == ("ok", "2 of 2 can be read")


def test_one_that_cannot_be_read_is_a_problem_with_its_place():
    found = judged(SecretSeen("destinations.ads.access_token", "environment variable X is not set or empty"))

    assert (only(found).what, only(found).state) == ("destinations.ads.access_token", "problem")


@pytest.mark.parametrize(
    ("mode", "contained", "wrong"),
    [(0o640, False, False), (0o644, False, True), (0o644, True, False), (0o646, True, True), (0o600, False, False)],
)
def test_a_file_that_everybody_may_read_is_a_warning_but_in_a_container(mode, contained, wrong):
    found = judged(SecretSeen("a", "", GOOD, Path("/x"), mode), contained=contained)

    assert [one.state for one in found if one.state != "ok"] == (["warning"] if wrong else [])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"abcdefghij"', "quotes"),
        ("Bearer abcdefgh", "Bearer"),
        ("abc\ndefghij", "line break"),
        ("abc defghij", "blank"),
        ("changeme123", "placeholder"),
        ("<your token>", "blank"),
        ("abc", "3 characters"),
    ],
)
def test_what_no_secret_looks_like_is_told_without_it(value, said):
    found = only(judged(SecretSeen("destinations.ads.access_token", "", value)))

    assert said in found.detail
    assert value not in found.detail


def test_what_no_header_can_hold_is_a_problem():
    assert only(judged(SecretSeen("destinations.ads.access_token", "", "abc\ndefghij"))).state == "problem"


def test_a_key_of_google_is_a_file_with_many_lines():
    assert configuration.odd_shape("destinations.g.credentials", '{\n "type": "service_account"\n}') == ""


def test_a_key_for_hashes_that_is_too_short_is_a_problem():
    found = only(judged(SecretSeen("privacy.key", "", "a1b2c3d4e5"), short_key="privacy.key: 16 characters or more"))

    assert (found.state, found.what, found.detail) == ("problem", "privacy.key", "16 characters or more")


@pytest.mark.parametrize(("days", "state"), [(100, []), (3, ["warning"]), (-1, ["problem"])])
def test_the_end_of_our_certificate_is_told_in_time(days, state):
    found = configuration.judge_certificate(settings(), NOW.timestamp() + days * 86_400, NOW.timestamp())

    assert [one.state for one in found if one.state != "ok"] == state


def test_our_certificate_is_read_and_one_that_is_none_is_told(tmp_path):
    certificate, key = Authority(tmp_path).issue("capistream")
    loaded = settings(f'[kafka.tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    nonsense = settings(f'[kafka.tls]\nca = "{tmp_path}/none.pem"\n')

    ends = configuration._ends(loaded)

    assert ends is not None
    assert ends > time.time()
    assert only(configuration.judge_certificate(nonsense, None, 0.0)).what == "kafka.tls"


@pytest.mark.parametrize(("environment", "inside"), [({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True)])
def test_kubernetes_is_a_container(environment, inside):
    assert configuration.contained(environment) == inside


# What is seldom meant


def test_a_usual_configuration_is_fine():
    assert states(meaning()) == []


WEBHOOK = """
[destinations.{name}]
sink = "webhook"
endpoint = "https://hooks.example/x"
secret = {{ env = "HOOK" }}
browser_tag = "none"
"""


@pytest.mark.parametrize(
    ("changed", "what", "said"),
    [
        ({"mode": '"off"'}, "destinations", "none is on"),
        ({"share": "0"}, "destinations.ads.share", "nothing is sent"),
        ({"live_from": "2027-01-01T00:00:00Z"}, "destinations.ads.live_from", "2027-01-01"),
        ({"endpoint": '"http://ads.example"'}, "destinations.ads.endpoint", "in clear"),
        ({"endpoint": '"http://127.0.0.1:8090"'}, "destinations.ads.endpoint", "emulator"),
        ({"consent": "{ needs = [] }"}, "destinations.ads.consent.needs", "whatever the person said"),
        ({"consent": '{ absent = "assume" }'}, "destinations.ads.consent.absent", "EEA"),
        (
            {"consent": "{ legitimate_interest = [1, 7] }"},
            "destinations.ads.consent.legitimate_interest",
            "purposes 1,",
        ),
    ],
)
def test_what_is_seldom_meant_is_a_warning(changed, what, said):
    found = only(meaning(**changed))

    assert (found.state, found.what) == ("warning", what)
    assert said in found.detail


@pytest.mark.parametrize(
    "changed",
    [
        {"mode": '"shadow"', "endpoint": '"http://127.0.0.1:8090"'},
        {"consent": '{ regions = { US = { absent = "assume" } } }'},
        {"consent": '{ partial = "flag" }'},
        {"live_from": "2026-01-01T00:00:00Z"},
    ],
)
def test_what_may_well_be_meant_is_not(changed):
    assert states(meaning(**changed)) == []


def test_a_flag_for_a_platform_that_takes_none_is_told():
    found = only(meaning(WEBHOOK.format(name="own") + 'consent = { partial = "flag" }'))

    assert found.what == "destinations.own.consent.partial"


def test_two_destinations_for_one_account_count_twice():
    found = only(meaning(WEBHOOK.format(name="one") + WEBHOOK.format(name="two")))

    assert (found.what, "same account as two" in found.detail) == ("destinations.one", True)


def test_one_of_the_two_in_shadow_counts_nothing():
    assert states(meaning(WEBHOOK.format(name="one") + WEBHOOK.format(name="two") + 'mode = "shadow"')) == []


def test_copies_that_do_not_wait_for_those_expected_are_told():
    found = only(meaning('[events.purchase]\nmerge_window = "0s"\n'))

    assert found.what == "events.purchase.merge_window"


def test_nobody_to_tell_and_no_key_are_told():
    loaded = settings()
    bare = loaded.model_copy(update={"alerts": type(loaded.alerts)(), "privacy": type(loaded.privacy)(), "sites": {}})

    found = states(configuration.judge_meaning(bare, NOW))

    assert [what for _, what in found] == ["sites", "alerts.webhook", "privacy.key"]
