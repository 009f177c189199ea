"""make faults N=30 SEED=1: many runs in a row, a line each in a results file, a table at the end.

python -m tests.faults [--runs 5] [--seed 1] [--seconds 60] [--results FILE]

Runs that the results file has already, with this seed and this commit, are not done again. Exits 0 only when nothing was
lost, split or changed, and every repeated delivery is explained by a fault as promise P2 allows.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.harness import one_run

RESULTS = Path("docs/reliability.jsonl")


def commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--mix", help="kinds of faults, separated by commas")
    options = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a killed broker is no news here
    here, rows = commit(), []
    done = {}
    if options.results.exists():
        lines = map(json.loads, options.results.read_text().splitlines())
        done = {(row["seed"], row["commit"], row["seconds"]): row for row in lines}
    more = {"mix": tuple(options.mix.split(","))} if options.mix else {}
    for seed in range(options.seed, options.seed + options.runs):
        row = done.get((seed, here, options.seconds))
        if row is None:
            verdict, this = one_run(seed, options.seconds, narrator(), **more)
            row = {
                "seed": seed,
                "commit": here,
                "seconds": options.seconds,
                "date": time.strftime("%Y-%m-%d"),
                "conversions": verdict.conversions,
                "copies": verdict.copies,
                "faults": sum(this.kinds.values()),
                "kinds": dict(this.kinds),
                "lost": len(verdict.lost),
                "unexplained": len(verdict.unexplained),
                "explained": verdict.explained,
                "split": len(verdict.split),
                "in_flight": verdict.in_flight,
                "wrong": len(verdict.wrong),
                "repeated_requests": verdict.repeated_requests,
            }
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            if not verdict.good:
                bad = {name: getattr(verdict, name)[:5] for name in ("lost", "unexplained", "split", "wrong")}
                print(f"seed {seed}: {bad}; kept: {this.folder}", file=sys.stderr)
        rows.append(row)
    return report(rows)


def narrator() -> Callable[[str], None]:
    begun = time.monotonic()
    return lambda text: print(f"{time.monotonic() - begun:7.1f} s  {text}", file=sys.stderr, flush=True)


def report(rows: list[dict[str, object]]) -> int:
    columns = ("seed", "conversions", "copies", "faults", "lost", "unexplained", "split", "wrong", "repeated_requests")
    print(" ".join(f"{name:>12}" for name in columns))
    for row in rows:
        print(" ".join(f"{row[name]!s:>12}" for name in columns))
    total = {name: sum(int(row[name]) for row in rows) for name in columns[1:]}  # type: ignore[call-overload]
    print(
        f"lost {total['lost']}, unexplained doubles {total['unexplained']}, split {total['split']}, wrong {total['wrong']}, "
        f"faults {total['faults']}, conversions {total['conversions']}"
    )
    return 1 if total["lost"] or total["unexplained"] or total["split"] or total["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
