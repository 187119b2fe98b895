"""All cells: `python -m tests.simulations [--boards 10000] [--json FILE]` prints a table, those that miss marked."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

from suite.statistics.noise import detectable
from tests.simulations.boards import CORRELATIONS, GAPS, NOISES, Cell, outcome


def write(line: str) -> None:
    """One line of the table at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Runs every cell and prints family error and power, next to the power with a known best rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    effect, cells = detectable(8, 9), []
    write(f"{'noise':<11} {'gap':>4} {'rho':>4} curves   family  low 99%  power  known")
    for noise, gap, rho, equal in product(NOISES, GAPS, CORRELATIONS, (True, False)):
        cell = Cell(noise, gap, rho, equal)
        family = outcome(cell, chosen.boards, seed=1)
        raced = outcome(replace(cell, effect=effect), chosen.boards, seed=2)
        known = outcome(replace(cell, effect=effect), chosen.boards, seed=2, known_rate=True)
        limits = {"family": family.family_low > 0.06, "power": raced.power < known.power - 0.03}
        misses = [name for name, missed in limits.items() if equal and missed]
        curves = "equal" if equal else "unequal"
        write(
            f"{noise:<11} {gap:4} {rho:4} {curves:<8} {family.family:.4f}   {family.family_low:.4f}  {raced.power:.3f}"
            f"  {known.power:.3f}{'  misses ' + ' and '.join(misses) if misses else ''}"
        )
        cells.append({**asdict(cell), **asdict(family), "power": raced.power, "known": known.power, "misses": misses})
    if chosen.json:
        chosen.json.write_text(json.dumps(cells, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
