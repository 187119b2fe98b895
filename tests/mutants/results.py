"""Results that survive an interruption, and their summary."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from tests.mutants.defect import Defect

Result = Mapping[str, object]


def result_key(defect: Defect, root: Path, names: Iterable[str]) -> str:
    """What a result depends on: the defect, its tests, and all files that are neither tests nor defects.

    `names`: the files of the tree.
    """
    content = sha256(json.dumps(defect.as_json(), sort_keys=True).encode())
    for name in names:
        other_test = Path(name).name.startswith("test_") and not name.startswith(defect.test_paths)
        if name.endswith((".py", ".cpp", ".h", ".toml")) and not other_test and not name.startswith("tests/mutants/"):
            content.update(name.encode() + (root / name).read_bytes())
    return content.hexdigest()


class Results:
    """A file with one JSON line per result, appended to as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Result] = {}
        if path.is_file():
            for line in path.read_text("utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the process was killed while it wrote this line
                self.found[entry["key"]] = entry["result"]

    def add(self, key: str, result: Result) -> None:
        self.found[key] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "result": result}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def summarise(results: Iterable[Result]) -> dict[str, object]:
    """Counts by verdict, over all and by area; the score is caught / (caught + survived + timed out)."""
    listed = list(results)
    areas = dict.fromkeys(str(result["area"]) for result in listed)
    by_area = {area: _counts([result for result in listed if result["area"] == area]) for area in areas}
    return {**_counts(listed), "areas": by_area, "results": listed}


def _counts(results: list[Result]) -> dict[str, object]:
    verdicts = [result["verdict"] for result in results]
    counts = {name: verdicts.count(name) for name in ("caught", "survived", "timed out", "invalid")}
    valid = len(verdicts) - counts["invalid"]
    return {**counts, "score": counts["caught"] / valid if valid else None}
