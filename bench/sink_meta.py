"""Meta: merged events to an emulator that answers after 100 ms; who sends most, and at which cost?

python bench/sink_meta.py [--rounds 5] [--concurrency 256] [--quick] [--json] [--write]     no Kafka

    sink        our sink, from an event to its outcome, as the SDK does it; see bench/sending.py
    capistream  the whole stage, from records of the destination's topic on: the sink, and beside it consent, age and limits,
                retries, and for each event the rows of its outcome, receipt and trace
    sdk sync    facebook-business: `EventRequest.execute()` in as many threads, one session with as many connections
    sdk async   facebook-business: `EventRequestAsync.execute()`, as its documentation has it: a session and an SSL context for each
                request, also here, where there is no TLS
    sdk session the same with `create_event(session)` and one session for all; the SSL context for each request stays
    aiohttp     a loop over ready JSON

All of them have the same events, the slower ones fewer of them, and as many requests in flight, of one event each and of 100.
Events are merged ones, with identifiers that are hashed already: the SDK makes its objects of them, ours the platform's words.
The goals are of the sink, as nobody else does the rest of the stage. No way has TLS, and none a Kafka. Processor time is that of
the process that sends.
"""

import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import report
import sending
from sending import Time

from app.events import Event
from sinks.meta import Meta, Settings

GOAL_SPEED, GOAL_CPU = 8.0, 0.3  # of the SDK at its best
LATENCY = 100  # milliseconds
SDK = ("sdk sync", "sdk async", "sdk session")
#: batch -> way -> events
EVENTS = {
    1: {"sink": 2_000, "capistream": 2_000, "sdk sync": 2_000, "sdk async": 300, "sdk session": 300, "aiohttp": 2_000},
    100: {
        "sink": 120_000,
        "capistream": 40_000,
        "sdk sync": 20_000,
        "sdk async": 10_000,
        "sdk session": 10_000,
        "aiohttp": 80_000,
    },
}


