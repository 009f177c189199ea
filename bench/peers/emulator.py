"""A platform that takes everything: HTTP/1.1, an answer after so many milliseconds, and a count of what came.

python emulator.py PORT MILLISECONDS EMPTY     EMPTY 1: answers 204, as GA4 does; 0: a receipt, as Meta gives one

It understands just what the contestants send, and checks nothing: whoever is measured beside it needs the processor more. Events
are counted by the word `event_name`, or, without a receipt, by request; `GET /` tells how many.
"""

import asyncio
import sys

import uvloop


class Connection(asyncio.Protocol):
    taken = 0  # of all connections

    def __init__(self, delay: float, *, empty: bool) -> None:
        self.delay, self.empty, self.buffer = delay, empty, bytearray()
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end]).lower()
            length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self.buffer) < end + 4 + length:
                return
            events = 1 if self.empty else self.buffer.count(b"event_name", end, end + 4 + length)
            del self.buffer[: end + 4 + length]
            if head.startswith(b"get"):
                self.answer(b"200 OK", b"%d" % self.taken)
                continue
            Connection.taken += events
            said = b"" if self.empty else b'{"events_received":%d,"messages":[],"fbtrace_id":"AbCdEf"}' % events
            self.loop.call_later(self.delay, self.answer, b"204 No Content" if self.empty else b"200 OK", said)

    def answer(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 " + status + b"\r\nDate: Mon, 30 Nov 2026 12:00:00 GMT"
        if body:
            head += b"\r\nContent-Type: application/json\r\nContent-Length: %d" % len(body)
        self.transport.write(head + b"\r\n\r\n" + body)


async def main(port: int, delay: float, *, empty: bool) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(delay, empty=empty), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]) / 1000, empty=sys.argv[3] == "1"))
