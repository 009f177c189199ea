"""make faults N=30 SEED=1: many runs in a row, a line each in a results file, a table at the end.

python -m tests.faults [--runs 5] [--seed 1] [--seconds 60] [--results FILE] [--mix kill,own,offsets | scale | upgrade]

Runs that the results file has already, with this seed, this commit and nothing changed since, are not done again. Exits 0 only
when nothing was lost, split or changed, every repeated delivery is explained by a fault as promise P2 allows, no takeover took
too long, and every run had enough acknowledged traffic and enough faults to prove anything.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.faults import DECK, TAKEOVER
from tests.faults.harness import one_run

RESULTS = Path("docs/reliability.jsonl")
TESTED = ("app", "agents", "sinks", "tests/faults", "pyproject.toml", "requirements.lock")

Row = dict[str, Any]


def commit() -> str:
    """The commit that is tested; with a plus when the tree differs from it."""
    here = _git("rev-parse", "--short=10", "HEAD") or "unknown"
    return here + "+" * bool(_git("status", "--porcelain", "--", *TESTED))


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--mix",
        default=",".join(DECK),
        help="kinds of faults, separated by commas; or `scale`: workers 1, 2, 4 and back to 1, one of them killed; or `upgrade`: "
        "from the last release to this version, and back",
    )
    options = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a killed broker is no news here
    rows = []
    for seed in range(options.seed, options.seed + options.runs):
        here = commit()
        row = next((row for row in _known(options.results) if same(row, seed, here, options)), None)
        if row is None:
            row = {"seed": seed, "commit": here, "seconds": options.seconds, "mix": options.mix} | _run(seed, options)
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
        rows.append(row)
    return report(rows)


def _known(results: Path) -> list[Row]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def same(row: Row, seed: int, here: str, options: argparse.Namespace) -> bool:
    told = row["seed"], row["commit"], row["seconds"], row.get("mix")
    return told == (seed, here, options.seconds, options.mix) and not here.endswith("+") and not row["invalid"]


def _run(seed: int, options: argparse.Namespace) -> Row:
    begun = time.monotonic()
    verdict, this = one_run(seed, options.seconds, narrator(), deck=options.mix.split(","))
    if not verdict.good:
        print(f"seed {seed}, kept in {this.folder}", file=sys.stderr)
        for name, found in verdict.bad.items():
            print(f"  {name} {len(found)}", *found[:5], sep="\n    ", file=sys.stderr)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "took": round(time.monotonic() - begun),
        "conversions": verdict.conversions,
        "copies": verdict.copies,
        "faults": sum(count for kind, count in this.kinds.items() if not kind.startswith("state")),
        "kinds": dict(this.kinds),
        "exits": dict(this.exits),
        "lost": len(verdict.lost),
        "unexplained": len(verdict.unexplained),
        "explained": dict(verdict.explained),
        "split": len(verdict.split),
        "tardy": len(verdict.tardy),
        "wrong": len(verdict.wrong),
        "invalid": verdict.invalid,
        "repeated_requests": verdict.repeated_requests,
        "doubles_left": verdict.doubles_left,
        "takeovers": this.takeovers,
    }


def narrator() -> Callable[[str], None]:
    begun = time.monotonic()
    return lambda text: print(
        f"{time.strftime('%H:%M:%S')} {time.monotonic() - begun:7.1f} s  {text}", file=sys.stderr, flush=True
    )


BAD = ("lost", "unexplained", "split", "wrong")
COLUMNS = (
    "conversions",
    "copies",
    "faults",
    "lost",
    "unexplained",
    "split",
    "tardy",
    "wrong",
    "repeated_requests",
    "doubles_left",
)


def report(rows: list[Row]) -> int:
    """Print the table and the last line; the exit status."""
    total = {name: sum(row[name] for row in rows) for name in COLUMNS}
    for row in ({"seed": "seed"} | {name: name.replace("_", " ") for name in COLUMNS}, *rows, {"seed": "sum"} | total):
        print(" ".join(f"{row[name]!s:>{max(len(name), 6)}}" for name in ("seed", *COLUMNS)))
    invalid = [row["seed"] for row in rows if row["invalid"]]
    if invalid:
        print(f"these runs prove nothing, too little happened in them: {invalid}")
    takeovers = [seconds for row in rows for seconds in row.get("takeovers", ())]
    if takeovers:
        print(f"{len(takeovers)} takeovers after a kill, the longest {max(takeovers)} s (goal: {TAKEOVER} s)")
    print(
        f"lost {total['lost']}, unexplained doubles {total['unexplained']}, "
        f"faults {total['faults']}, conversions {total['conversions']}"
    )
    return 1 if invalid or any(total[name] for name in BAD) or max(takeovers, default=0) > TAKEOVER else 0


if __name__ == "__main__":
    sys.exit(main())