def main() -> int:
    parser = report.parser(__doc__, "one round of a quarter of the events")
    parser.add_argument("--rounds", type=int, default=5)
    sending.options(parser, concurrency=256)
    options = parser.parse_args()
    if options.way:
        send(options.way, options.address, options.events, options.batch, options.concurrency)
        return 0
    load, part = report.load(), 4 if options.quick else 1
    times: dict[int, dict[str, Time]] = {}
    with sending.platform(LATENCY) as address:
        for batch, events in EVENTS.items():
            more = ["--batch", str(batch), "--concurrency", str(options.concurrency)]
            ways = {name: [name, *more] for name in events}
            counts = {name: count // part for name, count in events.items()}
            times[batch] = sending.rounds(ways, address, counts, 1 if options.quick else options.rounds)
    report.finish(options, told(times), sending.result(times), load)
    return 0


def told(times: dict[int, dict[str, Time]]) -> str:
    sdk = [times[batch][name] for batch in times for name in SDK]
    fastest, leanest = max(one.events_per_s for one in sdk), min(one.cpu for one in sdk)
    rows = []
    for batch, ways in times.items():
        for name, one in ways.items():
            speed, cpu = one.events_per_s / fastest, one.cpu / leanest
            goals = ""
            if name == "sink" and batch > 1:
                goals = f"{report.goal(speed >= GOAL_SPEED, '≥ 8 ×')}, {report.goal(cpu <= GOAL_CPU, 'CPU ≤ 0.3 ×')}"
            bare = ways["aiohttp"]
            rows.append(
                [name, batch, *sending.cells(one), f"{speed:.2f}", f"{cpu:.2f}",
                 f"{one.events_per_s / bare.events_per_s:.2f}", goals]
            )  # fmt: skip
    head = ["", "events a request", "events/s", "CPU s / 1,000", "SDK's best ×", "its CPU ×", "aiohttp ×", "goals"]
    return report.table(head, rows)


def send(way: str, address: str, count: int, batch: int, concurrency: int) -> None:
    made = {
        "sink": "meta",
        "endpoint": address,
        "dataset_id": "1234567890",
        "access_token": {"env": "BENCH_SECRET"},
        "browser_tag": "none",
        "concurrency": concurrency,
    }
    if way == "sink":
        sending.run(sending.alone("meta", made, count, batch, concurrency))
    elif way == "capistream":
        sending.run(sending.ours("meta", made, count, batch))
    elif way == "aiohttp":
        sink = Meta(Settings.model_validate(made))
        sending.run(sending.bare(sending.ready(sink, count, batch), concurrency))
    else:
        by_sdk(way, address, list(sending.events(count)), batch, concurrency)


# The SDK, as somebody uses it who has the same events


def by_sdk(way: str, address: str, events: Sequence[Event], batch: int, concurrency: int) -> None:
    from facebook_business.adobjects.serverside.event_request import EventRequest
    from facebook_business.adobjects.serverside.event_request_async import EventRequestAsync
    from facebook_business.api import FacebookAdsApi
    from facebook_business.session import FacebookSession
    from requests.adapters import HTTPAdapter

    FacebookSession.GRAPH = address
    api = FacebookAdsApi.init(access_token="secret", crash_log=False)
    api._session.requests.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=concurrency))
    parts = (events[n : n + batch] for n in range(0, len(events), batch))

    def sync(part: Sequence[Event]) -> None:
        EventRequest(pixel_id="1234567890", events=[theirs(event) for event in part]).execute()

    async def loop(session: Any) -> None:
        for part in parts:
            request = EventRequestAsync(pixel_id="1234567890", events=[theirs(event) for event in part])
            await (request.create_event(session) if session else request.execute())

    async def loops() -> None:
        import aiohttp

        with sending.measured():
            if way == "sdk async":
                await asyncio.gather(*(loop(None) for _ in range(concurrency)))
                return
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                await asyncio.gather(*(loop(session) for _ in range(concurrency)))

    if way == "sdk sync":
        with sending.measured(), ThreadPoolExecutor(concurrency) as threads:
            list(threads.map(sync, parts))
    else:
        sending.run(loops())


def theirs(event: Event) -> Any:
    """In the SDK's words."""
    from facebook_business.adobjects.serverside.action_source import ActionSource
    from facebook_business.adobjects.serverside.content import Content
    from facebook_business.adobjects.serverside.custom_data import CustomData
    from facebook_business.adobjects.serverside.event import Event as TheirEvent
    from facebook_business.adobjects.serverside.user_data import UserData

    user, ids, context, commerce = event["user"], event["ids"], event["context"], event["commerce"]

    def digest(name: str, rule: str) -> Any:
        return user[name][rule]  # type: ignore[literal-required]

    return TheirEvent(
        event_name="Purchase",
        event_time=event["time"] // 1000,
        event_id=event["event_id"],
        event_source_url=context["url"],
        referrer_url=context["referrer"],
        action_source=ActionSource.WEBSITE,
        user_data=UserData(
            email=digest("email", "plain"),
            phone=digest("phone", "digits"),
            first_name=digest("first_name", "plain"),
            last_name=digest("last_name", "plain"),
            date_of_birth=digest("birth_date", "ymd"),
            city=user["city"],
            state=user["region"],
            zip_code=user["postal_code"],
            country_code=user["country"],
            external_id=user["user_id"],
            client_ip_address=context["ip"],
            client_user_agent=context["user_agent"],
            fbp=ids["fbp"],
            fbc=ids["fbc"],
        ),
        custom_data=CustomData(
            value=commerce["value"],
            currency=commerce["currency"],
            order_id=commerce["transaction_id"],
            content_type="product",
            content_ids=[item["item_id"] for item in commerce["items"]],
            contents=[
                Content(product_id=item["item_id"], quantity=item["quantity"], item_price=item["price"])
                for item in commerce["items"]
            ],
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
