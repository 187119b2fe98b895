"""For every option of every command, two command lines that differ in it alone and must not do the same.

Names in braces are those of `tests/suite/cli/world.py`. An option without an entry fails
`test_every_option_has_an_effect.py`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Effect:
    """Two command lines, without the command's name.

    refused: one of them is refused, which is the effect.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    refused: bool = False


def lines(first: str, second: str, *, refused: bool = False) -> Effect:
    return Effect(tuple(shlex.split(first)), tuple(shlex.split(second)), refused)


def with_base(base: str, first: str, second: str, *, refused: bool = False) -> Effect:
    """Two values after the same other options."""
    return lines(f"{base} {first}", f"{base} {second}", refused=refused)


FASHION = "--json --task fashion-mnist --mixer fem --scale board"
POWER = "--json --task household-power --mixer softmax --scale board"
PLAIN = "--task fashion-mnist --mixer fem --scale board"
CURVES = "--output {folder}/curves.svg"
JSON = ("", "--json")


def config_options() -> Iterator[tuple[str, Effect]]:
    """The options that choose a config, which `run`, `show` and `budget` share."""
    yield "--task", with_base("--json --mixer softmax --scale board", "--task fashion-mnist", "--task sotu")
    yield "--mixer", with_base("--json --task fashion-mnist --scale board", "--mixer softmax", "--mixer fem")
    yield "--scale", with_base("--json --task fashion-mnist --mixer softmax", "--scale board", "--scale quick")
    yield "--horizon", with_base(POWER, "--horizon 8", "--horizon 24")
    yield "--track", with_base(POWER, "--track fixed-96", "--track fixed-336")
    yield "--hybrid", with_base(FASHION, "--hybrid even", "--hybrid odd")
    yield "--set", with_base(FASHION, "--set depth=2", "--set depth=3")
    yield "--recipe", with_base(FASHION, "--recipe {recipe_1}", "--recipe {recipe_2}")


def data_options() -> Iterator[tuple[str, Effect]]:
    yield "TASK", lines("fashion-mnist", "household-power")
    yield (
        "--data-dir",
        with_base("csv --set track=fixed-96 --set horizon=8", "--data-dir {csv_1}", "--data-dir {csv_2}"),
    )
    yield "--scale", with_base("mqar", "--scale board", "--scale quick")
    yield "--set", with_base("household-power", "--set horizon=8", "--set horizon=24")
    yield "--json", with_base("fashion-mnist", *JSON)


RACE = "--task fashion-mnist --mixer softmax --lrs 1 --seeds 3"
ENTRY = "made-1 --author ada --output {folder}/ada --unfinished"
ENTERED = "no-mixing --yes"
DRAWN = "{text_1} --tokens 12 --temperature 1.5"

