"""The mixer contract on the device: every built-in mixer, causal and not, with the Triton kernels."""

from __future__ import annotations

import pytest
import torch

from backbones.contract.run import CHECKS, Check, run_check
from backbones.mixers import registry
from tests.backbones.naive import load_naive_references
from tests.gpu.place import INTERPRETED

BUILT_IN = [name for name in registry.names() if registry.origin(name) == "built-in"]
MIXERS = ["softmax", "gla"] if INTERPRETED else BUILT_IN
CHOSEN = [check for check in CHECKS if check.id == "deterministic" or not (INTERPRETED or check.slow)]


@pytest.mark.filterwarnings("ignore:kernel .* can't run as Triton")  # the contract tries half precision, too
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("check", CHOSEN, ids=lambda check: check.id)
@pytest.mark.parametrize("mixer", MIXERS)
def test_a_mixer_keeps_the_contract(mixer: str, check: Check, causal: bool, device: torch.device) -> None:
    result = run_check(check, registry.get(mixer), causal, load_naive_references().get(mixer), device)
    assert result.status != "failed", f"{mixer}: {result.sentence}: {result.reason} ({result.shown_by})"
