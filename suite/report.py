"""What the commands tell: plain values for `--json`, tables for people."""

from __future__ import annotations

import codecs
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

import tasks
from backbones.mixers import registry
from backbones.mixers.base import Mixer
from suite import board, board_view, budget, home, record
from suite.checkpoint import NAME as CHECKPOINT
from suite.config import RunConfig
from suite.console import err, format_metric, say
from suite.doctor import Check
from suite.errors import UserError, did_you_mean
from suite.generate import generate, load_language_model
from suite.resolve import SCALES, resolve_data
from suite.run import Outcome, pick_device
from suite.tracking import upload

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
MIXER_ROW = (
    "name", "paper", "summary", "causal", "bidirectional", "mixes_tokens", "constant_state", "needs", "pays_in_ffn", "domains", "options",
)  # fmt: skip
DOMAINS = ("language", "vision", "forecasting", "recall")


def show_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column.replace("_", " "), no_wrap=column != "summary")
    for row in rows:
        made.add_row(*(_word(row[c]) for c in columns))
    out.print(made)


def _word(value: Any) -> str:
    return "yes" if value is True else "no" if value is False else "–" if value is None else escape(str(value))


def show_mapping(values: Mapping[str, Any]) -> None:
    made = Table(box=None, show_header=False, pad_edge=False)
    for name, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items())
        made.add_row(f"[bold]{name}[/]", escape(str(value)))
    out.print(made)


def describe_tasks() -> list[dict[str, Any]]:
    found = []
    for name in tasks.names():
        cls = tasks.get(name)
        primary = cls().primary
        data = "synthetic" if cls.domain == "recall" else "folder (--data-dir)" if cls.needs_data_dir else "embedded"
        found.append({
            "name": name, "domain": cls.domain, "metric": primary.name, "higher_is_better": primary.higher_is_better,
            "data": data, "protocol": cls.protocol, "scales": list(SCALES), "summary": cls.summary,
        })  # fmt: skip
    return found


def describe_mixers() -> list[dict[str, Any]]:
    """A row a mixer. One that cannot be loaded or built here is listed all the same, with the reason."""
    found: list[dict[str, Any]] = []
    for name in registry.names():
        try:
            cls = registry.get(name)
            row, reason = _describe_mixer(cls), cls.obstacle()
        except registry.MixerError as error:
            row, reason = dict.fromkeys(MIXER_ROW), " ".join(str(error).split())
        found.append({**row, "name": name, "origin": registry.origin(name), "available": not reason, "reason": reason})
    return found


def _describe_mixer(cls: type[Mixer]) -> dict[str, Any]:
    can = cls.capabilities
    told = (
        "", cls.paper, cls.summary, can.causal, can.bidirectional, can.mixes_tokens, can.constant_state, sorted(can.needs), can.pays_in_ffn,
        [*(["language", "recall"] if can.causal else []), *(["vision", "forecasting"] if can.bidirectional else [])],
        sorted(cls.Config.model_fields),
    )  # fmt: skip
    return dict(zip(MIXER_ROW, told, strict=True))


