"""`capistream consent explain`: what a string says, and who may have what by it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from app import settings
from app.cli import main
from app.explain import explain
from tests.app.signals.encoder import gpp_string, tc_string, us_national

CONFIG = """
[destinations.ads]
sink = "meta"
dataset_id = "1234567890"
access_token = { env = "TOKEN" }
browser_tag = "none"
consent = { partial = "flag", regions.US = { absent = "assume" } }

[destinations.search]
sink = "google_ads"
customer_id = "1234567890"
credentials = { env = "CREDENTIALS" }
browser_tag = "none"
events = { purchase = "111222333" }

[destinations.stats]
sink = "ga4"
measurement_id = "G-ABC123XYZ"
api_secret = { env = "SECRET" }
browser_tag = "none"
"""
CONFIGURED = settings.parse(CONFIG)
TCF = tc_string(purposes=[1, 7], legitimate_interests=[2], consents=[804])
OPTED_OUT = gpp_string({7: us_national(SaleOptOut=1, gpc=True)})


@pytest.fixture
def run(tmp_path: Path):
    (tmp_path / "c.toml").write_text(CONFIG)

    def invoke(*arguments: str, configured: bool = False) -> Result:
        more = ("--config", str(tmp_path / "c.toml")) if configured else ()
        return CliRunner().invoke(main, ["consent", "explain", *arguments, *more])

    return invoke


def gets(text: str, place: str = "") -> dict[str, str]:
    return {name: verdict["gets"] for name, verdict in explain(text, CONFIGURED, place=place)["destinations"].items()}


def test_a_tc_string_is_told_in_the_standards_words(run):
    result = run(TCF, "--json")

    told = json.loads(result.output)
    assert result.exit_code == 0
    assert (told["kind"], told["readable"]) == ("tcf", True)
    assert told["purposes"] == {"consent": [1, 7], "legitimate_interest": [2]}
    assert told["vendors"] == {"consent": [804], "legitimate_interest": [], "disclosed": None, "allowed": None}
    assert "destinations" not in told


def test_a_gpp_string_is_told_section_by_section(run):
    told = json.loads(run(OPTED_OUT, "--json").output)

    assert told["sections"]["usnat"]["SaleOptOut"] == 1
    assert told["sections"]["usnat"]["Gpc"] is True


def test_each_string_is_one_line_of_json_in_its_order(run):
    lines = [json.loads(line) for line in run("1YNN", "G110", "11r1r1r1r5", TCF, "--json").output.splitlines()]

    assert [line["kind"] for line in lines] == ["us_privacy", "gcs", "gcd", "tcf"]
    assert lines[1] == {"kind": "gcs", "readable": True, "ad_storage": "granted", "analytics_storage": "denied"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("CQ",), {"kind": "tcf", "readable": False, "segment": "core", "why": "ends too early"}),
        (
            ("2~1.2",),
            {"kind": "unknown", "readable": False, "segment": "string", "why": "is of no kind that is read here"},
        ),
        (
            ("G111", "--kind", "us_privacy"),
            {
                "kind": "us_privacy",
                "readable": False,
                "segment": "us_privacy",
                "why": "is not a 1 and three of Y, N and -",
            },
        ),
    ],
)
def test_an_unreadable_string_says_where_and_why_and_fails_the_command(run, arguments, expected):
    result = run(*arguments, "--json")

    assert result.exit_code == 1
    assert json.loads(result.output) == expected


def test_a_string_of_no_kind_gets_nobody_anything():
    assert gets("2~1.2") == {"ads": "nothing", "search": "nothing", "stats": "nothing"}


def test_one_unreadable_string_does_not_silence_the_others(run):
    result = run("CQ", "1YNN")

    assert result.exit_code == 1
    assert "us_privacy\n" in result.output


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        (TCF, "", {"ads": "whole", "search": "nothing", "stats": "nothing"}),
        (tc_string(purposes=range(1, 12), consents=[755]), "", {"ads": "whole", "search": "whole", "stats": "whole"}),
        ("G111", "", {"ads": "nothing", "search": "nothing", "stats": "whole"}),
        ("11r1q1r1q5", "", {"ads": "whole", "search": "whole", "stats": "nothing"}),
        ("1YNN", "", {"ads": "nothing", "search": "nothing", "stats": "nothing"}),
        ("1YNN", "US-CA", {"ads": "whole", "search": "nothing", "stats": "nothing"}),
        (OPTED_OUT, "US", {"ads": "restricted", "search": "nothing", "stats": "nothing"}),
        ("CQ", "US", {"ads": "nothing", "search": "nothing", "stats": "nothing"}),
    ],
)
def test_each_destination_is_judged_by_its_own_settings(text, place, expected):
    assert gets(text, place) == expected


def test_a_verdict_tells_its_reason_and_basis(run):
    told = json.loads(run(TCF, "--json", configured=True).output)

    assert told["destinations"]["search"] == {
        "gets": "nothing",
        "reason": "consent_denied",
        "basis": "ad_storage denied by tcf vendor 755, ad_user_data denied by tcf vendor 755",
    }


def test_people_read_lines(run):
    result = run(TCF, configured=True)

    assert "  purposes.consent 1 7\n" in result.output
    assert "  vendors.disclosed not told\n" in result.output
    assert "  ads gets whole: ad_storage granted by tcf, ad_user_data granted by tcf\n" in result.output


def test_a_long_list_is_cut_for_people_and_counted(run):
    result = run(tc_string(consents=range(1, 101)))

    assert "38 39 40 and 60 more\n" in result.output


SHOPS = """
[sites.shop]
write_key = "write_key"
secret_key = { env = "SHOP" }

[sites.hides]
write_key = "write_key_2"
secret_key = { env = "HIDES" }
silence_denies = true
"""


def test_what_nobody_told_is_assumed_for_no_site_whose_silence_denies():
    shops = settings.parse(CONFIG + SHOPS)

    def ads_get(site: str) -> str:
        return str(explain("1NNN", shops, place="US", site=site)["destinations"]["ads"]["gets"])

    assert (ads_get("shop"), ads_get("hides")) == ("whole", "nothing")


def test_a_site_that_is_none_is_a_plain_error(run):
    result = run("1YNN", "--site", "shop", configured=True)

    assert result.exit_code == 1
    assert "--site: no site is called so; sites are none" in result.output


def test_a_region_that_is_none_is_a_plain_error(run):
    result = run("1YNN", "--region", "California")

    assert result.exit_code == 1
    assert "--region: a country" in result.output


@given(st.text(max_size=80), st.sampled_from((None, "tcf", "gpp", "us_privacy", "gcs", "gcd")))
def test_no_string_raises_anything_or_lets_an_unreadable_one_through(text, kind):
    told = explain(text, CONFIGURED, kind)

    if not told["readable"]:
        assert all(one["gets"] == "nothing" for name, one in told.get("destinations", {}).items() if name != "stats")
