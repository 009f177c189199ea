"""One complete purchase of a person who is nobody, to try a destination with: `capistream destinations test`.

Written as a shop would send it and normalised like anything else. Address, phone and domain are of those that are set aside for
examples: RFC 2606 (example.com), RFC 5737 (203.0.113.0/24), and the 555-01xx numbers of North America.
"""

import secrets
from typing import Any

from app.errors import SettingsError
from app.events import Event
from app.normalize import Normalized, normalize
from app.preview import inlet
from app.settings import Settings


def purchase(settings: Settings, now: int) -> Event:
    """It happened a minute ago, under ids of its own. `now` is in Unix milliseconds. Raises CapistreamError without any site."""
    (result,) = normalize(
        _draft(now), inlet(settings, None, "capistream"), now, {"topic": "capistream destinations test"}
    )
    if not isinstance(result, Normalized):
        raise SettingsError([f"the sample event is not taken: {result}"])
    return result.event


def _draft(now: int) -> dict[str, Any]:
    name, seconds = f"capistream-test-{secrets.token_hex(4)}", now // 1000
    return {
        "event_name": "purchase",
        "event_id": name,
        "source": "server",
        "time": now - 60_000,
        "user": {
            "email": "test@example.com",
            "phone": "+12025550123",
            "first_name": "Test",
            "last_name": "Example",
            "birth_date": "1990-01-01",
            "gender": "f",
            "street": "1 Example Street",
            "city": "New York",
            "region": "NY",
            "postal_code": "10001",
            "country": "US",
            "user_id": "capistream-test",
        },
        "context": {
            "ip": "203.0.113.7",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
            "url": "https://www.example.com/thanks",
            "referrer": "https://www.example.com/checkout",
            "title": "Thank you",
            "language": "en-US",
        },
        "ids": {
            "ga_client_id": f"1234567890.{seconds - 600}",
            "ga_session_id": str(seconds - 600),
            "gclid": "capistream-test",
            "fbp": f"fb.1.{now - 600_000}.1234567890",
            "fbc": f"fb.1.{now - 600_000}.capistreamTest",
            "ttclid": "capistream-test",
            "ttp": "capistream-test",
            "epik": "capistream-test",
            "sc_click_id": "00000000-0000-4000-8000-000000000000",
            "scid": "00000000-0000-4000-8000-000000000000",
            "rdt_cid": "capistream-test",
            "rdt_uuid": f"{now - 600_000}.00000000-0000-4000-8000-000000000000",
            "li_fat_id": "00000000-0000-4000-8000-000000000000",
            "msclkid": "0" * 32,
            "twclid": "capistream-test",
        },
        "commerce": {
            "value": 1.0,
            "currency": "USD",
            "tax": 0.0,
            "shipping": 0.0,
            "transaction_id": name,
            "items": [{"item_id": "capistream-test", "item_name": "Test", "quantity": 1, "price": 1.0}],
        },
        "consent": dict.fromkeys(("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"), "granted"),
    }
