"""The commands, one function each. Results go to stdout, progress and problems to stderr."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
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
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_dry_run = click.option("--dry-run", is_flag=True, help="Tell what would happen, and do nothing.")


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
@click.option(
    "--backfill", is_flag=True, help="Read the history of new sources, also where it goes to live destinations."
)
@_plainly
def worker(config: Path | None, web_port: int | None, backfill: bool) -> None:
    """Run one worker: normalize, dedup, deliver. Start more to share the work.

    A source with another start than latest, of which nothing was read yet, has history. Where a destination is live the worker
    does not begin to send it unless told so with --backfill.
    """
    from app import log, main, settings

    log.setup()
    main.run_worker(settings.load(config), web_port, backfill=backfill)


@main.command()
@_config
@click.option("--processes", type=click.IntRange(1, 64), help="How many share the port; default collector.processes.")
@click.option("--one-of-several", is_flag=True, hidden=True, help="Started by the parent of several.")
@_plainly
def collect(config: Path | None, processes: int | None, one_of_several: bool) -> None:
    """Run the collector: HTTP in, Kafka out."""
    from app import log, settings
    from app.collector import server, several
    from app.loop import run

    log.setup()
    loaded = settings.load(config)
    count = processes or loaded.collector.processes
    if one_of_several or count == 1:
        run(server.serve(loaded, share_port=one_of_several))
        return
    named = ["--config", str(config)] if config else []
    run(
        several.serve(loaded.collector, [sys.executable, "-m", "app.cli", "collect", "--one-of-several", *named], count)
    )


@main.command()
@_config
@click.option("--site", metavar="NAME", help="Whose pages; not needed where there is one site.")
@click.option("--base", metavar="PATH", default="/m", show_default=True, help="Where pages find the collector's /v1.")
@click.option(
    "--versioned",
    is_flag=True,
    help="By the name of this version, with its integrity; to be renewed with each release.",
)
@_plainly
def pixel(config: Path | None, site: str | None, base: str, versioned: bool) -> None:
    """Print the line that brings the pixel into the pages of a site."""
    from app import settings
    from app.collector.pixel import Script

    loaded = settings.load(config)
    name = site or (next(iter(loaded.sites)) if len(loaded.sites) == 1 else "")
    if name not in loaded.sites:
        raise CapistreamError(f"--site: one of {', '.join(loaded.sites) or 'none: the configuration has no site'}")
    script = Script.of(loaded.collector)
    click.echo(script.snippet(base, loaded.sites[name].write_key, versioned=versioned))


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
@_as_json
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
    copies, refused = previewing.read(_bytes_of(file), inlet, moment, made_up)
    for told in previewing.requests(previewing.conversions(copies, loaded, moment), loaded, moment, to):
        click.echo(orjson.dumps(told).decode() if as_json else previewing.for_people(told))
    for one in refused:
        click.secho(str(one), err=True, fg="red")
    sys.exit(1 if any(one.reason != "ignored" for one in refused) else 0)


@main.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path, allow_dash=True))
@_config
@click.option("--to", "name", required=True, metavar="NAME", help="The destination to compare with.")
@click.option(
    "--trace",
    type=click.Path(exists=True, path_type=Path, dir_okay=False),
    help="Our requests, as `capistream preview --json` prints them; instead of those in Kafka.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Of a CSV file: which column is order_id, event_id, name, time, value or currency; else by its name.",
)
@click.option("--time-zone", metavar="ZONE", help="Of times without one, such as Europe/Berlin.")
@click.option(
    "--event", "events", multiple=True, metavar="EVENT", help="Only events of this name of ours; may be given again."
)
@click.option("--since", metavar="TIME", help="Only what happened from this time on counts, ISO 8601 with zone.")
@click.option(
    "--until",
    metavar="TIME",
    help="And until this time. Default of both, for what stands on one side only: the time of which both sides tell.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="By which times may differ.",
)
@click.option(
    "--show", type=click.IntRange(min=0), default=10, show_default=True, help="How many of each kind are printed."
)
@click.option("--json", "as_json", is_flag=True, help="First line: the numbers. Then a line for each event.")
@_plainly
def compare(
    file: Path,
    config: Path | None,
    name: str,
    trace: Path | None,
    columns: tuple[str, ...],
    time_zone: str | None,
    events: tuple[str, ...],
    since: str | None,
    until: str | None,
    tolerance: float,
    show: int,
    as_json: bool,
) -> None:
    """Compare FILE, an export of another system (- for standard input), with what destination NAME would get from us, or got.

    FILE is CSV with a header, or JSON: request bodies, or lines of a log that have them anywhere, or another capistream's
    receipts. Ours are the requests of a destination in shadow, and receipts. Events are paired by order number, else by event
    id. Exits 1 when anything differs.

    Of fields about a person only the names are told, never a value.
    """
    from app import compare as comparing
    from app import destinations, exports, settings
    from app.preview import moment
    from sinks import SINKS

    loaded = settings.load(config)
    destinations.known(loaded, (name,))
    destination = loaded.destinations[name]
    places = SINKS[destination.sink](destination).places
    span = comparing.Span(
        *(moment(at, option) if at else None for at, option in ((since, "--since"), (until, "--until")))
    )
    export = exports.read(_bytes_of(file), name, places, exports.columns(columns), exports.zone(time_zone))
    if trace:
        ours = comparing.read_file(trace.read_bytes(), name, places)
    else:
        ours = asyncio.run(comparing.ours(loaded, name, places, span.since))
    if not ours:
        raise CapistreamError(
            f"nothing of ours is known of {name}: is it in shadow, and did a worker have events for it?"
        )
    report = comparing.compare(
        export.sent, ours, destination, tolerance=int(tolerance * 1000), span=span, events=events
    )
    for one in export.unread[:show]:
        click.secho(str(one), err=True, fg="red")
    if as_json:
        for said in (comparing.summary(report, export), *(one.as_json() for one in report.findings)):
            click.echo(orjson.dumps(said))
    else:
        click.echo("\n".join(comparing.for_people(report, export, show)))
    sys.exit(1 if comparing.differs(report, export) else 0)


@main.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path, allow_dash=True))
@_config
@click.option("--to", "name", required=True, metavar="NAME", help="The destination whose deliveries are looked at.")
@click.option(
    "--tz",
    "time_zone",
    default="UTC",
    show_default=True,
    metavar="ZONE",
    help="Of the days, and of times without a zone: Europe/Berlin.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Which column is order_id, time, value or currency; else by its name.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 100),
    default=90,
    show_default=True,
    metavar="PERCENT",
    help="Exit 1 where the destination has less of what it should have: on one day, or of all.",
)
@click.option("--class", "kind", default="", metavar="CLASS", help="Print the orders of this class, and nothing else.")
@click.option(
    "--show", type=click.IntRange(min=0), default=5, show_default=True, help="How many of each class are printed."
)
@click.option("--json", "as_json", is_flag=True, help="First line: the numbers. Then a line for each order.")
@_plainly
def reconcile(
    file: Path,
    config: Path | None,
    name: str,
    time_zone: str,
    columns: tuple[str, ...],
    threshold: float,
    kind: str,
    show: int,
    as_json: bool,
) -> None:
    """What became of each order of FILE, the shop's own list as CSV (- for standard input), at destination NAME.

    Each order is in one class: delivered, differs, pending, never_received, pixel_only, held_by_consent, bot_or_test, too_old,
    rejected, left_out, unknown. Orders are found by their number, which pixel and server report as transaction id. Only the
    columns named above are read; rows that cannot be used are told on stderr.
    """
    from app import control, destinations, exports, orders, settings
    from app import reconcile as reconciling

    loaded = settings.load(config)
    destinations.known(loaded, (name,))
    if kind and kind not in reconciling.CLASSES:
        raise CapistreamError(f"--class: one of {', '.join(reconciling.CLASSES)}")
    listed = orders.read(_bytes_of(file), exports.columns(columns), exports.zone(time_zone, "--tz") or "UTC")
    for line in listed.complaints():
        click.secho(line, err=True, fg="red")
    if not listed.orders:
        raise CapistreamError("there is no order in this list")
    with _bar() as bar:
        task = bar.add_task("reading", total=None)
        known = asyncio.run(reconciling.read(loaded, name, listed, lambda: bar.advance(task, 1000)))
    report = reconciling.report(loaded, name, listed, known, control.now(), threshold)
    if as_json:
        click.echo(orjson.dumps(report.summary))
        for one in report.of(kind):
            click.echo(orjson.dumps(one.as_json()))
    else:
        click.echo("\n".join(reconciling.for_people(report, kind, show)))
    sys.exit(1 if report.alert else 0)


def _bytes_of(file: Path) -> bytes:
    return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()


@main.group(name="map")
def map_group() -> None:
    """How a source reads its topic."""


@map_group.command(name="try")
@click.argument("file", type=click.Path(exists=True, path_type=Path, allow_dash=True))
@_config
@click.option(
    "--source", metavar="NAME", required=True, help="The source of the configuration whose settings read the file."
)
@click.option("--key", help="The key of the records.")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header of the records; may be given again."
)
@click.option("--now", metavar="TIME", help="The timestamp of the records, ISO 8601 with zone; default now.")
@_as_json
@_plainly
def map_try(
    file: Path,
    config: Path | None,
    source: str,
    key: str | None,
    headers: tuple[str, ...],
    now: str | None,
    as_json: bool,
) -> None:
    """Print what the source's settings make of the values in FILE (- for standard input). Sends nothing, needs no Kafka.

    FILE holds JSON, one document or one a line; also where the topic has Avro or Protobuf. For each event: the event with its
    hashes, what could not be used, and the parts of the value that nothing reads. Exits 1 when an event was refused.
    """
    from app import preview as previewing
    from app import settings, trying
    from app.normalize import Refused
    from app.reading import Carried

    if wrong := [header for header in headers if "=" not in header]:
        raise CapistreamError(f"--header: NAME=VALUE, not {wrong[0]}")
    loaded = settings.load(config)
    inlet, moment = previewing.inlet(loaded, source, None), previewing.moment(now)
    if not loaded.destinations:  # yet: nobody wants a hash, and it would look as if the person were not read
        inlet = replace(inlet, keep=None)
    said = {name: value for name, _, value in (header.partition("=") for header in headers)}
    refused = False
    for one in trying.tries(previewing.documents(_bytes_of(file)), inlet, moment, Carried(key, said, moment)):
        refused = refused or isinstance(one.result, Refused)
        click.echo(orjson.dumps(one.as_json()).decode() if as_json else one.for_people())
    sys.exit(1 if refused else 0)


@main.group()
def dead() -> None:
    """Dead letters: what could not be taken or delivered. Look, replay, drop."""


def _which(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which letters."""
    for option in (
        click.option("--until", metavar="TIME", help="Written before this time, ISO 8601 with zone."),
        click.option("--since", metavar="TIME", help="Written at this time or later, ISO 8601 with zone."),
        click.option("--event-id", default="", help="Only letters of this event."),
        click.option("--reason", default="", help="Only letters with this reason."),
        click.option("--destination", default="", metavar="NAME", help="Only letters of this destination."),
    ):
        command = option(command)
    return command


