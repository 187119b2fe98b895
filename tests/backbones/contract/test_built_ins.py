"""The mixer contract on every built-in mixer, causal and not: a class per mixer, made from the registry."""

from __future__ import annotations

import pytest

from backbones.contract.gradients import compare_compiled
from backbones.contract.probe import Probe
from backbones.contract.run import CHECKS, Check, run_check
from backbones.mixers import registry
from tests.backbones.naive import load_naive_references

FAST = [c for c in CHECKS if not c.slow]
SLOW = [c for c in CHECKS if c.slow]


class MixerContract:
    """One test per check and direction."""

    mixer: str

    def _holds(self, check: Check, causal: bool) -> None:
        result = run_check(check, registry.get(self.mixer), causal, load_naive_references().get(self.mixer))
        assert result.status != "failed", f"{self.mixer}: {result.sentence}: {result.reason} ({result.shown_by})"

    @pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-ways"])
    @pytest.mark.parametrize("check", FAST, ids=lambda c: c.id)
    def test_holds(self, check: Check, causal: bool) -> None:
        self._holds(check, causal)

    @pytest.mark.slow
    @pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-ways"])
    @pytest.mark.parametrize("check", SLOW, ids=lambda c: c.id)
    def test_holds_slowly(self, check: Check, causal: bool) -> None:
        self._holds(check, causal)


BUILT_IN = [name for name in registry.names() if registry.origin(name) == "built-in"]
globals().update(
    {f"Test_{name.replace('-', '_')}": type(f"Test_{name}", (MixerContract,), {"mixer": name}) for name in BUILT_IN}
)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_has_a_naive_reference(name: str) -> None:
    assert name in load_naive_references(), f"add one to tests/backbones/naive with @naive({name!r})"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax", "hyperglu"])
def test_generated_code_equals_eager_code(name: str) -> None:
    compare_compiled(Probe(registry.get(name), causal=True), "inductor")
