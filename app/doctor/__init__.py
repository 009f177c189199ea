"""Is everything as a worker and a collector need it? `capistream doctor` looks, changes nothing, and says what to do.

    configuration.py   the file, its secrets, and what it seldom means
    machine.py         the folder of local state, limits, versions
    brokers.py         Kafka: reached, of a known version, with fitting limits;  access.py: what it lets us do
    topics.py          there, with equal partitions, kept long enough
    groups.py          the workers as Kafka sees them, and what waits
    clocks.py          ours and others'
    outside.py         destinations, schema registry, alerts;  web.py asks them
    place.py           what these share;  finding.py: what they say

In each of them `check` looks, and hands what it saw to functions `judge_...`, which are pure: facts in, findings out. All checks
run at once, each within a time of its own, and none keeps another from its word: Kafka may be down.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from app.destinations import masked
from app.doctor import access, brokers, clocks, configuration, groups, machine, outside, topics
from app.doctor.finding import Finding, Report, problem, warning
from app.doctor.place import Place, Threads, opened, quiet
from app.errors import SettingsError, Unavailable

SHORT = 4  # characters of a secret that is not looked for in what is told: it would be found everywhere


@dataclass(frozen=True)
class Examination:
    """A check, and how many seconds it has."""

    area: str
    what: str
    check: Callable[[Place], Awaitable[list[Finding]]]
    seconds: float = 40.0


#: In the order in which they are told.
EXAMINATIONS = (
    Examination("Configuration", "secrets", configuration.check_secrets),
    Examination("Configuration", "meaning", configuration.check_meaning),
    Examination("This machine", "versions", machine.check_versions),
    Examination("This machine", "worker.data_dir", machine.check_state),
    Examination("This machine", "limits", machine.check_limits),
    Examination("Kafka", "brokers", brokers.check),
    Examination("Topics", "access", access.check),
    Examination("Topics", "topics", topics.check),
    Examination("Workers", "group", groups.check),
    Examination("Workers", "waiting", groups.check_waiting),
    Examination("Workers", "orders", groups.check_orders),
    Examination("Clocks", "our clock", clocks.check),
    Examination("Clocks", "newest records", clocks.check_sources),
    Examination("Destinations", "destinations", outside.check, 50.0),
    Examination("Destinations", "registry", outside.check_registry),
    Examination("Destinations", "alerts.webhook", outside.check_alerts),
)


def examine(path: Path | None, progress: Callable[[], Any] = lambda: None) -> Report:
    """Look at everything. `progress` hears of each examination that has ended."""
    with quiet():
        return asyncio.run(_examine(path, progress))


async def _examine(path: Path | None, progress: Callable[[], Any]) -> Report:
    asyncio.get_running_loop().set_default_executor(Threads())
    loaded, findings = configuration.load(path)
    told = [("Configuration", findings)]
    if loaded is None:
        told.append(("This machine", await machine.check_versions()))
        return _report(told)
    async with opened(loaded) as place:
        found = await asyncio.gather(*(_within(one, place, progress) for one in EXAMINATIONS))
    told += zip((one.area for one in EXAMINATIONS), found, strict=True)
    hidden = [one for one in configuration.secrets(loaded) if len(one) >= SHORT]
    return _report([(area, [_without(hidden, one) for one in some]) for area, some in told])


async def _within(examination: Examination, place: Place, progress: Callable[[], Any]) -> list[Finding]:
    """Its findings, or that it has none, and why."""
    what, begun = examination.what, time.monotonic()
    try:
        async with asyncio.timeout(examination.seconds):
            return await examination.check(place)
    except (Unavailable, KafkaError) as exc:
        return [warning(examination.area, f"not looked at: {exc}", "see above")]
    except SettingsError as exc:
        return [problem(what, line, "correct the configuration: docs/settings.md") for line in exc.mistakes]
    except TimeoutError:
        return [
            problem(
                what,
                f"timed out after {time.monotonic() - begun:.0f} s",
                "what it looks at does not answer, or is very slow: look at the network, or at the disk",
            )
        ]
    except Exception as exc:  # noqa: BLE001 (a mistake in one check must not hide what the others found)
        return [warning(what, f"this check itself failed: {type(exc).__name__}", "please report it")]
    finally:
        progress()


def _report(told: Sequence[tuple[str, list[Finding]]]) -> Report:
    """Each area once, and in it each finding once, in the order in which they come."""
    areas: dict[str, dict[Finding, None]] = {}
    for area, some in told:
        areas.setdefault(area, {}).update(dict.fromkeys(some))
    return Report([(area, list(some)) for area, some in areas.items() if some])


def _without(secrets: Sequence[str], finding: Finding) -> Finding:
    """Whatever a library or a platform put into its words."""
    return replace(finding, detail=masked(finding.detail, secrets), remedy=masked(finding.remedy, secrets))
