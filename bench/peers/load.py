"""Load for an HTTP server: so many connections, each with one request at a time, for so long.

python load.py PORT CONNECTIONS SECONDS KEY FILE     FILE has a body in each line; they are sent in turn, and again

Two lines on stdout, when counting begins and when it has ended: {}, then {"requests": …, "failed": …, "cpu_s": …, "p50_ms": …,
"p99_ms": …}. Answers are told by their status line and length alone, so a request costs this process some 20 µs.
"""

import asyncio
import itertools
import json
import statistics
import sys
import time
from pathlib import Path

import uvloop

WARM = 1.5  # seconds before counting begins

HEAD = (
    "POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
)


class Load:
    def __init__(self, key: str, file: Path) -> None:
        bodies = file.read_bytes().splitlines()
        self.requests = itertools.cycle([HEAD.format(key=key, length=len(body)).encode() + body for body in bodies])
        self.counting = False
        self.ended = False
        self.failed = 0
        self.times: list[float] = []


class Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self.load, self.got = load, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.next()

    def next(self) -> None:
        self.begun = time.perf_counter()
        self.transport.write(next(self.load.requests))

    def data_received(self, data: bytes) -> None:
        self.got = got = self.got + data
        end = got.find(b"\r\n\r\n")
        if end < 0:
            return
        at = got.find(b"Content-Length: ", 0, end)
        length = int(got[at + 16 : got.find(b"\r", at)]) if at >= 0 else 0
        if len(got) < end + 4 + length:
            return
        self.got = b""
        if self.load.counting:
            self.load.times.append(time.perf_counter() - self.begun)
            self.load.failed += got[9:10] != b"2"
        if not self.load.ended:
            self.next()

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.load.ended:
            sys.exit("the server closed a connection")


async def main(port: int, connections: int, seconds: float, key: str, file: str) -> None:
    load, loop = Load(key, Path(file)), asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port)
    await asyncio.sleep(WARM)
    load.counting, cpu = True, time.process_time()
    print("{}", flush=True)
    await asyncio.sleep(seconds)
    load.counting, cpu = False, time.process_time() - cpu
    found = {"requests": len(load.times), "failed": load.failed, "cpu_s": cpu}
    at = statistics.quantiles(load.times, n=100)
    print(json.dumps({**found, "p50_ms": at[49] * 1000, "p99_ms": at[98] * 1000}), flush=True)
    load.ended = True


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5]))
