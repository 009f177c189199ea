"""What a worker runs with, for a page: every setting as it is in effect, and what tells whether two workers have the same. Pure.

Settings hold no secret, only where secrets are read from. What people write into addresses is masked all the same.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel

from app.events import Json
from app.settings import DEFAULT_RULES, Settings

#: What workers of one configuration may differ in.
OWN = ("view.port", "view.host", "view.advertise", "worker.data_dir")
#: Sections with a part for each name.
NAMED = ("sites", "sources", "destinations", "events")


def rows(settings: Settings) -> list[Json]:
    """Every setting: its path, its value as text, and whether somebody gives it or it is a default."""
    found = {
        path: {"setting": path, "value": shown(value), "given": given}
        for path, value, given in _all(settings)
        if value not in ({}, None) or given
    }
    # the environment may name others than the file does
    found["kafka.brokers"] |= {"value": shown(settings.brokers)}
    return list(found.values())


def _all(settings: Settings) -> Iterator[tuple[str, Any, bool]]:
    for name in type(settings).model_fields:
        if name != "events":
            given = name in settings.model_fields_set
            yield from _leaves(getattr(settings, name), name, given=given)
            continue
        for event, rule in settings.rules.items():  # those that are in effect without a word in the file, too
            usual = DEFAULT_RULES.get(event)
            for path, value, given in _leaves(rule, f"events.{event}", given=event in settings.events):
                yield path, value, given and value != getattr(usual, path.rpartition(".")[2], None)


def _leaves(value: Any, path: str, *, given: bool) -> Iterator[tuple[str, Any, bool]]:
    """(path, value, given), an object of settings gone into, and a table of them, too."""
    if isinstance(value, BaseModel):
        if fields := _secret(value):
            yield path, fields, given
            return
        for name in type(value).model_fields:
            own = given and name in value.model_fields_set
            yield from _leaves(getattr(value, name), f"{path}.{name}".lstrip("."), given=own)
    elif isinstance(value, Mapping) and value and any(isinstance(one, BaseModel) for one in value.values()):
        for name, one in value.items():
            yield from _leaves(one, f"{path}.{name}", given=given)
    elif isinstance(value, BaseModel | Mapping | Sequence) and not isinstance(value, str):
        yield path, orjson.loads(orjson.dumps(value, default=_plain)), given
    else:
        yield path, value, given


def _secret(value: BaseModel) -> str:
    """Where a secret is read from; empty for what is none."""
    if type(value).model_fields.keys() != {"env", "file"}:
        return ""
    said = value.model_dump()
    return (
        f"MASKED, from the environment variable {said['env']}"
        if said["env"]
        else f"MASKED, from the file {said['file']}"
    )


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE)


def shown(value: Any) -> str:
    """A setting's value as text, without what may be secret in an address."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    text = orjson.dumps(value, default=_plain).decode() if isinstance(value, list | dict) else str(value)
    return _ADDRESS.sub(lambda found: _discreet(found[0]), text)


def _discreet(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return "MASKED"
    _, at, host = parts.netloc.rpartition("@")
    query = re.sub(r"=[^&]*", "=MASKED", parts.query)
    if query and "=" not in query:
        query = "MASKED"
    return parts._replace(
        netloc=f"MASKED@{host}" if at else host, query=query, fragment="MASKED" * bool(parts.fragment)
    ).geturl()


def prints(settings: Settings) -> dict[str, str]:
    """Part of the configuration -> what names its content: `kafka`, `destinations.meta`. Ports and folders do not count."""
    said = settings.model_dump(mode="json")
    for path in OWN:
        section, _, name = path.partition(".")
        said.get(section, {}).pop(name, None)
    found: dict[str, Any] = {}
    for section, content in said.items():
        if section in NAMED and isinstance(content, dict):
            found |= {f"{section}.{name}": one for name, one in content.items()}
        else:
            found[section] = content
    return {part: _print(content) for part, content in found.items()}


def _print(content: Any) -> str:
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def whole(of: Mapping[str, str]) -> str:
    """What names all of it."""
    return _print(dict(of))


def differences(workers: Mapping[str, Json]) -> list[str]:
    """In what workers differ, each of which told `version` and `prints`: parts of the configuration, and the version."""
    versions = {one["version"] for one in workers.values()}
    parts = sorted({part for one in workers.values() for part in one["prints"]})
    unlike = [part for part in parts if len({one["prints"].get(part) for one in workers.values()}) > 1]
    return [*(["the version of capistream"] if len(versions) > 1 else []), *unlike]
