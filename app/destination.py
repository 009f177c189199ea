"""What every destination can be told; each sink adds settings of its own."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, Self, get_type_hints

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)
from typing_extensions import is_typeddict

from app.events import Event
from app.fields import Expression, Part, Seconds, http_address
from app.traffic import LABELS, Label

SignalName = Literal["ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"]
Absent = Literal["require", "assume"]
Partial = Literal["drop", "strip", "flag"]
Place = Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
_Purpose = Annotated[int, Field(ge=1, le=24)]


class RegionalConsent(Part):
    """What is different for people of one place; what is not set is as for all."""

    needs: list[SignalName] | None = None
    """As `consent.needs`."""
    absent: Absent | None = None
    """As `consent.absent`."""
    partial: Partial | None = None
    """As `consent.partial`."""


class ConsentPolicy(Part):
    """What a destination needs before it may have an event. [consent.md](consent.md) tells how it is judged."""

    needs: list[SignalName] | None = None
    """Signals that must be granted. Default by the sink's purpose: advertising needs ad_storage and ad_user_data,
    analytics needs analytics_storage."""
    absent: Absent = "require"
    """What a signal that no copy carries means: `require` holds the event back, `assume` counts it as granted, but not for sites
    with `silence_denies`."""
    partial: Partial = "drop"
    """What becomes of an event when some of the needed signals are granted and others denied, or when the person opted out under
    a privacy law of the US: `drop` holds it back, `strip` sends it without identifiers, cookies and click ids, `flag` sends it with
    the platform's own restriction, and holds it back where the platform has none."""
    vendor: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """The company's id on the IAB's Global Vendor List, which a TCF string must name. Default: the platform's; 0 asks for none."""
    purposes: dict[SignalName, list[_Purpose]] = {}
    """Which purposes of a TCF string must be allowed for a signal, where it is not ad_storage 1, ad_user_data 1 and 7,
    ad_personalization 3 and 4, analytics_storage 1 and 8. An empty list: the string says nothing of that signal."""
    legitimate_interest: list[_Purpose] = []
    """Purposes for which legitimate interest will do in place of consent; never 1 and 3 to 6, where TCF knows consent alone."""
    regions: dict[Place, RegionalConsent] = {}
    """What is different for people of a country (`US`) or a part of one (`US-CA`), which goes before its country."""
    _place: str = PrivateAttr("")
    _silent: frozenset[str] = PrivateAttr(frozenset())

    def __hash__(self) -> int:
        return id(self)  # verdicts are remembered by policy, and there are as many as destinations

    def assumes(self, site: str) -> bool:
        """Does a signal that nobody told count as granted for events of this site?"""
        return self.absent == "assume" and site not in self._silent

    def never_assume(self, sites: Iterable[str]) -> None:
        """For these sites silence is a denial."""
        self._silent = frozenset(sites)

    @property
    def place(self) -> str:
        """For whom this is: a place of `regions`, or empty for everybody."""
        return self._place

    def at(self, place: str) -> Self:
        """The policy for people of a place; of one that is not known, the general one."""
        if not self.regions:
            return self
        found = next((one for one in (place, place.partition("-")[0]) if one in self.regions), "")
        if not found:
            return self
        changed = self.model_copy(update=self.regions[found].model_dump(exclude_none=True) | {"regions": {}})
        changed._place = found
        return changed


class Guard(Part):
    """What looks too wrong to be sent. Platforms cannot unsend, so beyond a limit the destination holds until somebody looked.
    `capistream destinations resume NAME` lets it go on: for `highest` with what was there by then, for `rate` and `mean` without
    another word of the same guard in that hour.
    """

    highest: dict[str, dict[Annotated[str, Field(pattern=r"^[A-Z]{3}$")], Annotated[float, Field(gt=0)]]] = {}
    """By event name and currency: the highest value that is plausible."""
    rate: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    """How many times as many events of a name may go out in an hour as in the same whole hour of last week. What piled up in an
    outage, and a backfill, count in the hour in which they go out. Default: any number."""
    mean: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    """How many times as high, or as low, the mean value of a name's events may be, by currency, as in the same hour of last week.
    Cents taken for euros are as wrong as euros taken for cents. Default: anything."""
    least: Annotated[int, Field(ge=1)] = 50
    """Fewer events in that hour of last week are too few to compare with; for `mean` fewer in this hour, too. Each worker compares
    what it sends itself."""


BrowserTag = Literal["none", "same_id"]
_Name = Annotated[str, Field(min_length=1)]


def _names(value: Any) -> Any:
    """One mistake, in words; a union would tell one for each of its members."""
    if value is not False and not (value and all(isinstance(name, str) and name for name in _listed(value))):
        raise ValueError("a name, a list of names, or false")
    return value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _path(value: str) -> str:
    part, _, name = value.partition(".")
    hint = get_type_hints(Event).get(part)
    if part not in _PARTS:
        raise ValueError(f"begins with one of {', '.join(_PARTS)}")
    if name and name != "*" and is_typeddict(hint) and name not in hint.__annotations__:
        raise ValueError(f"{part} has no such field; it has {', '.join(hint.__annotations__)}")
    return value


