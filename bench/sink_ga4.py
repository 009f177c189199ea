"""GA4: about one request an event, as a request is of one browser and one moment. How near is that to aiohttp alone?

python bench/sink_ga4.py [--rounds 5] [--concurrency 256] [--quick] [--json] [--write]     no Kafka

    capistream  agents/deliver.py with the sink, from records of its topic on; see bench/sending.py
    aiohttp     a loop over ready JSON

To an emulator that answers after 100 ms, as a platform on the internet does, and to one that answers at once, where nothing counts
but processor time. Both send with the same concurrency, to the same address, without TLS.
"""

import sys

import report
import sending
from sending import Time

from sinks.ga4 import Ga4, Settings

GOAL = 0.7  # of aiohttp's events a second, at LATENCIES[0]
LATENCIES = (100, 0)  # milliseconds
EVENTS = 10_000


def main() -> int:
    parser = report.parser(__doc__, "one round of a quarter of the events")
    parser.add_argument("--rounds", type=int, default=5)
    sending.options(parser, concurrency=256)
    options = parser.parse_args()
    if options.way:
        send(options.way, options.address, options.events, options.concurrency)
        return 0
    load, count = report.load(), EVENTS // 4 if options.quick else EVENTS
    ways = {name: [name, "--concurrency", str(options.concurrency)] for name in ("capistream", "aiohttp")}
    times: dict[str, dict[str, Time]] = {}
    for latency in LATENCIES:
        with sending.platform(latency, empty=True) as address:
            times[f"{latency} ms"] = sending.rounds(
                ways, address, dict.fromkeys(ways, count), 1 if options.quick else options.rounds
            )
    report.finish(options, told(times), sending.result(times), load)
    return 0


def told(times: dict[str, dict[str, Time]]) -> str:
    rows = []
    for latency, ways in times.items():
        bare = ways["aiohttp"]
        for name, one in ways.items():
            speed = one.events_per_s / bare.events_per_s
            counts = name == "capistream" and latency == f"{LATENCIES[0]} ms"
            goal = report.goal(speed >= GOAL, f"≥ {GOAL} ×") if counts else ""
            rows.append([name, latency, *sending.cells(one), f"{speed:.2f}", f"{one.cpu / bare.cpu:.2f}", goal])
    return report.table(["", "answer after", "events/s", "CPU s / 1,000", "aiohttp ×", "its CPU ×", "goal"], rows)


def send(way: str, address: str, count: int, concurrency: int) -> None:
    made = {
        "sink": "ga4",
        "endpoint": address,
        "measurement_id": "G-BENCH12345",
        "api_secret": {"env": "BENCH_SECRET"},
        "browser_tag": "none",
        "concurrency": concurrency,
    }
    if way == "capistream":
        sending.run(sending.ours("ga4", made, count))
    else:
        sending.run(sending.bare(sending.ready(Ga4(Settings.model_validate(made)), count, 1), concurrency))


if __name__ == "__main__":
    sys.exit(main())
