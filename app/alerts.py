"""Tell somebody: one POST to the webhook of the settings, as chat programs take it, when a destination stops or goes on."""

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import structlog

from app.errors import SettingsError

if TYPE_CHECKING:
    from app.main import Pipeline

log = structlog.get_logger()

TRIES = 3
TIMEOUT = 5.0  # seconds


async def tell(pipeline: "Pipeline", destination: str, state: str, reason: str) -> None:
    """A text for people, and the same in fields. What cannot be told is logged; nothing waits for it."""
    if (secret := pipeline.settings.alerts.webhook) is None:
        return
    text = f"capistream: {destination} is {state}" + (f": {reason}" if reason else "")
    body = {"text": text, "destination": destination, "state": state, "reason": reason}
    for tried in range(1, TRIES + 1):
        try:
            session = await pipeline.http()
            async with session.post(secret.read(), json=body, timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as response:
                if response.status < 300:
                    return
                trouble = f"HTTP {response.status}"
        except (SettingsError, aiohttp.ClientError, TimeoutError, OSError) as exc:
            trouble = type(exc).__name__  # not its text: the address is the secret
        log.warning("alert.not_told", destination=destination, state=state, error=trouble)
        await asyncio.sleep(0.5 * tried)
