"""A finished run as a model of lm-evaluation-harness (the extra `eval`): zero-shot tasks on any text model of the
suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from suite.errors import UserError, did_you_mean, first_line
from suite.language.generate import load_language_model
from suite.language.scoring import Scorer

BOOTSTRAPS = 1000  # of the standard errors
MAX_TOKENS = 256  # of a generation, where the task names no number


class SuiteLM(LM):
    """Answers the harness's three kinds of requests, each a list of instances whose `args` hold the texts."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        return self.scorer.continuations([(r.args[0], r.args[1]) for r in requests])

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        return self.scorer.texts([r.args[0] for r in requests])

    def generate_until(self, requests: list[Instance]) -> list[str]:
        return [self._write(context, dict(asked)) for context, asked in (r.args for r in requests)]

    def _write(self, context: str, asked: dict[str, Any]) -> str:
        until = asked.get("until") or []
        drawn = asked.get("do_sample", asked.get("temperature", 0) > 0)
        return self.scorer.write(
            context,
            [until] if isinstance(until, str) else until,
            int(asked.get("max_gen_toks", MAX_TOKENS)),
            float(asked.get("temperature", 1.0)) if drawn else 0.0,
        )


def evaluate(
    run: str, names: Sequence[str], *, device: torch.device, limit: int | None, batch_size: int, include: Path | None
) -> dict[str, dict[str, float]]:
    """The harness's figures of a run, by task and metric. Raises UserError for an unknown run or task, or data that are
    not to be had.
    """
    model, task = load_language_model(run, device)
    manager = TaskManager(include_path=None if include is None else str(include))
    for name in names:
        if not manager.match_tasks([name]):
            raise UserError(
                f"lm-evaluation-harness has no task {name!r}{did_you_mean(name, manager.all_tasks)}; see "
                "lm-eval ls tasks"
            )
    scorer = Scorer(model, task, device, batch_size)
    try:
        found = lm_eval.simple_evaluate(
            model=SuiteLM(scorer),
            tasks=list(names),
            num_fewshot=0,
            limit=limit,
            task_manager=manager,
            bootstrap_iters=BOOTSTRAPS,
            log_samples=False,
        )
    except (OSError, ValueError) as error:  # the library's own data: no network, no such file
        raise UserError(f"lm-evaluation-harness: {first_line(error)}") from error
    results = found["results"] if found else {}
    return {name: {k: v for k, v in values.items() if isinstance(v, (int, float))} for name, values in results.items()}
