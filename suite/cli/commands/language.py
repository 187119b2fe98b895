"""`suite generate` and `suite lm-eval`: using a trained language model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from suite.cli import options as opt
from suite.cli.output import out, print_json, print_rows
from suite.errors import UserError
from suite.safe_text import visible


def generate(
    run_id: opt.LanguageRun,
    prompt: Annotated[str, typer.Option("--prompt", help="The text to continue.")] = "",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Number of tokens to generate.")] = 200,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="Sampling temperature; 0 is greedy decoding.")
    ] = 0.8,
    top_k: Annotated[
        int, typer.Option("--top-k", min=0, help="Sample from the k most likely tokens; 0: from all.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sampling.")] = 0,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
) -> None:
    """Generates text with a trained language model, token by token from the mixers' decoding state.

    `suite generate sotu-fem --prompt "My fellow Americans, "`
    """
    from suite.records import runs_folder

    folder = runs_folder.find_run(run_id)
    text = generate_text(str(folder), prompt, tokens, temperature, top_k, seed, device, echo=not as_json)
    if as_json:
        print_json({"run": folder.name, "prompt": prompt, "text": text, "seed": seed})


def lm_eval(
    run_id: opt.LanguageRun,
    tasks: Annotated[str, typer.Option("--tasks", help="Tasks of the harness, separated by commas.")],
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Evaluate at most this many examples per task.", show_default=False),
    ] = None,
    include: Annotated[
        Path | None, typer.Option("--include", help="Folder with your own task files.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Number of texts scored at once.")] = 16,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
) -> None:
    """Evaluates a trained language model zero-shot with lm-evaluation-harness (the extra `eval`).

    `suite lm-eval wikitext103-fem --tasks lambada_openai,piqa`
    """
    found = harness_results(run_id, tasks, limit, include, batch_size, device)
    print_json(found) if as_json else print_harness_results(found)


def generate_text(
    run: str, prompt: str, tokens: int, temperature: float, top_k: int, seed: int, device: str, *, echo: bool
) -> str:
    """The continuation of the prompt; `echo` also writes it to stdout token by token."""
    import codecs

    import torch

    from suite.language.generate import generate, load_language_model
    from suite.training.devices import pick_device

    chosen = pick_device(device)
    model, task = load_language_model(run, chosen)
    ids = torch.tensor(task.encode(prompt), device=chosen)
    decoder, text = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    shown = visible if out.is_terminal else str  # a file gets the text as it is
    if echo:
        out.file.write(shown(prompt))
    generator = torch.Generator().manual_seed(seed)
    for token in generate(model, ids, tokens=tokens, temperature=temperature, top_k=top_k, generator=generator):
        piece = decoder.decode(task.decode([token]))
        text += piece
        if echo:
            out.file.write(shown(piece))
            out.file.flush()
    if echo:
        out.file.write("\n")
    return text


def harness_results(
    run: str, names: str, limit: int | None, include: Path | None, batch_size: int, device: str
) -> dict[str, dict[str, float]]:
    """The harness's results for a run, by task and metric. Raises UserError if the harness is not installed."""
    import importlib.util

    from suite.records import runs_folder
    from suite.training.devices import pick_device

    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "lm-evaluation-harness is not installed; add the extra: pip install -c constraints.txt 'mixer-suite[eval]'"
        )
    folder = runs_folder.find_run(run)  # before the harness is imported, which takes a while
    from suite.language.lm_eval import evaluate

    chosen = [name.strip() for name in names.split(",") if name.strip()]
    return evaluate(
        str(folder), chosen, device=pick_device(device), limit=limit, batch_size=batch_size, include=include
    )


def print_harness_results(found: Mapping[str, Mapping[str, float]]) -> None:
    rows = (
        {"task": task, "metric": name, "value": f"{value:.4g}"}
        for task, values in found.items()
        for name, value in values.items()
    )
    print_rows(rows, ("task", "metric", "value"))
