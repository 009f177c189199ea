"""The commands, one function each. Results go to stdout, progress and problems to stderr."""

import asyncio
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import orjson

from app.errors import CapistreamError

_config = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration file; default $CAPISTREAM_CONFIG or capistream.toml.",
)


def _plainly(command: Callable[..., Any]) -> Callable[..., Any]:
    """Our own errors are for people: a line each, no traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except CapistreamError as exc:
            for line in str(exc).splitlines():
                click.secho(line, err=True, fg="red")
            sys.exit(1)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="capistream")
def main() -> None:
    """Each conversion, once, complete and lawful, to every ad platform.

    Start with `capistream demo`: everything on this machine, on real input.
    """


@main.command()
@click.option("--once", is_flag=True, help="Play the file once, wait for every outcome, and end.")
@click.option("--json", "as_json", is_flag=True, help="First line: the addresses, when ready. Last line: the balance.")
@click.option(
    "--workers", type=click.IntRange(1, 4), default=1, show_default=True, help="How many workers share the work."
)
@click.option("--file", type=click.Path(exists=True, path_type=Path), help="Another traffic file than the bundled one.")
@click.option(
    "--speed", type=click.FloatRange(0.05, 100), default=1.0, show_default=True, help="2 plays twice as fast."
)
@_plainly
def demo(once: bool, as_json: bool, workers: int, file: Path | None, speed: float) -> None:
    """Run everything on this machine: Kafka, collector, worker, emulated platforms. For development only.

    Exits 0 when the books balance: every conversion received has its outcome at every destination, and the platforms
    count as many. Set CAPISTREAM_BROKER to use a Kafka of yours instead of the embedded one.
    """
    from app.demo.run import run

    sys.exit(run(once=once, as_json=as_json, workers=workers, file=file, speed=speed))


@main.command()
@_config
@click.option("--web-port", type=int, help="Port of the view; default view.port.")
@_plainly
def worker(config: Path | None, web_port: int | None) -> None:
    """Run one worker: normalize, dedup, deliver. Start more to share the work."""
    from app import log, main, settings

    log.setup()
    main.run_worker(settings.load(config), web_port)


@main.command()
@_config
@_plainly
def collect(config: Path | None) -> None:
    """Run the collector: HTTP in, Kafka out."""
    from app import log, settings
    from app.collector import server
    from app.loop import run

    log.setup()
    run(server.serve(settings.load(config)))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, default=8090, show_default=True)
@_plainly
def sandbox(host: str, port: int) -> None:
    """Run emulators of the platforms, as strict as their documentation."""
    from app import log
    from app.loop import run
    from app.sandbox import server

    log.setup()
    click.echo(f"sandbox at http://{host}:{port}", err=True)
    run(server.serve(host, port))


@main.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@_config
@click.option(
    "--speed", type=click.FloatRange(0.05, 1000), default=1.0, show_default=True, help="2 plays twice as fast."
)
@click.option("--suffix", default="", help="Added to all ids, to play a file again as new conversions.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@_plainly
def send(file: Path, config: Path | None, speed: float, suffix: str, as_json: bool) -> None:
    """Play a traffic FILE: pixel copies by HTTP, server copies by Segment's SDK, the rest into the source topic."""
    from app import settings
    from app.demo import traffic

    lines = traffic.load(file)
    click.echo(f"playing {len(lines)} events", err=True)
    player = traffic.Player(traffic.target(settings.load(config)))
    sent = asyncio.run(player.play(lines, speed=speed, suffix=suffix))
    result = {
        "pixel": sent.pixel,
        "segment": sent.segment,
        "bus": sent.bus,
        "refused": sent.refused,
        "failed": sent.failed,
    }
    click.echo(orjson.dumps(result).decode() if as_json else "\n".join(f"{k:8} {v}" for k, v in result.items()))
    sys.exit(1 if sent.failed else 0)


@main.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path, allow_dash=True))
@_config
@click.option("--to", multiple=True, metavar="NAME", help="Only this destination; may be given again.")
@click.option("--source", metavar="NAME", help="Read the file as this source of the configuration.")
@click.option("--format", "format_name", help="Without --source: how the events are written; default capistream.")
@click.option("--now", metavar="TIME", help="The moment of receipt, ISO 8601 with zone; default now.")
@click.option("--id", "made_up", default="", help="The id of events that carry none; without it they are refused.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_plainly
def preview(
    file: Path,
    config: Path | None,
    to: tuple[str, ...],
    source: str | None,
    format_name: str | None,
    now: str | None,
    made_up: str,
    as_json: bool,
) -> None:
    """Print what would be sent for the events of FILE (- for standard input), or why nothing. Sends nothing.

    FILE holds JSON, one document or one a line; copies of one conversion are merged. Secrets are masked, and not needed.
    Exits 1 when an event was refused, which is told on stderr.
    """
    from app import preview as previewing
    from app import settings

    loaded = settings.load(config)
    if unknown := [name for name in to if name not in loaded.destinations]:
        raise CapistreamError(
            f"--to: no destination is called {unknown[0]}; there are {', '.join(loaded.destinations)}"
        )
    moment = previewing.moment(now)
    inlet = previewing.inlet(loaded, source, format_name)
    text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    copies, refused = previewing.read(text, inlet, moment, made_up)
    for told in previewing.requests(previewing.conversions(copies, loaded, moment), loaded, moment, to):
        click.echo(orjson.dumps(told).decode() if as_json else previewing.for_people(told))
    for one in refused:
        click.secho(str(one), err=True, fg="red")
    sys.exit(1 if any(one.reason != "ignored" for one in refused) else 0)


@main.group(name="config")
def config_group() -> None:
    """Check the configuration, print its schema."""


@config_group.command()
@_config
@_plainly
def check(config: Path | None) -> None:
    """Name every mistake in the configuration, with its place. Exits 0 when there is none."""
    from app import settings

    loaded = settings.load(config)
    if missing := settings.secrets_missing(loaded):
        raise CapistreamError("\n".join(missing))
    click.echo(
        f"ok: {len(loaded.sites)} sites, {len(loaded.sources)} sources, {len(loaded.destinations)} destinations, "
        f"configuration {loaded.hash}"
    )


@config_group.command()
def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    from app import settings

    click.echo(orjson.dumps(settings.json_schema(), option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
