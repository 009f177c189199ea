"""The oracle: what was sent and acknowledged, and therefore has to arrive; and the verdict on what did.

A copy that was acknowledged is an obligation; one that was not may arrive or not, but never changed. What really lies in
capistream.events, with record times, is read from there, so that nothing about holds is guessed.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults import conversions
from tests.faults.conversions import WINDOW, Conversion

DESTINATIONS = ("meta", "ga4")
SLACK = 0.5  # seconds: a record is stamped before it is in Kafka by at most so much (app/clock.py)
IN_FLIGHT = 8  # requests of one worker to one destination at a time: the default of `concurrency`

UNRECORDED = 2.0  # seconds from the arrival of a request until Kafka has acknowledged the row that tells of it
RECONNECT = 10.0  # seconds after a broker is back until clients have found it again and rows are written
WAKING = 2.0  # seconds in which a process that was woken does what it was about to do
KNOWN = 1.0  # seconds after which whoever may send knows what Kafka has

#: What keeps one worker from recording what it has sent; a clean SIGTERM does not.
_OF_WORKER = ("kill", "term-hard", "exit", "stop", "own")
_AMBIGUOUS = ("reset", "timeout")


@dataclass(frozen=True)
class Fault:
    """Something that was done to the system; `until` is when it was over, or its process was."""

    kind: str
    at: float
    until: float
    pid: int = 0  # of the worker that it hit; 0: not one worker
    destination: str = ""


@dataclass(frozen=True)
class Delivery:
    """One event that a platform accepted."""

    destination: str
    conversion: str
    received: float  # all events of one request have the same
    sender: int  # process id of the worker, 0 when not known
    event_id: str
    event: Mapping[str, Any]  # comparable with Conversion.at_meta and at_ga4
    time: int  # the event's own, as the platform writes it
    repeated: bool  # the platform recognised it

    @property
    def sources(self) -> set[str]:
        """Whose copies are in it."""
        there = self.event["user_data"] if self.destination == "meta" else self.event["params"]
        marks = {"meta": ("em", "fbp"), "ga4": ("items", "page_location")}[self.destination]
        return {source for source, mark in zip(("server", "pixel"), marks, strict=True) if mark in there}


def delivery(destination: str, entry: Mapping[str, Any]) -> Delivery:
    """An entry of the sandbox's listing."""
    event, around = dict(entry["event"]), entry["request"]["envelope"]
    event_id = str(entry["event_id"])
    if destination == "meta":
        moment = event.pop("event_time")
        order = event.get("custom_data", {}).get("order_id")
        identity = order.removeprefix("T-") if order else event_id
    else:
        moment = around["timestamp_micros"]
        identity = str(event["params"].get("conversion", event_id))
        event |= {"client_id": around["client_id"], "consent": around.get("consent")}
    sender = int(entry["request"]["headers"].get("X-Worker", 0))
    return Delivery(
        destination, identity, float(entry["received"]), sender, event_id, event, moment, bool(entry["duplicate"])
    )


@dataclass(frozen=True)
class Logged:
    """A copy as it stands in capistream.events, where it stands first."""

    source: str
    origin: str
    received: float  # record time
    appended: float  # Kafka's clock


@dataclass
class Evidence:
    deliveries: Sequence[Delivery] = ()  # in the platforms' own order
    faults: Sequence[Fault] = ()
    logged: Mapping[str, Sequence[Logged]] | None = None  # by conversion; None: not known
    receipts: Mapping[tuple[str, str], set[str]] | None = None  # (conversion, destination) -> outcomes; None: not known
    recorded: Mapping[tuple[str, str], Sequence[float]] | None = (
        None  # the same -> when Kafka had an outcome; None: not known
    )


