"""A finished run as a model of lm-evaluation-harness (the extra `eval`): zero-shot evaluation of any language model of
the suite.
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

BOOTSTRAPS = 1000  # resamples for the standard errors
MAX_TOKENS = 256  # generated where the task sets no limit


class SuiteLM(LM):
    """Answers the harness's three kinds of requests, each a list of instances whose `args` are the texts."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        return self.scorer.continuations([(r.args[0], r.args[1]) for r in requests])

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        return self.scorer.texts([r.args[0] for r in requests])

    def generate_until(self, requests: list[Instance]) -> list[str]:
        return [self._generate(context, dict(options)) for context, options in (r.args for r in requests)]

    def _generate(self, context: str, options: dict[str, Any]) -> str:
        until = options.get("until") or []
        sampled = options.get("do_sample", options.get("temperature", 0) > 0)
        return self.scorer.generate(
            context,
            [until] if isinstance(until, str) else until,
            int(options.get("max_gen_toks", MAX_TOKENS)),
            float(options.get("temperature", 1.0)) if sampled else 0.0,
        )


def evaluate(
    run: str, names: Sequence[str], *, device: torch.device, limit: int | None, batch_size: int, include: Path | None
) -> dict[str, dict[str, float]]:
    """The harness's metrics of a run, by task and metric. Raises UserError for an unknown run or task, or if a task's
    data are not available.
    """
    model, task = load_language_model(run, device)
    manager = TaskManager(include_path=None if include is None else str(include))
    for name in names:
        if not manager.match_tasks([name]):
            raise UserError(
                f"lm-evaluation-harness has no task {name!r}{did_you_mean(name, manager.all_tasks)}; list them with: "
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
    except (OSError, ValueError) as error:  # from the library's data loading: no network, no such file
        raise UserError(f"lm-evaluation-harness: {first_line(error)}") from error
    results = found["results"] if found else {}
    return {name: {k: v for k, v in values.items() if isinstance(v, (int, float))} for name, values in results.items()}