def _wanted(which: dict[str, Any], **more: Any) -> Any:
    from app.letters import Wanted
    from app.preview import moment

    since, until = which.pop("since"), which.pop("until")
    return Wanted(
        since=moment(since, "--since") if since else 0,
        until=moment(until, "--until") if until else None,
        **which,
        **more,
    )


def _bar() -> Any:
    """A progress bar on stderr, where somebody sees it."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


@dead.command(name="list")
@_config
@_which
@click.option("--all", "everything", is_flag=True, help="Those too that were replayed or dropped.")
@_as_json
@_plainly
def dead_list(config: Path | None, everything: bool, as_json: bool, **which: Any) -> None:
    """Print the letters, oldest first, and how many have which reason."""
    from app import letters, settings

    loaded = settings.load(config)
    found = _wanted(which, settled=everything).of(asyncio.run(letters.load(loaded)))
    for line in [letter.row()[1] for letter in found] if as_json else letters.table(found):
        click.echo(line)


@dead.command(name="show")
@click.argument("letter_id", metavar="ID")
@_config
@_as_json
@_plainly
def dead_show(letter_id: str, config: Path | None, as_json: bool) -> None:
    """Print all that a letter says, and whether it can be replayed. The beginning of its ID will do."""
    from app import letters, settings

    loaded = settings.load(config)
    (letter,) = letters.Wanted(ids=(letter_id,)).of(asyncio.run(letters.load(loaded)))
    if as_json:
        click.echo(letter.row()[1])
    else:
        click.echo("\n".join(letters.page(letter, asyncio.run(letters.retained(loaded, letter)))))


@dead.command(name="replay")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_config
@_which
@_dry_run
@_yes
@_as_json
@_plainly
def dead_replay(
    ids: tuple[str, ...], config: Path | None, dry_run: bool, yes: bool, as_json: bool, **which: Any
) -> None:
    """Try again what became a dead letter: those named, else all that wait and fit the options.

    What was delivered since is not sent again; consent and age are judged anew. Exits 1 when a letter stays one.
    """
    from app import control, letters, settings

    loaded = settings.load(config)
    known = asyncio.run(letters.load(loaded))
    chosen = _wanted(which, ids=ids).of(known)
    if chosen and not dry_run and not yes:
        click.confirm(f"Replay {len(chosen)} letters?", abort=True, err=True)

    async def run() -> list[letters.Told]:
        told: list[letters.Told] = []
        with _bar() as bar:
            task = bar.add_task("replaying", total=len(chosen))
            async for one in letters.replay(loaded, chosen, known, control.who(), dry_run=dry_run):
                told.append(one)
                bar.advance(task)
        return told

    told = asyncio.run(run())
    for one in told:
        if as_json:
            click.echo(orjson.dumps(one.as_json()))
        elif one.why:
            click.secho(f"{one.letter.id[:12]}  {one.why}", err=True, fg="red")
    stay = sum(bool(one.why) for one in told)
    if not as_json:
        click.echo(f"{len(told) - stay} {'would be ' if dry_run else ''}replayed, {stay} stay")
    sys.exit(1 if stay else 0)


@dead.command(name="drop")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_config
@_which
@_dry_run
@_yes
@_plainly
def dead_drop(ids: tuple[str, ...], config: Path | None, dry_run: bool, yes: bool, **which: Any) -> None:
    """Take letters off the list: those named, else all that wait and fit the options. Nothing is deleted."""
    from app import control, letters, settings

    loaded = settings.load(config)
    chosen = _wanted(which, ids=ids).of(asyncio.run(letters.load(loaded)))
    if chosen and not dry_run:
        if not yes:
            click.confirm(f"Drop {len(chosen)} letters?", abort=True, err=True)
        asyncio.run(letters.drop(loaded, chosen, control.who()))
    click.echo(f"{len(chosen)} {'would be ' if dry_run else ''}dropped")


@main.group()
def destinations() -> None:
    """Destinations: how they stand, pause, resume, test, backfill."""


@destinations.command(name="list")
@_config
@_as_json
@_plainly
def destinations_list(config: Path | None, as_json: bool) -> None:
    """Print each destination: is it paused, how many records wait for it, which API version it uses, until when.

    Destinations that the configuration no longer has are listed as well: what waited for them is still there.
    """
    from app import destinations, settings

    rows = asyncio.run(destinations.standing(settings.load(config)))
    for line in map(orjson.dumps, rows) if as_json else destinations.table(rows):
        click.echo(line)


def _order(config: Path | None, names: tuple[str, ...], **order: Any) -> None:
    """Give it, for each of these destinations; for all when none is named."""
    from app import control, destinations, settings

    loaded = settings.load(config)
    destinations.known(loaded, names)
    orders = [control.Order(name, by=control.who(), at=control.now(), **order) for name in names or loaded.destinations]
    asyncio.run(control.give(loaded, orders))
    for one in orders:
        click.echo(f"{one.destination} {'paused' if one.paused else 'goes on'}")


@destinations.command()
@click.argument("name")
@_config
@click.option("--reason", default="", help="Why; pages and alerts tell it.")
@_plainly
def pause(name: str, config: Path | None, reason: str) -> None:
    """Send nothing to destination NAME until it is resumed. Its events wait in Kafka."""
    _order(config, (name,), paused=True, reason=reason)


@destinations.command()
@click.argument("name")
@_config
@click.option("--accept", is_flag=True, help="Also when it halted because most events are rejected.")
@_plainly
def resume(name: str, config: Path | None, accept: bool) -> None:
    """Let destination NAME go on, after a pause or a guard."""
    _order(config, (name,), paused=False, accept=accept)


@destinations.command()
@click.argument("name")
@_config
@click.option("--live", is_flag=True, help="Send it even where the platform has no test mode, and counts it.")
@_yes
@_as_json
@_plainly
def test(name: str, config: Path | None, live: bool, yes: bool, as_json: bool) -> None:
    """Send one made-up purchase to destination NAME, in the platform's test mode, and print the answer.

    Exits 0 when the platform took it. Where it has no test mode nothing is sent, but with --live.
    """
    from app import control, destinations, settings

    loaded = settings.load(config)
    destinations.known(loaded, (name,))
    trial = destinations.trial(loaded, name)
    click.echo(trial.announcement(), err=True)
    request = destinations.as_json(trial.shown(control.now() / 1000))
    if not as_json:
        click.echo(destinations.for_people(request))
    if not trial.has_test_mode and not live:
        raise CapistreamError("Nothing is sent. Give --live to send it all the same.")
    if trial.counts and not yes:
        click.confirm("Send it?", abort=True, err=True)
    answer = asyncio.run(destinations.send(trial))
    said = {"destination": name, "counts": trial.counts, "request": request}
    click.echo(orjson.dumps(said | answer) if as_json else destinations.verdict(answer))
    sys.exit(0 if answer["ok"] else 1)


@destinations.command()
@click.argument("name")
@_config
@click.option("--since", metavar="TIME", required=True, help="Events from this time on, ISO 8601 with zone.")
@click.option("--until", metavar="TIME", help="Events before this time.")
@click.option("--event", "event_name", default="", metavar="EVENT", help="Only events of this name.")
@_dry_run
@_as_json
@_plainly
def backfill(
    name: str,
    config: Path | None,
    since: str,
    until: str | None,
    event_name: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Give destination NAME the merged events of the past that Kafka still has.

    The worker judges consent and age as for any event, and sends nothing that was delivered there before.
    """
    from app import destinations, settings
    from app.preview import moment

    loaded = settings.load(config)
    destinations.known(loaded, (name,))
    past = destinations.Past(moment(since, "--since"), moment(until, "--until") if until else None, event_name)
    with _bar() as bar:
        task = bar.add_task("reading", total=None)
        progress = lambda: bar.advance(task)  # noqa: E731
        counts = asyncio.run(destinations.backfill(loaded, name, past, dry_run=dry_run, progress=progress))
    given = counts.pop("given", 0)
    if as_json:
        click.echo(orjson.dumps({"destination": name, "given": given, "left_out": counts}))
    else:
        click.echo(f"{given:7} {'would be ' if dry_run else ''}given to {name}")
        for reason, count in counts.most_common():
            click.echo(f"{count:7} left out, {reason}")


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every destination.")
@_config
@click.option("--reason", default="stopped", show_default=True, help="Why; pages and alerts tell it.")
@_plainly
def stop(names: tuple[str, ...], everything: bool, config: Path | None, reason: str) -> None:
    """Pause destinations at once: those named, or --all. Nothing is lost: their events wait in Kafka.

    `capistream destinations resume NAME` lets one go on.
    """
    if bool(names) == everything:
        raise click.UsageError("name destinations, or give --all")
    _order(config, names, paused=True, reason=reason)


