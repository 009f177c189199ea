"""app/forget.py, `capistream forget` and what commands make of it. Those with a `place` use the real Kafka."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner, Result

from app import control, dead_letter, forget, intake, keys, letters, records, settings, topic_plan, topics
from app.cli import main
from app.collector.server import Collector
from app.dead_letter import DeadLetter, Filed
from app.erasure import Entry, Forgotten, read
from app.forget import People, duration
from tests.app.conftest import CONFIG
from tests.factories import make_event, sha

NOW = 1_795_420_802_000
ADA = sha("ada@example.com")


def run(folder: Path, *arguments: str, **more: Any) -> Result:
    """The command as it runs without any Kafka."""
    path = folder / "capistream.toml"
    path.write_text(CONFIG.format(brokers="127.0.0.1:1", prefix="none", endpoint="http://127.0.0.1:1"))
    return CliRunner().invoke(main, ["forget", *arguments, "--config", str(path)], **more)


# The command, without Kafka


def test_a_dry_run_needs_no_kafka_and_tells_what_remains_how_long(tmp_path):
    result = run(tmp_path, "--email", "ada@example.com", "--dry-run", "--json")

    assert result.exit_code == 0, result.output
    said = orjson.loads(result.stdout)
    assert (said["what"], said["dry_run"], said["kinds"]) == ("erase", True, {"email": 1, "user_id": 1})
    assert [said[name] for name in ("usually", "most")] == [
        max(one[name] for one in said["remains"]) for name in ("usually", "most")
    ]
    assert {one["place"] for one in said["remains"]} >= {"none.events", "none.to.ads", "none-held-changelog"}
    assert "ada@example.com" not in result.output
    assert ADA not in result.output


def test_for_people_it_is_told_place_by_place(tmp_path):
    lines = run(tmp_path, "--external-id", "7", "--dry-run").stdout.splitlines()

    assert lines[0] == "would be erased: events that carry one of 1 digests (user_id) and were received until now"
    assert any(line.split()[:4] == ["3", "d", "6", "h"] and "none.events: retention" in line for line in lines)
    assert any("7 d 7 h 21 min  none.to.ads: deleted behind what is finished; at most 63 d" in line for line in lines)
    assert lines[-1].startswith("not reached: your own topics, what platforms have")


def test_a_national_number_is_read_as_of_the_only_country_that_sites_have(tmp_path):
    text = CONFIG.format(brokers="127.0.0.1:1", prefix="none", endpoint="http://127.0.0.1:1")
    path = tmp_path / "capistream.toml"
    path.write_text(text.replace("[sources.orders]", 'country = "DE"\n[sources.orders]'))

    result = CliRunner().invoke(main, ["forget", "--phone", "030 123456", "--dry-run", "--config", str(path)])

    assert result.exit_code == 0, result.output


def test_a_withdrawal_says_that_state_stays(tmp_path):
    lines = run(tmp_path, "--order", "1001", "--withdraw", "--dry-run").stdout.splitlines()

    assert lines[0].startswith("would be withdrawn: ")
    assert lines[1] == "nothing of it is delivered any more; what was received stays until it ages out"


def test_who_is_meant_can_come_from_standard_input_and_never_stand_in_a_list_of_processes(tmp_path):
    body = orjson.dumps({"email": ["ada@example.com"], "ids": {"fbp": "fb.1.2.3"}, "withdraw": True, "dry_run": True})

    said = orjson.loads(run(tmp_path, "--file", "-", "--json", input=body).stdout)

    assert (said["what"], said["dry_run"], said["kinds"]) == ("withdraw", True, {"email": 1, "user_id": 1, "fbp": 1})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing says who is meant"),
        (["--email", "planted"], "email: is none that events could carry"),
        (["--phone", "030 123456"], "phone: is none that events could carry"),
        (["--id", "planted"], "--id: NAME=VALUE"),
        (["--id", "ga_session_id=1"], "ids: one of ga_client_id, gclid"),
        (["--order", "planted@example.com"], "order: looks like an e-mail address or phone number"),
        (["--email", "ada@example.com", "--site", "other"], "--site: no site is called so; there are shop"),
    ],
)
def test_a_mistake_is_told_without_its_value(tmp_path, arguments, said):
    result = run(tmp_path, *arguments, "--dry-run")

    assert result.exit_code == 1
    assert said in result.stderr
    assert "planted" not in result.output


@pytest.mark.parametrize("text", [b"planted", b'["planted"]'])
def test_a_file_that_is_no_object_is_refused_without_its_text(tmp_path, text):
    result = run(tmp_path, "--file", "-", "--dry-run", input=text)

    assert (result.exit_code, result.stderr.partition(":")[0]) == (1, "--file")
    assert "planted" not in result.output


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 min"), (1, "1 min"), (3600, "1 h"), (90_061, "1 d 1 h 2 min"), (7 * 86_400.0, "7 d")],
)
def test_durations_are_rounded_up(seconds, text):
    assert duration(seconds) == text


# The collector's address, without Kafka


@asynccontextmanager
async def collector(
    folder: Path, monkeypatch: pytest.MonkeyPatch, of_site: str = "", where: str = '{ env = "NOBODY_SETS_THIS" }'
) -> AsyncIterator[TestClient[Any, Any]]:
    monkeypatch.setenv("NOBODY_SETS_THIS", "sk_secret")
    path = folder / "capistream.toml"
    text = CONFIG.format(brokers="127.0.0.1:1", prefix="none", endpoint="http://127.0.0.1:1")
    text = text.replace('{ env = "NOBODY_SETS_THIS" }', where)
    path.write_text(text.replace("[sources.orders]", f"{of_site}\n[sources.orders]"))
    application = Collector(settings.load(path)).application()
    application.cleanup_ctx.clear()  # no producer: a dry run needs none
    async with TestClient(TestServer(application)) as client:
        yield client


async def post(client: TestClient[Any, Any], key: str, body: bytes) -> tuple[int, str]:
    async with client.post("/v1/forget", data=body, headers={"Authorization": f"Bearer {key}"}) as response:
        return response.status, await response.text()


async def test_a_secret_key_in_a_file_can_be_renewed_without_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr("app.renewed.EVERY", 0.0)
    (tmp_path / "key").write_text("sk_before")
    body = orjson.dumps({"email": "ada@example.com", "dry_run": True})
    async with collector(tmp_path, monkeypatch, where=f'{{ file = "{tmp_path}/key" }}') as client:
        before = [(await post(client, key, body))[0] for key in ("sk_before", "sk_after")]
        (tmp_path / "key").write_text("sk_after")
        after = [(await post(client, key, body))[0] for key in ("sk_before", "sk_after")]

    assert (before, after) == ([200, 401], [401, 200])


async def test_whoever_has_the_secret_key_is_told_what_would_be_done_and_remain(tmp_path, monkeypatch):
    async with collector(tmp_path, monkeypatch) as client:
        body = {"email": ["ada@example.com"], "ids": {"fbp": "fb.1.2.3"}, "dry_run": True}
        status, text = await post(client, "sk_secret", orjson.dumps(body))

    assert status == 200
    said = orjson.loads(text)
    assert (said["success"], said["what"], said["kinds"]) == (True, "erase", {"email": 1, "user_id": 1, "fbp": 1})
    assert said["usually"] == max(one["usually"] for one in said["remains"])
    assert not any(one in text for one in ("ada@example.com", ADA, "fb.1.2.3"))


@pytest.mark.parametrize(
    ("key", "body", "status", "reason"),
    [
        ("sk_secret", b'{"email": "planted", "dry_run": true}', 400, "not_an_email"),
        ("sk_secret", b'{"planted": "x", "dry_run": true}', 400, "unknown_field"),
        ("sk_secret", b'{"dry_run": true}', 400, "missing"),
        ("sk_secret", b'["planted"]', 400, "wrong_type"),
        ("sk_secret", b"planted", 400, "not_json"),
        ("wk_12345678", b'{"email": "planted@example.com", "dry_run": true}', 403, "no_key"),
        ("sk_other", b'{"email": "planted@example.com", "dry_run": true}', 401, "no_key"),
    ],
)
async def test_what_is_refused_there_is_told_without_its_value(tmp_path, monkeypatch, key, body, status, reason):
    async with collector(tmp_path, monkeypatch) as client:
        found, text = await post(client, key, body)

    assert (found, orjson.loads(text)["error"]["reason"]) == (status, reason)
    assert "planted" not in text


async def test_a_national_number_is_read_as_of_the_country_of_the_keys_site(tmp_path, monkeypatch):
    async with collector(tmp_path, monkeypatch, 'country = "DE"') as client:
        status, _ = await post(client, "sk_secret", b'{"phone": "030 123456", "dry_run": true}')

    assert status == 200


# Replays, without Kafka


def test_a_record_of_yours_that_is_normalised_again_brings_nobody_back(tmp_path):
    path = tmp_path / "capistream.toml"
    path.write_text(CONFIG.format(brokers="127.0.0.1:1", prefix="none", endpoint="http://127.0.0.1:1"))
    loaded = settings.load(path)
    known = Forgotten()
    for one in read({"email": "ada@example.com"}).entries(NOW, "ada"):
        known.hear(*one.row()[:2], NOW)
    letter = Filed("normalize", "unknown_field", {"topic": "none-orders", "partition": 0, "offset": 3}, time=NOW)
    work = letters._Work(loaded, {letter.id: letter}, {letter.id}, NOW, known, None)
    bodies = [
        {"event_name": "login", "event_id": name, "user": {"email": f"{name}@example.com"}} for name in ("ada", "grace")
    ]

    record = SimpleNamespace(topic="none-orders", key=None, headers=(), value=orjson.dumps(bodies), timestamp=NOW - 5)
    work._normalize(record, [letter], {})

    rows: intake.Rows = work.take()[0]
    assert [orjson.loads(value or b"")["event_id"] for some in rows.values() for _, value, _ in some] == ["grace"]


# Through the real Kafka


def test_the_command_writes_entries_without_anything_clear(place):
    result = place.run("forget", "--email", "ada@example.com", "--external-id", "customer-7", "--site", "shop")

    assert result.exit_code == 0, result.output
    found = [one for one in read_people(place) if one.value]
    assert not any(
        b"ada@example.com" in part or b"customer-7" in part for one in found for part in (one.key, one.value)
    )
    values = [orjson.loads(one.value) for one in found]
    assert {(one["what"], one["kind"], one["digest"], one["by"], one["site"]) for one in values} == {
        ("erase", "email", ADA, control.who(), "shop"),
        ("erase", "user_id", sha(ADA), control.who(), "shop"),
        ("erase", "user_id", sha("customer-7"), control.who(), "shop"),
    }
    known = asyncio.run(forget.standing(place.config))
    assert known.of(make_event(received=int(time.time() * 1000) - 60_000)) == "erase"


def read_people(place) -> list[Any]:
    async def run() -> list[Any]:
        async with records.reader(place.config) as reader:
            return [one async for one in records.everything(reader, topics.names(place.config).people, [0])]

    return asyncio.run(run())


def test_a_worker_that_begins_knows_everybody_and_is_told_of_those_to_come(place):
    now = int(time.time() * 1000)
    asyncio.run(forget.give(place.config, [Entry("withdraw", "email", ADA, now)]))

    async def run() -> list[int]:
        told: asyncio.Queue[int] = asyncio.Queue()
        people = People(place.config, lambda: told.put_nowait(len(people.known)))
        task = asyncio.create_task(people.listen(lambda: False))
        try:
            async with asyncio.timeout(30):
                await people.heard.wait()
                first = await told.get()
                await forget.give(place.config, [Entry("erase", "email", ADA, now)])
                return [first, await told.get()]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    assert asyncio.run(run()) == [1, 2]


def test_neither_a_replay_nor_a_backfill_brings_an_event_of_somebody_forgotten(place):
    names = topics.names(place.config)
    now = int(time.time() * 1000)
    events = [make_event(event_id=name, time=now - 60_000, received=now - 60_000) for name in ("hers", "another")]
    events[1]["user"]["email"] = {"plain": sha("grace@example.com")}
    events[0]["commerce"]["transaction_id"], events[1]["commerce"]["transaction_id"] = "1", "2"
    rows = [(keys.key(one), orjson.dumps({"v": 1, "event": one, "basis": ""}), 0) for one in events]
    place.write(names.to("ads"), rows, 0)
    place.write(names.conversions, rows, 0)
    for offset, one in enumerate(events):
        origin = {"topic": names.to("ads"), "partition": 0, "offset": offset}
        letter = DeadLetter("deliver", "bad", origin, destination="ads", event_id=one["event_id"])  # type: ignore[arg-type]
        place.write(names.dead, [letter.row()], letter.partition(2))
    assert place.run("forget", "--email", "ada@example.com", "--withdraw").exit_code == 0

    told = place.json("dead", "replay", "--yes")
    given = place.json("destinations", "backfill", "stats", "--since", "2020-01-01T00:00:00Z")

    assert {one["event_id"]: one["why"] for one in told} == {"hers": letters.FORGOTTEN, "another": ""}
    assert (given[0]["given"], given[0]["left_out"]) == (1, {"forgotten": 1})
    settled = [dead_letter.read(one.key, one.value) for one in place.read(names.dead)]
    assert [one.event_id for one in settled if one and one.state] == ["another"]


def test_the_topic_keeps_the_newest_entry_of_each_key_and_has_one_partition(place):
    name = topics.names(place.config).people

    async def look() -> list[topic_plan.Row]:
        async with topics.administrator(place.config) as admin:  # a broker may not have heard of what was just created
            await topics.heard_of(admin, [name], topics.HEARD_OF)
        return await topic_plan.look(place.config)

    (people,) = [row for row in asyncio.run(look()) if row.topic.name == name]

    assert people.there
    assert people.config
    assert people.there.partitions == 1
    assert people.config["cleanup.policy"] == "compact"
