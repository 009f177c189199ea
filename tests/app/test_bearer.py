"""app/bearer.py: a token is got where the settings say, and whoever refuses one is understood without its words."""

import base64
import sys
import time
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from pydantic import ValidationError

from app import bearer
from app.bearer import BUILT_IN, MskIam, OAuth, Token
from app.errors import SettingsError, Unavailable
from app.plugins import Installed
from tests.factories import served

SECRET = "s3cret/with+signs"


@pytest.fixture(autouse=True)
def _secret(monkeypatch):
    monkeypatch.setenv("CLIENT_SECRET", SECRET)


def oauth(url: str, **more: Any) -> OAuth:
    return OAuth(url=url, client_id="cap:istream", client_secret={"env": "CLIENT_SECRET"}, **more)  # type: ignore[arg-type]


async def answered(status: int, body: Any, **more: Any) -> tuple[Token, list[Any]]:
    """The token that this answer makes, and the requests."""
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.headers["Authorization"], parse_qs((await request.read()).decode())))
        return (
            web.json_response(body, status=status) if isinstance(body, dict) else web.Response(text=body, status=status)
        )

    async with served(handler) as url:
        return await oauth(f"{url}/token", **more).token(), seen


async def test_a_client_shows_its_id_and_secret_and_gets_a_token_for_as_long_as_the_endpoint_says():
    begin = time.time()

    token, ((login, form),) = await answered(
        200, {"access_token": "abc.def", "expires_in": 1200}, scope="kafka", parameters={"audience": "bus"}
    )

    assert token.text == "abc.def"
    assert begin + 1200 <= token.end <= time.time() + 1200
    # form-encoded first: https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1
    assert base64.b64decode(login.removeprefix("Basic ")) == b"cap%3Aistream:s3cret%2Fwith%2Bsigns"
    assert form == {"grant_type": ["client_credentials"], "scope": ["kafka"], "audience": ["bus"]}


@pytest.mark.parametrize("life", [{}, {"expires_in": None}, {"expires_in": -1}, {"expires_in": "soon"}])
async def test_a_token_without_a_life_is_taken_to_be_good_for_a_while(life):
    token, _ = await answered(200, {"access_token": "abc", **life})

    assert token.end <= time.time() + bearer.LIFE


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            401,
            {"error": "invalid_client", "error_description": SECRET},
            "client_id is unknown, or client_secret is wrong",
        ),
        (400, {"error": "invalid_scope"}, "scope is unknown, or not for this client"),
        (400, {"error": SECRET}, "HTTP 400"),
        (403, "<html>", "HTTP 403"),
    ],
)
async def test_a_refusal_is_a_mistake_of_the_settings_and_quotes_nothing(status, body, said):
    with pytest.raises(SettingsError) as caught:
        await answered(status, body)

    assert str(caught.value) == f"the token endpoint refuses us: {said}"


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, {}), (200, {"access_token": "a b"}), (200, {"access_token": 7}), (200, "[]"), (500, "oops"), (302, "there")],
)
async def test_anything_else_may_pass(status, body):
    with pytest.raises(Unavailable, match=f"gives no token: HTTP {status}"):
        await answered(status, body)


async def test_an_endpoint_that_is_away_may_come_back():
    with pytest.raises(Unavailable, match="does not answer"):
        await oauth("http://127.0.0.1:1/token").token()


async def test_a_secret_that_is_not_there_is_named(monkeypatch):
    monkeypatch.delenv("CLIENT_SECRET")

    with pytest.raises(SettingsError, match="CLIENT_SECRET"):
        await oauth("http://127.0.0.1:1/token").token()


async def test_an_authority_that_cannot_be_read_is_named():
    with pytest.raises(SettingsError, match=r"^ca: No such file"):
        await oauth("https://127.0.0.1:1/token", ca="/nowhere.pem").token()


@pytest.mark.parametrize("url", ["http://login.example/token", "ftp://x", "login.example", "https://a@b/"])
def test_a_secret_goes_nowhere_in_clear(url):
    with pytest.raises(ValidationError, match="begins with https"):
        oauth(url)


def test_a_token_does_not_print():
    assert "abc" not in repr(Token("abc", 0))


# AWS


async def test_without_the_signer_the_extra_is_named():
    if MskIam(region="eu-west-1").missing():
        with pytest.raises(SettingsError, match="capistream\\[msk\\]"):
            await MskIam(region="eu-west-1").token()


async def test_msk_signs_with_the_credentials_of_the_environment(monkeypatch):
    pytest.importorskip("aws_msk_iam_sasl_signer", reason="the extra msk is not installed")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")

    token = await MskIam(region="eu-west-1").token()

    signed = base64.urlsafe_b64decode(token.text + "=" * (-len(token.text) % 4)).decode()
    assert signed.startswith("https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect")
    assert "X-Amz-Credential=AKIAEXAMPLE" in signed
    assert 800 < token.end - time.time() <= 900


async def test_msk_without_credentials_says_where_they_may_be(monkeypatch, tmp_path):
    pytest.importorskip("aws_msk_iam_sasl_signer", reason="the extra msk is not installed")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    with pytest.raises(SettingsError, match="finds no credentials"):
        await MskIam(region="eu-west-1").token()
    with pytest.raises(Unavailable, match="ProfileNotFound"):
        await MskIam(region="eu-west-1", profile="nobody").token()


# providers of other packages

THEIRS = """
from typing import Literal
from app.bearer import Token, TokenProvider

class Vault(TokenProvider):
    provider: Literal["vault"] = "vault"
    address: str
    async def token(self): return Token(self.address, 0.0)

class Half(TokenProvider):
    provider: Literal["vault"] = "vault"

class Other(Vault):
    provider: Literal["other"] = "other"
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A package with one module, as pip leaves it."""
    monkeypatch.syspath_prepend(tmp_path)

    def run(point: str) -> Any:
        (tmp_path / "their_tokens.py").write_text(THEIRS)
        folder = tmp_path / "their_tokens-1.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: their_tokens\nVersion: 1.2\n")
        (folder / "entry_points.txt").write_text(f"[capistream.tokens]\n{point}\n")
        monkeypatch.delitem(sys.modules, "their_tokens", raising=False)
        return Installed(BUILT_IN, "capistream.tokens", "token provider", bearer._checked)

    return run


def test_a_provider_of_an_installed_package_stands_beside_ours(install):
    providers = install("vault = their_tokens:Vault")

    assert sorted(providers) == ["msk_iam", "oauth", "vault"]
    assert providers["vault"](address="a").address == "a"


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("vault = their_tokens:Half", "Half does not say how to token"),
        ("vault = their_tokens:Other", "Other.provider is another word"),
        ("vault = their_tokens:Token", "not a class that derives from app.bearer.TokenProvider"),
        ("oauth = their_tokens:Vault", "that token provider is already in capistream itself"),
    ],
)
def test_a_package_with_a_mistake_is_named_with_it(install, point, said):
    with pytest.raises(SettingsError) as caught:
        len(install(point))

    name, _, where = point.partition(" = ")
    assert caught.value.mistakes == [f'package their_tokens 1.2: token provider "{name}" ({where}): {said}']
