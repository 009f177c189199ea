"""aiohttp as it is: a server that reads what is sent and answers 204.

python answer.py PORT
"""

import sys

import uvloop
from aiohttp import web


async def take(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=204)


async def main(port: int) -> web.Application:
    app = web.Application()
    app.router.add_post("/v1/events", take)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(main(int(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