@dataclass
class Verdict:
    conversions: int = 0
    copies: int = 0
    lost: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    explained: Counter[str] = field(default_factory=Counter)  # kind of fault -> deliveries that it repeated
    split: list[str] = field(default_factory=list)
    tardy: list[str] = field(default_factory=list)  # lack a copy that was longer on its way than the clock waits for
    wrong: list[str] = field(default_factory=list)
    repeated_requests: int = 0  # requests that brought a platform something again
    doubles_left: int = 0  # deliveries that the platform itself would count twice
    invalid: list[str] = field(default_factory=list)  # why this run proves nothing

    @property
    def bad(self) -> dict[str, list[str]]:
        found = {name: getattr(self, name) for name in ("lost", "unexplained", "split", "wrong", "invalid")}
        return {name: what for name, what in found.items() if what}

    @property
    def good(self) -> bool:
        return not self.bad


class Oracle:
    def __init__(self, seed: int, destinations: Sequence[str] = DESTINATIONS) -> None:
        self.seed, self.destinations = seed, destinations
        self.rnd = random.Random(seed)
        self.conversions: dict[str, Conversion] = {}

    def new(self) -> Conversion:
        identity = f"s{self.seed}-{len(self.conversions)}"
        one = self.conversions[identity] = conversions.draw(self.rnd, identity)
        return one

    def obligated(self) -> Iterable[tuple[str, str]]:
        """(conversion, destination) that have to arrive."""
        for one in self.conversions.values():
            if one.acknowledged:
                # a copy that denies may close alone, whether it was acknowledged or not
                denied = one.denies & {attempt.source for attempt in one.attempts}
                yield from ((one.id, name) for name in self.destinations if name != "meta" or not denied)

    def judge(self, evidence: Evidence) -> Verdict:
        acknowledged = [one for one in self.conversions.values() if one.acknowledged]
        verdict = Verdict(len(acknowledged), sum(len(one.acknowledged) for one in acknowledged))
        got: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
        for one in evidence.deliveries:
            if "stranger" not in str(one.event):  # tests/faults/strangers.py: it may have been sent, or not
                got[one.conversion, one.destination].append(one)
        verdict.lost = [f"{identity} at {name}" for identity, name in self.obligated() if (identity, name) not in got]
        for (identity, _), deliveries in got.items():
            conversion = self.conversions.get(identity)
            if conversion is None:
                verdict.wrong.append(f"{identity}: never issued")
                continue
            for one in deliveries:
                verdict.wrong += [f"{identity} at {one.destination}: {what}" for what in differences(conversion, one)]
            if evidence.logged is not None:
                _judge_hold(conversion, deliveries, evidence.logged.get(identity, ()), verdict)
        _judge_repeats(list(got.values()), evidence, verdict)
        if evidence.logged is not None:
            verdict.lost += _copies_lost(acknowledged, evidence.logged)
        if evidence.receipts is not None:
            verdict.wrong += _receipts_wrong(acknowledged, self.destinations, got, evidence.receipts, evidence.faults)
        return verdict


#: Faults that end or stop a process; what else is done is weather.
_HARD = ("kill", "term", "stop", "own", "broker", "offsets", "collector")