def show_mixers(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of the mixers; below it, a line for each reason why some of them are not available here."""
    show_rows([row for row in rows if row["available"]], ("name", "paper", "causal", "bidirectional", "constant_state", "summary"))
    missing: dict[str, list[str]] = {}
    for row in rows:
        if not row["available"]:
            missing.setdefault(row["reason"], []).append(row["name"])
    for reason, names in missing.items():
        out.print(f"[yellow]not available here[/]: {escape(', '.join(names))}: {escape(reason)}")


def _resolved(config: RunConfig) -> tuple[RunConfig, budget.Certificate]:
    spec = tasks.get(config.task)(config.data).spec
    plan = budget.solve(config, spec)
    return config.model_copy(update={"mixer_options": plan.mixer_options}), budget.certify(config, spec, plan)


def describe_config(config: RunConfig) -> dict[str, Any]:
    solved, certificate = _resolved(config)
    identity = {"identity": solved.identity, "group": solved.group}
    return {"config": solved.canonical(), **identity, "certificate": certificate.model_dump(mode="json")}


def show_config(config: RunConfig) -> None:
    """Every option with its value and meaning: what `--set` and a recipe may change."""
    solved, certificate = _resolved(config)
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("option", "value", "meaning"):
        made.add_column(column, no_wrap=column == "option")
    for section, model in (("data", solved.data), ("model", solved.model), ("mixer", solved.mixer_options), ("train", solved.train)):
        for name, described in type(model).model_fields.items():
            made.add_row(f"{section}.{name}", str(getattr(model, name)), described.description or "")
    out.print(f"[bold]{solved.task} · {solved.mixer} · {solved.scale} · seed {solved.seed}[/]  identity {solved.identity[:12]}")
    out.print(made)
    show_budget(certificate.model_dump(mode="json"))


def describe_budget(config: RunConfig) -> dict[str, Any]:
    found = _resolved(config)[1].model_dump(mode="json")
    if not found["matched"]:
        found["nearest_fit"] = budget.nearest_fit(config, tasks.get(config.task)(config.data).spec)
    return found


def show_budget(found: Mapping[str, Any]) -> None:
    made = Table(title=f"{found['task']} · {found['mixer']} · {found['scale']}", title_justify="left", header_style="bold")
    for column in ("what", found["mixer"], "softmax reference", "ratio"):
        made.add_column(column, justify="left" if column == "what" else "right")
    pairs = [
        ("parameters without embeddings and head", "parameters", "reference_parameters"),
        ("parameters a mixer layer", "mixer_parameters", "reference_mixer_parameters"),
        (f"forward FLOPs a {found['flops_unit']}", "flops", "reference_flops"),
        (f"decoding state at {found['length']} tokens, bytes", "state_bytes", "reference_state_bytes"),
        ("feed-forward width", "ffn_width", "reference_ffn_width"),
    ]
    for label, own, reference in pairs:
        ratio = f"{found[own] / found[reference]:.4f}" if found[reference] else "–"
        made.add_row(label, f"{found[own]:,}", f"{found[reference]:,}", ratio)
    out.print(made)
    options = ", ".join(f"{k}={v}" for k, v in found["mixer_options"].items())
    out.print(f"mixer options: {options}")
    out.print("[green]matched[/]" if found["matched"] else f"[red]not matched[/]: {'; '.join(found['reasons'])}")
    if found.get("nearest_fit"):
        out.print(f"what fits: {found['nearest_fit']}")


def describe_data(task: str, data_dir: Path | None, scale: str | None = None, sets: Sequence[str] = ()) -> dict[str, Any]:
    made = tasks.get(task)(resolve_data(task, scale, sets), data_dir)
    info = made.info()
    return {
        "task": task, "source": info.source, "licence": info.licence, "splits": dict(info.splits), "unit": info.unit,
        "fingerprint": info.fingerprint, "embedded": info.embedded, "protocol": made.protocol, "notes": list(info.notes), **info.extra,
    }  # fmt: skip


def prepare_data(task: str, data_dir: Path | None, scale: str | None = None, sets: Sequence[str] = ()) -> dict[str, Any]:
    made = tasks.get(task)(resolve_data(task, scale, sets), data_dir)
    say(made.prepare_note())
    with Progress(*Progress.get_default_columns(), console=err, disable=not err.is_terminal, transient=True) as progress:
        bar = progress.add_task(f"preparing {task}", total=None)
        made.prepare(lambda done, total: progress.update(bar, completed=done, total=total))
    return {**describe_data(task, data_dir, scale, sets), "status": "ready"}


def find_boards(task: str | None, domain: str | None, scale: str | None) -> list[board.Board]:
    if task:
        tasks.get(task)
    for given, allowed, what in ((domain, DOMAINS, "domain"), (scale, SCALES, "scale")):
        if given and given not in allowed:
            raise UserError(f"unknown {what} {given!r}{did_you_mean(given, allowed)} (allowed: {', '.join(allowed)})")
    records = board.local_records()
    known = [made for made in records if board.is_known(made)]
    for count, what in ((board.count_records() - len(records), "damaged"), (len(records) - len(known), "written by another version")):
        if count:
            err.print(f"[yellow]warning:[/] {count} record(s) left out, {what}: suite doctor names them")
    return board.boards(known, task=task, domain=domain, scale=scale)


def plain_boards(boards: Sequence[board.Board]) -> list[dict[str, Any]]:
    return [board_view.plain(b) for b in boards]


def show_boards(boards: Sequence[board.Board], *, as_markdown: bool) -> None:
    if not boards:
        err.print(f"no runs of that kind in {escape(str(home.home()))} yet; start one: suite run --task fashion-mnist --mixer fem")
    for b in boards:
        if as_markdown:
            sys.stdout.write(board_view.markdown(b) + "\n")
        else:
            out.print(board_view.table(b), "")


def report_run(outcome: Outcome, *, quiet: bool) -> None:
    """After a run: its result and where it stands, or what went wrong."""
    made = outcome.record
    if outcome.exit_code:
        can_go_on = made.status in ("interrupted", "failed") and (home.home() / made.id / CHECKPOINT).is_file()
        advice = f"; go on with: suite run --resume {made.id}" if can_go_on else ""
        err.print(f"[red]{made.status}[/]: {escape(made.error or '')}{advice}", soft_wrap=True)
    elif not quiet:
        metric = board.primary_metric(made)
        figure, selection = format_metric(metric, made.metrics["test"][metric.name]), made.selection
        assert selection is not None
        assert made.timing is not None
        out.print(f"[bold]{made.task} · {made.mixer} · {made.scale} · seed {made.seed}[/]")
        out.print(f"test {metric.name} {figure}, checkpoint of step {selection.step} chosen on validation; {made.timing.wall_s:.0f} s")
        if "test_skip" in made.metrics:
            skipped = format_metric(metric, made.metrics["test_skip"][metric.name])
            out.print(f"without the layers that are not softmax: test {metric.name} {skipped}")
        one = [b for b in find_boards(made.task, None, made.scale) if any(made.id == r.id for row in b.rows for r in row.records)]
        if one:
            show_boards(one, as_markdown=False)
    if not quiet and outcome.path:
        out.print(f"record: {escape(str(outcome.path))}")


def generate_text(run: str, prompt: str, tokens: int, temperature: float, top_k: int, seed: int, device: str, *, echo: bool) -> str:
    """The prompt's continuation; with `echo` it is written to stdout as it comes."""
    chosen = pick_device(device)
    model, task = load_language_model(run, chosen)
    ids = torch.tensor(task.encode(prompt), device=chosen)
    decoder, text = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    if echo:
        out.file.write(prompt)
    for token in generate(model, ids, tokens=tokens, temperature=temperature, top_k=top_k, generator=torch.Generator().manual_seed(seed)):
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
    """What lm-evaluation-harness says of a run, by task and metric. Raises UserError where the harness is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError("lm-evaluation-harness is not installed; add the extra: pip install -c constraints.txt 'mixer-suite[eval]'")
    folder = home.find_run(run)  # an unknown run is told before the harness is loaded, which takes a while
    from suite.lm_eval_adapter import evaluate

    chosen = [name.strip() for name in names.split(",") if name.strip()]
    return evaluate(str(folder), chosen, device=pick_device(device), limit=limit, batch_size=batch_size, include=include)


def show_harness(found: Mapping[str, Mapping[str, float]]) -> None:
    show_rows(
        ({"task": task, "metric": name, "value": f"{value:.4g}"} for task, values in found.items() for name, value in values.items()),
        ("task", "metric", "value"),
    )


def describe_run(run: str) -> dict[str, Any]:
    folder = home.find_run(run)
    if (folder / record.NAME).is_file():
        return record.read(folder / record.NAME).model_dump(mode="json", by_alias=True)
    return {"id": folder.name, "status": "unfinished", **home.read_run(folder)}


def show_run(found: Mapping[str, Any]) -> None:
    keys = ("id", "status", "error", "task", "mixer", "scale", "seed", "created", "identity", "metrics", "selection", "timing", "hardware")
    flat = {key: found[key] for key in keys if found.get(key) is not None}
    metrics = flat.pop("metrics", {})
    show_mapping({**flat, **{f"{split} metrics": {k: f"{v:.5g}" for k, v in values.items()} for split, values in metrics.items()}})
    if "certificate" in found:
        show_budget(found["certificate"])


def upload_run(run: str) -> dict[str, Any]:
    folder = home.find_run(run)
    tracked = upload(folder, home.home())
    return {"run": folder.name, "store": tracked.uri, "mlflow_run": tracked.run_id}


def show_checks(found: Sequence[Check]) -> None:
    for check in found:
        out.print(f"{'[green]ok[/]  ' if check.ok else '[red]bad[/] '} [bold]{check.name}[/]: {escape(check.message)}")
