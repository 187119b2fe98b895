"""The mixer contract on every built-in mixer, causal and not: a class per mixer, made from the registry."""

from __future__ import annotations

import pytest
from _pytest.mark import ParameterSet

from backbones.contract.gradients import compare_compiled
from backbones.contract.probe import Probe
from backbones.contract.run import CHECKS, Check, run_check
from backbones.mixers import registry
from tests.backbones.naive import load_naive_references

BUILT_IN = [name for name in registry.names() if registry.origin(name) == "built-in"]
#: Checks that take most of the time. The fast tests run them on one mixer of each family, the slow tests on all.
LONG = ("gradcheck", "prefix", "step", "meta", "range", "half", "flops", "parameters", "shape")
OF_EACH_FAMILY = ("softmax", "fem", "gla", "ssm", "hyperglu")


def checks_of(mixer: str) -> list[ParameterSet]:
    """(check, causal) of every check in both directions."""
    found = []
    for check in CHECKS:
        for causal in (True, False):
            fast = check.id not in LONG or (causal and mixer in OF_EACH_FAMILY)
            marks = () if fast and not check.slow else pytest.mark.slow
            found.append(
                pytest.param(check, causal, id=f"{check.id}-{'causal' if causal else 'both-ways'}", marks=marks)
            )
    return found


def contract_of(mixer: str) -> type:
    """A class with one test per check and direction."""

    @pytest.mark.parametrize(("check", "causal"), checks_of(mixer))
    def test_holds(self: object, check: Check, causal: bool) -> None:
        result = run_check(check, registry.get(mixer), causal, load_naive_references().get(mixer))
        assert result.status != "failed", f"{mixer}: {result.sentence}: {result.reason} ({result.shown_by})"

    return type(f"Test_{mixer}", (), {"test_holds": test_holds})


globals().update({f"Test_{name.replace('-', '_')}": contract_of(name) for name in BUILT_IN})


def test_the_mixers_of_the_fast_tests_are_built_in() -> None:
    assert set(OF_EACH_FAMILY) <= set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_has_a_naive_reference(name: str) -> None:
    assert name in load_naive_references(), f"add one to tests/backbones/naive with @naive({name!r})"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax", "hyperglu"])
def test_generated_code_equals_eager_code(name: str) -> None:
    compare_compiled(Probe(registry.get(name), causal=True), "inductor")
