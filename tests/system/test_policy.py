"""A policy that asks for more counts for what is already on its way: queued, parked, and in dead letters."""

import orjson
import pytest

from app import letters, topics
from app.outcome_rows import PARKED
from app.topics import outcomes_table
from tests.system.conftest import System, eventually
from tests.system.test_delivery import CONSENT, subscribed
from tests.system.test_destinations import altered
from tests.system.test_forget import newest, pause, state, waits

pytestmark = pytest.mark.fault

LESS = {name: said for name, said in CONSENT.items() if name != "ad_personalization"}
STRICT = '[destinations.meta]\nconsent = { needs = ["ad_storage", "ad_user_data", "ad_personalization"] }'


async def strict(system: System) -> None:
    text = (system.demo.folder / "capistream.toml").read_text()
    await system.reconfigure(text.replace("[destinations.meta]", STRICT))


async def test_what_was_routed_under_another_policy_is_judged_again_before_it_is_sent_and_at_replay(system):
    names, config = topics.names(system.demo.config), system.demo.config
    await system.post(subscribed("letter", consent=LESS, ids={"fbp": "not-a-cookie"}), key="secret_key")
    assert (await state(system, "letter"))[0] == "rejected"
    await pause(system)
    await system.post([subscribed("queued", consent=LESS), subscribed("queued-whole")], key="secret_key")
    await waits(system, "queued")
    await altered(system, names.to("meta"), max_message_bytes="100")  # what cannot be queued is parked
    await system.post([subscribed("parked", consent=LESS), subscribed("parked-whole")], key="secret_key")

    async def parked() -> bool:
        rows = await newest(system, names.changelog(outcomes_table("meta")))
        held = {orjson.loads(row)["event"]["event_id"] for key, row in rows.items() if row and key.startswith(PARKED)}
        return held == {"parked", "parked-whole"}

    await eventually(parked, "two parked events")
    await altered(system, names.to("meta"), max_message_bytes="1048588")

    await strict(system)
    await pause(system, paused=False)
    known = await letters.load(config)
    (letter,) = [one for one in known.values() if one.event_id == "letter" and one.destination == "meta"]
    assert [one.why async for one in letters.replay(config, [letter], known, "test")] == [""]

    for event_id in ("queued", "parked", "letter"):

        async def held_back(event_id: str = event_id) -> bool:
            return await state(system, event_id) == ("held_back", "consent_absent")

        await eventually(held_back, f"{event_id} judged again")
        assert await system.accepted("meta", event_id=event_id) == []
    for event_id in ("queued-whole", "parked-whole"):
        assert (await state(system, event_id))[0] == "delivered"