def _who(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say who is meant."""
    for option in (
        click.option("--event-id", multiple=True, help="Events with this id."),
        click.option("--order", multiple=True, help="Events with this order number."),
        click.option("--id", "ids", multiple=True, metavar="NAME=VALUE", help="A cookie or click id: fbp=fb.1.2.3"),
        click.option("--client-id", multiple=True, help="GA4 client id."),
        click.option("--external-id", multiple=True, help="Your own id of the person (user_id), or its SHA-256."),
        click.option(
            "--country", help="Of phone numbers without +: two letters. Default: the sites', where they have one."
        ),
        click.option("--phone", multiple=True, help="Phone number in clear, or its SHA-256."),
        click.option("--email", multiple=True, help="E-mail address in clear, or its SHA-256."),
    ):
        command = option(command)
    return command


@main.command()
@_config
@_who
@click.option(
    "--file", type=click.File("rb"), help="The same as JSON, as POST /v1/forget takes it; - reads standard input."
)
@click.option("--site", default="", metavar="NAME", help="Only events of this site.")
@click.option("--withdraw", is_flag=True, help="Only end deliveries of what was received until now; state stays.")
@_dry_run
@_as_json
@_plainly
def forget(config: Path | None, file: Any, site: str, withdraw: bool, dry_run: bool, as_json: bool, **who: Any) -> None:
    """Erase a person: deliver nothing of what was received until now, remove state. Prints what remains how long.

    It reaches events that carry one of the identifiers given, and no others. What is clear is hashed at once, and stored nowhere;
    --file - keeps it out of your shell's history and the list of processes.
    """
    from app import control, erasure, forget, settings

    loaded = settings.load(config)
    if site and site not in loaded.sites:
        raise CapistreamError(f"--site: no site is called so; there are {', '.join(loaded.sites) or 'none'}")
    countries = {one.country for name, one in loaded.sites.items() if site in ("", name)}
    raw = forget.request(who, file.read() if file else b"", withdraw=withdraw, dry_run=dry_run)
    asked = erasure.read(raw, countries.pop() if len(countries) == 1 else None)
    entries = asked.entries(control.now(), control.who(), site)
    if not asked.dry_run:
        asyncio.run(forget.give(loaded, entries))
    said = forget.answer(asked, entries, loaded)
    click.echo(orjson.dumps(said) if as_json else "\n".join(forget.for_people(said)))


@main.group()
def consent() -> None:
    """Consent strings: what they say, and who may have what by them."""


@consent.command()
@click.argument("strings", nargs=-1, required=True, metavar="STRING...")
@click.option(
    "--kind",
    type=click.Choice(["tcf", "gpp", "us_privacy", "gcs", "gcd"]),
    help="What the strings are; else each tells by its beginning.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A configuration file: also tell what each of its destinations may get.",
)
@click.option("--region", default="", metavar="PLACE", help="With --config: where the person is, such as DE or US-CA.")
@click.option(
    "--site", default="", metavar="NAME", help="With --config: where the event happened; matters where silence denies."
)
@_as_json
@_plainly
def explain(
    strings: tuple[str, ...], kind: str | None, config: Path | None, region: str, site: str, as_json: bool
) -> None:
    """Decode each STRING: a TCF, GPP or US privacy string, or Google's gcs or gcd. Exits 1 when one cannot be read.

    With --config each destination is judged as for an event that tells of this consent and of no other.
    """
    from app import consent, explain, settings

    place = region.upper()
    if place and not consent.is_place(place):
        raise CapistreamError("--region: a country or a part of one by ISO 3166, for example DE or US-CA")
    loaded = settings.load(config) if config else None
    if site and loaded and site not in loaded.sites:
        raise CapistreamError(f"--site: no site is called so; sites are {', '.join(loaded.sites) or 'none'}")
    told = [explain.explain(text, loaded, kind, place, site) for text in strings]
    for one in told:
        click.echo(orjson.dumps(one) if as_json else explain.for_people(one))
    sys.exit(0 if all(one["readable"] for one in told) else 1)


@main.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@_plainly
def doctor(config: Path | None, as_json: bool) -> None:
    """Look at all that workers and collectors need, and say what to do about what is wrong. Changes nothing, sends nothing.

    Configuration and secrets, this machine, Kafka and its topics, the workers' group, clocks, platforms: those by calls that
    record nothing. Works, too, while Kafka is down. Run it as the user and in the place of a worker. Exits 1 on a problem.
    """
    from app import doctor

    with _bar() as bar:
        task = bar.add_task("looking", total=len(doctor.EXAMINATIONS))
        report = doctor.examine(config, lambda: bar.advance(task))
    if as_json:
        click.echo(orjson.dumps(report.as_json()))
    else:
        colours = {"ok": "green", "warning": "yellow", "problem": "red"}
        for line, state in report.for_people():
            click.secho(line, fg=colours[state] if state else None)
    sys.exit(1 if report.problems else 0)


@main.group(name="topics")
def topics_group() -> None:
    """Topics: what there has to be, what there is, and who may do what with it."""


@topics_group.command(name="plan")
@_config
@_as_json
@_plainly
def topics_plan(config: Path | None, as_json: bool) -> None:
    """Show each topic as it is and as it has to be, and what to do about each difference. Changes nothing.

    Exits 1 when something has to be done. A note is no such thing.
    """
    from app import settings, topic_plan

    rows = asyncio.run(topic_plan.look(settings.load(config)))
    _show_topics(rows, as_json)


@topics_group.command(name="apply")
@_config
@_as_json
@_plainly
def topics_apply(config: Path | None, as_json: bool) -> None:
    """Make the topics that are missing and set what cannot hurt; then show what is left, as `plan`.

    Deletes nothing, shortens nothing that is kept, and changes no number of partitions or copies: it says what to do. Source
    topics are yours. Exits 1 when something is left.
    """
    from app import settings, topic_plan

    loaded = settings.load(config)

    async def run() -> tuple[list[str], list[topic_plan.Row]]:
        refused = await topic_plan.apply(loaded, await topic_plan.look(loaded))
        return refused, await topic_plan.look(loaded)

    refused, rows = asyncio.run(run())
    for line in refused:
        click.secho(line, err=True, fg="red")
    _show_topics(rows, as_json)


def _show_topics(rows: Any, as_json: bool) -> None:
    from app import topic_plan

    for line in [orjson.dumps(row.as_json()) for row in rows] if as_json else topic_plan.table(rows):
        click.echo(line)
    click.echo(topic_plan.summary(rows), err=True)
    sys.exit(1 if any(not one.note for row in rows for one in row.todo) else 0)


@topics_group.command(name="acls")
@_config
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(["collector", "worker", "view", "operator"]),
    help="Only of this role; may be given again.  [default: collector and worker]",
)
@click.option(
    "--principal",
    metavar="NAME",
    help="Who is to be allowed it, such as User:capistream. Default: as the settings log in.",
)
@_as_json
@_plainly
def topics_acls(config: Path | None, roles: tuple[str, ...], principal: str | None, as_json: bool) -> None:
    """Print what has to be allowed on Kafka, as commands of its own tool. From the configuration alone.

    Collector and worker may have principals of their own: give one --role at a time, with its --principal. `view` looks, and
    `operator` gives commands and makes topics.
    """
    from dataclasses import asdict

    from app import acls, settings

    loaded = settings.load(config)
    who = principal or acls.principal(loaded)
    if who == acls.PLACEHOLDER and not as_json:
        click.echo("the settings do not tell who we are to Kafka: give --principal", err=True)
    for role in acls.ROLES:
        if role not in (roles or ("collector", "worker")):
            continue
        needed = acls.needed(loaded, role)
        if as_json:
            for acl in needed:
                click.echo(orjson.dumps({"role": role, "principal": who, **asdict(acl)}))
        else:
            click.echo("\n".join([f"# {role}", *acls.commands(needed, who, loaded.brokers)]))


@main.group(name="config")
def config_group() -> None:
    """Check the configuration, print its schema, tell what it means for personal data."""


@config_group.command()
@_config
@_plainly
def check(config: Path | None) -> None:
    """Name every mistake in the configuration, with its place. Exits 0 when there is none."""
    from app import bus, settings

    loaded = settings.load(config)
    if missing := [*settings.secrets_missing(loaded), *bus.unreadable(loaded)]:
        raise CapistreamError("\n".join(missing))
    click.echo(
        f"ok: {len(loaded.sites)} sites, {len(loaded.sources)} sources, {len(loaded.destinations)} destinations, "
        f"configuration {loaded.hash}"
    )


@config_group.command()
@_config
@_as_json
@_plainly
def privacy(config: Path | None, as_json: bool) -> None:
    """Tell what is kept where, for how long and in which form, and which destination gets what: tables in Markdown.

    From the configuration alone: nothing is read from Kafka, and no secret.
    """
    from app import privacy, settings

    loaded = settings.load(config)
    click.echo(orjson.dumps(privacy.as_json(loaded)).decode() if as_json else privacy.page(loaded), nl=as_json)


@config_group.command()
@_plainly
def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    from app import settings

    click.echo(orjson.dumps(settings.json_schema(), option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
