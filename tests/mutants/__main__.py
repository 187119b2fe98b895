"""`make mutants`: plants each defect in a copy of the tree and runs the tests that should notice it.

`python -m tests.mutants [--only AREA] [--jobs N] [--json] [--again] [--results FILE]`
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.mutants.defect import Defect
from tests.mutants.defects import AREAS, DEFECTS
from tests.mutants.results import Results, result_key, summarise
from tests.mutants.sandbox import ROOT, Sandbox, tree_files

REQUIRED_SCORE = 0.95
BASELINE_TIMEOUT_S = 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 where at least 95 % are caught and every defect could be tried, else 1."""
    options = _options(arguments)
    chosen = [defect for defect in DEFECTS if not options.only or defect.area in options.only]
    names = tree_files()
    keys = {defect: result_key(defect, ROOT, names) for defect in chosen}
    results = Results(options.results)
    left = [defect for defect in chosen if options.again or keys[defect] not in results.found]
    _say(f"{len(chosen)} defects, {len(chosen) - len(left)} with a result in {options.results}")
    if left:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            _try_all(left, keys, results, Path(folder), options)
    found = summarise(results.found[keys[defect]] for defect in chosen)
    sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n" if options.json else _text(found))
    score = found["score"]
    return 0 if isinstance(score, float) and score >= REQUIRED_SCORE and not found["invalid"] else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    cache = Path(os.environ.get("SUITE_CACHE") or Path.home() / ".cache" / "mixer-suite")
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", choices=AREAS, help="only this area; repeatable")
    parser.add_argument("--jobs", type=int, default=1, help="defects tried at once, each in a copy of its own")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for the tests of one defect")
    parser.add_argument("--results", type=Path, default=cache / "mutants.jsonl", help="where results are kept")
    parser.add_argument("--again", action="store_true", help="try also those that have a result")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: give at least 1")
    return options


def _try_all(
    left: Sequence[Defect], keys: Mapping[Defect, str], results: Results, folder: Path, options: argparse.Namespace
) -> None:
    free: queue.Queue[Sandbox] = queue.Queue()
    for number in range(min(options.jobs, len(left))):
        place = folder / str(number)
        place.mkdir()
        free.put(Sandbox(place))
    _require_passing(left, free)

    def one(defect: Defect) -> dict[str, object]:
        sandbox = free.get()
        try:
            return sandbox.try_defect(defect, options.timeout)
        finally:
            free.put(sandbox)

    with ThreadPoolExecutor(options.jobs) as pool:
        waiting = {pool.submit(one, defect): defect for defect in left}
        for done, future in enumerate(as_completed(waiting), 1):
            result = future.result()
            results.add(keys[waiting[future]], result)
            _say(f"{done}/{len(left)} {_line(result)}")


def _require_passing(left: Sequence[Defect], free: queue.Queue[Sandbox]) -> None:
    """Stops where a test fails without any defect: it would count every defect as caught."""
    paths = sorted({path for defect in left for path in defect.tests})
    _say(f"{len(paths)} test files or tests without a defect")
    sandbox = free.get()
    verdict, why = sandbox.tests(paths, BASELINE_TIMEOUT_S)
    free.put(sandbox)
    if verdict != "survived":
        raise SystemExit(f"error: the tests do not pass without a defect: {verdict}: {why}")


def _text(found: Mapping[str, Any]) -> str:
    lines = [_line(result) for result in found["results"] if result["verdict"] != "caught"]
    rows = [*found["areas"].items(), ("all", found)]
    for area, counts in rows:
        valid = sum(counts[name] for name in ("caught", "survived", "timed out"))
        score = "–" if counts["score"] is None else f"{counts['score']:.1%}"
        lines.append(f"{area:10} {counts['caught']:4} of {valid:3} caught  {score:>6}")
    return "\n".join(lines) + "\n"


def _line(result: Mapping[str, object]) -> str:
    reason = f" ({result['by']})" if result["verdict"] in ("invalid", "timed out") else ""
    return f"{result['verdict']:9} {result['seconds']:>6} s  {result['file']}: {result['why']}{reason}"


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
