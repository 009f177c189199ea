"""capistream: each conversion, once, complete and lawful, to every ad platform.

Read in this order:

    events.py      the two shapes of an event: Draft (as people send it) and Event (as we carry it)
    formats/       other people's formats -> Draft, as tables
    reading.py     a source's own filter and map; CloudEvents envelopes
    schemas.py     Avro, Protobuf and JSON Schema -> JSON, by what registry.py fetches
    plain.py       a Draft as programs write it, read and checked at once
    normalize.py   Draft -> Event or a refusal: validate, hash (identity.py), never clear personal data after it (redaction.py)
    keys.py        which copies are one conversion, and in which partition they meet
    dedup.py       hold, merge (merge.py), once per key; time is in the log (clock.py)
    routing.py     may this destination have it? consent (consent.py, which signals/ reads for), labels, modes
    topics.py      every topic: its key, how long it lives; topic_plan.py compares with what there is, acls.py says who needs what
    bus.py         the way to Kafka: every client is made here; bearer.py gets tokens, why_not.py says why it is closed
    lossless/      Faust without loss: batches, ledger, ownership, tables in bulk
    main.py        the worker: agents/ and sinks/ put together
    privacy.py     what of all this is personal data, where it is kept, and who gets it
    erasure.py     who is forgotten: what that reaches, and what remains how long (forget.py reads and writes)
    control.py     orders to pause and resume; letters.py and destinations.py: what people do about what is not delivered
    compare.py     what another system sends (exports.py reads it) against what we would: for moving over
    orders.py      a shop's own list of orders; reconcile.py: what became of each of them at a destination
    match.py       by what platforms can find the people of our events
    doctor/        is everything as all this needs it?
    collector/     HTTP in     view/  pages     sandbox/  platforms to test against     demo/  all of it on one machine

`app` is the Faust app of the configuration named by CAPISTREAM_CONFIG, made when first asked for:
`faust -A app worker -l info`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.lossless import App

    app: App

_made: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    if "app" not in _made:
        from app import log, settings
        from app.main import Pipeline

        log.setup()
        _made["app"] = Pipeline(settings.load()).app
    return _made["app"]
