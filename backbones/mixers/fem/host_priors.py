"""FEM over the other host priors: the layer of `fem.py` with another prior."""

from __future__ import annotations

from backbones.mixers.base import Capabilities
from backbones.mixers.fem.fem import Fem, FemConfig, KeyedFemConfig
from backbones.mixers.priors.aft import AftPrior
from backbones.mixers.priors.forgetting import ForgettingPrior
from backbones.mixers.priors.linear import GlaPrior, LinearPrior, RetentionPrior, SimpleGlaPrior
from backbones.mixers.priors.ssm import SsmPrior
from backbones.mixers.registry import register

LINEAR_TIME = Capabilities(constant_state=True)


@register("fem-linear")
class FemLinear(Fem):
    Config = KeyedFemConfig
    Host = LinearPrior
    capabilities = LINEAR_TIME
    summary = "Free Energy Mixer over linear attention"


@register("fem-gla")
class FemGla(Fem):
    Config = KeyedFemConfig
    Host = GlaPrior
    capabilities = LINEAR_TIME
    summary = "Free Energy Mixer over gated linear attention"


@register("fem-simple-gla")
class FemSimpleGla(Fem):
    Config = KeyedFemConfig
    Host = SimpleGlaPrior
    capabilities = LINEAR_TIME
    summary = "Free Energy Mixer over gated linear attention with one decay per head"


@register("fem-retention")
class FemRetention(Fem):
    Config = KeyedFemConfig
    Host = RetentionPrior
    capabilities = LINEAR_TIME
    summary = "Free Energy Mixer over retention"


@register("fem-aft")
class FemAft(Fem):
    """Queries and keys have the width E of the values, so r = 2."""

    Config = FemConfig
    Host = AftPrior
    capabilities = LINEAR_TIME
    summary = "Free Energy Mixer over AFT's weights, a linear RNN"


@register("fem-ssm")
class FemSsm(Fem):
    """Without queries and keys, so E is wider than with other hosts."""

    Config = FemConfig
    Host = SsmPrior
    capabilities = LINEAR_TIME
    summary = "Free Energy Mixer over a selective state space"


@register("fem-fox")
class FemFox(Fem):
    Config = KeyedFemConfig
    Host = ForgettingPrior
    no_weight_decay = Fem.no_weight_decay | {"b_f"}
    summary = "Free Energy Mixer over forgetting attention"
