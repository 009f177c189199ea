"""aiohttp as it is: a server that reads what is sent and answers 204.

python answer.py PORT
"""

import sys

import uvloop
from aiohttp import web


async def take(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=204)


if __name__ == "__main__":
    uvloop.install()
    app = web.Application()
    app.router.add_post("/v1/events", take)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
