"""A trained language model at work: writing, and zero-shot evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from suite.cli import options as opt
from suite.cli.commands.output import emit


def generate(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A language model's run: its id or folder.")],
    prompt: Annotated[str, typer.Option("--prompt", help="The text to go on from.")] = "",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="How many tokens to write.")] = 200,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option("--top-k", min=0, help="Choose among the k likeliest; 0: all.")] = 0,
    seed: opt.Seed = None,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
) -> None:
    """Writes text with a trained language model, token by token through the mixers' decoding state.

    `suite generate sotu-fem --prompt "My fellow Americans, "`
    """
    from suite.cli.report import models

    text = models.generate_text(run_id, prompt, tokens, temperature, top_k, seed or 0, device, echo=not as_json)
    if as_json:
        emit({"run": run_id, "prompt": prompt, "text": text, "seed": seed or 0})


def lm_eval(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A language model's run: its id or folder.")],
    tasks: Annotated[str, typer.Option("--tasks", help="Tasks of the harness, with commas between.")],
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many examples a task.", show_default=False)
    ] = None,
    include: Annotated[
        Path | None, typer.Option("--include", help="Folder with task files of your own.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts scored at once.")] = 16,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
) -> None:
    """Evaluates a trained language model zero-shot with lm-evaluation-harness (the extra `eval`).

    `suite lm-eval wikitext103-fem --tasks lambada_openai,piqa`
    """
    from suite.cli.report import models

    found = models.harness_figures(run_id, tasks, limit, include, batch_size, device)
    emit(found) if as_json else models.show_harness(found)
