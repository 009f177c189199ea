"""Sinks of other packages: whatever is installed beside us with an entry point of the group `capistream.sinks`.

[project.entry-points."capistream.sinks"]
acme = "capistream_acme:Acme"

The name is the sink's `kind`. Nobody can replace a sink of ours, or another package's.
"""

import inspect
import re
from collections.abc import Mapping
from typing import Any, get_args

from app.destination import Destination
from app.plugins import Installed, Unfit
from sinks._base import Purpose, Sink

GROUP = "capistream.sinks"


class WithInstalled(Installed[Sink]):
    """Our own sinks and those of installed packages, by kind."""

    def __init__(self, built_in: Mapping[str, type[Sink]]) -> None:
        super().__init__(built_in, GROUP, "sink", checked)


def checked(kind: str, sink: Any) -> type[Sink]:
    """The same, if it is a sink of this kind. Raises Unfit that says what it lacks."""
    if not (isinstance(sink, type) and issubclass(sink, Sink)):
        raise Unfit("not a class that derives from sinks._base.Sink")
    if missing := sorted(sink.__abstractmethods__):
        raise Unfit(f"{sink.__name__} does not say how to {', '.join(missing)}")
    if absent := [name for name in ("kind", "title", "purpose", "Settings") if not hasattr(sink, name)]:
        raise Unfit(f"{sink.__name__} has no {', '.join(absent)}")
    if sink.kind != kind:
        raise Unfit(f"{sink.__name__}.kind is another word")
    if not re.fullmatch("[a-z][a-z0-9_]*", kind):
        raise Unfit("a kind is small letters, digits and _")
    if sink.purpose not in get_args(Purpose):
        raise Unfit(f"{sink.__name__}.purpose must be one of {', '.join(get_args(Purpose))}")
    if not (inspect.isclass(sink.Settings) and issubclass(sink.Settings, Destination)):
        raise Unfit(f"{sink.__name__}.Settings does not derive from app.destination.Destination")
    return sink
