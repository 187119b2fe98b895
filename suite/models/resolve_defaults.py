"""The options of a mixer that a user leaves open."""

from __future__ import annotations

from pydantic import BaseModel

from backbones.mixers.config import MixerConfig
from suite.config.run_config import ModelConfig, RunConfig
from suite.models.candidate import Candidate


def default_options(config: RunConfig, candidate: Candidate) -> MixerConfig:
    """The mixer's options as they are when the user gives none.

    Args:
        config: the run.
        candidate: its mixer.

    Returns:
        The options, widths left to the solver.
    """
    options = candidate.Options
    return options(causal=config.mixer_options.causal, **usual_heads(options, config.model))


def usual_heads(options: type[BaseModel], model: ModelConfig) -> dict[str, int]:
    """The reference's heads, unless the mixer's paper has its own number (HyperMLP: 2)."""
    own = options.model_fields["heads"].default != MixerConfig.model_fields["heads"].default
    return {} if own else {"heads": model.heads}
