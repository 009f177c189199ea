"""The sandbox's page for people: how many, what came last, and why not. Plain HTML, nothing loaded from elsewhere."""

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import orjson

COUNTS = ("requests", "accepted", "unique", "duplicates", "warned", "refused", "collateral")

STYLE = """
:root { color-scheme: light dark; --line: #ccc; --soft: #666; --bad: #b00020; }
@media (prefers-color-scheme: dark) { :root { --line: #444; --soft: #aaa; --bad: #ff8a80; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { margin: .3rem 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
.soft { color: var(--soft); }
.bad { color: var(--bad); }
"""


def overview(
    platforms: Mapping[str, str],
    balance: Mapping[str, Mapping[str, Any]],
    faults: Mapping[str, Any],
    accepted: Iterable[Mapping[str, Any]],
    refused: Iterable[Mapping[str, Any]],
) -> str:
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Sandbox</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>Sandbox</h1>"
        f'<p class="soft">Emulated: {escape(", ".join(platforms.values()))}. No event leaves this machine.</p>'
        "<h2>Balance</h2>" + _balance(balance) + "<h2>Faults</h2>" + _faults(faults) + "<h2>Accepted last</h2>"
        '<p><a href="/accepted.json">all, as JSON</a></p>'
        + _events(accepted, _times)
        + '<h2>Refused last</h2><p><a href="/refused.json">all, as JSON</a></p>'
        + _events(refused, _reasons)
        + "</body></html>"
    )


def _balance(balance: Mapping[str, Mapping[str, Any]]) -> str:
    if not balance:
        return '<p class="soft">No request yet.</p>'
    head = "".join(f'<th class="number">{name}</th>' for name in COUNTS)
    rows = "".join(
        f"<tr><td>{escape(destination)}</td>"
        + "".join(f'<td class="number">{counts[name]:,}</td>' for name in COUNTS)
        + "</tr>"
        for destination, counts in balance.items()
    )
    return f"<table><tr><th>destination</th>{head}</tr>{rows}</table>"


def _faults(faults: Mapping[str, Any]) -> str:
    if not faults:
        return '<p class="soft">None.</p>'
    rows = "".join(
        f"<tr><td>{escape(destination)}</td><td>{escape(_on(switches))}</td></tr>"
        for destination, switches in faults.items()
    )
    return f"<table><tr><th>destination</th><th>switches</th></tr>{rows}</table>"


def _on(switches: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in switches.items() if value)


def _events(events: Iterable[Mapping[str, Any]], remark: Callable[[Mapping[str, Any]], str]) -> str:
    rows = "".join(
        f"<tr><td>{escape(event['destination'])}</td><td>{escape(event['event_name'] or '–')}</td>"
        f"<td>{escape(event['event_id'] or '–')}</td><td>{remark(event)}</td>"
        f"<td><details><summary>show</summary><pre>{escape(_pretty(event['event']))}</pre></details></td></tr>"
        for event in events
    )
    if not rows:
        return '<p class="soft">None.</p>'
    return f"<table><tr><th>destination</th><th>name</th><th>id</th><th></th><th>event</th></tr>{rows}</table>"


def _times(event: Mapping[str, Any]) -> str:
    repeated = f'<span class="bad">{event["times"]} times</span>' if event["times"] > 1 else "once"
    return repeated + "".join(f'<br><span class="soft">{_line(warning)}</span>' for warning in event["warnings"])


def _reasons(event: Mapping[str, Any]) -> str:
    return "<br>".join(f'<span class="bad">{_line(reason)}</span>' for reason in event["reasons"])


def _line(problem: Mapping[str, str]) -> str:
    code = f" ({problem['code']})" if problem["code"] else ""
    return escape(f"{problem['field']} {problem['reason']}{code}")


def _pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