def too_few(wanted: float, issued: int, acknowledged: int, seconds: float, kinds: Mapping[str, int]) -> Iterable[str]:
    """Why a run proves nothing: too little of it was acknowledged, or too little was done to it."""
    if issued < 0.9 * wanted:
        yield f"only {issued} conversions issued, not {wanted:.0f}"
    if acknowledged < 0.9 * issued:
        yield f"only {acknowledged} of {issued} conversions acknowledged"
    done = sum(count for kind, count in kinds.items() if not kind.startswith("state"))
    if done < max(1, seconds // 12):
        yield f"only {done} faults in {seconds:.0f} s"
    if not any(kind.startswith(_HARD) for kind in kinds):
        yield "no process was ended or stopped"


def differences(one: Conversion, there: Delivery) -> Iterable[str]:
    """What in a delivered event is not what was sent, or was not to be sent."""
    sources = there.sources
    if not sources:
        yield "of no copy of ours"
        return
    if there.destination == "meta" and one.denies & sources:
        yield "sent against consent"
    expected = one.at_meta(sources) if there.destination == "meta" else one.at_ga4(sources)
    # a copy that came too late for the merge takes away what still waits: GA4 is told, Meta gets nothing
    if there.destination == "ga4" and there.event.get("consent") == _at_last(one):
        expected["consent"] = _at_last(one)
    for name in sorted(expected.keys() | there.event.keys()):
        if expected.get(name) != there.event.get(name):
            yield f"{name} is {there.event.get(name)!r}, not {expected.get(name)!r}"
    source = "server" if "server" in sources else "pixel"
    moments = {int(attempt.begun * 1000) for attempt in one.attempts if attempt.source == source}
    written = {moment // 1000 if there.destination == "meta" else moment * 1000 for moment in moments}
    if there.time not in written:
        yield f"time is {there.time}, which no copy of the {source} has"


def _at_last(one: Conversion) -> dict[str, str]:
    """What GA4 is told of the consent when all copies are known."""
    return one.ga4_consent({attempt.source for attempt in one.attempts})


def _judge_hold(one: Conversion, deliveries: Sequence[Delivery], copies: Sequence[Logged], verdict: Verdict) -> None:
    """Are all copies whose record time lies inside the hold in the event?"""
    if one.name != "purchase" or not copies:
        return
    end = min(copy.received for copy in copies) + WINDOW
    inside = [copy for copy in copies if copy.received <= end]
    missing = {copy.source for copy in inside} - deliveries[0].sources
    if not missing:
        return
    said = f"{one.id} at {deliveries[0].destination} lacks {', '.join(sorted(missing))}"
    prompt = any(copy.source in missing and _prompt(one, copy) for copy in inside)
    (verdict.split if prompt else verdict.tardy).append(said)


def _prompt(one: Conversion, copy: Logged) -> bool:
    """Was it in Kafka as soon after its record time as the log's clock waits for?"""
    for attempt in one.acknowledged:
        if attempt.origin == copy.origin and attempt.way == "bus":
            return attempt.ended - attempt.begun <= SLACK
    return copy.appended - copy.received <= SLACK and "/" not in copy.origin  # nobody knows when the bus had it


def _content(one: Delivery) -> tuple[Any, ...]:
    """What a repetition has to have in common; `differences` judges the consent, which a late copy may take away."""
    return {name: said for name, said in one.event.items() if name != "consent"}, one.time, one.event_id


def _judge_repeats(groups: Sequence[Sequence[Delivery]], evidence: Evidence, verdict: Verdict) -> None:
    again: set[tuple[str, float, int]] = set()
    at_once: dict[tuple[Fault, int, str], set[float]] = defaultdict(set)
    for deliveries in groups:
        first, *rest = sorted(deliveries, key=lambda one: one.received)
        verdict.doubles_left += sum(not one.repeated for one in deliveries) - 1
        for one in rest:
            if _content(one) != _content(first):
                verdict.wrong.append(f"{one.conversion} at {one.destination}: repeated with other content")
        for earlier, later in zip([first, *rest], rest, strict=False):
            again.add((later.destination, later.received, later.sender))
            fault = explanation(earlier, later, evidence.faults)
            recorded = (evidence.recorded or {}).get((later.conversion, later.destination), ())
            if fault is None or _was_known(later, recorded, evidence.faults):
                verdict.unexplained.append(
                    f"{earlier.conversion} at {earlier.destination}: by {earlier.sender} at {earlier.received:.3f}, "
                    f"by {later.sender} at {later.received:.3f}"
                )
            else:
                verdict.explained[fault.kind] += 1
                if fault.kind in _OF_WORKER and earlier.sender:
                    at_once[fault, earlier.sender, earlier.destination].add(earlier.received)
    verdict.repeated_requests = len(again)
    verdict.unexplained += [
        f"{len(requests)} requests of {sender} to {name} repeated for one {fault.kind}"
        for (fault, sender, name), requests in at_once.items()
        if len(requests) > IN_FLIGHT
    ]


def explanation(earlier: Delivery, later: Delivery, faults: Sequence[Fault]) -> Fault | None:
    """What excuses the repetition: one by which nobody could know the outcome, else one that kept all workers from recording it,
    else one that kept its sender.
    """
    found = [fault for fault in faults if _explains(fault, earlier, later)]
    return min(found, key=lambda fault: (fault.kind not in _AMBIGUOUS, fault.kind in _OF_WORKER), default=None)


def _explains(fault: Fault, earlier: Delivery, later: Delivery) -> bool:
    if fault.kind in _AMBIGUOUS:
        return fault.destination == earlier.destination and fault.at <= earlier.received <= fault.until + 0.5
    if fault.kind == "broker":
        return fault.at - UNRECORDED <= earlier.received <= fault.until + RECONNECT
    if fault.kind not in _OF_WORKER:
        return False
    if fault.kind in ("stop", "own"):
        # before it slept; or with its first breath, what it had been about to send: that nobody can fence
        woke = any(
            one.sender in (fault.pid, 0) and fault.until - 0.5 <= one.received <= fault.until + WAKING
            for one in (earlier, later)
        )
        slept = earlier.sender in (fault.pid, 0) and fault.at - UNRECORDED <= earlier.received <= fault.at + 1.0
        return woke or slept
    return earlier.sender in (fault.pid, 0) and fault.at - UNRECORDED <= earlier.received <= fault.until + 0.5


def _was_known(later: Delivery, recorded: Sequence[float], faults: Sequence[Fault]) -> bool:
    """Had Kafka the outcome long before it was sent again? Then no fault is an excuse, but that the row came from somebody
    who had slept, or whom an outage had kept from writing, after the next owner had read what there was."""
    late = [(f.until - 0.5, f.until + WAKING) for f in faults if f.kind in ("stop", "own")]
    late += [(f.at, f.until + RECONNECT) for f in faults if f.kind == "broker"]
    # who slept until it sent knows nothing of what was written meanwhile
    late += [
        (f.at, f.until)
        for f in faults
        if f.kind in ("stop", "own")
        and f.pid in (later.sender, 0)
        and f.until - 0.5 <= later.received <= f.until + WAKING
    ]
    return any(
        moment < later.received - KNOWN and not any(begin <= moment <= end for begin, end in late)
        for moment in recorded
    )


def _copies_lost(acknowledged: Iterable[Conversion], logged: Mapping[str, Sequence[Logged]]) -> Iterable[str]:
    """Acknowledged copies that are not in capistream.events: a merge can hide such a loss."""
    for one in acknowledged:
        there = {copy.origin for copy in logged.get(one.id, ())}
        for attempt in one.acknowledged:
            if attempt.origin not in there:
                yield f"{one.id}: the {attempt.source}'s copy {attempt.origin}"


def _receipts_wrong(
    acknowledged: Iterable[Conversion],
    destinations: Sequence[str],
    got: Mapping[tuple[str, str], Sequence[Delivery]],
    receipts: Mapping[tuple[str, str], set[str]],
    faults: Sequence[Fault],
) -> Iterable[str]:
    """Do our own books say what the platforms say?"""
    for one in acknowledged:
        for name in destinations:
            outcomes, deliveries = receipts.get((one.id, name), set()), got.get((one.id, name), ())
            if not outcomes:
                yield f"{one.id} at {name}: no receipt"
            elif one.denies and outcomes == {"held_back"} and all(explanation(d, d, faults) for d in deliveries):
                pass  # where nobody could know that it had arrived, a late copy's denial keeps it from being sent again
            elif ("delivered" in outcomes) != bool(deliveries):
                yield f"{one.id} at {name}: the receipt says {', '.join(sorted(outcomes))}, the platform does not"
