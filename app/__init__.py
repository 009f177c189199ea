"""capistream: each conversion, once, complete and lawful, to every ad platform.

Read in this order:

    events.py      the two shapes of an event: Draft (as people send it) and Event (as we carry it)
    formats/       other people's formats -> Draft, as tables
    normalize.py   Draft -> Event or a refusal: validate, hash (identity.py), never clear personal data after it
    keys.py        which copies are one conversion, and in which partition they meet
    dedup.py       hold, merge (merge.py), once per key; time is in the log (clock.py)
    routing.py     may this destination have it? consent (consent.py), labels, modes
    lossless/      Faust without loss: batches, ledger, ownership, tables in bulk
    main.py        the worker: agents/ and sinks/ put together
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
