"""Classes of ours by name, and those of other packages: whatever is installed beside us with an entry point of a group.

[project.entry-points."capistream.sinks"]
acme = "capistream_acme:Acme"

`capistream.sinks` are platforms (sinks/_installed.py), `capistream.tokens` ways to get a token for Kafka (app/bearer.py).
Nobody can replace a class of ours, or another package's.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from app.errors import SettingsError

T = TypeVar("T")


class Unfit(Exception):
    """It is no such class. The text says why not."""


class Installed(Mapping[str, type[T]], Generic[T]):
    """Our own classes and those of installed packages, by name.

    These are looked for when somebody first asks, not at import: they import ours themselves. A package with a mistake is a
    SettingsError that names it. It is raised for whoever asks for anything at all, because the configuration may mean that
    package, and nobody should learn from a destination that stands still that it could not be loaded.
    """

    def __init__(
        self, built_in: Mapping[str, type[T]], group: str, word: str, checked: Callable[[str, Any], type[T]]
    ) -> None:
        """`word` is what people call one of them; `checked` gives it back, or raises Unfit."""
        self._built_in, self._group, self._word, self._checked = built_in, group, word, checked

    def __getitem__(self, name: str) -> type[T]:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @cached_property
    def _all(self) -> Mapping[str, type[T]]:
        found = dict(self._built_in)
        owners = dict.fromkeys(found, "capistream itself")
        mistakes = []
        for entry in sorted(entry_points(group=self._group), key=lambda entry: (entry.name, _package(entry))):
            if entry.name in owners:
                mistakes.append(self._said(entry, f"that {self._word} is already in {owners[entry.name]}"))
                continue
            owners[entry.name] = _package(entry)
            try:
                found[entry.name] = self._checked(entry.name, entry.load())
            except Unfit as exc:
                mistakes.append(self._said(entry, str(exc)))
            except Exception as exc:  # noqa: BLE001 (whatever a stranger's module raises)
                mistakes.append(self._said(entry, f"cannot be loaded: {type(exc).__name__}: {exc}".splitlines()[0]))
        if mistakes:
            raise SettingsError(mistakes)
        return found

    def _said(self, entry: EntryPoint, what: str) -> str:
        return f'package {_package(entry)}: {self._word} "{entry.name}" ({entry.value}): {what}'


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package without a name"
