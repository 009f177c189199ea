"""Emulators of the ad platforms' server-to-server APIs: where tests and the demo send what must not reach a platform.

They check requests as strictly as the platforms' published rules allow, keep what they accepted, and inject faults on
request. They share no code with sinks/: a sandbox that trusted the sink's idea of a platform would be no witness.

A platform is one file here with a function `platform()`, and its name in the list below:

    _base.py      what a platform is: a request in, a ruling out
    _checks.py    small checks of foreign JSON, put together into the rules of a platform
    _google.py    what several interfaces of Google share: tokens, and events by the Data Manager API
    meta.py, ...  the platforms
    store.py      what was accepted and refused, within bounds, without secrets
    faults.py     the fault switches
    pages.py      the page for people
    server.py     one process, all platforms
"""

from importlib import import_module

from app.sandbox._base import Platform

PLATFORMS = (
    "meta",
    "ga4",
    "google_ads",
    "pinterest",
    "tiktok",
    "webhook",
)


def load() -> tuple[Platform, ...]:
    """A fresh emulator of every platform."""
    return tuple(import_module(f"{__name__}.{name}").platform() for name in PLATFORMS)
