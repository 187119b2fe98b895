"""What a trained language model writes, and what the harness says of it."""

from __future__ import annotations

import codecs
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch

from suite.cli.report.tables import out, show_rows
from suite.errors import UserError
from suite.language.generate import generate, load_language_model
from suite.records import runs_folder
from suite.training.run import pick_device


def generate_text(
    run: str, prompt: str, tokens: int, temperature: float, top_k: int, seed: int, device: str, *, echo: bool
) -> str:
    """The prompt's continuation; with `echo` it is written to stdout as it comes."""
    chosen = pick_device(device)
    model, task = load_language_model(run, chosen)
    ids = torch.tensor(task.encode(prompt), device=chosen)
    decoder, text = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    if echo:
        out.file.write(prompt)
    for token in generate(
        model, ids, tokens=tokens, temperature=temperature, top_k=top_k, generator=torch.Generator().manual_seed(seed)
    ):
        piece = decoder.decode(task.decode([token]))
        text += piece
        if echo:
            out.file.write(piece)
            out.file.flush()
    if echo:
        out.file.write("\n")
    return text


def harness_figures(
    run: str, names: str, limit: int | None, include: Path | None, batch_size: int, device: str
) -> dict[str, dict[str, float]]:
    """What lm-evaluation-harness says of a run, by task and metric. Raises UserError where the harness is not
    installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "lm-evaluation-harness is not installed; add the extra: pip install -c constraints.txt 'mixer-suite[eval]'"
        )
    folder = runs_folder.find_run(run)  # an unknown run is told before the harness is loaded, which takes a while
    from suite.language.lm_eval import evaluate

    chosen = [name.strip() for name in names.split(",") if name.strip()]
    return evaluate(
        str(folder), chosen, device=pick_device(device), limit=limit, batch_size=batch_size, include=include
    )


def show_harness(found: Mapping[str, Mapping[str, float]]) -> None:
    show_rows(
        (
            {"task": task, "metric": name, "value": f"{value:.4g}"}
            for task, values in found.items()
            for name, value in values.items()
        ),
        ("task", "metric", "value"),
    )
