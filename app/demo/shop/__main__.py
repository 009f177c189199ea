"""python -m app.demo.shop: the shop as a process of its own. The secret key is in the environment, as DEMO_SECRET_KEY."""

import argparse
import os

from app import log
from app.demo.shop.server import Shop, serve
from app.loop import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.demo.shop")
    parser.add_argument("--port", type=int, default=8070)
    parser.add_argument("--collector", required=True)
    parser.add_argument("--view", required=True)
    parser.add_argument("--write-key", required=True)
    given = parser.parse_args()
    log.setup()
    run(serve(Shop(given.collector, given.view, given.write_key, os.environ["DEMO_SECRET_KEY"]), given.port))


if __name__ == "__main__":
    main()