EFFECTS: dict[str, dict[str, Effect]] = {
    "run": {
        **dict(config_options()),
        "--seed": with_base(FASHION, "--seed 1", "--seed 2"),
        "--steps": with_base(FASHION, "--steps 5", "--steps 6"),
        "--data-dir": with_base("--task text --mixer softmax", "--data-dir {csv_1}", "--data-dir {csv_2}"),
        "--verify-data": with_base(FASHION, "", "--verify-data"),
        "--device": with_base(FASHION, "--device cpu", "--device cuda:0"),
        "--threads": with_base(FASHION, "--threads 1", "--threads 2"),
        "--workers": with_base(FASHION, "", "--workers 0"),
        "--deterministic": with_base(FASHION, "", "--deterministic"),
        "--devices": with_base(FASHION, "--devices 2", "--devices 3"),
        "--parallel": with_base(f"{FASHION} --devices 2", "--parallel ddp", "--parallel fsdp"),
        "--resume": lines("--resume {text_1}", "--resume auto"),
        "--force": with_base(FASHION, "", "--force"),
        "--unmatched": with_base(FASHION, "", "--unmatched"),
        "--skip-variant-layers": with_base(f"{FASHION} --hybrid even", "", "--skip-variant-layers"),
        "--json": with_base(PLAIN, *JSON),
    },
    "sweep": {
        "--task": with_base("--mixer softmax --lrs 1", "--task fashion-mnist", "--task sotu"),
        "--mixer": with_base("--task fashion-mnist --lrs 1", "--mixer softmax", "--mixer fem"),
        "--scale": with_base(RACE, "--scale board", "--scale quick"),
        "--seeds": with_base("--task fashion-mnist --mixer softmax --lrs 1", "--seeds 2", "--seeds 3"),
        "--lrs": with_base("--task fashion-mnist --mixer softmax --seeds 2", "--lrs 1", "--lrs 3"),
        "--hybrid": with_base("--task fashion-mnist --mixer fem --lrs 1", "--hybrid even", "--hybrid odd"),
        "--set": with_base(RACE, "--set depth=2", "--set depth=3"),
        "--data-dir": with_base("--task text --mixer softmax --lrs 1", "--data-dir {csv_1}", "--data-dir {csv_2}"),
        "--device": with_base(RACE, "--device cpu", "--device cuda:0"),
        "--workers": with_base(RACE, "", "--workers 3"),
        "--on": with_base(RACE, "--on local", "--on ray"),
        "--address": with_base(f"{RACE} --on ray --threads 1 --jobs 1", "", "--address auto"),
        "--gpus-per-run": with_base(f"{RACE} --on ray", "--gpus-per-run 0.5", "--gpus-per-run 1"),
        "--deterministic": with_base(RACE, "", "--deterministic"),
        "--jobs": with_base(f"{RACE} --threads 1", "--jobs 1", "--jobs 2"),
        "--threads": with_base(RACE, "--threads 1", "--threads 2"),
        "--plan": with_base(RACE, "", "--plan {folder}/plan.txt"),
        "--dry-run": with_base(RACE, "", "--dry-run"),
        "--json": with_base(f"{RACE} --dry-run", *JSON),
    },
    "plan": {
        "--task": with_base("--json --mixer softmax --scale board", "--task fashion-mnist", "--task sotu"),
        "--mixer": with_base("--json --task fashion-mnist --scale board", "--mixer softmax", "--mixer fem"),
        "--scale": with_base("--json --task fashion-mnist --mixer softmax", "--scale board", "--scale quick"),
        "--gpus": with_base(FASHION, "--gpus 1", "--gpus 2"),
        "--gpu": with_base(FASHION, "--gpu h100", "--gpu l40s"),
        "--parallel": with_base(f"{FASHION} --gpus 2", "--parallel ddp", "--parallel fsdp"),
        "--mfu": with_base(FASHION, "--mfu 0.01", "--mfu 0.02"),
        "--seeds": with_base(FASHION, "--seeds 4", "--seeds 8"),
        "--lrs": with_base(FASHION, "--lrs 1", "--lrs 3"),
        "--hybrid": with_base("--json --task fashion-mnist --mixer ssm --scale board", "--hybrid 1", "--hybrid 1,2"),
        "--set": with_base(FASHION, "--set depth=2", "--set depth=3"),
        "--check": lines("", "--check", refused=True),
        "--markdown": with_base(PLAIN, "", "--markdown"),
        "--json": with_base(PLAIN, *JSON),
    },
    "list tasks": {"--json": lines(*JSON)},
    "list mixers": {"--json": lines(*JSON)},
    "list runs": {
        "--task": lines("--task fashion-mnist", "--task sotu"),
        "--status": lines("--status finished", "--status stopped"),
        "--json": lines(*JSON),
    },
    "show": {
        **dict(config_options()),
        "RUN": lines("{text_1}", "{text_2}"),
        "--json": lines("{text_1}", "{text_1} --json"),
    },
    "budget": {**dict(config_options()), "--json": with_base(PLAIN, *JSON)},
    "data info": dict(data_options()),
    "data prepare": dict(data_options()),
    "leaderboard": {
        "--task": lines("--task fashion-mnist", "--task household-power"),
        "--domain": lines("--domain vision", "--domain forecasting"),
        "--scale": lines("--scale board", "--scale quick"),
        "--records": lines("", "--records {one_record}"),
        "--markdown": lines("", "--markdown"),
        "--csv": lines("", "--csv"),
        "--latex": lines("", "--latex"),
        "--output": lines("", "--output {folder}/boards"),
        "--check": lines("--output {folder}/nothing", "--output {folder}/nothing --check"),
        "--json": lines(*JSON),
    },
    "submit": {
        "RUN": with_base("--author ada --output {folder}/ada --unfinished", "made-1", "made-2"),
        "--author": with_base("made-1 --unfinished", "--author ada", "--author eve"),
        "--notes": with_base(ENTRY, "--notes {recipe_1}", "--notes {recipe_2}"),
        "--output": with_base(
            "made-1 --author ada --unfinished", "--output {folder}/ada", "--output {folder}/other/ada"
        ),
        "--unfinished": with_base("made-1 --author ada", "", "--unfinished"),
        "--json": with_base(ENTRY, *JSON),
    },
    "verify": {
        "PATH": lines("{one_record}", "{folder}"),
        "--replay": with_base("{folder}", "--replay 1", "--replay 2"),
        "--reproduce": with_base("{folder}", "--reproduce 3", "--reproduce 4"),
        "--mixer": with_base("{folder} --reproduce 3", "--mixer softmax", "--mixer fem"),
        "--trust-source": with_base("{folder} --replay 1", "", "--trust-source"),
        "--badge": with_base("{folder}", "", "--badge", refused=True),
        "--json": with_base("{folder}", *JSON),
    },
    "enter": {
        "MIXER": with_base("--yes --task fashion-mnist", "softmax", "fem"),
        "--task": with_base(ENTERED, "--task fashion-mnist", "--task sotu"),
        "--scale": with_base(f"{ENTERED} --task fashion-mnist", "--scale board", "--scale quick"),
        "--set": with_base(f"{ENTERED} --task fashion-mnist", "--set depth=2", "--set depth=3"),
        "--data-dir": with_base(f"{ENTERED} --task text", "--data-dir {csv_1}", "--data-dir {csv_2}"),
        "--device": with_base(f"{ENTERED} --task fashion-mnist", "--device cpu", "--device cuda:0"),
        "--jobs": with_base(f"{ENTERED} --task fashion-mnist --threads 1", "--jobs 1", "--jobs 2"),
        "--threads": with_base(f"{ENTERED} --task fashion-mnist", "--threads 1", "--threads 2"),
        "--author": with_base(f"{ENTERED} --task fashion-mnist", "--author ada", "--author eve"),
        "--notes": with_base(f"{ENTERED} --task fashion-mnist", "--notes {recipe_1}", "--notes {recipe_2}"),
        "--output": with_base(
            f"{ENTERED} --task fashion-mnist", "--output {folder}/a/draft", "--output {folder}/b/draft"
        ),
        "--records": with_base(
            f"{ENTERED} --task fashion-mnist", "--records {one_record}", "--records {folder}/nowhere", refused=True
        ),
        "--yes": with_base("no-mixing --task fashion-mnist", "", "--yes", refused=True),
        "--json": with_base(f"{ENTERED} --task fashion-mnist", *JSON),
    },
    "plot": {
        "RUN": with_base(CURVES, "{text_1}", "{text_2}"),
        "--task": with_base(CURVES, "--task fashion-mnist", "--task sotu"),
        "--mixer": with_base(f"{CURVES} --task sotu", "--mixer fem", "--mixer softmax", refused=True),
        "--records": with_base(f"{CURVES} --task fashion-mnist", "", "--records {one_record}"),
        "--output": with_base("{text_1}", CURVES, "--output {folder}/curves.png"),
        "--json": with_base(f"{CURVES} {{text_1}}", *JSON),
    },
    "compare": {
        "A": lines("softmax fem", "fem fem-linear", refused=True),
        "B": lines("softmax fem", "softmax no-mixing", refused=True),
        "--task": with_base("fem softmax", "--task fashion-mnist", "--task household-power", refused=True),
        "--scale": with_base("fem softmax", "--scale board", "--scale quick", refused=True),
        "--records": with_base("fem softmax", "", "--records {one_record}", refused=True),
        "--json": with_base("fem softmax", *JSON),
    },
    "ui": {
        "--task": lines("--task fashion-mnist", "--task sotu"),
        "--port": lines("--port 5001", "--port 5002"),
        "--browser": lines("--no-browser", "--browser"),
        "--no-browser": lines("", "--no-browser"),
    },
    "bench": {
        "KIND": lines("kernels", "mixers"),
        "--mixer": with_base("mixers --lengths 16", "--mixer softmax", "--mixer linear"),
        "--lengths": with_base("mixers --mixer linear", "--lengths 16", "--lengths 16,32"),
        "--against": with_base("mixers --mixer linear --lengths 16", "--against softmax", "--against dense"),
        "--rounds": with_base("mixers --mixer linear --lengths 16", "--rounds 2", "--rounds 3"),
        "--threads": with_base("mixers --mixer linear --lengths 16", "--threads 1", "--threads 2"),
        "--device": with_base("kernels --lengths 16", "--device cpu", "--device cuda:99", refused=True),
        "--plot": with_base("mixers --mixer linear --lengths 16", "", "--plot {folder}/plot.png"),
        "--out": with_base("mixers --mixer linear --lengths 16", "", "--out {folder}/speed"),
        "--json": with_base("mixers --mixer linear --lengths 16", *JSON),
    },
    "publish": {
        "--task": lines("--task fashion-mnist", "--task sotu"),
        "--records": lines("", "--records {one_record}"),
        "--json": lines(*JSON),
    },
    "upload": {"RUN": lines("{text_1}", "{text_2}"), "--json": with_base("{text_1}", *JSON)},
    "doctor": {"--store": lines("", "--store"), "--json": lines(*JSON)},
    "forecasts": {
        "RUN": lines("{series_1}", "{series_2}"),
        "--data-dir": with_base("{series_1}", "--data-dir {csv_1}", "--data-dir {csv_2}", refused=True),
        "--device": with_base("{series_1}", "--device cpu", "--device cuda:99", refused=True),
        "--json": with_base("{series_1}", *JSON),
    },
    "generate": {
        "RUN": with_base("--tokens 12 --temperature 1.5", "{text_1}", "{text_2}"),
        "--prompt": with_base("{text_1} --tokens 4", "--prompt The", "--prompt We"),
        "--tokens": with_base("{text_1}", "--tokens 4", "--tokens 8"),
        "--temperature": with_base("{text_1} --tokens 12", "--temperature 0", "--temperature 1.5"),
        "--top-k": with_base(DRAWN, "--top-k 1", "--top-k 50"),
        "--seed": with_base(DRAWN, "--seed 1", "--seed 2"),
        "--device": with_base("{text_1} --tokens 4", "--device cpu", "--device cuda:99", refused=True),
        "--json": with_base("{text_1} --tokens 4", *JSON),
    },
    "lm-eval": {
        "RUN": with_base("--tasks piqa", "{text_1}", "{text_2}"),
        "--tasks": with_base("{text_1}", "--tasks piqa", "--tasks piqa,arc_easy"),
        "--limit": with_base("{text_1} --tasks piqa", "--limit 3", "--limit 4"),
        "--include": with_base("{text_1} --tasks piqa", "", "--include {folder}"),
        "--batch-size": with_base("{text_1} --tasks piqa", "--batch-size 1", "--batch-size 2"),
        "--device": with_base("{text_1} --tasks piqa", "--device cpu", "--device cuda:99", refused=True),
        "--json": with_base("{text_1} --tasks piqa", *JSON),
    },
    "check": {
        "NAME": lines("softmax", "linear"),
        "--data-dir": with_base("csv --set track=fixed-96", "--data-dir {csv_1}", "--data-dir {csv_2}"),
        "--set": with_base("mqar", "--set vocab=64", "--set vocab=128"),
        "--slow": with_base("linear", "", "--slow"),
        "--json": with_base("linear", *JSON),
    },
}