_PARTS = ("user", "context", "ids", "commerce", "consent", "tags", "labels", "custom")
Path = Annotated[str, Field(pattern=r"^[a-z]+(\..+)?$"), AfterValidator(_path)]


Names = Annotated[_Name | Annotated[list[_Name], Field(min_length=1)] | Literal[False], BeforeValidator(_names)]


class Destination(Part):
    """What every destination takes; each sink adds its own."""

    sink: str
    """Which platform."""
    mode: Literal["off", "shadow", "live"] = "live"
    """`off` routes nothing to it. `shadow` does everything but send: the requests are kept in the topic of traces, to be
    compared with those of another system."""
    live_from: AwareDatetime | None = None
    """Only events that happened at this time or later: where another system has sent those before."""
    live_until: AwareDatetime | None = None
    """Only events that happened before this time: where another system sends those from then on."""
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Which part of the conversions goes there, chosen by their ids: 0.1 is a tenth. For a move in steps."""
    endpoint: str
    """Base address of the platform's API; an emulator's address makes it a rehearsal."""
    events: dict[str, Names] = {}
    """Canonical name to the platform's name, or a list of them: the event is sent under each. False switches an event off.
    Adds to the sink's own table."""
    custom_events: bool = False
    """Also send events that no table names, under their own name."""
    fields: tuple[Path, ...] | None = None
    """What of the merged event may reach this destination at all: parts (`commerce`) and fields of parts (`user.email`,
    `context.ip`, `custom.plan`). Everything else is taken out before `value`, `map` and the sink see the event. Which event it is,
    and `consent`, `tags` and `labels`, which decide how it may be sent, always stay. A page address has click ids in its query:
    who leaves `ids` out may want to leave out `context.url`, too. Default: all."""
    map: dict[Annotated[str, Field(pattern=r"^[^.\[\]\s]+(\[\])?(\.[^.\[\]\s]+(\[\])?)*$")], Expression] = {}
    """Field of the platform's event to a JMESPath expression over the merged event, for what the sink would fill otherwise:
    `"custom_data.contents[].id" = "commerce.items[].variant"`. `[]` puts the members of a list into those of another. An
    expression that finds nothing changes nothing. An event in which one finds what the platform takes as another type is not sent:
    a dead letter names the field."""
    value: Literal["gross", "net", "items"] | Expression = "gross"
    """The value to report: as it came (`gross`), without tax and shipping (`net`), the sum of the items (`items`), or a JMESPath
    expression over the merged event."""
    browser_tag: BrowserTag | dict[str, BrowserTag] | None = None
    """Does the platform's own tag also report this event from the browser? `none`, or `same_id` when it gets our event id.
    One value, or one per event name (`default` for the rest)."""
    consent: ConsentPolicy = ConsentPolicy()
    """Which consent it needs."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests in flight at once, per worker."""
    rate: Annotated[float, Field(gt=0)] | None = None
    """Most requests a second, of all workers together. Default: what the platform allows, where that is known."""
    linger: Seconds = 0.0
    """How long an event may wait for others that can share its request. Fewer and larger requests, a little later. Right after a
    request that it could have been in, it waits for 25 ms in any case."""
    on_ambiguous: Literal["retry", "give_up"] = "retry"
    """After a time-out or reset, when the platform may have the event and could not recognise a repetition: `retry` may count it
    twice, `give_up` may lose it (a dead letter says so)."""
    guard: Guard = Guard()
    """What is too wrong to be sent."""
    drop: list[Label] | None = None
    """Labels whose events it does not get: `["bot"]`, with `prefetch` and `internal` as needed; an empty list takes them all.
    Default: as `[traffic]` says."""
    _dropped: frozenset[Label] = PrivateAttr(frozenset(LABELS))

    def drop_by_default(self, labels: Collection[Label]) -> None:
        """What `[traffic]` says."""
        self._dropped = frozenset(labels)

    @property
    def dropped(self) -> Collection[Label]:
        return self._dropped if self.drop is None else self.drop

    @field_validator("endpoint")
    @classmethod
    def _http(cls, value: str) -> str:
        return http_address(value)

    @field_validator("value")
    @classmethod
    def _no_bare_word(cls, value: str) -> str:
        if re.fullmatch(r"\w+", value) and value not in ("gross", "net", "items"):
            raise ValueError("gross, net, items, or an expression such as commerce.custom_value")
        return value

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.live_from and self.live_until and self.live_until <= self.live_from:
            raise ValueError("live_until must be later than live_from")
        return self

    def platform_names(self, table: Mapping[str, str], event_name: str) -> list[str]:
        """The platform's names for an event; none when this destination does not take it."""
        named = self.events.get(event_name)
        if named is None:
            named = table.get(event_name) or (event_name if self.custom_events else False)
        if isinstance(named, str):
            return [named] if named else []
        return list(dict.fromkeys(named)) if named else []

    def tag_for(self, event_name: str) -> BrowserTag:
        if isinstance(self.browser_tag, dict):
            return self.browser_tag.get(event_name) or self.browser_tag.get("default") or "none"
        return self.browser_tag or "none"
