"""An HTTP endpoint of your own: merged events as JSON, signed. The shortest sink; docs/add-a-sink.md begins with a copy of it.

    POST <endpoint>   {"events": [{"event_id": ..., "event_name": ..., "commerce": {...}, ...}, ...]}

docs/webhook.md is for who takes them. An event counts once for its site, name, id and revision: after a time-out it may come again.

Signed as Standard Webhooks 1.0.0 has it:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    webhook-id          the same for the same events, however often they are sent
    webhook-timestamp   when this attempt was sent, in Unix seconds
    webhook-signature   v1,<base64 of the HMAC-SHA256 of "<id>.<timestamp>.<body>">
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from hmac import digest
from typing import Annotated, Any

import orjson
from pydantic import Field, field_validator

from app.destination import Destination, Path
from app.events import CANONICAL_NAMES, Event
from app.fields import Seconds, SecretRef, between
from sinks._base import (
    DAY,
    Delivered,
    Halt,
    Limits,
    Outcome,
    Payload,
    Places,
    Rejected,
    Request,
    Response,
    Retry,
    Secrets,
    Sink,
    Skip,
    left_open,
    listed,
    one_for_all,
    retry_after,
)

#: Which event it is. What it says is in the other parts, and those are a setting.
ALWAYS = ("event_id", "event_name", "site", "source", "time", "received", "revision")


class Settings(Destination):
    endpoint: str
    """Address that takes the events, with its path. It is called as it is written here."""
    secret: SecretRef
    """Key of the signature. `whsec_` and base64 as Standard Webhooks writes it, or any other text of 24 characters or more."""
    fields: tuple[Path, ...] = ("commerce", "consent", "labels", "custom")
    """Parts of the event that are sent (`commerce`), or fields of them (`user.email`), beside those that tell which event it is.
    `user` (hashes, and place of residence in clear), `context` (IP address, pages) and `ids` (cookies, click ids) are about a
    person: send them only where they are needed. Of the hashes there are those that other destinations use; all of them with
    `keep_variants = "all"`."""
    most_events: Annotated[int, Field(ge=1, le=1000)] = 100
    """Most events in a request; 1 for who takes one at a time."""
    max_age: Annotated[Seconds, between(3600, 90 * DAY)] = 7.0 * DAY
    """Older events are not sent. So long an outage of the endpoint may last, and so long Kafka keeps what waits for it."""

    @field_validator("endpoint")
    @classmethod
    def _http(cls, value: str) -> str:
        Destination._http(value)
        return value  # to many servers an address with a slash at its end is another one


class Webhook(Sink):
    kind = "webhook"
    title = "Webhook"
    purpose = "other"
    names = {name: name for name in CANONICAL_NAMES}
    Settings = Settings
    lists_events = True
    places = Places(
        "events",
        event_id="event_id",
        order_id="commerce.transaction_id",
        name="event_name",
        time="time",
        value="commerce.value",
        currency="commerce.currency",
    )
    takes_revisions = True

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.sent = {*ALWAYS, *(path.partition(".")[0] for path in settings.fields)}
        self.limits = Limits(
            events=settings.most_events,
            bytes=1_000_000,  # nothing is known of the endpoint; common servers take 1 MB without being asked
            max_age=int(settings.max_age),
            timeout=12.0,  # the standard recommends 15 s or more, and a rebalance waits no longer than that
        )

    def encode(self, event: Event, name: str) -> Payload | Skip:
        # of the parts there are those fields only that the settings name: app/prepare.py
        body = {part: value for part, value in event.items() if part in self.sent}
        body["event_name"] = name
        return Payload(event["event_id"], body)

    def request(self, batch: Sequence[Payload], secrets: Secrets) -> Request:  # noqa: ARG002 (the secret signs)
        body = orjson.dumps({"events": listed(batch)})
        message_id = f"msg_{sha256(body).hexdigest()[:32]}"
        headers = {"Content-Type": "application/json", "webhook-id": message_id}
        return Request("POST", self.settings.endpoint, headers, body)

    def signed(self, request: Request, secrets: Secrets, now: float) -> Request:
        timestamp = str(int(now))
        content = f"{request.headers['webhook-id']}.{timestamp}.".encode() + request.body
        signature = b64encode(digest(_key(secrets["secret"]), content, "sha256")).decode()
        more = {"webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}
        return replace(request, headers={**request.headers, **more})

    def verdict(self, batch: Sequence[Payload], response: Response) -> list[Outcome]:
        return one_for_all(batch, _verdict(response))


def _key(secret: str) -> bytes:
    if secret.startswith("whsec_"):
        try:
            return b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError:
            pass  # then it is a text that happens to begin so
    return secret.encode()


def _verdict(response: Response) -> Outcome:
    """Of all events alike. The body of the answer is not read: only the endpoint's owner knows what it means."""
    status = response.status
    reason = f"HTTP {status}"
    if 200 <= status < 300:
        return Delivered(reason)
    if status in (401, 403):
        return Halt(f"{reason}: does the endpoint have the same secret and time?")
    if 300 <= status < 400 or status in (404, 405, 410):
        return Halt(f"{reason}: is the address right?")  # not one event's fault, and so no reason to lose it
    if status < 200 or status in (408, 425, 429) or status >= 500:
        throttled = status in (429, 502, 504)
        return Retry(reason, retry_after(response), throttled=throttled, unclear=left_open(response))
    return Rejected(reason, whole=True)
