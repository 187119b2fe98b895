"""The mixer contract on every switch and choice among a built-in mixer's options, one option at a time."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

import pytest

from backbones.contract.probe import NotApplicableError, Probe, Value
from backbones.contract.run import CHECKS, Check
from backbones.mixers import registry
from tests.backbones.contract.test_built_ins import BUILT_IN, LONG
from tests.backbones.naive import load_naive_references

#: `nearest` sizes the default options, and `config` looks at the class alone: both are checked with the defaults.
OF_THE_CLASS = ("config", "nearest")
#: Families whose options have tests of their own, which combine them: test_fem_arms.py and test_hypermlp.py.
COMBINED = ("fem", "hyper")


def choices(name: str) -> list[dict[str, Value]]:
    """Each option of a mixer at each of its values but the default, if it is a switch or a choice among names."""
    found: list[dict[str, Value]] = []
    for option, field in registry.get(name).Config.model_fields.items():
        named = [part for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is Literal]
        values = (True, False) if field.annotation is bool else get_args(named[0]) if named else ()
        found += [{option: value} for value in values if value != field.default and option != "causal"]
    return found


OPTIONS = [(name, each) for name in BUILT_IN if not name.startswith(COMBINED) for each in choices(name)]
CASES = [
    pytest.param(
        name,
        options,
        check,
        id="-".join((name, *(f"{k}={v}" for k, v in options.items()), check.id)),
        marks=pytest.mark.slow if check.slow or check.id in LONG else (),
    )
    for name, options in OPTIONS
    for check in CHECKS
    if check.id not in OF_THE_CLASS
]


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-ways"])
@pytest.mark.parametrize(("name", "options", "check"), CASES)
def test_the_contract_holds_with_every_option(name: str, options: dict[str, Value], check: Check, causal: bool) -> None:
    cls = registry.get(name)
    if not (cls.capabilities.causal if causal else cls.capabilities.bidirectional):
        pytest.skip(f"{name} has no such direction")
    probe = Probe(cls, causal, load_naive_references()[name], options=options)
    try:
        check.function(probe)
    except NotApplicableError as reason:
        pytest.skip(str(reason))


def test_options_with_effects_on_the_layer_are_among_those_checked() -> None:
    assert ("differential", {"variant": "v2"}) in OPTIONS
    assert ("fox", {"pro": True}) in OPTIONS
    assert ("deltanet", {"negative": True}) in OPTIONS
    assert ("mamba2", {"convolution": False}) in OPTIONS
