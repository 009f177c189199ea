"""What a check finds, and how people and programs are told of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from app.events import Json
from app.letters import printable

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """A problem stops or loses something, or soon will; a warning is a risk that somebody may have chosen."""

    state: State
    what: str  # was looked at: a setting, a topic, a folder
    detail: str  # what was seen, with numbers; never a secret
    remedy: str = ""  # what to do about it, with the command where there is one
    see: str = ""  # where to read on


def ok(what: str, detail: str) -> Finding:
    return Finding("ok", what, detail)


def warning(what: str, detail: str, remedy: str, see: str = "") -> Finding:
    return Finding("warning", what, detail, remedy, see)


def problem(what: str, detail: str, remedy: str, see: str = "") -> Finding:
    return Finding("problem", what, detail, remedy, see)


def together(kind: str, found: Iterable[tuple[str, Finding]]) -> Iterator[Finding]:
    """What is the same for several, told once: (name, finding) each, of a kind such as `broker`.

    Where a remedy has the word NAME, that is the name of a single one.
    """
    names: dict[Finding, list[str]] = {}
    for name, finding in found:
        names.setdefault(finding, []).append(name)
    for finding, some in names.items():
        if len(some) == 1:
            yield replace(finding, what=f"{kind} {some[0]}", remedy=finding.remedy.replace("NAME", some[0]))
        else:
            yield replace(finding, what=f"{len(some)} {kind}s", detail=f"{finding.detail} ({listed(some)})")


@dataclass(frozen=True)
class Report:
    """Findings by area, in the order in which they are told."""

    areas: Sequence[tuple[str, Sequence[Finding]]]

    @property
    def problems(self) -> int:
        return self._count("problem")

    @property
    def warnings(self) -> int:
        return self._count("warning")

    def _count(self, state: State) -> int:
        return sum(one.state == state for _, found in self.areas for one in found)

    def as_json(self) -> Json:
        return {
            "problems": self.problems,
            "warnings": self.warnings,
            "findings": [{"area": area, **asdict(one)} for area, found in self.areas for one in found],
        }

    def for_people(self) -> Iterator[tuple[str, State | None]]:
        """Lines, with the state of what they tell; None for those in between."""
        for area, found in self.areas:
            yield area, None
            for one in found:
                yield printable(f"  {one.state:8} {one.what}: {one.detail}"), one.state
                for more in (one.remedy, one.see and f"see {one.see}"):
                    if more:
                        yield printable(f"           {more}"), None
            yield "", None
        yield f"{_several(self.problems, 'problem')}, {_several(self.warnings, 'warning')}", self._worst()

    def _worst(self) -> State:
        return "problem" if self.problems else "warning" if self.warnings else "ok"


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first of them, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
